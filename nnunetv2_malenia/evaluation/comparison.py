"""Which lesion types are compared in which cases: two folders, their label names, and what was annotated where."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_malenia.attributes.resolution import TypeNames, resolve_cases, unmatched_cases
from nnunetv2_malenia.attributes.schema import CaseEntry
from nnunetv2_malenia.attributes.tables import read_table
from nnunetv2_malenia.evaluation.predictions import NOT_LESIONS, Predictions
from nnunetv2_malenia.evaluation.volumes import EvaluationError, grid_difference, volumes_in
from nnunetv2_malenia.files.dataset_json import read_label_map
from nnunetv2_malenia.volumes import open_volume
from nnunetv2_malenia.volumes.volume import SIDES_ARE_A_GUESS

_NAMED_AT_MOST = 5


@dataclass(frozen=True)
class EvaluationOptions:
    """What the command line chose.

    labels: label names of the references, as `labelsTs.json` or in a `dataset.json`. attributes: table whose cases say
    what was annotated. any_lesion: the one predicted label that is scored against every type. unseen: the types that
    training did not show; None: as the predictions say. processes: that score cases side by side.
    """

    predictions: Path
    references: Path
    labels: Path
    attributes: Path | None = None
    any_lesion: str | None = None
    oracle: bool = False
    unseen: tuple[str, ...] | None = None
    tolerance_mm: float = 2.0
    processes: int = 1


@dataclass(frozen=True)
class LesionType:
    """name: as the references' labels spell it. predicted_values: in label maps; None: any voxel but 0 of a mask."""

    name: str
    seen: bool
    reference_values: tuple[int, ...]
    predicted_values: tuple[int, ...] | None


@dataclass(frozen=True)
class Case:
    """predictions: name of each type that was annotated in this case -> file. presence_scores: where they are known."""

    case_id: str
    reference: Path
    predictions: Mapping[str, Path]
    presence_scores: Mapping[str, float]


@dataclass(frozen=True)
class ScoringRules:
    """How every case is scored. known_values: of the references' labels; predicted_values: what predicted label maps
    may hold, by predicted_names; ignore: values of voxels that do not count.

    oracle: score each type a second time, without predicted components that lie in lesions of other types.
    """

    types: tuple[LesionType, ...]
    known_values: frozenset[int]
    predicted_values: frozenset[int]
    predicted_names: Path
    ignore: tuple[int, ...]
    tolerance_mm: float
    oracle: bool


@dataclass(frozen=True)
class Comparison:
    """All that is to be scored, and what a reader of the results should know and could not see from them."""

    rules: ScoringRules
    cases: tuple[Case, ...]
    notes: tuple[str, ...]


def plan_comparison(options: EvaluationOptions) -> Comparison:
    """Find what belongs together; reads JSON and image headers, no voxels.

    Raises EvaluationError, in one line, for files that are missing, damaged or on another grid, and for names that do
    not fit; AttributeTableError for a bad table.
    """
    table = read_table(options.attributes) if options.attributes else None
    names = TypeNames(table)
    labels = read_label_map(options.labels, error=EvaluationError)
    predictions = Predictions.read(options.predictions, options.any_lesion)
    references = volumes_in(options.references)
    own_labels = [label for label in labels if label not in NOT_LESIONS]
    reference_labels = _by_type(own_labels, names, options.labels)
    predicted = _by_type(predictions.values, names, options.predictions)
    if options.any_lesion:
        pairs = {label: options.any_lesion for label in reference_labels.values() if names.is_lesion(label)}
    else:
        wanted = predicted if predictions.seen else {key for key in predicted if names.is_lesion(predicted[key])}
        pairs = {label: predicted[key] for key, label in reference_labels.items() if key in wanted}
    if not pairs:
        raise EvaluationError(
            f"{options.labels} and {options.predictions} have no lesion type in common; types are matched by the names "
            "and aliases of --attributes and of the Clinical Knowledge Table: name the label there"
        )
    entries = resolve_cases(table, own_labels, options.attributes, references) if table else {}
    annotated = _annotated(pairs, entries, references)
    rules = ScoringRules(
        types=_types(pairs, labels, predictions, _seen(pairs, predictions, options, names)),
        known_values=frozenset(value for values in labels.values() for value in values),
        predicted_values=predictions.known_values,
        predicted_names=predictions.names_file,
        ignore=labels.get("ignore", ()),
        tolerance_mm=options.tolerance_mm,
        oracle=options.oracle,
    )
    notes = [*_notes(reference_labels, predicted, pairs, annotated, names, options)]
    if table and (note := unmatched_cases(table, references, options.attributes)):
        notes.append(note)
    cases = _cases(references, pairs, predictions, annotated)
    if guesses := [case_id for case_id, path in references.items() if not open_volume(path).tells_sides]:
        notes.append(f"{SIDES_ARE_A_GUESS} in {len(guesses)} references, whose headers do not say: {_listed(guesses)}")
    return Comparison(rules, cases, tuple(notes))


