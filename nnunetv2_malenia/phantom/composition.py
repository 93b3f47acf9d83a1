"""Which values of unseen lesion types are known from seen types: the named splits, and the answer for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from nnunetv2_malenia.attributes.schema import ASPECTS
from nnunetv2_malenia.phantom.anatomy import PhantomError
from nnunetv2_malenia.phantom.dataset import SEEN, UNSEEN
from nnunetv2_malenia.phantom.lesions import FURTHER_FEATURES, lesion_type


class Split(NamedTuple):
    """Lesion types to train on, and to ask for only."""

    seen: tuple[str, ...]
    unseen: tuple[str, ...]


SPLITS: Mapping[str, Split] = MappingProxyType(
    {
        "compositional": Split(SEEN, UNSEEN),
        "one-value-unknown": Split(SEEN, (*UNSEEN, "gallbladder tumor")),
        "published": Split(SEEN, ("hepatic vessel tumor", *UNSEEN, "gallbladder tumor")),
    }
)


def split(name: str) -> Split:
    """A named split. Raises PhantomError, naming the known ones, if there is none of that name."""
    if name not in SPLITS:
        raise PhantomError(f"no split {name!r}; choose from: {', '.join(SPLITS)}")
    return SPLITS[name]


class CompositionRow(NamedTuple):
    """A value that unseen types can take, which of them, and the seen types that can take it too: () if none."""

    aspect: str
    value: str
    unseen: tuple[str, ...]
    seen: tuple[str, ...]


def composition(seen: Sequence[str], unseen: Sequence[str]) -> list[CompositionRow]:
    """A row per aspect value of the unseen types, by aspect, then by first use. Unknown types raise PhantomError."""
    rows = []
    for aspect in ASPECTS:
        takes = {name: _values(name, aspect) for name in (*seen, *unseen)}
        for value in dict.fromkeys(value for name in unseen for value in takes[name]):
            by = [tuple(name for name in names if value in takes[name]) for names in (unseen, seen)]
            rows.append(CompositionRow(aspect, value, *by))
    return rows


def _values(type_name: str, aspect: str) -> tuple[str, ...]:
    further = FURTHER_FEATURES.get(type_name, ()) if aspect == "specific_features" else ()
    return (*lesion_type(type_name).alternatives(aspect), *further)


def composition_table(seen: Sequence[str], unseen: Sequence[str]) -> str:
    """`composition` as a Markdown table."""
    lines = ["| aspect | value | in unseen types | in seen types |", "|---|---|---|---|"]
    for row in composition(seen, unseen):
        lines.append(f"| {row.aspect} | {row.value} | {', '.join(row.unseen)} | {', '.join(row.seen) or '**none**'} |")
    return "\n".join(lines)
