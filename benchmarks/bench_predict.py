"""Time an answer against nnUNetv2_predict's on the same folder, and against the forward passes of the same tiles.

    python -m benchmarks.bench_predict -o FOLDER [--slices 119] [--queries 1 4 16] [--repeats 3] [--quick]

The image is a phantom, resampled to 512 x 512 x SLICES voxels; the model is the one that ships, as a checkpoint that
nnU-Net reads. Commands alternate, so that a machine that slows down slows all. Writes wall time of the commands, peak
memory of each with all its processes, and where the time of one answer goes, to benchmarks/results/predict_SLICES.json.
`--quick` asks two queries of a small image, once, and writes to FOLDER only.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from benchmarks.commands import installed, revision
from nnunetv2_malenia.attributes.schema import AttributeTable
from nnunetv2_malenia.attributes.tables import clinical_knowledge_table, write_table
from nnunetv2_malenia.dataset_conversion.nifti_files import write_nifti
from nnunetv2_malenia.demo.run import PHANTOMS
from nnunetv2_malenia.demo.shipped_model import SEED
from nnunetv2_malenia.files import write_json
from nnunetv2_malenia.inference.export import CaseExport, OutputOptions
from nnunetv2_malenia.inference.model_folder import checkpoint_file, find_model, load_checkpoint, set_up_device
from nnunetv2_malenia.inference.predictor import MaleniaPredictor
from nnunetv2_malenia.phantom import make_phantom
from nnunetv2_malenia.phantom.dataset import SEEN

RESULTS = Path(__file__).parent / "results"
POLL_S = 0.05


def write_image(path: Path, shape_xyz: Sequence[int]) -> None:
    """A phantom with lesions, resampled to so many voxels."""
    phantom = make_phantom(PHANTOMS, SEED, 0, SEEN[:3])
    write_nifti(np.rint(phantom.image).astype(np.int16), phantom.affine, path)
    image = sitk.ReadImage(str(path))
    spacing = [s * n / m for s, n, m in zip(image.GetSpacing(), image.GetSize(), shape_xyz, strict=True)]
    resampled = sitk.Resample(image, shape_xyz, sitk.Transform(), sitk.sitkLinear, image.GetOrigin(), spacing,
                              image.GetDirection(), -1024.0)  # fmt: skip
    sitk.WriteImage(resampled, str(path))


def write_model(folder: Path) -> Path:
    """The shipped model with a checkpoint as nnU-Net writes it."""
    shipped = find_model("phantom")
    for name in ("plans.json", "dataset.json"):
        (folder / name).write_bytes((shipped / name).read_bytes())
    (folder / "fold_0").mkdir()
    checkpoint = load_checkpoint(checkpoint_file(shipped, 0, "checkpoint_final.pth"))
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")
    return folder


def table_of(number: int) -> AttributeTable:
    known = clinical_knowledge_table().lesions
    return AttributeTable(lesions={name: known[name] for name in list(known)[:number]})


def measured(words: Sequence[object], log: Path) -> tuple[float, int]:
    """Run a command -> wall time (s), and the greatest resident memory of it and its descendants together (bytes)."""
    program, *arguments = map(str, words)
    start, peak = time.perf_counter(), 0
    with log.open("a") as file:
        process = subprocess.Popen([installed(program), *arguments], stdout=file, stderr=subprocess.STDOUT)
        while process.poll() is None:
            peak = max(peak, sum(map(resident, family(process.pid))))
            time.sleep(POLL_S)
    if process.returncode != 0:
        raise SystemExit(f"{program} failed; its output is in {log}")
    return time.perf_counter() - start, peak


def family(pid: int) -> Iterator[int]:
    yield pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    for child in children:
        yield from family(int(child))


def resident(pid: int) -> int:
    """Memory of a process that is its own or shared with fewer others, in bytes (PSS); 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


