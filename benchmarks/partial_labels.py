"""Train on MSD and KiTS merged, and see what becomes of a lesion type where nobody drew it.

    python benchmarks/partial_labels.py -o FOLDER [--epochs 10] [--cases 24]

Phantoms stand for the downloads: every one holds all six lesion types, but its mask shows only what its source draws
(Task03_Liver: liver and liver tumor, and so on; Task08_HepaticVessel without vessels, which a phantom's truth lacks).
malenia_convert_msd, malenia_convert_kits and malenia_merge make one data set of them, on which MaleniaTrainer is
trained twice: as merged, where attributes.json says which labels each case annotates, and once without that, when what
was not drawn is background. Then both are asked for all types in training cases of every source, and scored against
everything that was put into the phantoms. Training cases, because the question is what the labels taught there; this is
no test of accuracy. Steps whose results are there are not run again.
Writes benchmarks/results/partial_labels.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import nibabel as nib
import numpy as np

from nnunetv2_malenia.attributes.schema import file_name
from nnunetv2_malenia.attributes.tables import read_table, write_table
from nnunetv2_malenia.demo.run import ALLOCATOR, PHANTOMS, PLANS, write_small_plans
from nnunetv2_malenia.evaluation.metrics import dsc
from nnunetv2_malenia.phantom import ORGANS, Phantom, make_phantom
from nnunetv2_malenia.phantom.dataset import phantom_table

TYPES = ("liver tumor", "lung tumor", "pancreas tumor", "hepatic vessel tumor", "colon tumor", "kidney cyst")
# MSD task -> what it draws, organ or lesion type, in the order of its labels; and what MSD calls these
TASKS = {
    "Task03_Liver": {"liver": "liver", "liver tumor": "cancer"},
    "Task06_Lung": {"lung tumor": "cancer"},
    "Task07_Pancreas": {"pancreas": "pancreas", "pancreas tumor": "cancer"},
    "Task08_HepaticVessel": {"hepatic vessels": "Vessel", "hepatic vessel tumor": "Tumour"},
    "Task10_Colon": {"colon tumor": "colon cancer primaries"},
}
PATCH_SIZE, FEATURES = (24, 32, 32), (8, 32, 64, 128)
SEED, FIRST_CASE, ASKED_PER_SOURCE = 11, 900, 6  # no id of the published data, whose annotations ship


def run(*words: object, env: dict[str, str], log: Path) -> None:
    command = [str(Path(sys.executable).parent / str(words[0])), *map(str, words[1:])]
    print("$", *map(str, words), flush=True)
    with log.open("a", encoding="utf-8") as file:
        subprocess.run(command, env=env, stdout=file, stderr=subprocess.STDOUT, check=True)


def save(path: Path, array_zyx: np.ndarray, affine: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array_zyx.transpose(2, 1, 0), affine), path)


def mask_of(phantom: Phantom, drawn: tuple[str, ...]) -> np.ndarray:
    """What a source draws of a phantom, numbered in its order; a lesion lies on top of its organ."""
    mask = np.zeros(phantom.lesion.shape, np.uint8)
    for value, name in enumerate(drawn, 1):
        if name in ORGANS:
            mask[phantom.anatomy == 1 + ORGANS.index(name)] = value
        elif name in TYPES:
            mask[phantom.lesion == 1 + phantom.lesion_types.index(name)] = value
    return mask


def write_sources(folder: Path, cases: int) -> None:
    """Miniatures in the layouts of MSD and KiTS23; the whole truth goes to truth/, which no training reads."""
    number, drawn_attributes = 0, {}

    def draw() -> Phantom:
        nonlocal number
        number += 1
        return make_phantom(PHANTOMS, SEED, number, TYPES)

    def keep(case_id: str, phantom: Phantom) -> None:
        save(folder / "truth" / f"{case_id}.nii.gz", phantom.lesion, phantom.affine)
        drawn_attributes[case_id] = phantom.attributes

    for task, drawn in TASKS.items():
        ids = [f"{task.split('_')[1].lower()}_{FIRST_CASE + i}" for i in range(cases)]
        for case_id in ids:
            phantom = draw()
            image = np.rint(phantom.image).astype(np.int16)
            save(folder / task / "imagesTr" / f"{case_id}.nii.gz", image, phantom.affine)
            save(folder / task / "labelsTr" / f"{case_id}.nii.gz", mask_of(phantom, tuple(drawn)), phantom.affine)
            keep(case_id, phantom)
        labels = {str(i): name for i, name in enumerate(("background", *drawn.values()))}
        pairs = [{"image": f"./imagesTr/{i}.nii.gz", "label": f"./labelsTr/{i}.nii.gz"} for i in ids]
        about = {"name": task, "modality": {"0": "CT"}, "labels": labels, "training": pairs, "test": []}
        (folder / task / "dataset.json").write_text(json.dumps(about))
    for i in range(cases):
        phantom, case_id = draw(), f"case_{FIRST_CASE + i:05d}"
        mask = mask_of(phantom, ("left kidney", "right kidney", "kidney cyst"))
        mask = np.array([0, 1, 1, 3], np.uint8)[mask]
        case = folder / "kits23" / "dataset" / case_id
        save(case / "imaging.nii.gz", np.rint(phantom.image).astype(np.int16), phantom.affine)
        save(case / "segmentation.nii.gz", mask, phantom.affine)
        keep(case_id, phantom)
    write_table(phantom_table(TYPES, drawn_attributes, name="phantoms"), folder / "phantoms.json")


def prepare(out: Path, cases: int, env: dict[str, str]) -> Path:
    """Sources -> converted -> merged -> planned and preprocessed. Returns the merged raw data set's folder."""
    sources, log = out / "sources", out / "prepare.log"
    if not (sources / "phantoms.json").exists():
        write_sources(sources, cases)
    raw, preprocessed = Path(env["nnUNet_raw"]), Path(env["nnUNet_preprocessed"])
    numbers = [str(int(task[4:6])) for task in TASKS]
    if not (raw / "Dataset100_Merged").exists():
        for number, task in zip(numbers, TASKS, strict=True):
            run("malenia_convert_msd", "-i", sources / task, "-d", number, "--annotations", sources / "phantoms.json",
                env=env, log=log)  # fmt: skip
        run("malenia_convert_kits", "-i", sources / "kits23", "-d", "220", "--annotations", sources / "phantoms.json",
            env=env, log=log)  # fmt: skip
        run("malenia_merge", "-i", *numbers, "220", "-d", "Dataset100_Merged", env=env, log=log)
    if not (preprocessed / "Dataset100_Merged" / "splits_final.json").exists():
        run("nnUNetv2_plan_and_preprocess", "-d", "100", "-npfp", "2", "--verify_dataset_integrity", "--no_pp",
            env=env, log=log)  # fmt: skip
        write_small_plans(preprocessed / "Dataset100_Merged", patch_size=PATCH_SIZE, features=FEATURES)
        run("nnUNetv2_preprocess", "-d", "100", "-plans_name", PLANS, "-c", "3d_fullres", "-np", "2", env=env, log=log)
        ids = sorted(p.name.removesuffix(".nii.gz") for p in (raw / "Dataset100_Merged" / "labelsTr").iterdir())
        split = [{"train": ids, "val": ids[:2]}]  # nothing is chosen by validation
        (preprocessed / "Dataset100_Merged" / "splits_final.json").write_text(json.dumps(split))
    return raw / "Dataset100_Merged"


