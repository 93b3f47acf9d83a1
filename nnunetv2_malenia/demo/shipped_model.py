"""`malenia_demo`: the model that ships, asked for every lesion type in phantoms that it has not seen; a minute."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from nnunetv2_malenia.attributes.tables import read_table
from nnunetv2_malenia.demo.overlay import write_overlay
from nnunetv2_malenia.demo.phantom_dataset import write_phantom_dataset
from nnunetv2_malenia.demo.run import PHANTOMS, QUERY_TABLE, demo_folder, evaluate
from nnunetv2_malenia.evaluation.scoring import TypeScore

MODEL = "phantom"
CASES, SEED = 4, 1  # the fewest phantoms that hold all nine types between them; none of them was trained on


def run_shipped_model(output_folder: Path, device: str) -> None:
    """Make phantoms, ask the shipped model for all their lesion types, score, and print what was found and where it is.

    Everything goes to shipped_model/ in `output_folder`; phantoms that are there already are not made again.
    """
    # before torch is imported: on a busy machine, threads that wait by spinning make this take twice as long or longer
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    outputs, folder = demo_folder(output_folder), output_folder / "shipped_model"
    phantoms, predictions, picture = (folder / name for name in ("phantoms", "predictions", "overlay.png"))
    table_file = phantoms / QUERY_TABLE
    if not phantoms.exists():
        print(f"Making {CASES} phantom CTs with lesions, which the shipped model has not seen ...", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        write_phantom_dataset(phantoms, train_cases=0, test_cases=CASES, seed=SEED, config=PHANTOMS)
    print("Asking for every lesion type, seen in training or not, by its attributes ...", flush=True)
    _predict(phantoms / "imagesTs", predictions, table_file, device)
    evaluation = evaluate(phantoms, predictions)
    draw = partial(write_overlay, phantoms, predictions, evaluation.scores)
    outputs.write(picture.relative_to(output_folder).as_posix(), draw)
    outputs.close()
    print("\nPhantoms, not clinical data. Millilitres returned for what is there, and for what is not:\n")
    for line in _by_case(evaluation.scores):
        print(line)
    print(f"\n{evaluation.table(published=False)}")
    print(f"Picture:                    {picture}\n"
          f"Masks and findings:         {predictions}\n"
          f"Images and references:      {phantoms}\n"
          f"Attributes asked for:       {table_file}\n\n"
          f"Your own CT, by your own table or this one (this model has seen nothing but phantoms):\n"
          f"  malenia_predict_zeroshot -i CT.nii.gz -o answers --attributes {table_file} -m {MODEL} -device {device}\n"
          f"Train a model on phantoms, as on your own data: malenia_demo --train")  # fmt: skip


def _predict(images: Path, predictions: Path, table_file: Path, device: str) -> None:
    """As malenia_predict_zeroshot does, in this process: starting another would take a good part of the minute."""
    from nnunetv2_malenia.inference.export import OutputOptions
    from nnunetv2_malenia.inference.model_folder import set_up_device
    from nnunetv2_malenia.inference.predictor import MaleniaPredictor

    predictor = MaleniaPredictor.from_model_folder(MODEL, device=set_up_device(device), use_mirroring=False)
    predictor.ask(read_table(table_file))
    predictor.predict_cases(images, predictions, OutputOptions(save_masks=True), num_processes_preprocessing=0,
                            num_processes_export=0)  # fmt: skip


def _by_case(scores: Sequence[TypeScore]) -> list[str]:
    """For each case, what was returned of the types that it holds, then of those that it does not."""
    lines = []
    for case_id in dict.fromkeys(score.case_id for score in scores):
        of_case = [score for score in scores if score.case_id == case_id]
        lines.append(f"{case_id}")
        for score in sorted(of_case, key=lambda score: not score.present):
            if score.present:
                lines.append(f"  {score.name:15} {score.volume_ml:6.1f} of {score.reference_volume_ml:5.1f} ml, "
                             f"DSC {score.dsc:.2f}{'' if score.seen else ', unseen in training'}")  # fmt: skip
            elif score.volume_ml:
                lines.append(f"  {score.name:15} {score.volume_ml:6.1f} ml, but there is none")
    return lines
