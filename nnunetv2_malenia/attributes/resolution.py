"""An attribute table held against the data set that it is of: which label each name means, and which case each id."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches

from nnunetv2_malenia.attributes.schema import AttributeTable, AttributeTableError, CaseEntry, lesion_key
from nnunetv2_malenia.attributes.tables import clinical_knowledge_table
from nnunetv2_malenia.attributes.vocabulary import closest

_LISTED_AT_MOST = 3
_ALWAYS_ANNOTATED = "background"


class TypeNames:
    """Whether two names are one lesion type: by the user's own table, else by the Clinical Knowledge Table."""

    def __init__(self, own: AttributeTable | None) -> None:
        self.own = own

    def is_lesion(self, name: str) -> bool:
        return bool((self.own and self.own.find(name)) or clinical_knowledge_table().find(name))

    def key(self, name: str) -> str:
        """What two names of one type share. The own table may tell apart what the other one calls the same."""
        if self.own and (own := self.own.find(name)):
            return lesion_key(own)
        if (clinical := clinical_knowledge_table().find(name)) is None:
            return lesion_key(name)
        alike = (clinical, *clinical_knowledge_table().lesions[clinical].aliases)
        own_names = {own for each in alike if self.own and (own := self.own.find(each))}
        return lesion_key(own_names.pop() if len(own_names) == 1 else clinical)


def resolve_cases(
    table: AttributeTable, labels: Iterable[str], source: object, case_ids: Iterable[str] | None = None
) -> dict[str, CaseEntry]:
    """What a table says of cases, by the data set's own label names: spellings and aliases are looked up.

    labels: of the data set, without the background; source: what errors name; case_ids: whose entries are wanted, None:
    all. Lesions that are no label of the data set are left out.
    Raises AttributeTableError for an annotated label that the data set does not have: the one that was meant would
    count as not annotated.
    """
    labels, names = list(labels), TypeNames(table)
    by_name = {names.key(label): label for label in reversed(labels)} | {label: label for label in labels}

    def label_of(name: str, case_id: str) -> str:
        if label := by_name.get(name) or by_name.get(names.key(name)):
            return label
        near = closest(name, labels)
        hint = f"closest: {', '.join(map(repr, near))}" if near else f"labels: {', '.join(map(repr, labels))}"
        raise AttributeTableError(
            f"{source}: cases/{case_id}/annotated names {name!r}, which is no label of the data set ({hint})"
        )

    resolved = {}
    for case_id in table.cases if case_ids is None else [each for each in case_ids if each in table.cases]:
        case, annotated = table.cases[case_id], None
        if case.annotated is not None:
            annotated = tuple(label_of(name, case_id) for name in case.annotated if name.lower() != _ALWAYS_ANNOTATED)
        own = {table.find(name): values for name, values in case.lesions.items()}
        lesions = {label: own[found] for label in labels if (found := table.find(label)) in own}
        resolved[case_id] = CaseEntry(annotated=annotated, lesions=lesions)
    return resolved


def unmatched_cases(table: AttributeTable, case_ids: Collection[str], source: object) -> str:
    """A note on the table's cases that the data set does not have; "" if there is none.

    A table may have more cases than the data set, but what a misspelt one does not annotate would count as background,
    and nothing else would tell. So those that are close to a case without an entry come first.
    """
    unmatched = sorted(table.cases.keys() - set(case_ids))
    if not unmatched:
        return ""
    without_entry = {_loose_id(case_id): case_id for case_id in sorted(set(case_ids) - table.cases.keys())}
    unmatched.sort(key=lambda each: _loose_id(each) not in without_entry)
    shown = []
    for each in unmatched[:_LISTED_AT_MOST]:
        near = get_close_matches(_loose_id(each), without_entry, n=1, cutoff=0.8)
        shown.append(f"{each} (closest: {without_entry[near[0]]})" if near else each)
    return (
        f"{len(unmatched)} of {len(table.cases)} cases in {source} are not in this data set, e.g. {', '.join(shown)}; "
        "a case goes by its image's file name without _0000 and ending; without an entry it counts as fully annotated"
    )


def _loose_id(case_id: str) -> str:
    return lesion_key(case_id.removesuffix(".gz").removesuffix(".nii").removesuffix("_0000"))
