"""Time `malenia_demo`, each run in a new process and an empty folder: until its first mask is there, and until it ends.

    python -m benchmarks.time_demo

The first run is kept apart: it may have to read programs from disk. Writes benchmarks/results/time_demo.json.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from benchmarks.bench_convert import processor_name
from benchmarks.commands import BenchmarkError, installed, revision
from nnunetv2_malenia.cli.messages import fail, one_line_errors
from nnunetv2_malenia.files import write_json

RESULT = Path(__file__).parent / "results" / "time_demo.json"
REPEATS = 3  # after the first run


def time_run(folder: Path) -> dict[str, float]:
    """Seconds until there is a mask and until the end, to a tenth. Raises BenchmarkError if the demo fails."""
    start, first_mask = time.monotonic(), None
    with (folder / "log.txt").open("w", encoding="utf-8") as log:
        demo = subprocess.Popen([installed("malenia_demo"), "-o", str(folder / "demo")], stdout=log, stderr=log)
        while demo.poll() is None:
            if first_mask is None and any(folder.glob("demo/*/predictions/masks/*/*.nii.gz")):
                first_mask = time.monotonic() - start
            time.sleep(0.1)
    if demo.returncode != 0 or first_mask is None:
        last_words = (folder / "log.txt").read_text(encoding="utf-8").strip().splitlines()[-1:]
        raise BenchmarkError(f"malenia_demo ended with status {demo.returncode}: {' '.join(last_words)}")
    return {"first_mask_s": round(first_mask, 1), "end_s": round(time.monotonic() - start, 1)}


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int | None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.time_demo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args(argv)
    runs = []
    try:
        for _ in range(1 + REPEATS):
            with tempfile.TemporaryDirectory() as folder:
                runs.append(time_run(Path(folder)))
    except BenchmarkError as error:
        return fail(str(error))
    versions = {name: version(name) for name in ("nnunetv2_malenia", "nnunetv2", "torch")}
    about = {"commit": revision(), "versions": versions, "processor": processor_name()}
    write_json(RESULT, {**about, "first_run": runs[0], "runs": runs[1:]})
    print(f"written: {RESULT}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
