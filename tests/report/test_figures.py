"""Static slices: radiological view, and outlines around what they outline."""

import base64
import io
import re

import numpy as np
import pytest
from matplotlib.image import imread

from nnunetv2_malenia.report.figures import COLOURS, colour_of, draw_slice
from nnunetv2_malenia.report.volumes import Pictured

SPACING_MM = (2.0, 3.0, 5.0)
SHAPE = (30, 24, 20)
# towards the patient's right, front and head
LESION = np.s_[22:26, 16:19, 14:17]


@pytest.fixture
def case():
    image = np.full(SHAPE, -1000, np.float32)
    image[LESION] = 600
    return Pictured(image, {3: image > 0}, np.diag([*SPACING_MM, 1.0]), is_ct=True)


def picture_of(drawn):
    return imread(io.BytesIO(base64.b64decode(drawn.jpeg)), format="jpg").astype(float)[..., 0]


def corners_mm(path):
    points = np.array([[float(part) for part in point.split()] for point in re.split("[ML]", path.strip("Z")) if point])
    return points.min(axis=0), points.max(axis=0)


@pytest.mark.parametrize(
    ("plane", "voxel", "column_mm", "row_mm", "left_top", "right_bottom"),
    [
        ("axial", (0, 0, 15), 2.0, 3.0, (8, 15), (16, 24)),  # 30 - 26 columns from the left, 24 - 19 rows from the top
        ("coronal", (0, 17, 0), 2.0, 5.0, (8, 15), (16, 30)),
    ],
)
def test_right_is_left_and_the_outline_lies_on_the_lesion(
    case, plane, voxel, column_mm, row_mm, left_top, right_bottom
):
    drawn = draw_slice(case, plane, voxel)
    low, high = corners_mm(drawn.outlines[0].path)

    assert drawn.outlines[0].query_id == 3
    assert np.allclose(low, left_top)
    assert np.allclose(high, right_bottom)
    rows, columns = np.nonzero(picture_of(drawn) > 128)
    assert np.allclose([columns.min() * column_mm, rows.min() * row_mm], left_top)
    assert np.allclose([(columns.max() + 1) * column_mm, (rows.max() + 1) * row_mm], right_bottom)


def test_a_slice_beside_the_lesion_has_no_outline(case):
    assert draw_slice(case, "axial", (0, 0, 2)).outlines == ()


def test_neighbouring_queries_have_different_colours_however_many_there_are():
    assert all(colour_of(number) != colour_of(number + 1) for number in range(1, 3 * len(COLOURS)))
