"""What reports state, and what they do not. All sentences here are written for the tests."""

import string
from itertools import permutations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nnunetv2_malenia.attributes.report_cues import denies
from nnunetv2_malenia.attributes.report_feature_lexicon import FEATURES
from nnunetv2_malenia.attributes.report_lexicon import DENYING, IMPLIED, OPPOSITES, STATED
from nnunetv2_malenia.attributes.report_parser import DOUBTED, parse_report
from nnunetv2_malenia.attributes.report_parser import STATED as STATED_CONFIDENCE
from nnunetv2_malenia.attributes.report_rules import literal_pattern, phrase_pattern, rules
from nnunetv2_malenia.attributes.tables import clinical_knowledge_table, vocabulary

CLOSE = "close relationship with surrounding organs"
NOT_CLOSE = "no close relationship with surrounding organs"


def stated(report: str, lesion: str = "kidney tumor") -> dict[str, tuple[str, ...]]:
    return parse_report(report, lesion).attributes.stated


def values(report: str, aspect: str, lesion: str = "kidney tumor") -> set[str]:
    return set(stated(report, lesion).get(aspect, ()))


def test_a_report_gives_all_that_it_states_and_nothing_else():
    report = (
        "Post-contrast CT. There is a 4.1 x 3 cm lobulated, hypoattenuating mass in the upper pole of the left kidney. "
        "It enhances heterogeneously and has areas of necrosis. Its borders are blurred. It abuts the spleen."
    )
    assert stated(report) == {
        "location": ("left kidney",),
        "shape": ("lobulated",),
        "density": ("hypodense",),
        "density_variation": ("heterogeneous",),
        "enhancement": ("contrast-enhanced ct",),
        "surface": ("ill-defined",),
        "relationship": (CLOSE,),
        "specific_features": ("necrosis",),
    }
    assert parse_report(report, "kidney tumor").diameters_mm == ((41.0, 30.0),)


@pytest.mark.parametrize(
    ("lesion", "report", "expected"),
    [
        ("kidney tumor", "Mass of the right kidney.", {"right kidney"}),
        ("kidney tumor", "Left-sided renal mass.", {"left kidney"}),
        ("kidney tumor", "Masses are seen in both kidneys.", {"left kidney", "right kidney"}),
        ("kidney tumor", "Right kidney: mass at the lower pole.", {"right kidney"}),
        ("kidney tumor", "A renal mass.", {"kidney"}),
        ("kidney tumor", "A mass of lower density than the cortex is seen in the left kidney.", {"left kidney"}),
        ("kidney tumor", "Well-defined mass. Left kidney.", {"left kidney"}),
        ("liver tumor", "Lesion in segment VII.", {"right liver lobe"}),
        ("liver tumor", "Lesions in segments 2 and 8.", {"left liver lobe", "right liver lobe"}),
        ("liver tumor", "Lesion of the left lateral lobe of the liver.", {"left liver lobe"}),
        ("liver tumor", "Mass in the right lobe.", {"right liver lobe"}),
        ("pancreas tumor", "Mass in the uncinate process.", {"pancreas head"}),
        ("pancreas tumor", "Mass of the body and tail of the pancreas.", {"pancreas body", "pancreas tail"}),
        ("pancreas tumor", "Mass in the head.", {"pancreas head"}),
        ("colon tumor", "Thickening of the rectosigmoid wall.", {"sigmoid colon", "rectum"}),
        ("colon tumor", "Tumour of the caecum.", {"cecum"}),
        ("lung tumor", "Nodule in the LUL.", {"left upper lung lobe"}),
        ("lung tumor", "Nodule in the right lower lobe.", {"right lower lung lobe"}),
        ("lung tumor", "Nodule, upper lobe of the right lung.", {"right upper lung lobe"}),
        ("a lesion", "Nodule in the spleen.", {"spleen"}),
    ],
)
def test_a_place_is_found_however_it_is_put(lesion, report, expected):
    assert values(report, "location", lesion) == expected


@pytest.mark.parametrize(
    ("lesion", "report", "expected"),
    [
        (
            "pancreas tumor",
            "Mass of the pancreatic head. The tail is atrophic.",
            {"pancreas head"},
        ),
        ("pancreas tumor", "Mass in the pancreatic head, with dilatation of the duct in the body.", {"pancreas head"}),
        ("kidney tumor", "Left renal mass. The right kidney is normal.", {"left kidney"}),
        ("kidney tumor", "Left renal mass. No lesion in the right kidney.", {"left kidney"}),
        ("liver tumor", "Lesion in the left lobe of the liver, close to the right lobe.", {"left liver lobe"}),
        ("kidney tumor", "A mass is seen.", set()),
    ],
)
def test_places_that_are_not_where_the_lesion_lies_are_no_location(lesion, report, expected):
    assert values(report, "location", lesion) == expected


