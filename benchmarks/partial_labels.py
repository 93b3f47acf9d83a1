"""Train on MSD and KiTS merged, and see what becomes of a lesion type where nobody drew it.

    python -m benchmarks.partial_labels -o FOLDER [--epochs 10] [--cases 24]

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
from itertools import count
from pathlib import Path

import nibabel as nib
import numpy as np

from benchmarks.miniatures import TASKS, save, write_kits_case, write_msd_task
from nnunetv2_malenia.attributes.schema import file_name
from nnunetv2_malenia.attributes.tables import read_table, write_table
from nnunetv2_malenia.demo.run import ALLOCATOR, PHANTOMS, PLANS, write_small_plans
from nnunetv2_malenia.evaluation.metrics import dsc
from nnunetv2_malenia.phantom import Phantom, make_phantom
from nnunetv2_malenia.phantom.dataset import phantom_table

TYPES = ("liver tumor", "lung tumor", "pancreas tumor", "hepatic vessel tumor", "colon tumor", "kidney cyst")
PATCH_SIZE, FEATURES = (24, 32, 32), (8, 32, 64, 128)
SEED, FIRST_CASE, ASKED_PER_SOURCE = 11, 900, 6  # no id of the published data, whose annotations ship


def run(*words: object, env: dict[str, str], log: Path) -> None:
    command = [str(Path(sys.executable).parent / str(words[0])), *map(str, words[1:])]
    print("$", *map(str, words), flush=True)
    with log.open("a", encoding="utf-8") as file:
        subprocess.run(command, env=env, stdout=file, stderr=subprocess.STDOUT, check=True)


def write_sources(folder: Path, cases: int) -> None:
    """Miniatures in the layouts of MSD and KiTS23; the whole truth goes to truth/, which no training reads."""
    numbers, drawn_attributes = count(1), {}

    def draw(case_id: str) -> Phantom:
        phantom = make_phantom(PHANTOMS, SEED, next(numbers), TYPES)
        save(folder / "truth" / f"{case_id}.nii.gz", phantom.lesion, phantom.affine)
        drawn_attributes[case_id] = phantom.attributes
        return phantom

    for task, names in TASKS.items():
        ids = [f"{task.split('_')[1].lower()}_{FIRST_CASE + i}" for i in range(cases)]
        write_msd_task(folder / task, names, {case_id: draw(case_id) for case_id in ids})
    for i in range(cases):
        case_id = f"case_{FIRST_CASE + i:05d}"
        write_kits_case(folder / "kits23" / "dataset" / case_id, draw(case_id))
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


def voxels(path: Path) -> np.ndarray:
    """In one order of axes, since KiTS has its own."""
    return np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj)


def score(truth: Path, predictions: Path, asked: list[str], table_path: Path) -> list[dict]:
    """Per type, over cases that annotate it and cases that do not: mean DSC, and ml found over ml there."""
    table, rows = read_table(table_path), []
    for name in TYPES:
        value, groups = 1 + TYPES.index(name), {True: [], False: []}
        for case_id in asked:
            true = voxels(truth / f"{case_id.split('__')[-1]}.nii.gz") == value
            found = voxels(predictions / "masks" / case_id / f"{file_name(name)}.nii.gz") > 0
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
