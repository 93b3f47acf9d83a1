"""From lesion queries to what the network is asked with."""

import pytest

from nnunetv2_malenia.attributes.plans import MaleniaPlans
from nnunetv2_malenia.attributes.schema import AspectValues, AttributeTable
from nnunetv2_malenia.attributes.tables import queries
from nnunetv2_malenia.inference.model_folder import PredictionError
from nnunetv2_malenia.inference.questions import check_file_names, is_seen


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("spine_tumour", True),
        ("Spine tumor", True),
        ("spine-lesion", False),
        ("Renal Mass", True),
        ("kidney cyst", False),
        ("synthetic lesion 1", False),
    ],
)
def test_a_type_is_seen_by_name_or_alias_however_it_is_spelt(name, seen):
    lesions = {"spine_tumour": {"location": "spine"}, "kidney_tumor": {"location": "kidney"}, "synthetic lesion 1": {}}
    plans = MaleniaPlans(
        network={}, encoder="none", text_dim=1, phrases=(), is_trained=(), lesion_channels={}, has_regions=False,
        lesions={label: AspectValues(**values) for label, values in lesions.items()},
    )  # fmt: skip
    assert is_seen(name, plans) is seen


def asked(*names):
    return queries(AttributeTable(lesions={name: {"location": "liver"} for name in names}))


@pytest.mark.parametrize(
    "names", [("肝腫瘍", "腎嚢胞"), ("опухоль печени", "киста почки"), ("ตับ", "ไต"), ("a/b", "a b c")]
)
def test_names_in_any_script_have_files_of_their_own(names):
    check_file_names(asked(*names))


@pytest.mark.parametrize("names", [("a/b", "a:b"), ("STRASSE 1", "straße/1"), ("★", "☆"), ("肝" * 70, "肝" * 71)])
def test_names_that_a_disk_takes_for_one_are_refused(names):
    with pytest.raises(PredictionError, match="would be written to one file"):
        check_file_names(asked(*names))
