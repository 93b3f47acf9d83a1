"""What is measured of aspects, diseases, sides and scores: hand-made CASE.json files and label maps."""

import json
import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.aspects import __main__ as command
from benchmarks.aspects.answers import Answers, Phantoms, one_side, side_table
from benchmarks.aspects.calibration import calibration_error, fit_temperature, tempered
from benchmarks.aspects.figures import collect, measure, section
from benchmarks.aspects.measures import aspect_accuracy, disease_accuracy, fits, groups, side_verdicts
from benchmarks.aspects.pairing import Drawn, best_ids, lesion_ids, pair_lesions, read_cases
from benchmarks.zero_shot.publish import publish
from nnunetv2_malenia.attributes.schema import AspectValues, AttributeTable
from nnunetv2_malenia.attributes.tables import write_table
from nnunetv2_malenia.inference.findings import Lesion

SHAPE = (12, 9, 7)  # x, y, z
VALUES = {"background": 0, "kidney cyst": 1, "kidney tumor": 2, "liver tumor": 3}
KIDNEYS = ("left kidney", "right kidney")
UNSEEN = ("kidney tumor",)
POINT = {"ras_mm": (0, 0, 0), "lps_mm": (0, 0, 0)}
CORNERS = {"min": (0, 0, 0), "max": (1, 1, 1)}


def lesion(number: int, *, presence: float = 0.9, diseases=(), **aspects: tuple[str, float]) -> dict:
    """aspects: value and score of each that is read."""
    return {
        "id": number, "volume_ml": 1.0, "longest_axial_diameter_mm": 1.0, "extent_mm": (1, 1, 1), "centre": POINT,
        "bounding_box": {"ras_mm": CORNERS, "lps_mm": CORNERS}, "presence_score": presence, "cut_by_border": False,
        "shared_with": [],
        "aspects": [
            {"aspect": aspect, "value": value, "score": score, "runner_up": "another", "runner_up_score": 1 - score}
            for aspect, (value, score) in aspects.items()
        ],
        "diseases": [{"name": name, "score": 0.2, "seen_in_training": True} for name in diseases],
    }  # fmt: skip


def finding(name: str, *lesions: dict, location: dict[str, str] | None = None) -> dict:
    """location: verdict on each location of the query."""
    return {
        "query_id": 1, "name": name, "seen_in_training": None, "presence_score": 0.9, "volume_ml": 1.0,
        "lesions": lesions, "left_out": 0, "attributes": {},
        "checked": [{"aspect": "location", "value": value, "score": 0.5, "verdict": verdict}
                    for value, verdict in (location or {}).items()],
    }  # fmt: skip


def case(case_id: str, *findings: dict) -> dict:
    return {"case": case_id, "threshold": 0.5, "min_volume_ml": 0, "warnings": [], "findings": findings, "inputs": {},
            "outputs": {}, "asked_sha256": ""}  # fmt: skip


def store(path: Path, *boxes: tuple[int, tuple[slice, slice, slice]]) -> None:
    """A label map of boxes."""
    array = np.zeros(SHAPE, np.uint8)
    for value, box in boxes:
        array[box] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.eye(4)), path)


# x of 12 voxels: the kidney cyst, the kidney tumor and a liver tumor lie apart; each spans y and z 1 to 3
CYST, TUMOR, LIVER = (np.s_[0:3, 1:4, 1:4], np.s_[4:7, 1:4, 1:4], np.s_[8:11, 1:4, 1:4])
SPECK = np.s_[11:12, 8:9, 6:7]

TABLE = AttributeTable.model_validate({
    "lesions": {
        "kidney cyst": {"location": KIDNEYS, "density": ["fluid density", "hyperdense"]},
        "kidney tumor": {"location": KIDNEYS, "density": ["hypodense", "isodense"]},
        "liver tumor": {"location": "liver", "density": "hypodense"},
    },
    "cases": {
        "a": {"lesions": {
            "kidney cyst": {"location": "left kidney", "density": "fluid density", "surface": "well-defined"},
            "kidney tumor": {"location": "left kidney", "density": "isodense", "surface": "ill-defined"},
            "liver tumor": {"location": "liver", "density": "hypodense", "surface": "ill-defined"},
        }},
        "b": {"lesions": {
            "kidney cyst": {"location": "left kidney", "density": "hyperdense", "surface": "well-defined"},
            "kidney tumor": {"location": "right kidney", "density": "hypodense", "surface": "well-defined"},
        }},
    },
})  # fmt: skip


