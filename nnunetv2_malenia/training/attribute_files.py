"""From a data set's labels and attributes.json to the `malenia` entry of its plans."""

from __future__ import annotations

import re
import shutil
from functools import partial
from itertools import combinations
from pathlib import Path

from nnunetv2_malenia.attributes.bank import EmbeddingBank, default_bank, embed_phrases
from nnunetv2_malenia.attributes.plans import MaleniaPlans
from nnunetv2_malenia.attributes.resolution import resolve_cases
from nnunetv2_malenia.attributes.schema import AttributeTable, AttributeTableError, LesionEntry
from nnunetv2_malenia.attributes.tables import read_table, resolve_label_attributes, vocabulary
from nnunetv2_malenia.attributes.text_encoder import minilm_encoder
from nnunetv2_malenia.files import sha256_of, write_text, write_whole

ATTRIBUTE_FILES = ("attributes.json", "attributes.safetensors")
COPY_RECORD = ".copied_from_raw"

LESION_WORDS = re.compile(
    r"(?<![a-z])(tumou?rs?|cysts?|lesions?|cancers?|mass(es)?|nodules?|stones?|calcul(us|i)|abscess(es)?)(?![a-z])"
    r"|metasta|h(a?e)mangioma|(carcin|aden|lymph|sarc)oma"
)


def find_attribute_files(folders: list[Path]) -> tuple[Path | None, Path | None]:
    """The first `attributes.json`, and the first `attributes.safetensors` (a bank for free text), in these folders."""
    table, bank = (
        next((folder / name for folder in folders if (folder / name).is_file()), None) for name in ATTRIBUTE_FILES
    )
    return table, bank


def keep_copies(raw: Path, preprocessed: Path) -> list[str]:
    """Keep copies of the raw data set's attribute files beside the preprocessed one's dataset.json -> notes.

    A copy follows its original, also when that is removed; but not where the raw data set is not there at all, since
    the preprocessed one may be all that a machine gets. Files that are no copies of ours stay as they are: a copy is
    known by its SHA-256, which a file beside it lists before the copy is there. Folds may start at once.
    """
    notes = []
    for name in ATTRIBUTE_FILES if raw != preprocessed else ():
        original, copy, record = raw / name, preprocessed / name, preprocessed / f"{name}{COPY_RECORD}"
        wanted, present = _digest(original), _digest(copy)
        is_own = record.is_file() and present in record.read_text().split()
        if wanted and (is_own or not present) and wanted != present:
            write_text(record, f"{present or ''}\n{wanted}\n")
            write_whole(copy, partial(shutil.copyfile, original))
        elif wanted and wanted != present:
            notes.append(f"{copy} is no copy of {original} and stays as it is; attributes are read from the latter")
        elif is_own and not wanted and (raw / "dataset.json").is_file():
            copy.unlink(missing_ok=True)
            write_text(record, "")
    return notes


def _digest(path: Path) -> str | None:
    """SHA-256; None if the file is not there, or another fold has just removed it."""
    try:
        return sha256_of(path)
    except FileNotFoundError:
        return None


def label_values(labels: dict[str, int | list[int]]) -> dict[str, tuple[int, ...]]:
    """dataset.json's labels without background and ignore: name -> label values (several for a region).

    Raises ValueError for regions that overlap without one holding the other: nnU-Net's targets do not tell them apart.
    """
    values = {}
    for name, value in labels.items():
        if name not in ("background", "ignore"):
            values[name] = tuple(int(v) for v in value) if isinstance(value, (list, tuple)) else (int(value),)
    for (name, held), (other, others) in combinations(values.items(), 2):
        if (shared := set(held) & set(others)) and shared not in (set(held), set(others)):
            raise ValueError(
                f"dataset.json: regions {name!r} and {other!r} share labels {sorted(shared)}, and neither holds the "
                "other; give the shared labels a region of their own, or nest the two"
            )
    return values


def resolve_table(labels: dict[str, tuple[int, ...]], path: Path | None) -> AttributeTable:
    """The data set's own attributes.json, or the Clinical Knowledge Table, by the data set's label names.

    labels: name -> label values, as `label_values` gives them. A region around described lesions needs no description.
    Raises AttributeTableError when a lesion label has no attributes, no label is a lesion, or a case annotates what is
    no label.
    """
    table = read_table(path) if path else None
    lesions = {name: LesionEntry(**entry.stated) for name, entry in resolve_label_attributes(labels, table).items()}
    source = str(path) if path else "attributes.json (none was found)"
    around = {name for name, values in labels.items() if any(set(labels[n]) <= set(values) for n in lesions)}
    forgotten = [
        name for name in labels if name not in lesions and name not in around and LESION_WORDS.search(name.lower())
    ]
    if forgotten:
        raise AttributeTableError(
            f"lesion labels without attributes: {', '.join(forgotten)}; describe them in {source} beside dataset.json, "
            f'e.g. {{"lesions": {{"{forgotten[0]}": {{"location": "liver", "density": "hypodense"}}}}}}'
        )
    if not lesions:
        raise AttributeTableError(
            f"no label is a lesion with known attributes: {', '.join(labels)}; describe the lesion labels in "
            f"{source} beside dataset.json"
        )
    return AttributeTable(lesions=lesions, cases=resolve_cases(table, labels, path) if table else {})


def lesion_channels(
    labels: dict[str, tuple[int, ...]], lesions: dict[str, LesionEntry], has_regions: bool
) -> dict[int, tuple[str, ...]]:
    """Output channels of the network that show lesions only -> the lesion types whose union they show.

    Channels follow nnU-Net: with regions one per label in the order of dataset.json, else one per label value.
    """
    channels = {}
    for position, (name, values) in enumerate(labels.items()):
        shown = (name,) if name in lesions else tuple(n for n in lesions if set(labels[n]) <= set(values))
        if shown and {value for n in shown for value in labels[n]} == set(values):
            channels[position if has_regions else values[0]] = shown
    return channels


def resolve_plans(
    table: AttributeTable,
    labels: dict[str, tuple[int, ...]],
    *,
    has_regions: bool,
    network: dict,
    bank_path: Path | None,
) -> tuple[MaleniaPlans, EmbeddingBank]:
    """The `malenia` entry of plans.json and the vectors of its phrases: the vocabulary's and the table's own."""
    bank = EmbeddingBank.load(bank_path) if bank_path else default_bank()
    trained = set(table.phrases())
    phrases = list(dict.fromkeys([*(p for p in vocabulary().phrases() if p in bank), *table.phrases()]))
    bank = embed_phrases(phrases, bank, minilm_encoder)
    plans = MaleniaPlans(
        network=network,
        encoder=bank.fingerprint,
        text_dim=bank.vectors.shape[1],
        phrases=tuple(phrases),
        is_trained=tuple(phrase in trained for phrase in phrases),
        lesions={name: table.attributes_of(name) for name in table.lesions},
        lesion_channels=lesion_channels(labels, table.lesions, has_regions),
        has_regions=has_regions,
    )
    return plans, bank
