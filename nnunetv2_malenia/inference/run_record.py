"""What a run did, case by case, and which answers of an earlier one still stand."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pydantic import BaseModel, Field

from nnunetv2_malenia.files import OutputFolder, sha256_of
from nnunetv2_malenia.inference.export import read_findings
from nnunetv2_malenia.inference.findings import CaseFindings, CheckedAttribute, findings_csv
from nnunetv2_malenia.inference.model_folder import PredictionError

_OWN_NAME = re.compile(r"(run|findings|report)(_part_\d+_of_\d+)?\.(json|csv|html)")


def now() -> datetime:
    return datetime.now(timezone.utc).replace(microsecond=0)


class CaseRecord(BaseModel):
    """DONE: answered in this run; SKIPPED: an earlier answer was checked and stands; FAILED: see reason, no output."""

    state: Literal["DONE", "FAILED", "SKIPPED"]
    reason: str | None = None
    warnings: tuple[str, ...] = ()
    discarded: tuple[str, ...] = Field(
        default=(), description="Aspects of found lesions' queries that the image contradicts."
    )
    inputs: dict[str, str] = Field(default={}, description="Image file -> SHA-256.")
    started: datetime
    finished: datetime


class RunRecord(BaseModel):
    """run.json. finished is null until the run has ended by itself; cases that were not reached are not listed."""

    model_folder: str
    settings: dict[str, Any] = Field(description="All that an answer depends on, but for the image.")
    arguments: dict[str, Any]
    device: str
    part_id: int
    num_parts: int
    ignored_files: list[str]
    started: datetime
    finished: datetime | None = None
    cases: dict[str, CaseRecord] = {}

    @property
    def failed(self) -> dict[str, str]:
        """Case id -> why."""
        return {case_id: case.reason or "" for case_id, case in self.cases.items() if case.state == "FAILED"}

    @property
    def part(self) -> str:
        """What the names of this run's own files end in, when several runs share the cases."""
        return f"_part_{self.part_id}_of_{self.num_parts}" if self.num_parts > 1 else ""

    @property
    def asked_sha256(self) -> str:
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()


class RunFiles:
    """run.json and findings.csv, or run_part_0_of_2.json and its like: parts run side by side, each with its own."""

    def __init__(self, outputs: OutputFolder, record: RunRecord) -> None:
        self.outputs, self.record = outputs, record
        self._json, self._csv, report = own_names(record.part)
        self._findings: list[CaseFindings] = []
        earlier = [name for name in outputs.written() if _OWN_NAME.fullmatch(name)]
        outputs.remove(name for name in earlier if ("_part_" in name) is not bool(record.part))  # divided otherwise
        outputs.remove([self._csv, report])
        self._write()

    def add(
        self,
        case_id: str,
        case: CaseRecord,
        findings: CaseFindings | None = None,
        staged: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Publish a case's staged files, name -> SHA-256, and note how it ended; run.json is then up to date."""
        self.outputs.publish(staged)
        self.record.cases[case_id] = case
        if findings:
            case.discarded = discarded_of(findings)
            self._findings.append(findings)
        self._write()

    def finish(self) -> None:
        self.outputs.write_text(self._csv, findings_csv(sorted(self._findings, key=lambda findings: findings.case)))
        self.record.finished = now()
        self._write()

    def _write(self) -> None:
        self.outputs.write_text(self._json, self.record.model_dump_json(indent=2) + "\n")


def own_names(part: str) -> tuple[str, str, str]:
    """The names of a run's own files: its record, all findings, and the report."""
    return f"run{part}.json", f"findings{part}.csv", f"report{part}.html"


def discarded_of(findings: CaseFindings) -> tuple[str, ...]:
    """`query: aspect value (score), value (score)` for each aspect of a query that found a lesion, if the image
    contradicts all that is stated of it. CASE.json has what was said of every value."""
    lines = []
    for answer in findings.findings:
        by_aspect: dict[str, list[CheckedAttribute]] = {}
        for each in answer.checked if answer.lesions else ():
            by_aspect.setdefault(each.aspect, []).append(each)
        for aspect, values in by_aspect.items():
            if all(each.verdict == "discarded" for each in values):
                scored = ", ".join(f"{each.value} ({each.score:.2f})" for each in values)
                lines.append(f"{answer.name}: {aspect} {scored}")
    return tuple(lines)


def standing_answer(
    output_folder: Path, case_id: str, channels: Mapping[int, Path], asked_sha256: str
) -> CaseFindings | None:
    """An earlier run's findings for a case, if they still hold; else None.

    They do when the same was asked of the same image, and every file that they list is there with the same content.
    """
    findings = read_findings(output_folder / f"{case_id}.json")
    if findings is None or findings.asked_sha256 != asked_sha256:
        return None
    outputs = {output_folder / name: digest for name, digest in findings.outputs.items()}
    if not all(path.is_file() and sha256_of(path) == digest for path, digest in outputs.items()):
        return None
    return findings if findings.inputs == {path.name: sha256_of(path) for path in channels.values()} else None


def skipped(findings: CaseFindings) -> CaseRecord:
    """The record of a case whose earlier answer stands."""
    time = now()
    return CaseRecord(state="SKIPPED", warnings=findings.warnings, inputs=findings.inputs, started=time, finished=time)


def check_no_other_questions(output_folder: Path, cases: Sequence[str], queries: Sequence[str]) -> None:
    """Raise PredictionError where answers to other queries lie, of cases that this run will not write anew.

    Their label maps have other numbers than the queries.json that this run writes.
    """
    for path in sorted(output_folder.glob("*.json")):
        findings = None if path.stem in cases else read_findings(path)
        if findings and [answer.name for answer in findings.findings] != list(queries):
            raise PredictionError(
                f"{path} answers other queries than this run's; choose another folder with -o, or remove it"
            )
