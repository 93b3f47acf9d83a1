"""Make the model that ships with the package out of a finished training on phantoms.

    malenia_demo --train -o FOLDER [--minutes 150]
    python benchmarks/ship_model.py FOLDER/nnUNet_results/Dataset901_MaleniaPhantom/TRAINER__PLANS__3d_fullres

Writes nnunetv2_malenia/pretrained/NAME: plans.json and dataset.json as they are, the weights of one fold as float16
safetensors, and model_card.md, filled from the training's own files and from the results.json of the demo that trained.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

from nnunetv2_malenia.inference.model_folder import load_checkpoint
from nnunetv2_malenia.inference.weights import save_weights

PRETRAINED = Path(__file__).parents[1] / "nnunetv2_malenia" / "pretrained"
MOST_MB = 12.0
FIGURES = {"cases": "cases_present", "DSC": "mean_dsc", "NSD": "mean_nsd", "ml, present": "volume_present_ml",
           "ml, absent": "volume_absent_ml", "presence AUC": "presence_auc"}  # fmt: skip


def figures_table(types: list[dict]) -> list[str]:
    rows = [f"| lesion type | training | {' | '.join(FIGURES)} |", "|---" * (2 + len(FIGURES)) + "|"]
    for each in types:
        values = [each[key] for key in FIGURES.values()]
        cells = ["n/a" if v is None else str(v) if isinstance(v, int) else f"{v:.2f}" for v in values]
        rows.append(f"| {each['name']} | {'seen' if each['seen'] else 'unseen'} | {' | '.join(cells)} |")
    return rows


CARD = """\
# Model card: `{name}`

**Trained on phantoms, which are synthetic CTs, and on nothing else. Not for clinical use.** It is here so that the
package can be tried at once: `malenia_demo`, or `malenia_predict_zeroshot -m {name}`. For lesions of patients, train a
model on CTs of patients.

## Data and training

Phantoms of an abdomen and lower chest, drawn by `nnunetv2_malenia.phantom` (Apache-2.0): no patient's image or
annotation.

- Lesion types with training masks: {seen}
- Lesion types that never had one: {unseen}

{training}

## Figures

On {test_cases} held-out phantoms of seed {seed}, numbered apart from those of training, by `malenia_evaluate`,
without mirroring. DSC and NSD: mean over the cases that hold the type, whose number stands under cases. ml: volume
returned where the type is present, and where it is absent. One training run: another would give other figures.

{figures}

## Limits

- No CT of a patient was in its training or its evaluation. What it answers on one is untested.
- Lesion types, organs, densities, sizes and borders are those that the phantoms draw, at the coarse spacing above;
  contrast phases are two; anatomy is adult, healthy and never operated on.
- It returns some volume for types that are absent; see the table. Scores order findings and are not calibrated.
- nnU-Net's own commands need a `.pth` checkpoint and do not read this folder.

Licence: Apache-2.0.
"""


def model_card(name: str, plans: dict, checkpoint: dict, results: dict, weights: Path) -> str:
    options, types, init_args = results["options"], results["malenia"], checkpoint["init_args"]
    configuration = plans["configurations"][init_args["configuration"]]
    architecture = configuration["architecture"]
    stored = {tensor.data_ptr(): tensor.numel() for tensor in checkpoint["network_weights"].values()}
    training = {
        "trainer": checkpoint["trainer_name"],
        "epochs": f"{checkpoint['current_epoch']} of 250 steps, batch {configuration['batch_size']}",
        "patch (z, y, x)": f"{configuration['patch_size']} voxels of {configuration['spacing']} mm",
        "network": f"{architecture['network_class_name'].rpartition('.')[2]}, features "
        f"{architecture['arch_kwargs']['features_per_stage']}; {sum(stored.values()):,} weights in all",
        "training data": f"{options['train_cases']} phantoms of seed {options['seed']}, fold {init_args['fold']}",
        "training seeds": "one, not fixed",
        "text encoder": plans["malenia"]["encoder"],
        "made with": ", ".join(
            f"{package} {version(package)}" for package in ("nnunetv2_malenia", "nnunetv2", "torch")
        ),
        "weights": f"float16, computed in float32; SHA-256 {hashlib.sha256(weights.read_bytes()).hexdigest()}",
    }
    return CARD.format(
        name=name,
        seen=", ".join(plans["malenia"]["lesions"]),
        unseen=", ".join(each["name"] for each in types if not each["seen"]),
        training="\n".join(["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in training.items())]),
        test_cases=options["test_cases"],
        seed=options["seed"],
        figures="\n".join(figures_table(types)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model_folder", type=Path, help="nnU-Net's output of a finished training")
    parser.add_argument("--results", type=Path, help="results.json of the demo (default: the one above model_folder)")
    parser.add_argument("--fold", default="0", help="default: %(default)s")
    parser.add_argument("--name", default="phantom", help="default: %(default)s")
    args = parser.parse_args()
    source, target = args.model_folder.resolve(), PRETRAINED / args.name
    results_file = args.results or source.parent.parent.parent / "results.json"
    if not results_file.is_file():
        parser.error(f"{results_file} does not exist; give the results.json of the demo that trained with --results")
    plans, results = (json.loads(path.read_text()) for path in (source / "plans.json", results_file))
    checkpoint = load_checkpoint(source / f"fold_{args.fold}" / "checkpoint_final.pth")
    if checkpoint["current_epoch"] != results["epochs"]:
        parser.error(f"{results_file} is of {results['epochs']} epochs, not {checkpoint['current_epoch']} as the model")

    PRETRAINED.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=PRETRAINED) as folder:
        beside = Path(folder) / args.name
        weights = beside / f"fold_{args.fold}" / "checkpoint_final.safetensors"
        weights.parent.mkdir(parents=True)
        for name in ("plans.json", "dataset.json"):
            shutil.copyfile(source / name, beside / name)
        save_weights(checkpoint, weights)
        card = model_card(args.name, plans, checkpoint, results, weights)
        (beside / "model_card.md").write_text(card, encoding="utf-8")
        if (megabytes := sum(path.stat().st_size for path in beside.rglob("*") if path.is_file()) / 1e6) > MOST_MB:
            parser.error(f"the model has {megabytes:.1f} MB, more than the {MOST_MB:g} MB that the package can carry")
        shutil.rmtree(target, ignore_errors=True)
        beside.rename(target)
    print(f"{target}: {megabytes:.1f} MB")


if __name__ == "__main__":
    main()
