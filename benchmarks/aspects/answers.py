"""The answers that are measured: three runs of malenia_predict_zeroshot on test phantoms, one on others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.zero_shot.beds import PHANTOMS
from benchmarks.zero_shot.experiment import Experiment, ask
from nnunetv2_malenia.attributes.schema import AspectValues, AttributeTable, LesionEntry
from nnunetv2_malenia.attributes.tables import read_table, write_table
from nnunetv2_malenia.demo.phantom_dataset import write_phantom_dataset
from nnunetv2_malenia.demo.run import QUERY_TABLE, REFERENCE_LABELS
from nnunetv2_malenia.files.dataset_json import read_label_map

VALIDATION_SEED = 777  # of phantoms that no training and no test has


@dataclass(frozen=True)
class Phantoms:
    """Images, reference label maps, the values of these, and how each phantom's lesions were drawn."""

    images: Path
    references: Path
    labels: Path
    attributes: Path

    @property
    def table(self) -> AttributeTable:
        return read_table(self.attributes)

    @property
    def values(self) -> Mapping[str, int]:
        """Lesion type -> its value in the references."""
        labels = read_label_map(self.labels)
        return {name: labels[name][0] for name in self.table.lesions}


@dataclass(frozen=True)
class Answers:
    """Output folders of one row and seed. side: each type of paired organs asked for on one side alone."""

    query: Path
    discover: Path
    side: Path
    validation: Path


def held_out_phantoms(experiment: Experiment) -> Phantoms:
    folder = experiment.test_data(PHANTOMS)
    return Phantoms(folder / "imagesTs", folder / "labelsTs", folder / REFERENCE_LABELS, folder / QUERY_TABLE)


def validation_phantoms(experiment: Experiment) -> Phantoms:
    """As many as for the test, of seen types only: nothing of an unseen type may set a temperature."""
    folder = experiment.home / "aspects" / "validation"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        size = experiment.size
        write_phantom_dataset(
            folder, train_cases=size.test_cases, test_cases=0, seed=VALIDATION_SEED, config=size.phantoms
        )
    return Phantoms(folder / "imagesTr", folder / "labelsTr", folder / "dataset.json", folder / "attributes.json")


def answer(experiment: Experiment) -> Answers:
    """Ask what was not asked yet. What an earlier version of the code answered has to be deleted by hand.

    Raises commands.BenchmarkError if a command fails; its output is in a log that the message names.
    """
    folder = experiment.home / "aspects" / experiment.row.name
    folder.mkdir(parents=True, exist_ok=True)
    test, validation = held_out_phantoms(experiment), validation_phantoms(experiment)
    answers = Answers(*(folder / name for name in ("query", "discover", "side", "validation")))
    write_table(side_table(test.table), folder / "side.json")
    for images, output, arguments in (
        (test.images, answers.query, ["--attributes", test.attributes, "--save_masks"]),
        (test.images, answers.discover, []),
        (test.images, answers.side, ["--attributes", folder / "side.json"]),
        (validation.images, answers.validation, ["--attributes", validation.attributes, "--save_masks"]),
    ):
        ask(experiment, images, output, *arguments, "--continue_prediction")
    return answers


def sided_types(table: AttributeTable) -> Iterator[tuple[str, Sequence[str]]]:
    """The types that can lie in either organ of a pair, each with the two locations."""
    for name, entry in table.lesions.items():
        if len(entry.location) == 2 and all(place.startswith(("left ", "right ")) for place in entry.location):
            yield name, entry.location


def one_side(name: str, location: str) -> str:
    """What a type is called in the table that asks for it in one location."""
    return f"{name} in the {location}"


def side_table(table: AttributeTable) -> AttributeTable:
    """Each type of paired organs twice, on either side alone; for any phantom one of the two is wrong."""
    return AttributeTable(
        name="one side alone",
        lesions={
            one_side(name, location): LesionEntry(
                **AspectValues(**{**table.lesions[name].stated, "location": location}).stated
            )
            for name, locations in sided_types(table)
            for location in locations
        },
    )
