"""Many cases: preprocessing and export in background processes, each case on its own."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from nnunetv2_malenia.files import MaleniaError
from nnunetv2_malenia.inference.export import CaseExport, earlier_files
from nnunetv2_malenia.inference.preparation import Preparation, PreparedCase
from nnunetv2_malenia.inference.run_record import CaseRecord, RunFiles, now
from nnunetv2_malenia.volumes import InputError

_EXPECTED = (MaleniaError, OSError, BrokenProcessPool, torch.OutOfMemoryError)  # all others are faults of the program
_log = logging.getLogger(__name__)


class Workers:
    """Background processes. When one dies, all work under way is lost, and what comes later gets new processes.

    With 0 of them, work is done here and now.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._executor = self._start() if number else None

    def _start(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        ignore = (signal.SIGINT, signal.SIG_IGN)  # an interrupt is the main process's business
        return ProcessPoolExecutor(self.number, context, signal.signal, ignore)

    def submit(self, function: Callable, *arguments: Any) -> Future:
        if self._executor is None:
            return _done(function, *arguments)
        try:
            return self._executor.submit(function, *arguments)
        except BrokenProcessPool:
            self._executor.shutdown(wait=False)
            self._executor = self._start()
            return self._executor.submit(function, *arguments)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)


def _done(function: Callable, *arguments: Any) -> Future:
    future: Future = Future()
    try:
        future.set_result(function(*arguments))
    except Exception as error:
        future.set_exception(error)
    return future


def answer_cases(
    cases: Mapping[str, Mapping[int, Path]],
    prepare: Preparation,
    predict: Callable[[torch.Tensor], tuple[Any, ...]],
    export: CaseExport,
    files: RunFiles,
    *,
    num_processes_preprocessing: int,
    num_processes_export: int,
) -> Iterator[str]:
    """Answer case by case, note each in `files`, and yield the id of each that has left the network.

    Whatever goes wrong with a case is noted as its failure, and the next one comes. At most as many cases as there are
    processes wait in memory, before the network and after it.
    """
    ended: deque[tuple[str, PreparedCase, datetime, Future]] = deque()
    with Workers(num_processes_preprocessing) as preparing, Workers(num_processes_export) as exporting:

        def collect() -> None:
            case_id, case, started, job = ended.popleft()
            try:
                findings, staged = job.result()
                case.warnings = list(findings.warnings)  # those of writing, in another process, too
                files.add(case_id, _record("DONE", case, started), findings, staged)
            except Exception as error:
                _fail(files, case_id, case, started, error)

        for case_id, started, job in _ahead(preparing, cases, prepare):
            files.outputs.remove(earlier_files(files.outputs, case_id, export.file_ending))
            case = PreparedCase()
            try:
                case = _result(job, preparing, prepare, cases[case_id])
                if case.fault is not None:
                    raise InputError(case.fault)
                logits, reading = predict(torch.from_numpy(case.data))
                case = replace(case, data=None)  # the image is not needed any more
                found = export.answers.find(logits, reading)
                maps = logits[:-1].numpy() if export.options.save_probabilities else None
                del logits
                ended.append((case_id, case, started, exporting.submit(export, case_id, case, found, maps)))
            except Exception as error:
                _fail(files, case_id, case, started, error)
            yield case_id
            while len(ended) > num_processes_export:
                collect()
        while ended:
            collect()


def _result(job: Future, workers: Workers, function: Callable, *arguments: Any) -> Any:
    """What a job gave; where a process died, that of a second try, so that one case does not fail its neighbours."""
    try:
        return job.result()
    except BrokenProcessPool:
        return workers.submit(function, *arguments).result()


def _ahead(
    workers: Workers, cases: Mapping[str, Mapping[int, Path]], prepare: Preparation
) -> Iterator[tuple[str, datetime, Future]]:
    """Start preparing cases before they are asked for."""
    jobs: deque[tuple[str, datetime, Future]] = deque()
    for case_id, channels in cases.items():
        jobs.append((case_id, now(), workers.submit(prepare, channels)))
        if len(jobs) > workers.number:
            yield jobs.popleft()
    yield from jobs


def _fail(files: RunFiles, case_id: str, case: PreparedCase, started: datetime, error: Exception) -> None:
    files.add(case_id, _record("FAILED", case, started, reason_of(error)))
    if not isinstance(error, _EXPECTED):
        _log.error("case %s", case_id, exc_info=error)


def reason_of(error: Exception) -> str:
    """An exception as the one line that run.json keeps."""
    text = " ".join(str(error).split())
    if isinstance(error, BrokenProcessPool):
        return "a background process died, most likely for lack of memory; try -npp 1 -nps 1 with --continue_prediction"
    if isinstance(error, torch.OutOfMemoryError):
        return "the device has too little memory for this case, even for one query at a time; try -device cpu"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "the disk of the output folder is full; make room, then go on with --continue_prediction"
    if isinstance(error, _EXPECTED):
        return text
    return f"unexpected {type(error).__name__}: {text}"


def _record(state: str, case: PreparedCase, started: datetime, reason: str | None = None) -> CaseRecord:
    return CaseRecord(
        state=state,
        reason=reason,
        warnings=tuple(case.warnings),
        inputs=case.inputs,
        started=started,
        finished=now(),
    )
