"""How large a report is: asks the shipped model for nine lesion types in ten copies of a CT, resampled to 3 mm.

    python -m benchmarks.report_size CT -o FOLDER

Writes benchmarks/results/report_size.json; `python benchmarks/write_results.py` puts it into docs/results.md.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import SimpleITK as sitk

from benchmarks.commands import revision, run_logged
from nnunetv2_malenia.attributes.tables import write_table
from nnunetv2_malenia.files import write_json
from nnunetv2_malenia.phantom.dataset import SEEN, UNSEEN, phantom_table

RESULT = Path(__file__).parent / "results" / "report_size.json"
CASES, SPACING_MM = 10, 3.0


def resampled(image: sitk.Image) -> sitk.Image:
    shape = [
        round(size * spacing / SPACING_MM) for size, spacing in zip(image.GetSize(), image.GetSpacing(), strict=True)
    ]
    return sitk.Resample(image, shape, sitk.Transform(), sitk.sitkLinear, image.GetOrigin(), [SPACING_MM] * 3,
                         image.GetDirection(), -1024.0)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct", type=Path, metavar="CT")
    parser.add_argument("-o", type=Path, required=True, metavar="FOLDER")
    args = parser.parse_args()
    images, answers = args.o / "images", args.o / "answers"
    images.mkdir(parents=True)
    image = resampled(sitk.ReadImage(str(args.ct)))
    for i in range(CASES):
        sitk.WriteImage(image, str(images / f"ct_{i}_0000.nii.gz"))
    write_table(phantom_table((*SEEN, *UNSEEN), {}, name="phantom types"), args.o / "table.json")
    run_logged(["malenia_predict_zeroshot", "-i", images, "-o", answers, "--attributes", args.o / "table.json",
                "-m", "phantom", "-device", "cpu", "--save_masks", "--report"],
               env=dict(os.environ), log=args.o / "log.txt")  # fmt: skip
    size = (answers / "report.html").stat().st_size
    write_json(RESULT, {"revision": revision(), "cases": CASES, "voxels_xyz": image.GetSize(),
                        "spacing_mm": SPACING_MM, "queries": len((*SEEN, *UNSEEN)), "bytes": size})  # fmt: skip
    print(f"{size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
