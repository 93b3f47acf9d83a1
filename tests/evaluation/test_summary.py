import csv
import io
from dataclasses import replace

import pytest

from nnunetv2_malenia.attributes.tables import clinical_knowledge_table
from nnunetv2_malenia.evaluation.scoring import TypeScore
from nnunetv2_malenia.evaluation.summary import Statistic, summarise
from nnunetv2_malenia.evaluation.tables import published_results, results_table, to_csv

PRESENT = TypeScore(
    case_id="a", name="liver tumor", seen=True, oracle=False, present=True, dsc=0.5, nsd=0.25, lesions=3, found=1,
    false_positives=2, volume_ml=4.0, reference_volume_ml=5.0, presence_score=0.75,
)  # fmt: skip
ABSENT = replace(PRESENT, case_id="c", present=False, dsc=None, nsd=None, lesions=0, found=0, false_positives=1,
                 volume_ml=1.0, reference_volume_ml=0.0, presence_score=0.5)  # fmt: skip
SCORES = [
    replace(PRESENT, name="kidney tumor", seen=False, dsc=0.3),
    PRESENT,
    replace(PRESENT, case_id="b", dsc=0.9, lesions=1, found=1, false_positives=0, volume_ml=8.0),
    ABSENT,
    replace(PRESENT, name="liver cyst", seen=False, dsc=0.1, nsd=0.05),
]


def test_a_type_is_summed_up_over_the_cases_that_annotate_it():
    tumor, kidney, _ = summarise(SCORES).types
    assert (tumor.name, tumor.cases_present, tumor.cases_absent) == ("liver tumor", 2, 1)
    assert tumor.dsc.mean == pytest.approx(0.7)
    assert tumor.dsc.std == pytest.approx(0.2 * 2**0.5)  # n - 1
    assert tumor.dsc.n == 2
    assert (tumor.lesions, tumor.lesions_found, tumor.sensitivity) == (4, 2, 0.5)
    assert tumor.false_positives_per_case == pytest.approx(1)
    assert tumor.volume_present_ml.mean == 6
    assert tumor.volume_absent_ml == Statistic(1.0, None, 1)
    assert tumor.presence_auc == 1
    assert kidney.presence_auc is None


def test_a_type_is_silent_where_absent_if_at_most_a_twentieth_of_its_usual_volume_is_returned():
    absent = [replace(ABSENT, case_id=case_id, volume_ml=ml) for case_id, ml in (("d", 0.3), ("e", 0.31), ("f", 0.0))]
    (tumor,) = summarise([PRESENT, replace(PRESENT, case_id="b", volume_ml=8.0), *absent]).types  # usually 6 ml
    assert tumor.silent_when_absent == pytest.approx(2 / 3)
    (nothing_anywhere,) = summarise([replace(PRESENT, volume_ml=0.0), replace(ABSENT, volume_ml=0.0)]).types
    assert nothing_anywhere.silent_when_absent is None


def test_seen_and_unseen_types_are_averaged_apart_each_type_counting_once():
    seen, unseen = summarise(SCORES).groups
    assert (seen.seen, unseen.seen) == (True, False)
    assert seen.dsc == Statistic(pytest.approx(0.7), None, 1)
    assert unseen.dsc == Statistic(pytest.approx(0.2), pytest.approx(0.1 * 2**0.5), 2)


def test_a_type_that_no_case_holds_has_no_dsc():
    (only,) = summarise([ABSENT]).types
    assert only.dsc == Statistic(None, None, 0)
    assert only.sensitivity is None
    assert "n/a" in results_table(summarise([ABSENT]), tolerance_mm=2, published=False)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_is_in_percent_seen_types_first_with_the_published_figures_beside():
    lines = results_table(summarise(SCORES), tolerance_mm=1.5, published=True).splitlines()
    assert cells(lines[0])[-2:] == ["published DSC", "published NSD"]
    assert cells(lines[2]) == ["liver tumor", "seen", "2 of 3", "70.00 ± 28.28", "25.00 ± 0.00", "2 of 4 (50%)",
                               "1.00", "6.0", "1.0", "1.000", "65.18", "78.95"]  # fmt: skip
    assert [cells(line)[0] for line in lines[2:7]] == [
        "liver tumor", "**mean, seen**", "kidney tumor", "liver cyst", "**mean, unseen**"]  # fmt: skip
    assert len({len(line) for line in lines[:7]}) == 1
    text = "\n".join(lines)
    assert "NSD (1.5 mm)" in text
    assert "on real data (KiTS23, MSD, in-house)" in text
    assert "tolerance of NSD is not stated" in text


def test_published_figures_can_be_left_out_and_are_when_no_type_has_any():
    assert "published" not in results_table(summarise(SCORES), tolerance_mm=2, published=False)
    other = summarise([replace(PRESENT, name="spleen tumor")])
    assert "published" not in results_table(other, tolerance_mm=2, published=True)


def test_published_types_are_in_the_clinical_knowledge_table_by_their_own_names():
    types = published_results()["types"]
    assert len(types) == 11
    assert sum(each["seen"] for each in types.values()) == 5
    assert [clinical_knowledge_table().find(name) for name in types] == list(types)


def test_csv_has_a_column_for_every_figure_and_leaves_unknown_ones_empty():
    present, absent = csv.DictReader(io.StringIO(to_csv([PRESENT, ABSENT])))
    assert (present["dsc"], absent["dsc"]) == ("0.5", "")
    (row,) = csv.DictReader(io.StringIO(to_csv(summarise([PRESENT]).types)))
    assert (row["dsc_mean"], row["dsc_std"], row["dsc_n"]) == ("0.5", "", "1")
