"""What run.json says of contradicted queries."""

import pytest

from nnunetv2_malenia.attributes.schema import AspectValues
from nnunetv2_malenia.inference.findings import (
    BoundingBox,
    CaseFindings,
    CheckedAttribute,
    Corners,
    Lesion,
    LesionFinding,
    Position,
)
from nnunetv2_malenia.inference.run_record import discarded_of

NOWHERE = (0.0, 0.0, 0.0)
LESION = Lesion(
    id=1,
    volume_ml=1.0,
    longest_axial_diameter_mm=1.0,
    extent_mm=NOWHERE,
    centre=Position(ras_mm=NOWHERE, lps_mm=NOWHERE),
    bounding_box=BoundingBox(ras_mm=Corners(min=NOWHERE, max=NOWHERE), lps_mm=Corners(min=NOWHERE, max=NOWHERE)),
    presence_score=0.9,
    cut_by_border=False,
    shared_with=(),
)


def case(verdicts, *, found=True):
    checked = [CheckedAttribute(aspect=a, value=v, score=0.014, verdict=verdict) for a, v, verdict in verdicts]
    finding = LesionFinding(query_id=1, name="lung tumor", seen_in_training=True, presence_score=0.9, volume_ml=1.0,
                            lesions=(LESION,) if found else (), left_out=0, attributes=AspectValues(),
                            checked=tuple(checked))  # fmt: skip
    return CaseFindings(case="a", threshold=0.5, min_volume_ml=0.0, warnings=(), findings=(finding,), inputs={},
                        outputs={}, asked_sha256="")  # fmt: skip


@pytest.mark.parametrize(
    ("verdicts", "found", "lines"),
    [
        ([("location", "left lung", "discarded")], True, ("lung tumor: location left lung (0.01)",)),
        ([("location", "left lung", "discarded")], False, ()),  # nothing is said of lesions that are not there
        ([("location", "left lung", "discarded"), ("location", "right lung", "selected")], True, ()),
        (
            [("density", "hypodense", "discarded"), ("density", "isodense", "discarded"), ("shape", "round", "kept")],
            True,
            ("lung tumor: density hypodense (0.01), isodense (0.01)",),
        ),
    ],
)
def test_an_aspect_of_a_found_lesion_is_contradicted_when_all_of_its_values_are(verdicts, found, lines):
    assert discarded_of(case(verdicts, found=found)) == lines
