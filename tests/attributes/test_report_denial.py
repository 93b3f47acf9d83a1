"""What reports deny, doubt, compare over time, or leave to a person. All sentences here are written for the tests."""

import pytest

from nnunetv2_malenia.attributes.report_parser import DOUBTED, parse_report

CLOSE = "close relationship with surrounding organs"
NOT_CLOSE = "no close relationship with surrounding organs"
CLOSE_TO_VESSELS = "close relationship with vessels"


def stated(report: str, lesion: str = "kidney tumor") -> dict[str, tuple[str, ...]]:
    return parse_report(report, lesion).attributes.stated


def values(report: str, aspect: str, lesion: str = "kidney tumor") -> set[str]:
    return set(stated(report, lesion).get(aspect, ()))


@pytest.mark.parametrize(
    ("lesion", "report", "denied", "feature"),
    [
        ("pancreas tumor", "The pancreatic duct is mildly dilated.", "The pancreatic duct is not dilated.",
         "pancreatic duct dilatation"),
        ("pancreas tumor", "Dilatation of the common bile duct.", "No dilatation of the common bile duct.",
         "bile duct dilatation"),
        ("pancreas cyst", "Cyst with internal septa.", "Cyst without internal septa.", "septation"),
        ("lung tumor", "Nodule with short spicules.", "Nodule; spicules are not seen.", "spiculation"),
        ("lung tumor", "Nodule with traction of the adjacent pleura.", "Nodule. No traction of the pleura.",
         "pleural retraction"),
        ("lung tumor", "Nodule with a cavity.", "Nodule with no cavity.", "cavity"),
        ("colon tumor", "Circumferential thickening of the colonic wall.", "No thickening of the colonic wall.",
         "wall thickening"),
        ("colon tumor", "Tumour with pericolic stranding.", "Tumour without pericolic stranding.", "fat stranding"),
        ("kidney tumor", "Mass with macroscopic fat.", "Mass negative for macroscopic fat.", "intralesional fat"),
        ("kidney tumor", "Dilatation of the renal pelvis.", "The renal pelvis is not dilated.", "hydronephrosis"),
    ],
)  # fmt: skip
def test_a_sign_is_found_when_stated_and_not_when_denied(lesion, report, denied, feature):
    assert feature in values(report, "specific_features", lesion)
    assert feature not in values(denied, "specific_features", lesion)


@pytest.mark.parametrize(
    "report",
    [
        "Liver mass: hypodense. Calcification: none. Necrosis: no.",
        "Liver mass, hypodense.\nCalcifications: No\nNecrosis: No\nFat: No",
        "Liver mass, hypodense.\u2028Calcifications: No\u2028Necrosis: No",
        "Liver mass, hypodense.\nCalcification\tno\nNecrosis\tno",
        "Liver mass, hypodense. Calcification (\u2212). Necrosis (\u2212).",
        "Liver mass, hypodense. Calcification \u2013 no.",
        "Hypodense liver mass. Calcification: not present.",
        "Hypodense liver mass. Calcification, necrosis and cavitation are absent.",
        "The previously seen calcification has resolved. The liver mass is hypodense.",
        "The liver mass no longer shows calcification and is hypodense.",
        "Hypodense liver mass. Calcification? None. Necrosis? None.",
        "Hypodense liver mass. Tumor thrombus: absent. Bile duct dilatation: none.",
    ],
)
def test_signs_that_are_denied_are_not_stated(report):
    parsed = parse_report(report, "liver tumor")
    assert parsed.attributes.stated == {"location": ("liver",), "density": ("hypodense",)}
    assert [each for each in parsed.evidence if each.aspect == "specific_features"] == []


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ("No increase in the hypodense liver lesion.", {"hypodense"}),
        ("Without change in the hypodense liver lesion.", {"hypodense"}),
        ("Hypodense liver lesion, not seen on the previous CT.", {"hypodense"}),
        ("Hypodense liver lesion, larger than on the previous CT.", {"hypodense"}),
        ("Hypodense liver lesion, unchanged from the previous CT.", {"hypodense"}),
        ("Hypodense liver lesion not previously seen.", {"hypodense"}),
        ("Hypodense liver lesion as described previously.", {"hypodense"}),
        ("Previously described hypodense liver lesion, unchanged.", {"hypodense"}),
        ("The liver mass, formerly hypodense, is now hyperdense.", {"hyperdense"}),
        ("The liver mass was hypodense and is now hyperdense.", {"hyperdense"}),
        ("The liver mass has changed from hypodense to hyperdense.", {"hyperdense"}),
        ("Previously, the liver mass was hypodense. Now it is hyperdense.", {"hyperdense"}),
        ("The liver mass is no longer hypodense but hyperdense.", {"hyperdense"}),
        ("Liver mass. Hypodense: no. Hyperdense: yes.", {"hyperdense"}),
        ("Liver mass, neither hypodense nor hyperdense.", set()),
    ],
)
def test_what_a_lesion_is_now_is_stated(report, expected):
    assert values(report, "density", "liver tumor") == expected


def test_what_a_lesion_was_is_shown_with_the_reason():
    parsed = parse_report("The liver mass, formerly hypodense, is now hyperdense.", "liver tumor")
    assert [(e.value, e.doubt) for e in parsed.evidence if e.confidence == DOUBTED] == [
        ("hypodense", "said of an earlier time")
    ]


