from pathlib import Path

import pytest

from nnunetv2_malenia.phantom.anatomy import PhantomError
from nnunetv2_malenia.phantom.composition import SPLITS, composition, composition_table, split
from nnunetv2_malenia.phantom.dataset import SEEN, UNSEEN
from nnunetv2_malenia.phantom.lesions import LESION_TYPES


def unknown_values(seen, unseen):
    """(aspect, value) that an unseen type can take and no seen type can."""
    return [(row.aspect, row.value) for row in composition(seen, unseen) if not row.seen]


def test_the_default_split_is_compositional():
    assert SPLITS["compositional"] == (SEEN, UNSEEN)
    assert unknown_values(SEEN, UNSEEN) == []


def test_one_split_has_exactly_one_value_that_no_seen_type_can_take():
    assert unknown_values(*split("one-value-unknown")) == [("location", "gallbladder")]


def test_the_published_split_has_all_eleven_types_and_three_unknown_values():
    seen, unseen = split("published")
    assert sorted((*seen, *unseen)) == sorted(LESION_TYPES)
    assert unknown_values(seen, unseen) == [
        ("location", "hepatic vessels"),
        ("location", "gallbladder"),
        ("relationship", "close relationship with vessels"),
    ]


def test_rows_name_the_types_on_both_sides():
    rows = {(row.aspect, row.value): row for row in composition(SEEN, UNSEEN)}
    assert rows["density", "calcific density"].unseen == ("kidney stone",)
    assert rows["density", "calcific density"].seen == ("pancreas tumor", "liver tumor", "lung tumor")
    assert rows["specific_features", "pancreatic duct dilatation"].seen == ("pancreas tumor",)
    assert ("location", "colon") not in rows  # of seen types only


def test_a_value_that_is_taken_out_of_the_seen_types_shows():
    seen = ("colon tumor", "kidney cyst")
    assert ("density", "calcific density") in unknown_values(seen, ("kidney stone",))
    assert "| density | calcific density | kidney stone | **none** |" in composition_table(seen, ("kidney stone",))


def test_unknown_splits_are_told_with_the_known_ones():
    with pytest.raises(PhantomError, match=r"'compositonal'.*compositional, one-value-unknown, published"):
        split("compositonal")


def test_the_documentation_states_the_default_splits_table_as_it_is():
    text = (Path(__file__).parents[2] / "docs" / "phantoms.md").read_text(encoding="utf-8")
    assert composition_table(SEEN, UNSEEN) in text
