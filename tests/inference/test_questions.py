"""From lesion queries to what the network is asked with."""

import pytest

from nnunetv2_malenia.attributes.plans import MaleniaPlans
from nnunetv2_malenia.attributes.schema import AspectValues
from nnunetv2_malenia.inference.questions import is_seen


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