@pytest.mark.parametrize(
    "words", ["without enhancement", "with no contrast enhancement", "that does not enhance", "(enhancement: none)"]
)
def test_no_enhancement_says_nothing_about_the_scan(words):
    assert values(f"Hypodense liver mass {words}.", "enhancement", "liver tumor") == {"no enhancement"}


def test_several_lesions_of_a_type_are_alternatives_and_marked():
    parsed = parse_report(
        "There is a round mass in the left kidney. There is another mass in the right kidney, irregular.",
        "kidney tumor",
    )
    assert parsed.attributes.location == ("left kidney", "right kidney")
    assert parsed.attributes.shape == ("round-like", "irregular")
    assert any("several lesions" in reason for reason in parsed.unclear)


def test_doubted_values_are_shown_and_not_used():
    parsed = parse_report("Mass of the left kidney with possible necrosis.", "kidney tumor")
    assert parsed.attributes.specific_features == ()
    assert [(e.value, e.confidence) for e in parsed.evidence if e.aspect == "specific_features"] == [
        ("necrosis", DOUBTED)
    ]


@pytest.mark.parametrize(
    ("lesion", "words", "expected"),
    [
        ("liver tumor", "abuts the portal vein", {CLOSE_TO_VESSELS}),
        ("liver tumor", "has a close relationship with the middle hepatic vein", {CLOSE_TO_VESSELS}),
        ("liver tumor", "is in contact with the left gastric artery", {CLOSE_TO_VESSELS}),
        ("liver tumor", "is adherent to vascular structures", {CLOSE_TO_VESSELS}),
        ("liver tumor", "invades the IVC", {CLOSE_TO_VESSELS}),
        ("liver tumor", "has an indistinct margin with the portal vein", {CLOSE_TO_VESSELS}),
        ("liver tumor", "abuts the portal vein and the stomach", {CLOSE, CLOSE_TO_VESSELS}),
        ("liver tumor", "abuts the portal vein but not the stomach", {CLOSE_TO_VESSELS}),
        ("liver tumor", "does not abut the portal vein", set()),
        ("liver tumor", "is not in contact with the portal vein or the stomach", {NOT_CLOSE}),
        ("pancreas tumor", "abuts the superior mesenteric vein", {CLOSE_TO_VESSELS}),
        ("pancreas tumor", "touches the splenic vessels", {CLOSE_TO_VESSELS}),
        ("pancreas tumor", "is in contact with the gastroduodenal artery and the duodenum", {CLOSE, CLOSE_TO_VESSELS}),
        ("pancreas tumor", "shows a preserved fat plane to the SMA", set()),
        ("lung tumor", "abuts the aortic arch", {CLOSE_TO_VESSELS}),
    ],
)
def test_a_vessel_is_no_organ(lesion, words, expected):
    assert values(f"The mass {words}.", "relationship", lesion) == expected


def test_a_relation_to_a_duct_is_for_a_person_to_judge():
    parsed = parse_report("The liver mass abuts the common hepatic duct.", "liver tumor")
    assert parsed.attributes.relationship == ()
    assert [(e.value, e.doubt) for e in parsed.evidence if e.aspect == "relationship"] == [
        (CLOSE, "close to a duct, for which there is no value")
    ]


@pytest.mark.parametrize(
    "report",
    [
        "No evidence of a renal mass. Simple cyst of the left kidney.",
        "Renal mass: none.",
        "Kidneys: no mass or stone.",
        "The kidneys are free of mass lesions.",
        "Neither kidney shows a mass.",
        "The previously seen renal mass has resolved.",
        "Interval resolution of the left renal mass.",
        "Hypodense mass in the left kidney. It is no longer seen.",
        "Contrast-enhanced CT. No renal mass. Hydronephrosis on the left.",
        "No renal mass. Irregular mass in the liver.",
    ],
)
def test_a_lesion_that_is_denied_is_reported_as_denied(report):
    parsed = parse_report(report, "kidney tumor")
    assert parsed.is_denied
    assert parsed.attributes.stated == {}
    assert parsed.unclear == ("the report denies this lesion",)


@pytest.mark.parametrize(
    "words",
    ["No other lesions", "No mass in the right kidney", "No mass effect", "No metastases", "Cyst: none", "No change"],
)
def test_after_a_denial_the_lesion_is_still_spoken_of(words):
    assert stated(f"Mass in the left kidney. {words}. The margins are ill-defined.") == {
        "location": ("left kidney",),
        "surface": ("ill-defined",),
    }


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        ("A renal mass cannot be excluded.", "the report doubts this lesion"),
        ("Possible hypodense mass in the left kidney.", "the report doubts this lesion"),
        ("Known mass in the left kidney, irregular. The mass has resolved.", "is said to be gone"),
    ],
)
def test_a_lesion_that_may_not_be_there_is_for_a_person_to_judge(report, reason):
    assert any(reason in why for why in parse_report(report, "kidney tumor").unclear)


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        ("  ", "the report is empty"),
        ("The spleen shows a round cyst.", "no sentence speaks of this lesion"),
        ("A mass is seen.", "no aspect is stated"),
    ],
)
def test_a_report_that_says_nothing_is_told(report, reason):
    parsed = parse_report(report, "kidney tumor")
    assert parsed.attributes.stated == {}
    assert parsed.unclear == (reason,)