class Stopwatch:
    """Seconds by the name of what took them."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def where_the_time_goes(model: Path, image: Path, table: AttributeTable, staging: Path) -> dict[str, Any]:
    """One answer, step by step in this process, and the forward passes of its tiles alone."""
    predictor = MaleniaPredictor.from_model_folder(model, device=set_up_device("cpu"), use_mirroring=False)
    predictor.ask(table)
    options, clock = OutputOptions(save_masks=True), Stopwatch()
    with clock("reading and preprocessing"):
        case = predictor.preparation({0: image})
    data = torch.from_numpy(case.data)
    tiles = tiles_of(predictor, data)
    with clock("forward passes of the tiles alone"), torch.inference_mode():
        for tile in tiles:
            predictor.network.eval()(tile)
    with clock("network and blending"):
        logits = predictor.predict_logits_from_preprocessed_data(data).cpu()
    with clock("network, blending and reading aspects"):
        logits, reading = predictor.say(data, options.threshold)
    answers = predictor.case_answers(options)
    with clock("finding lesions"):
        found = answers.find(logits, reading)
    with clock("resampling and writing"):
        CaseExport(answers, options, staging, ".nii.gz", "")("case", case, found, None)
    return {"tiles": len(tiles), "seconds": clock.seconds}


def tiles_of(predictor: MaleniaPredictor, data: torch.Tensor) -> list[torch.Tensor]:
    from acvl_utils.cropping_and_padding.padding import pad_nd_image

    padded = pad_nd_image(data, predictor.configuration_manager.patch_size, "constant", {"value": 0})
    slicers = predictor._internal_get_sliding_window_slicers(padded.shape[1:])
    return [padded[tile][None] for tile in slicers if padded[tile].amax() > padded[tile].amin()]


def summary(runs: Sequence[tuple[float, int]]) -> dict[str, Any]:
    seconds = [run[0] for run in runs]
    return {
        "median_s": round(statistics.median(seconds), 2),
        "min_s": round(min(seconds), 2),
        "max_s": round(max(seconds), 2),
        "peak_memory_gib": round(max(run[1] for run in runs) / 2**30, 3),
    }


def commands(folder: Path, queries: Sequence[int]) -> dict[str, Callable[[int], list[object]]]:
    """Name -> what makes the command of a repetition; each writes to a folder of its own."""
    images, model = folder / "images", folder / "model"
    common = f"-i {images} -m {model} -f 0 -device cpu -npp 1 -nps 1 --disable_tta".split()
    result: dict[str, Callable[[int], list[object]]] = {
        "nnUNetv2_predict": lambda i: ["nnUNetv2_predict_from_modelfolder", *common, "-o", folder / f"nnunet_{i}"]
    }
    for number in queries:
        asked = ["--attributes", folder / f"table_{number}.json", "--disable_progress_bar"]
        result[f"malenia_predict_zeroshot, {number} queries"] = lambda i, n=number, asked=asked: [
            "malenia_predict_zeroshot",
            *common,
            *asked,
            "-o",
            folder / f"malenia_{n}_{i}",
        ]
    return result


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", type=Path, required=True, metavar="FOLDER", help="new folder for images and answers")
    parser.add_argument("--slices", type=int, default=119)
    parser.add_argument("--queries", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args(argv)
    shape = (512, 512, args.slices)
    if args.quick:
        shape, args.queries, args.repeats = (40, 40, 24), [2], 0
    for name in ("images", "model"):
        (args.o / name).mkdir(parents=True)
    image, model = args.o / "images" / "case_0000.nii.gz", write_model(args.o / "model")
    write_image(image, shape)
    for number in args.queries:
        write_table(table_of(number), args.o / f"table_{number}.json")
    runs: dict[str, list[tuple[float, int]]] = {name: [] for name in commands(args.o, args.queries)}
    for i in range(args.repeats):
        for name, command in commands(args.o, args.queries).items():
            runs[name].append(measured(command(i), args.o / "log.txt"))
    result = {
        "revision": revision(),
        "versions": {name: version(name) for name in ("nnunetv2_malenia", "nnunetv2", "torch")},
        "processor": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "image": "phantom, resampled",
        "voxels_xyz": list(shape),
        "commands": {name: summary(each) for name, each in runs.items() if each},
        "one_answer": {
            f"{number} queries": where_the_time_goes(model, image, table_of(number), args.o / f"staging_{number}")
            for number in args.queries
        },
    }
    write_json(args.o / "predict.json" if args.quick else RESULTS / f"predict_{args.slices}.json", result)
    return result


if __name__ == "__main__":
    print(main())