@pytest.mark.parametrize(
    ("aspect", "words", "expected"),
    [
        ("shape", "an ovoid mass", "round-like"),
        ("shape", "an irregularly shaped mass", "irregular"),
        ("shape", "a mass that is not round", "irregular"),
        ("density", "a low-density mass", "hypodense"),
        ("density", "a mass of increased attenuation", "hyperdense"),
        ("density", "a mass whose attenuation is similar to the parenchyma", "isodense"),
        ("density", "a mass of water attenuation", "fluid density"),
        ("density_variation", "an inhomogeneous mass", "heterogeneous"),
        ("density_variation", "a non-homogeneous mass", "heterogeneous"),
        ("density_variation", "a mass with marked heterogeneous enhancement", "heterogeneous"),
        ("density_variation", "a mass of uniform density", "homogeneous"),
        ("density_variation", "a mass that is not homogenous", "heterogeneous"),
        ("enhancement", "a mass on non-contrast CT", "non-contrast ct"),
        ("enhancement", "a mass that does not enhance", "no enhancement"),
        ("enhancement", "an avidly enhancing mass", "marked enhancement"),
        ("enhancement", "a mass with marked heterogeneous enhancement", "marked enhancement"),
        ("enhancement", "a mass without significant enhancement", "no enhancement"),
        ("surface", "a sharply demarcated mass", "well-defined"),
        ("surface", "a mass with indistinct edges", "ill-defined"),
        ("surface", "a mass whose margins are not well defined", "ill-defined"),
        ("surface", "a mass with unclear boundary", "ill-defined"),
        ("surface", "a mass with no clear border", "ill-defined"),
        ("relationship", "a mass inseparable from the psoas muscle", CLOSE),
        ("relationship", "a mass not separable from the psoas muscle", CLOSE),
        ("relationship", "a mass with no clear demarcation from the psoas muscle", CLOSE),
        ("relationship", "a mass that is not near any adjacent organ", NOT_CLOSE),
        ("relationship", "a mass not closely related to adjacent organs", NOT_CLOSE),
        ("relationship", "a mass with loss of the fat plane to the liver", CLOSE),
        ("relationship", "a mass invading the adrenal gland", "invasion of surrounding organs"),
        ("specific_features", "a mass with foci of calcification", "calcification"),
        ("specific_features", "an exophytic mass", "exophytic growth"),
        ("specific_features", "a haemorrhagic mass", "hemorrhage"),
        ("specific_features", "a mass with hypodense areas", "hypodense areas"),
        ("specific_features", "a mass with tumour thrombus", "tumor thrombus"),
    ],
)
def test_common_wordings_give_the_value_of_the_vocabulary(aspect, words, expected):
    assert expected in values(f"There is {words} in the left kidney.", aspect)


def test_parts_of_a_lesion_say_nothing_about_its_density():
    report = "Hyperdense mass in the left kidney with hypodense areas. Foci of low attenuation are seen within."
    assert values(report, "density") == {"hyperdense"}
    assert values(report, "specific_features") == {"hypodense areas"}


def test_a_shadow_is_a_lesion_where_nothing_else_is_one():
    assert stated("Low-density shadow in the right lobe of the liver.", "liver tumor") == {
        "location": ("right liver lobe",),
        "density": ("hypodense",),
    }


def test_a_border_between_two_organs_is_a_relationship():
    report = "Thickening of the rectal wall. The boundary between the lesion and the uterus is unclear."
    assert values(report, "relationship", "colon tumor") == {CLOSE}
    assert values(report, "surface", "colon tumor") == set()


def test_a_border_that_describes_how_close_something_is_says_nothing_about_the_surface():
    report = "Well-defined mass of the left kidney. It is inseparable from the spleen, with hazy borders."
    assert values(report, "surface") == {"well-defined"}
    assert values(report, "relationship") == {CLOSE}


def test_a_border_with_another_organ_is_a_relationship_and_with_its_own_a_surface():
    assert stated("Left renal mass with an indistinct margin with the spleen.").get("relationship") == (CLOSE,)
    assert "surface" not in stated("Left renal mass with an indistinct margin with the spleen.")
    own = stated("Left renal mass with an indistinct margin with the renal cortex.")
    assert own["surface"] == ("ill-defined",)
    assert "relationship" not in own