@pytest.fixture
def phantoms(tmp_path) -> Phantoms:
    """Case a holds all three types, b both of the kidney."""
    store(tmp_path / "labelsTs" / "a.nii.gz", (1, CYST), (2, TUMOR), (3, LIVER))
    store(tmp_path / "labelsTs" / "b.nii.gz", (1, CYST), (2, TUMOR))
    (tmp_path / "labelsTs.json").write_text(json.dumps(VALUES))
    write_table(TABLE, tmp_path / "table.json")
    return Phantoms(
        tmp_path / "imagesTs", tmp_path / "labelsTs", tmp_path / "labelsTs.json", tmp_path / "table.json"
    )  # fmt: skip


@pytest.fixture
def query(tmp_path) -> Path:
    """a: the cyst is found by the larger of two lesions, the kidney tumor by its query's second lesion, the liver tumor
    is missed, though another query's mask holds it. b: the cyst's one lesion is elsewhere, the tumor is found."""
    folder = tmp_path / "query"
    masks = folder / "masks"
    store(masks / "a" / "kidney_cyst.nii.gz", (1, np.s_[0:3, 1:4, 1:3]), (1, SPECK))
    store(masks / "a" / "kidney_tumor.nii.gz", (1, np.s_[8:12, 1:5, 1:5]), (1, np.s_[4:6, 1:3, 1:3]))
    store(masks / "a" / "liver_tumor.nii.gz")
    store(masks / "b" / "kidney_cyst.nii.gz", (1, SPECK))
    store(masks / "b" / "kidney_tumor.nii.gz", (1, TUMOR))
    store(masks / "b" / "liver_tumor.nii.gz")
    cyst = lesion(1, presence=0.95, diseases=("kidney cyst", "kidney tumor"), location=("left kidney", 0.9),
                  density=("hypodense", 0.8), surface=("well-defined", 0.6))  # fmt: skip
    tumor = lesion(2, presence=0.6, diseases=("adrenal adenoma", "kidney cyst", "kidney tumor"),
                   location=("right kidney", 0.7), density=("hypodense", 0.9),
                   surface=("ill-defined", 0.8))  # fmt: skip
    other = lesion(1, presence=0.55, diseases=("kidney tumor", "kidney cyst"), location=("right kidney", 0.9),
                   density=("hypodense", 0.9), surface=("ill-defined", 0.6))  # fmt: skip
    for content in (
        case(
            "a",
            finding("kidney cyst", cyst, lesion(2, presence=0.7),
                    location={"left kidney": "selected", "right kidney": "discarded"}),
            finding("kidney tumor", lesion(1, presence=0.8), tumor,
                    location={"left kidney": "discarded", "right kidney": "selected"}),
            finding("liver tumor"),
        ),
        case(
            "b",
            finding("kidney cyst", lesion(1, presence=0.65),
                    location={"left kidney": "selected", "right kidney": "discarded"}),
            finding("kidney tumor", other, location={"left kidney": "kept", "right kidney": "kept"}),
            finding("liver tumor"),
        ),
    ):  # fmt: skip
        (folder / f"{content['case']}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def discover(tmp_path) -> Path:
    """a: one lesion over cyst and kidney tumor, and a speck. b: both kidney lesions, the tumor by two lesions."""
    folder = tmp_path / "discover"
    store(folder / "a.nii.gz", (1, np.s_[1:6, 1:4, 1:4]), (2, SPECK))
    store(folder / "b.nii.gz", (1, CYST), (2, np.s_[4:6, 1:4, 1:4]), (3, np.s_[6:7, 1:4, 1:4]))
    for content in (
        case("a", finding("lesion", lesion(1, diseases=("kidney tumor",)), lesion(2))),
        case(
            "b",
            finding(
                "lesion",
                lesion(1, diseases=("liver tumor", "kidney cyst")),
                lesion(2, diseases=("kidney tumor",)),
                lesion(3, diseases=("liver tumor",)),
            ),
        ),
    ):
        (folder / f"{content['case']}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def side(tmp_path) -> Path:
    """Of case a, with all kidney lesions on the left, one wrong-sided query is discarded; case b is not asked about."""
    folder = tmp_path / "side"
    folder.mkdir()
    verdicts = {("kidney cyst", "left kidney"): "kept", ("kidney cyst", "right kidney"): "discarded",
                ("kidney tumor", "left kidney"): "discarded", ("kidney tumor", "right kidney"): "kept"}  # fmt: skip
    for case_id in "ab":
        findings = [finding(one_side(*key), location={key[1]: verdict}) for key, verdict in verdicts.items()]
        (folder / f"{case_id}.json").write_text(json.dumps(case(case_id, *findings)))
    return folder


def test_lesions_of_a_query_have_the_ids_of_case_json(query):
    mask = np.asarray(nib.load(query / "masks" / "a" / "kidney_tumor.nii.gz").dataobj)

    ids = lesion_ids(mask)

    assert ids[9, 2, 2] == 1  # 64 voxels
    assert ids[5, 1, 1] == 2  # 8 voxels
    assert np.array_equal(ids > 0, mask > 0)


def test_each_drawn_lesion_gets_the_predicted_one_that_shares_most_with_it():
    truth, ids = np.zeros((10, 2, 2), bool), np.zeros((10, 2, 2), int)
    truth[0:4], truth[6:8] = True, True
    ids[0:1], ids[1:4], ids[5:6] = 1, 3, 2

    assert best_ids(ids, truth) == [3, 0]
    assert best_ids(ids, np.zeros_like(truth)) == []


def test_a_lesion_counts_as_found_by_a_lesion_of_its_own_query_only(phantoms, query):
    pairing = pair_lesions(query, phantoms, discover=False)

    found = [(each.name, each.found.id if each.found else None) for each in pairing.drawn]
    assert found == [("kidney cyst", 1), ("kidney tumor", 2), ("liver tumor", None), ("kidney cyst", None),
                     ("kidney tumor", 1)]  # fmt: skip
    assert [(each.name, each.lesion.id, each.is_real) for each in pairing.predicted] == [
        ("kidney cyst", 1, True), ("kidney cyst", 2, False), ("kidney tumor", 1, False), ("kidney tumor", 2, True),
        ("kidney cyst", 1, False), ("kidney tumor", 1, True),
    ]  # fmt: skip
    assert pairing.drawn[0].attributes.density == ("fluid density",)  # of the case, not of the type


def test_a_phantom_without_an_answer_is_an_error(phantoms, query):
    (query / "b.json").unlink()

    with pytest.raises(FileNotFoundError, match=r"b\.json"):
        list(read_cases(query, phantoms))


def test_a_value_fits_what_it_can_be_true_together_with():
    assert fits("density", "hypodense", ("fluid density",))
    assert fits("location", "kidney", ("left kidney",))
    assert not fits("location", "right kidney", ("left kidney",))
    assert not fits("density", "isodense", ("fluid density",))


def test_accuracy_is_over_found_lesions_and_beside_the_value_that_is_right_most_often(phantoms, query):
    lesions = groups(pair_lesions(query, phantoms, discover=False).drawn, UNSEEN)

    seen, unseen = aspect_accuracy(lesions["seen"]), aspect_accuracy(lesions["unseen"])

    assert (seen["lesions"], seen["found"]) == (3, 1)
    assert list(seen["aspects"]) == ["location", "density", "surface"]
    density = seen["aspects"]["density"]  # hypodense, drawn as fluid density
    assert (density["accuracy"], density["same"], density["majority"]) == (1, 0, 1)
    assert density["confusion"] == {"fluid density": {"hypodense": 1}}
    assert (unseen["lesions"], unseen["found"]) == (2, 2)
    location, surface = unseen["aspects"]["location"], unseen["aspects"]["surface"]
    assert (location["accuracy"], location["majority"]) == (0.5, 0.5)
    assert location["confusion"] == {"left kidney": {"right kidney": 1}, "right kidney": {"right kidney": 1}}
    assert (unseen["aspects"]["density"]["accuracy"], surface["accuracy"]) == (0.5, 0.5)
    assert unseen["mean"] == {"accuracy": 0.5, "same": 0.5, "majority": 0.5}


def test_the_majority_value_may_fit_more_lesions_than_have_it():
    read = Lesion.model_validate(lesion(1, density=("isodense", 0.5)))
    values = ("fluid density", "hypodense", "isodense", "isodense")
    lesions = [Drawn("liver tumor", AspectValues(density=value), read) for value in values]

    figures = aspect_accuracy(lesions)["aspects"]["density"]

    assert (figures["accuracy"], figures["same"], figures["majority"]) == (0.5, 0.5, 0.5)
    assert aspect_accuracy([lesions[0], lesions[1], lesions[2]])["aspects"]["density"]["majority"] == 2 / 3


def test_an_aspect_that_was_not_drawn_or_not_found_is_not_counted(phantoms, query):
    for number in "ab":
        path = query / f"{number}.json"
        content = json.loads(path.read_text())
        for each in content["findings"]:
            for found in each["lesions"]:
                found["aspects"] = [{"aspect": "shape", "value": "irregular", "score": 0.9, "runner_up": None,
                                     "runner_up_score": None}]  # fmt: skip
        path.write_text(json.dumps(content))

    figures = aspect_accuracy(pair_lesions(query, phantoms, discover=False).drawn)

    assert figures["aspects"] == {}
    assert figures["mean"]["accuracy"] is None


def test_diseases_are_those_of_lesions_that_were_found(phantoms, query):
    lesions = pair_lesions(query, phantoms, discover=False).drawn
    types = ("kidney cyst", "kidney tumor", "liver tumor")

    seen, unseen = (disease_accuracy(each, types) for each in groups(lesions, UNSEEN).values())

    assert seen == {"lesions": 1, "top_1": 1, "top_3": 1, "first_of_types": 1}
    # once third, with a disease and another type before it; once first
    assert unseen == {"lesions": 2, "top_1": 0.5, "top_3": 1, "first_of_types": 0.5}
    only = disease_accuracy(groups(lesions, UNSEEN)["unseen"], ("kidney tumor",))
    assert only["first_of_types"] == 1


def test_discovery_counts_drawn_lesions_of_any_type_and_predicted_ones_on_none(phantoms, query, discover, side):
    answers = Answers(query, discover, side, query)

    figures = measure(answers, phantoms, phantoms, UNSEEN)

    assert figures["discovery"]["all"] == {"lesions": 5, "found": 0.8}
    assert figures["discovery"]["seen"] == {"lesions": 3, "found": pytest.approx(2 / 3)}
    assert figures["discovery"]["unseen"] == {"lesions": 2, "found": 1}
    assert figures["discovery"]["false_positives_per_case"] == 0.5
    # the tumor of b is read from the larger of two lesions, the cyst of a from one that is called a kidney tumor
    assert figures["diseases"]["discover"]["seen"]["top_1"] == 0
    assert figures["diseases"]["discover"]["seen"]["top_3"] == 0.5
    assert figures["diseases"]["discover"]["unseen"]["top_1"] == 1


def test_sides_count_where_the_opposite_organ_holds_no_lesion(phantoms, query, side):
    figures = side_verdicts(read_cases(query, phantoms), read_cases(side, phantoms), TABLE, UNSEEN)

    # case b has a lesion in either kidney, so that any side has something to point at
    assert figures["seen"] == {"lesions": 1, "resolved": 1, "reversed": 0, "wrong_discarded": 1, "right_discarded": 0}
    assert figures["unseen"] == {"lesions": 1, "resolved": 0, "reversed": 1, "wrong_discarded": 0,
                                 "right_discarded": 1}  # fmt: skip


def test_a_query_about_which_nothing_is_said_resolves_and_discards_nothing(phantoms, query, side):
    for folder in (query, side):
        content = json.loads((folder / "a.json").read_text())
        for each in content["findings"]:
            each["checked"] = []
        (folder / "a.json").write_text(json.dumps(content))

    figures = side_verdicts(read_cases(query, phantoms), read_cases(side, phantoms), TABLE, UNSEEN)

    assert figures["seen"] == {"lesions": 1, "resolved": 0, "reversed": 0, "wrong_discarded": 0, "right_discarded": 0}


def test_the_table_of_sides_asks_for_each_paired_type_on_either_side():
    table = side_table(TABLE)

    assert {name: entry.location for name, entry in table.lesions.items()} == {
        "kidney cyst in the left kidney": ("left kidney",),
        "kidney cyst in the right kidney": ("right kidney",),
        "kidney tumor in the left kidney": ("left kidney",),
        "kidney tumor in the right kidney": ("right kidney",),
    }
    assert table.lesions["kidney cyst in the left kidney"].density == ("fluid density", "hyperdense")


def calibration_error_loop(scores: list[float], right: list[bool]) -> float:
    total = 0.0
    for i in range(15):
        inside = [(s, r) for s, r in zip(scores, right, strict=True)
                  if i / 15 < s <= (i + 1) / 15 or (i == 0 and s == 0)]  # fmt: skip
        if inside:
            accuracy = sum(r for _, r in inside) / len(inside)
            confidence = sum(s for s, _ in inside) / len(inside)
            total += len(inside) / len(scores) * abs(accuracy - confidence)
    return total


# away from the edges of bins, which rounding may put on either side
scored = st.lists(
    st.tuples(st.integers(0, 1499).map(lambda i: (i + 0.5) / 1500), st.booleans()), min_size=1, max_size=60
)


@given(scored)
def test_calibration_error_is_that_of_the_loop(pairs):
    scores, right = [score for score, _ in pairs], [each for _, each in pairs]

    assert calibration_error(scores, right) == pytest.approx(calibration_error_loop(scores, right))


def test_calibration_error_by_hand():
    # one bin of two at 0.7, one of them right: |0.5 - 0.7|; one of one at 0.2, wrong: |0 - 0.2|
    assert calibration_error([0.7, 0.7, 0.2], [True, False, False]) == pytest.approx(2 / 3 * 0.2 + 1 / 3 * 0.2)
    assert calibration_error([1.0, 0.0], [True, False]) == 0
    assert calibration_error([0.61, 0.65], [True, False]) == pytest.approx(0.13)  # both in (9/15, 10/15]
    assert calibration_error([], []) is None


def test_the_temperature_is_that_under_which_outcomes_are_likeliest():
    scores, right = [0.9] * 10, [True] * 7 + [False] * 3  # 0.9 has to become 0.7

    temperature = fit_temperature(scores, right)

    assert temperature == pytest.approx(math.log(9) / math.log(7 / 3), rel=1e-3)
    assert tempered([0.9], temperature)[0] == pytest.approx(0.7, abs=1e-3)
    assert fit_temperature([], []) is None


@given(scored, st.floats(0.05, 20))
def test_no_other_temperature_is_likelier(pairs, other):
    scores, right = [score for score, _ in pairs], [each for _, each in pairs]

    def loss(temperature: float) -> float:
        total = 0.0
        for score, is_right in zip(scores, right, strict=True):
            log_odds = math.log(score / (1 - score)) / temperature
            total += math.log1p(math.exp(-abs(log_odds))) + max(0.0, -log_odds if is_right else log_odds)
        return total

    assert loss(fit_temperature(scores, right)) <= loss(other) * (1 + 1e-4) + 1e-6


def test_certain_scores_do_not_break_the_temperature():
    temperature = fit_temperature([1.0, 1.0, 0.0], [True, False, False])

    assert np.isfinite(tempered([1.0, 0.0], temperature)).all()


@pytest.fixture
def results(tmp_path, phantoms, query, discover, side) -> Path:
    """A folder with the figures of two seeds of one row."""
    for seed in (0, 1):
        figures = measure(Answers(query, discover, side, query), phantoms, phantoms, UNSEEN)
        path = tmp_path / "runs" / f"seed_{seed}" / "aspects" / "malenia.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"row": "malenia", "seed": seed} | figures))
    return tmp_path / "runs"


def test_presence_is_calibrated_on_predicted_lesions_and_aspects_on_found_ones(results):
    calibration = collect(results, "small")["runs"][0]["calibration"]

    assert calibration["presence"]["seen"]["scores"] == 3
    assert calibration["presence"]["unseen"]["scores"] == 3
    assert calibration["aspects"]["seen"]["scores"] == 3
    assert calibration["aspects"]["unseen"]["scores"] == 6
    # cysts: 0.95 is real, 0.7 and 0.65 are not, in three bins
    assert calibration["presence"]["seen"]["error"] == pytest.approx((0.05 + 0.7 + 0.65) / 3)
    assert calibration["presence"]["fitted_on"] == 6


def test_the_page_shows_both_tables(results, tmp_path):
    content = collect(results, "small")
    repository = tmp_path / "repository"
    for name in ("benchmarks/results", "docs"):
        (repository / name).mkdir(parents=True)
    (repository / "benchmarks" / "results" / "aspects_small.json").write_text(json.dumps(content))

    publish([], repository)

    page = (repository / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert "\n".join(section(content)) in page
    assert "### MaleniaTrainer: aspects, seeds 0, 1" in page
    location = next(line for line in page.splitlines() if line.startswith("| location |"))
    assert location.split(" | ")[4] == "0.50 ± 0.00"  # unseen: right
    assert "| shape | n/a |" in page
    assert "| wrong side asked: discarded | 1.00 ± 0.00 | 0.00 ± 0.00 |" in page


def test_a_folder_of_something_else_is_refused_in_one_line(tmp_path, capsys):
    assert command.main([str(tmp_path)]) == 1
    assert "no settings.json" in capsys.readouterr().err

    (tmp_path / "settings.json").write_text(json.dumps({"size": "smoke"}))
    assert command.main([str(tmp_path), "--seeds", "3"]) == 1
    assert "python -m benchmarks.zero_shot smoke --rows malenia --seeds 3" in capsys.readouterr().err
    assert not (tmp_path / "seed_3").exists()
