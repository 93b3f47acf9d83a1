"""A run's answers as one HTML file that opens from disk and asks the network for nothing."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from nnunetv2_malenia.attributes.schema import file_name
from nnunetv2_malenia.files import OutputFolder
from nnunetv2_malenia.report.figures import Slice, colour_of, draw_slice, window_of
from nnunetv2_malenia.report.volumes import (
    Pictured,
    cropped_to_body,
    image_nifti,
    mask_nifti,
    read_pictured,
    reduced,
    without_room,
)
from nnunetv2_malenia.volumes import InputError

VIEWER_VOXELS_OF_A_CASE = 2_000_000  # about 1.2 MB in the file
VIEWER_VOXELS_IN_ALL = 24_000_000  # with more cases, each gets fewer, down to a quarter
_ASSETS = files("nnunetv2_malenia.report") / "assets"


def write_report(run_json: Path, source: Path, *, overwrite: bool = False) -> Path:
    """Write report.html beside a run's run.json (report_part_0_of_2.html beside run_part_0_of_2.json), and return it.

    It is made of run.json, the CASE.json and masks beside it, and the images in `source`, the folder or image that was
    predicted. A case whose image cannot be read any more is reported without pictures. Raises MaleniaError if a file of
    the report's name is there that we did not write, unless it may be overwritten.
    """
    run = json.loads(run_json.read_bytes())
    part = run_json.stem.removeprefix("run")
    report, outputs = f"report{part}.html", OutputFolder(run_json.parent, part)
    outputs.claim([report], overwrite=overwrite)
    answered = sum(case["state"] != "FAILED" for case in run["cases"].values())
    voxels = VIEWER_VOXELS_IN_ALL // max(answered, VIEWER_VOXELS_IN_ALL // VIEWER_VOXELS_OF_A_CASE)
    voxels = max(voxels, VIEWER_VOXELS_OF_A_CASE // 4)
    volumes: dict[str, str] = {}
    cases = []
    for number, (case_id, record) in enumerate(run["cases"].items(), start=1):
        case = {"number": number, "id": case_id, "state": record["state"], "reason": record["reason"],
                "warnings": record["warnings"], "findings": [], "slices": [], "viewer": None,
                "from_label_map": False}  # fmt: skip
        if record["state"] != "FAILED":
            _add_answers(case, run_json.parent, source, voxels, volumes, discovers=run["settings"]["discovers"])
        cases.append(case)
    with closing(outputs):
        outputs.write_text(report, render(run, cases, volumes))
    return outputs.folder / report


def render(run: Mapping[str, Any], cases: list[dict[str, Any]], volumes: Mapping[str, str]) -> str:
    """The page. volumes: element id -> base64 of a .nii.gz; everything else that comes from files is escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"ml": _ml, "words": _words}
    environment.globals |= {"colour_of": colour_of}
    return environment.from_string((_ASSETS / "report.html.jinja").read_text(encoding="utf-8")).render(
        run=run,
        cases=cases,
        volumes=volumes,
        model="/".join(Path(run["model_folder"]).parts[-2:]),
        viewer_data={str(case["number"]): case["viewer"] for case in cases if case["viewer"]},
        styles=Markup((_ASSETS / "report.css").read_text(encoding="utf-8")),
        script=Markup((_ASSETS / "viewer.js").read_text(encoding="utf-8")),
        niivue=base64.b64encode((_ASSETS / "niivue.umd.js.gz").read_bytes()).decode(),
        niivue_licence=(_ASSETS / "niivue.LICENSE.txt").read_text(encoding="utf-8"),
    )


def _add_answers(
    case: dict[str, Any], folder: Path, source: Path, voxels: int, volumes: dict[str, str], *, discovers: bool
) -> None:
    answers = json.loads((folder / f"{case['id']}.json").read_bytes())
    for finding in answers["findings"]:
        lesions = [{"aspects": [], "diseases": []} | lesion for lesion in finding["lesions"]]
        case["findings"].append(finding | {"lesions": lesions, "asked": list(_asked(finding)), "slice": None})
    found = [finding for finding in case["findings"] if finding["lesions"]]
    label_map = next(name for name in answers["outputs"] if "/" not in name and not name.endswith(".npz"))
    ending = label_map.removeprefix(case["id"])
    masks = {each["query_id"]: f"masks/{case['id']}/{file_name(each['name'])}{ending}" for each in found}
    mask_files = {query_id: folder / name for query_id, name in masks.items() if name in answers["outputs"]}
    case["from_label_map"] = not discovers and len(mask_files) < len(found)
    first = min(answers["inputs"])
    image = source / first if (source / first).exists() else source
    try:
        read = read_pictured(image, folder / label_map, mask_files, list(masks), numbers_lesions=discovers)
        pictured = cropped_to_body(read)
    except InputError as error:
        case["warnings"] = [*case["warnings"], f"no pictures: {error}"]
        return
    case["slices"] = list(_overview(pictured, found))
    for finding in found:
        voxel = pictured.voxel_at(finding["lesions"][0]["centre"]["ras_mm"])
        finding["slice"] = draw_slice(pictured, "axial", voxel)
    case["viewer"] = _embed(case["number"], without_room(reduced(pictured, voxels)), found, volumes)


def _asked(finding: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Each attribute of the query, with what was said of it where it was checked."""
    checked = {(each["aspect"], each["value"]): each for each in finding.get("checked", ())}
    for aspect, values in finding["attributes"].items():
        for value in values:
            yield {"aspect": aspect, "value": value, "score": None, "verdict": None} | checked.get((aspect, value), {})


def _overview(case: Pictured, found: list[dict[str, Any]]) -> Iterator[Slice]:
    """An axial and a coronal slice through the greatest lesion, or through the middle when there is none."""
    lesions = [finding["lesions"][0] for finding in found]
    voxel = tuple(size // 2 for size in case.image.shape)
    if lesions:
        voxel = case.voxel_at(max(lesions, key=lambda lesion: lesion["volume_ml"])["centre"]["ras_mm"])
    return (draw_slice(case, plane, voxel) for plane in ("axial", "coronal"))


def _embed(number: int, case: Pictured, found: list[dict[str, Any]], volumes: dict[str, str]) -> dict[str, Any]:
    """Put image and masks into `volumes`; what viewer.js needs to know of them is returned."""
    image = f"case-{number}-image"
    volumes[image] = base64.b64encode(image_nifti(case)).decode()
    masks = []
    for finding in found:
        if (query_id := finding["query_id"]) in case.masks:
            masks.append({"volume": f"case-{number}-mask-{query_id}", "name": finding["name"],
                          "colour": colour_of(query_id), "lesions": len(finding["lesions"])})  # fmt: skip
            volumes[masks[-1]["volume"]] = base64.b64encode(mask_nifti(case, query_id)).decode()
    return {
        "image": image,
        "is_ct": case.is_ct,
        "window": window_of(case),
        "spacing_mm": [round(edge, 2) for edge in case.spacing_mm.tolist()],
        "masks": masks,
    }


def _ml(volume: float) -> str:
    return f"{volume:.2f}" if volume < 10 else f"{volume:.0f}"


def _words(aspect: str) -> str:
    return aspect.replace("_", " ").capitalize()