def test_the_wall_of_the_bowel_is_another_organ_to_a_kidney_and_not_to_a_colon():
    words = "with indistinct margins from the bowel wall"
    assert values(f"Mass of the left kidney {words}.", "relationship") == {CLOSE}
    assert values(f"Mass of the sigmoid colon {words}.", "surface", "colon tumor") == {"ill-defined"}


def test_two_lesion_types_in_one_report_keep_their_own_values():
    report = (
        "Right kidney: irregular, heterogeneous mass. In addition there is a simple cyst in the left kidney, round, "
        "homogeneous and sharply marginated. The liver is homogeneous."
    )
    assert stated(report, "kidney tumor") == {
        "location": ("right kidney",),
        "shape": ("irregular",),
        "density_variation": ("heterogeneous",),
    }
    assert stated(report, "kidney cyst") == {
        "location": ("left kidney",),
        "shape": ("round-like",),
        "density_variation": ("homogeneous",),
        "surface": ("well-defined",),
    }


def test_another_organs_lesion_is_not_read():
    report = "Liver: well-defined hypodense lesion in segment 4. Kidneys: irregular mass on the left."
    assert stated(report, "liver tumor") == {
        "location": ("left liver lobe",),
        "density": ("hypodense",),
        "surface": ("well-defined",),
    }
    assert "density" not in stated(report, "kidney tumor")


def test_after_another_lesion_it_means_that_one():
    report = "Irregular mass in the left kidney. There is a lesion in the spleen. It is round and hypodense."
    assert stated(report) == {"location": ("left kidney",), "shape": ("irregular",)}


def test_lymph_nodes_are_mentioned_in_passing():
    report = "Mass in the left kidney. Enlarged retroperitoneal lymph nodes. Ill-defined margins."
    assert values(report, "specific_features") == {"enlarged lymph nodes"}
    assert values(report, "surface") == {"ill-defined"}


def test_history_is_not_read():
    assert "location" not in stated("History: mass in the left kidney.\nFindings: irregular mass.")


def test_contradictions_are_both_used_and_marked():
    parsed = parse_report("Well-defined mass of the left kidney. The margins are blurred.", "kidney tumor")
    surfaces = [each for each in parsed.evidence if each.aspect == "surface"]
    assert {each.value for each in surfaces} == {"well-defined", "ill-defined"}
    assert all("excludes" in each.doubt for each in surfaces)


def test_what_is_implied_gives_way_to_what_is_stated():
    implied = parse_report("Spiculated nodule.", "lung tumor")
    assert implied.attributes.surface == ("ill-defined",)
    assert [each.doubt for each in implied.evidence if each.aspect == "surface"] == ["implied, not stated"]
    assert values("Spiculated, well-defined nodule.", "surface", "lung tumor") == {"well-defined"}


def test_isodense_means_soft_tissue_in_the_lung():
    assert values("Isodense nodule.", "density", "lung tumor") == {"soft-tissue density"}
    assert values("Isodense nodule.", "density", "kidney tumor") == {"isodense"}


def test_close_to_the_pleura_is_close_to_an_organ():
    assert values("Nodule abutting the pleura.", "relationship", "lung tumor") == {
        CLOSE,
        "close relationship with the pleura",
    }


def test_pleural_tags_are_signs_of_the_nodule():
    report = "Spiculated nodule in the left upper lobe with pleural tagging."
    assert "pleural retraction" in values(report, "specific_features", "lung tumor")
    report = "Nodule in the left upper lobe. Spiculation: no. Pleural tag: yes."
    assert values(report, "specific_features", "lung tumor") == {"pleural retraction"}


@pytest.mark.parametrize("lesion", clinical_knowledge_table().lesions)
def test_every_lesion_type_can_be_asked_about(lesion):
    assert values(f"{lesion.capitalize()}, ill-defined and heterogeneous.", "surface", lesion) == {"ill-defined"}


def test_an_alias_is_as_good_as_the_name():
    report = "Irregular mass in the left kidney."
    assert parse_report(report, "renal mass") == parse_report(report, "kidney_tumour")


# Properties

