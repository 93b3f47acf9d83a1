"""nnU-Net's dataset.json, and the label maps beside it: what a data set says of itself, checked where it enters."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field

from nnunetv2_malenia.files.errors import MaleniaError
from nnunetv2_malenia.files.json_files import read_json, validated

BACKGROUND, IGNORE = "background", "ignore"  # nnU-Net's names for what is no class
MAX_LABEL = 2**15 - 1  # nnU-Net keeps label maps in 16 bits with a sign
MAX_NAME_LENGTH = 100  # as in attribute tables
_EXAMPLE = 'write e.g. {"background": 0, "liver": 1}'


def label_map(pairs: Iterable[tuple[str, object]]) -> dict[str, tuple[int, ...]]:
    """Label name -> its values, several for a region; value 0 is "background", however it is spelt, and comes first.

    pairs: name and value, or list of values, as JSON has them. Raises ValueError for values that are no whole numbers
    up to MAX_LABEL, for two labels with one value, or with names that differ in case and spaces only, for a background
    that is not 0, and for no label but the background.
    """
    labels: dict[str, tuple[int, ...]] = {BACKGROUND: (0,)}
    alike: dict[str, str] = {}
    holders: dict[frozenset[int], str] = {}
    for raw_name, value in pairs:
        name = clean_name(raw_name)
        values = _values(name, value)
        if (key := "".join(name.split()).casefold()) in alike:
            raise ValueError(f"labels {alike[key]!r} and {raw_name!r} differ in case or spaces at most; rename one")
        if (held := frozenset(values)) in holders:
            raise ValueError(f"{holders[held]!r} and {name!r} have the same value, {_shown(value)}; give each its own")
        alike[key] = raw_name
        holders[held] = name
        if values == (0,):
            continue
        if name.casefold() == BACKGROUND or 0 in values:
            raise ValueError(f"label {name!r} has the value {_shown(value)}; the background is 0, and nothing else is")
        labels[name] = values
    if len(labels) == 1:
        raise ValueError(f"no label but the background; {_EXAMPLE}")
    return labels


def clean_name(name: object) -> str:
    """A label's name without needless spaces. Raises ValueError for what cannot be one."""
    if not isinstance(name, str) or not (cleaned := " ".join(name.split())) or not cleaned.isprintable():
        raise ValueError(f"{_shown(name)} is no name; write letters and digits")
    if len(cleaned) > MAX_NAME_LENGTH:
        raise ValueError(
            f"the name {_shown(name)} has {len(cleaned)} characters; at most {MAX_NAME_LENGTH} are allowed"
        )
    return cleaned


def check_case_id(case_id: str) -> str:
    """The id of a case, if files can be named after it and tables can list it. Raises ValueError if not."""
    if clean_name(case_id) != case_id or case_id.startswith(".") or any(each in case_id for each in "/\\"):
        raise ValueError(
            f"{case_id!r} cannot be a case's name: no slashes, dot in front, or spaces in a row; rename it"
        )
    return case_id


def _values(name: str, value: object) -> tuple[int, ...]:
    several = value if isinstance(value, (list, tuple)) else (value,)
    return tuple(dict.fromkeys(_whole_number(name, each) for each in several)) or (_whole_number(name, value),)


def _whole_number(name: str, value: object) -> int:
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdecimal():  # nnU-Net takes these too
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"label {name!r} has the value {_shown(value)}, which is no whole number; {_EXAMPLE}")
    if not 0 <= value <= MAX_LABEL:
        raise ValueError(f"label {name!r} has the value {_shown(value)}; nnU-Net stores numbers from 0 to {MAX_LABEL}")
    return value


def _shown(value: object) -> str:
    text = json.dumps(value, default=repr)
    return text if len(text) <= MAX_NAME_LENGTH else f"{text[:MAX_NAME_LENGTH]} ..."


def _label_map(content: object) -> dict[str, tuple[int, ...]]:
    if not isinstance(content, Mapping):
        raise ValueError(f"{_shown(content)} is no object of names and values; {_EXAMPLE}")
    return label_map(content.items())


def _channels(content: object) -> tuple[str, ...]:
    """Channel names by number. Raises ValueError for what is not {"0": NAME, "1": NAME, …}."""
    if isinstance(content, Mapping) and all(isinstance(name, str) and name.strip() for name in content.values()):
        by_number = {str(key): name.strip() for key, name in content.items()}
        if by_number and by_number.keys() == {str(i) for i in range(len(by_number))}:
            return tuple(by_number[str(i)] for i in range(len(by_number)))
    raise ValueError(f'{_shown(content)} is no list of channels by number; write e.g. {{"0": "CT"}}')


def _path(text: str) -> str:
    if any(character < " " for character in text):
        raise ValueError(f"{text!r} has characters that no path should have; correct it")
    return text


def _text(content: object) -> str:
    return content if isinstance(content, str) else "" if content is None else json.dumps(content, ensure_ascii=False)


Labels = Annotated[dict[str, tuple[int, ...]], BeforeValidator(_label_map)]
Channels = Annotated[tuple[str, ...], BeforeValidator(_channels)]
FreeText = Annotated[str, BeforeValidator(_text)]  # nothing depends on it
Licence = Annotated[FreeText, Field(default="", validation_alias=AliasChoices("licence", "license"))]
FilePath = Annotated[str, AfterValidator(_path)]
CaseId = Annotated[str, AfterValidator(check_case_id)]


class _Checked(BaseModel):
    model_config = ConfigDict(frozen=True)


class ListedCase(_Checked):
    """A case whose files dataset.json names, relative to its folder or not."""

    images: tuple[FilePath, ...] = Field(min_length=1)
    label: FilePath


class DatasetJson(_Checked):
    """The dataset.json of an nnU-Net raw data set. channel_names: in order; dataset: cases whose files are listed."""

    labels: Labels
    channel_names: Channels = Field(validation_alias=AliasChoices("channel_names", "modality"))
    file_ending: str
    num_training: int | None = Field(None, validation_alias="numTraining")
    dataset: dict[CaseId, ListedCase] | None = None
    overwrite_image_reader_writer: str | None = None
    description: FreeText = ""
    reference: FreeText = ""
    licence: Licence


def read_dataset_json(path: Path, *, error: type[MaleniaError] = MaleniaError) -> DatasetJson:
    """Raises `error`, in one line, for a file that is no dataset.json of nnU-Net."""
    return read_json(path, DatasetJson, error=error)


def read_label_map(path: Path, *, error: type[MaleniaError] = MaleniaError) -> dict[str, tuple[int, ...]]:
    """Label name -> values, as `label_map` gives them, from a dataset.json, or from a file that holds its labels only.

    Raises `error`, in one line, for what is neither.
    """
    content = read_json(path, dict[str, Any], error=error)
    return validated(content.get("labels", content), Labels, str(path), error=error)


def without_regions(
    labels: Mapping[str, tuple[int, ...]], source: object, *, error: type[MaleniaError] = MaleniaError
) -> dict[str, int]:
    """Label name -> its one value. Raises `error` for a region."""
    if regions := [name for name, values in labels.items() if len(values) > 1]:
        raise error(f"{source}: {regions[0]!r} is a region, of several values; give plain labels, one number each")
    return {name: value for name, (value,) in labels.items()}
