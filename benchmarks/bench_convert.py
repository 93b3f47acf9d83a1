"""Time the conversion of KiTS cases, against copying their files and against nnU-Net's own MSD converter.

    python benchmarks/bench_convert.py FOLDER_OF_MASKS

FOLDER_OF_MASKS has KiTS23's case_XXXXX/segmentation.nii.gz; an image of noise is made for each in a temporary folder
(set TMPDIR to choose the disk). Each way runs in a process of its own, all on the same files. Writes
benchmarks/results/convert_kits.json.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import nibabel as nib
import numpy as np

SPAWN = multiprocessing.get_context("spawn")
SPOILED_SHARE = slice(0.4, 0.6)


def make_cases(masks: Path, folder: Path) -> None:
    """KiTS's layout, and MSD's with the same files linked. The noise compresses about as badly as a CT does."""
    noise = np.random.default_rng(0).normal(0, 40, 2**21).astype(np.int16)
    paths = sorted(masks.glob("case_*/segmentation.nii.gz"))
    msd = folder / "msd" / "Task90_Kidney"
    for name in ("imagesTr", "imagesTs", "labelsTr"):
        (msd / name).mkdir(parents=True)
    for path in paths:
        mask = nib.load(path)
        case = folder / "kits" / "dataset" / path.parent.name
        case.mkdir(parents=True)
        image = np.resize(noise, mask.shape[::-1]).transpose()
        nib.save(nib.Nifti1Image(image, mask.affine, dtype=np.int16), case / "imaging.nii.gz")
        shutil.copy(path, case / "segmentation.nii.gz")
        os.link(case / "imaging.nii.gz", msd / "imagesTr" / f"{path.parent.name}.nii.gz")
        os.link(case / "segmentation.nii.gz", msd / "labelsTr" / f"{path.parent.name}.nii.gz")
    about = {"labels": {"0": "background", "1": "kidney", "2": "tumor", "3": "cyst"}, "modality": {"0": "CT"}}
    (msd / "dataset.json").write_text(json.dumps(about | {"training": [], "test": []}))


def spoil_images(folder: Path) -> None:
    """Overwrite the middle of every image, so that whoever decompresses one fails; headers and trailers stay."""
    for path in folder.glob("kits/dataset/*/imaging.nii.gz"):
        size = path.stat().st_size
        with path.open("r+b") as file:
            file.seek(int(size * SPOILED_SHARE.start))
            file.write(bytes(int(size * (SPOILED_SHARE.stop - SPOILED_SHARE.start))))


def convert_linked(folder: Path, out: Path) -> None:
    from nnunetv2_malenia.cli import convert_kits

    assert convert_kits(["-i", str(folder / "kits"), "-d", "220", "-o", str(out)]) == 0


def convert_copied(folder: Path, out: Path) -> None:
    from nnunetv2_malenia.cli import convert_kits

    assert convert_kits(["-i", str(folder / "kits"), "-d", "220", "-o", str(out), "--copy"]) == 0


def plain_copy(folder: Path, out: Path) -> None:
    shutil.copytree(folder / "kits", out / "copy")


def nnunet_converter(folder: Path, out: Path) -> None:
    """nnU-Net's nnUNetv2_convert_MSD_dataset with one process; it checks and counts nothing."""
    os.environ["nnUNet_raw"] = str(out)  # noqa: SIM112 - nnU-Net spells it so
    from nnunetv2.dataset_conversion.convert_MSD_dataset import convert_msd_dataset

    convert_msd_dataset(str(folder / "msd" / "Task90_Kidney"), num_processes=1)


def run_apart(function: Callable[..., None], *arguments: object) -> None:
    """Run in a new process; this one stays small, since Linux counts its memory in its children's peak."""
    process = SPAWN.Process(target=function, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == 0, function.__name__


def child(way: Callable[[Path, Path], None], folder: Path, out: Path, results: multiprocessing.Queue) -> None:
    start = time.perf_counter()
    way(folder, out)
    kilobytes = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    results.put((time.perf_counter() - start, kilobytes / 1024))


def measure(way: Callable[[Path, Path], None], folder: Path, num_cases: int, repeats: int) -> dict[str, float | int]:
    """Wall time of a whole run from a new process, imports included, and the largest process' peak memory."""
    seconds, megabytes, written = [], [], 0
    for _ in range(repeats):
        out = folder / "out"
        out.mkdir()
        results = SPAWN.Queue()
        run_apart(child, way, folder, out, results)
        took, peak = results.get()
        seconds.append(took)
        megabytes.append(peak)
        new = [path.stat() for path in out.rglob("*") if path.is_file()]
        written = sum(about.st_size for about in new if about.st_nlink == 1)
        shutil.rmtree(out)
    return {
        "median_s": float(np.median(seconds)),
        "min_s": min(seconds),
        "max_s": max(seconds),
        "median_s_a_case": float(np.median(seconds)) / num_cases,
        "peak_memory_mb": max(megabytes),
        "written_mb": written / 2**20,
    }


def processor_name() -> str:
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return f"{names[0].split(':')[1].strip() if names else platform.processor()}, {os.cpu_count()} cores"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("masks", type=Path, help="folder of case_XXXXX/segmentation.nii.gz")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run_apart(make_cases, args.masks, folder)
        sizes = [path.stat().st_size for path in folder.glob("kits/dataset/*/imaging.nii.gz")]
        ways = (convert_linked, convert_copied, plain_copy, nnunet_converter)
        measured = {way.__name__: measure(way, folder, len(sizes), args.repeats) for way in ways}
        spoil_images(folder)
        spoiled = measure(convert_linked, folder, len(sizes), 1)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    result = {
        "commit": commit.stdout.strip(),
        "versions": {name: version(name) for name in ("nnunetv2_malenia", "nnunetv2", "nibabel", "numpy")},
        "processor": processor_name(),
        "cases": len(sizes),
        "images_mb": sum(sizes) / 2**20,
        "repeats": args.repeats,
        **measured,
        "convert_linked_with_images_that_cannot_be_decompressed": spoiled,
    }
    path = Path(__file__).parent / "results" / "convert_kits.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