STATEMENTS = (
    "There is a round hypodense mass in the left kidney.",
    "The margins are ill-defined.",
    "It is heterogeneous.",
    "It is closely related to the spleen.",
    "No calcification.",
)
WORDS = [
    "no",
    "not",
    "without",
    "possible",
    "the",
    "a",
    "mass",
    "cyst",
    "in",
    "with",
    "left kidney",
    ",",
    ".",
    "and",
    "or",
]
TEXTS = st.one_of(
    st.text(max_size=200),
    st.lists(st.sampled_from([*WORDS, *(phrase for _, phrase in vocabulary().phrases())]), max_size=25).map(" ".join),
)
LESIONS = st.sampled_from(list(clinical_knowledge_table().lesions))


def as_sets(report: str, lesion: str = "kidney tumor") -> dict[str, set[str]]:
    return {aspect: set(found) for aspect, found in stated(report, lesion).items()}


@settings(deadline=None)
@given(TEXTS, LESIONS)
@example("", "kidney tumor")
@example("İ\x00 1) 2.5 . . ; : -", "liver tumor")
def test_any_text_gives_values_of_the_vocabulary_and_the_words_that_gave_them(report, lesion):
    parsed = parse_report(report, lesion)
    for each in parsed.evidence:
        assert each.value in vocabulary().values(each.aspect)
        assert each.words == report[each.start : each.end] != ""
        assert 0 < each.confidence <= STATED_CONFIDENCE
    used = {(each.aspect, each.value) for each in parsed.evidence if each.confidence > DOUBTED}
    assert used == set(parsed.attributes.phrases())


@pytest.mark.parametrize("order", list(permutations(STATEMENTS[1:]))[::5])
def test_the_order_of_statements_does_not_matter(order):
    assert as_sets(" ".join((STATEMENTS[0], *order))) == as_sets(" ".join(STATEMENTS))


def test_saying_it_twice_adds_nothing():
    report = " ".join(STATEMENTS)
    assert as_sets(f"{report} {report.replace('There is a', 'There is the')}") == as_sets(report)


@settings(deadline=None)
@given(st.sampled_from((" ", "  ", "\n", "\t")), st.sampled_from((str.upper, str.lower, string.capwords)))
def test_case_and_spaces_do_not_matter(space, change):
    report = " ".join(STATEMENTS)
    assert as_sets(change(report).replace(" ", space)) == as_sets(report)


def test_hyphens_do_not_matter():
    assert as_sets("A well defined, hypo-dense, round like mass.") == as_sets(
        "A well-defined, hypodense, round-like mass."
    )


@pytest.mark.parametrize("aspect", ["surface", "density_variation"])
def test_a_denied_value_turns_into_its_opposite_and_back(aspect):
    for (where, value), (_, opposite) in OPPOSITES.items():
        if where == aspect:
            assert values(f"The mass is {value}.", aspect) == {value}
            assert values(f"The mass is not {value}.", aspect) == {opposite}


def test_a_sentence_about_another_organ_changes_nothing():
    report = " ".join(STATEMENTS)
    for other in ("The spleen is homogeneous.", "The right kidney is unremarkable.", "The liver has a smooth surface."):
        assert as_sets(f"{report} {other}") == as_sets(report)


# The lexicon


def test_every_value_that_the_lexicon_gives_is_in_the_vocabulary():
    pairs = {
        pair for entries in (STATED, FEATURES, DENYING, IMPLIED) for given_values, _ in entries for pair in given_values
    }
    pairs |= set(OPPOSITES) | set(OPPOSITES.values())
    assert [(aspect, value) for aspect, value in pairs if value not in vocabulary().values(aspect)] == []


def test_a_phrase_with_a_denial_of_its_own_is_listed_as_one():
    optional = "(?: not)?"
    assert [
        p for _, phrases in STATED + FEATURES for phrase in phrases if denies(p := phrase.replace(optional, ""))
    ] == []


def test_every_value_of_the_vocabulary_is_understood_by_its_own_name():
    known = {pair for rule in rules() for pair in rule.values}
    missing = [pair for pair in vocabulary().phrases() if pair[0] != "location" and pair not in known]
    assert missing == []


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("well-defined", "well defined", True),
        ("well-defined", "welldefined", True),
        ("a b", "a  -b", True),
        ("a~b", "a x y b", True),
        ("a~b", "a but b", False),
        ("a~b", "a, b", False),
        ("mass", "masses", False),
    ],
)
def test_the_notation_of_the_lexicon(pattern, text, matches):
    assert bool(phrase_pattern(pattern).search(text)) is matches


@pytest.mark.parametrize("text", ["tumor thrombus", "tumour thrombus"])
def test_vocabulary_phrases_are_found_in_british_and_american_spelling(text):
    assert phrase_pattern(literal_pattern("tumor thrombus")).fullmatch(text)
