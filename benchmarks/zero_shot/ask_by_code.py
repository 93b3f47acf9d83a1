"""malenia_predict_zeroshot with one-hot codes for text: python -m benchmarks.zero_shot.ask_by_code -i … -o … -m …"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.zero_shot.datasets import OneHotEncoder
from nnunetv2_malenia.attributes.tables import read_table
from nnunetv2_malenia.inference.export import OutputOptions
from nnunetv2_malenia.inference.model_folder import set_up_device
from nnunetv2_malenia.inference.predictor import MaleniaPredictor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for option in ("-i", "-o", "-m", "--codes"):
        parser.add_argument(option, type=Path, required=True)
    parser.add_argument("-device", default="cpu")
    args = parser.parse_args()
    predictor = MaleniaPredictor.from_model_folder(
        args.m, folds=["0"], device=set_up_device(args.device), use_mirroring=False, show_progress=False
    )
    table = read_table(args.codes)
    predictor.ask(table, encoder=lambda: OneHotEncoder(tuple(table.lesions)))
    options = OutputOptions(save_masks=True)
    record = predictor.predict_cases(args.i, args.o, options, num_processes_preprocessing=1, num_processes_export=1)
    if record.failed:
        raise SystemExit(f"failed: {record.failed}")


if __name__ == "__main__":
    main()