def _by_type(names: Iterable[str], types: TypeNames, source: Path) -> dict[str, str]:
    """Key of a type -> name. Raises EvaluationError if two of the names are one type."""
    found: dict[str, str] = {}
    for name in names:
        if (other := found.setdefault(types.key(name), name)) != name:
            raise EvaluationError(
                f"{source}: {other!r} and {name!r} are the same lesion type; keep one of them, or make them two "
                "entries of --attributes"
            )
    return found


def _annotated(
    pairs: Collection[str], entries: Mapping[str, CaseEntry], case_ids: Iterable[str]
) -> dict[str, set[str]]:
    """Case id -> those of the types to score that were annotated in it: all, unless the table says otherwise."""
    drawn = {case_id: entries[case_id].annotated if case_id in entries else None for case_id in case_ids}
    result = {i: set(pairs) if labels is None else set(pairs) & set(labels) for i, labels in drawn.items()}
    if not any(result.values()):
        raise EvaluationError(f"no case annotates any of the types to score: {_listed(pairs)}; check --attributes")
    return result


def _types(
    pairs: Mapping[str, str],
    labels: Mapping[str, tuple[int, ...]],
    predictions: Predictions,
    seen: Mapping[str, bool],
) -> tuple[LesionType, ...]:
    return tuple(
        LesionType(label, seen[label], labels[label], None if predictions.has_masks else predictions.values[name])
        for label, name in pairs.items()
    )


def _seen(
    pairs: Mapping[str, str], predictions: Predictions, options: EvaluationOptions, names: TypeNames
) -> dict[str, bool]:
    """Label -> whether training showed it: as asked, else as the predictions say, else a network's own labels."""
    if options.unseen is not None:
        keys = {names.key(name): name for name in options.unseen}
        if others := [name for key, name in keys.items() if key not in {names.key(label) for label in pairs}]:
            raise EvaluationError(f"--unseen: {_listed(others)} not among the types to score: {', '.join(pairs)}")
        return {label: names.key(label) not in keys for label in pairs}
    if options.any_lesion:
        raise EvaluationError(
            'a mask of any lesion does not tell which types training showed; name the others, e.g. --unseen "liver '
            'cyst,kidney tumor", or --unseen "" if there is none'
        )
    return {label: predictions.seen.get(name, True) for label, name in pairs.items()}


def _cases(
    references: Mapping[str, Path],
    pairs: Mapping[str, str],
    predictions: Predictions,
    annotated: Mapping[str, set[str]],
) -> tuple[Case, ...]:
    """Raises EvaluationError if a prediction is missing, or not on the reference's grid."""
    cases, missing, misplaced = [], [], []
    for case_id, reference in references.items():
        files = {label: predictions.file(case_id, name) for label, name in pairs.items() if label in annotated[case_id]}
        if absent := [label for label, path in files.items() if path is None]:
            missing.append(f"{case_id} ({_listed(absent)})" if predictions.has_masks else case_id)
            continue
        differences = (grid_difference(path, reference) for path in dict.fromkeys(files.values()))
        misplaced += [f"{case_id}: {difference}" for difference in differences if difference]
        scores = predictions.presence_scores(case_id)
        known = {label: scores[name] for label, name in pairs.items() if name in scores}
        cases.append(Case(case_id, reference, files, known))
    if missing:
        raise EvaluationError(
            f"{predictions.folder} lacks predictions for {len(missing)} of {len(references)} cases: {_listed(missing)}"
            "; predict them, or take their references out"
        )
    if misplaced:
        raise EvaluationError(
            f"{_listed(misplaced, separator='; ')}; predict in the geometry of the images that the references belong to"
        )
    return tuple(cases)


def _notes(
    reference_labels: Mapping[str, str],
    predicted: Mapping[str, str],
    pairs: Mapping[str, str],
    annotated: Mapping[str, set[str]],
    names: TypeNames,
    options: EvaluationOptions,
) -> Iterable[str]:
    left_out = [label for label in reference_labels.values() if names.is_lesion(label) and label not in pairs]
    if left_out:
        yield f"not scored, since the predictions do not have them: {', '.join(left_out)}"
    without = [name for key, name in predicted.items() if names.is_lesion(name) and key not in reference_labels]
    if without and not options.any_lesion:
        yield f"not scored, since the references do not have them: {', '.join(without)}"
    if nowhere := [label for label in pairs if not any(label in drawn for drawn in annotated.values())]:
        yield f"not scored, since no case annotates them: {', '.join(nowhere)}"
    if options.attributes is None:
        yield "every type counts as annotated in every case; --attributes names a table that says otherwise"


def _listed(items: Iterable[str], *, separator: str = ", ") -> str:
    items = list(items)
    more = f" and {len(items) - _NAMED_AT_MOST} more" if len(items) > _NAMED_AT_MOST else ""
    return separator.join(items[:_NAMED_AT_MOST]) + more