def score(truth: Path, predictions: Path, asked: list[str], table_path: Path) -> list[dict]:
    """Per type, over cases that annotate it and cases that do not: mean DSC, and ml found over ml there."""
    table, rows = read_table(table_path), []
    for name in TYPES:
        value, groups = 1 + TYPES.index(name), {True: [], False: []}
        for case_id in asked:
            image = nib.load(truth / f"{case_id.split('__')[-1]}.nii.gz")
            true = np.asarray(image.dataobj) == value
            found = np.asarray(nib.load(predictions / "masks" / case_id / f"{file_name(name)}.nii.gz").dataobj) > 0
            groups[name in table.cases[case_id].annotated].append((dsc(found, true), found.sum(), true.sum()))
        rows += [
            {
                "name": name,
                "annotated": annotated,
                "cases": len(group),
                "mean_dsc": float(np.mean([d for d, _, _ in group])),
                "volume_ratio": float(sum(f for _, f, _ in group) / sum(t for _, _, t in group)),
            }
            for annotated, group in groups.items()
        ]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", type=Path, required=True, help="working folder; run again to go on")
    parser.add_argument("--epochs", type=int, default=10, choices=(1, 5, 10, 20, 50), help="of 250 steps")
    parser.add_argument("--cases", type=int, default=24, help="phantoms of each of the six sources")
    args = parser.parse_args()
    out = args.o.resolve()
    folders = {name: str(out / name) for name in ("nnUNet_raw", "nnUNet_preprocessed")}
    for folder in folders.values():
        Path(folder).mkdir(parents=True, exist_ok=True)
    ours = {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "2", "GLIBC_TUNABLES": ALLOCATOR}
    env = {**ours, **os.environ, **folders, "nnUNet_results": str(out)}
    raw = prepare(out, args.cases, env)
    sources = {}
    for path in sorted((raw / "labelsTr").iterdir()):
        case_id = path.name.removesuffix(".nii.gz")
        sources.setdefault(case_id.rsplit("_", 1)[0], []).append(case_id)
    asked = [case_id for ids in sources.values() for case_id in ids[:ASKED_PER_SOURCE]]
    images = out / "imagesAsked"
    images.mkdir(exist_ok=True)
    for case_id in asked:
        shutil.copy(raw / "imagesTr" / f"{case_id}_0000.nii.gz", images)
    queries = out / "asked.json"
    write_table(phantom_table(TYPES, {}, name="phantoms"), queries)
    merged = out / "merged_attributes.json"  # the raw data set's is changed for the second training
    if not merged.exists():
        shutil.copy(raw / "attributes.json", merged)

    trainer, results = f"MaleniaTrainerMirrorDA_{args.epochs}epochs", {}
    for variant in ("unknown", "background"):
        table = json.loads(merged.read_text())
        if variant == "background":
            for case in table["cases"].values():
                del case["annotated"]
        (raw / "attributes.json").write_text(json.dumps(table))
        variant_env = {**env, "nnUNet_results": str(out / f"nnUNet_results_{variant}")}
        model = out / f"nnUNet_results_{variant}" / "Dataset100_Merged" / f"{trainer}__{PLANS}__3d_fullres"
        if not (model / "fold_0" / "checkpoint_final.pth").exists():
            resume = ["--c"] if any((model / "fold_0").glob("checkpoint_*.pth")) else []
            run("nnUNetv2_train", "100", "3d_fullres", "0", "-tr", trainer, "-p", PLANS, "-device", "cpu", *resume,
                env=variant_env, log=out / f"train_{variant}.log")  # fmt: skip
        predictions = out / f"predictions_{variant}"
        run("malenia_predict_zeroshot", "-i", images, "-o", predictions, "--attributes", queries, "-m", model,
            "-f", "0", "-device", "cpu", "-npp", "1", "-nps", "1", "--disable_tta", "--save_masks",
            env=variant_env, log=out / f"predict_{variant}.log")  # fmt: skip
        results[variant] = score(out / "sources" / "truth", predictions, asked, merged)
        for row in results[variant]:
            where = "annotated" if row["annotated"] else "not annotated"
            print(f"{variant:<12}{row['name']:<22}{where:<15}{row['cases']:>4}{row['mean_dsc']:>7.2f}"
                  f"{row['volume_ratio']:>7.2f}")  # fmt: skip
        content = {
            "data": "phantoms in the layouts of MSD and KiTS23; not clinical",
            "seed": SEED,
            "epochs": args.epochs,
            "cases_per_source": args.cases,
            "asked_per_source": ASKED_PER_SOURCE,
            "patch_size": PATCH_SIZE,
            "versions": {name: version(name) for name in ("nnunetv2_malenia", "nnunetv2", "torch")},
            **results,
        }
        (Path(__file__).parent / "results" / "partial_labels.json").write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
