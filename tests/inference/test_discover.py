"""Without an attribute table: every lesion of any type is found, numbered, read and named."""

import json

import jsonschema
import nibabel as nib
import numpy as np
import pytest
from tiny_model import BrightIsLesion, save_ct

from nnunetv2_malenia.inference.export import OutputOptions, read_findings
from nnunetv2_malenia.inference.findings import CaseFindings
from nnunetv2_malenia.inference.predictor import MaleniaPredictor

HERE = {"num_processes_preprocessing": 0, "num_processes_export": 0}


@pytest.fixture(scope="module")
def predictor(model):
    return MaleniaPredictor.from_model_folder(model, device="cpu", use_mirroring=False)


@pytest.fixture
def bright(predictor):
    """Discovers voxels above 140 HU; what it reads there is the tiny model's own."""

    class Discovers(BrightIsLesion):
        def forward(self, x):
            return super().forward(x)[:, [0, 2]]

    predictor.discover()
    predictor.network = Discovers()
    return predictor


def label_map_of(path):
    return np.asarray(nib.load(path).dataobj)


def body(shape=(30, 26, 20)):
    ct = np.full(shape, 60, np.int16)
    ct[0] = -1000
    return ct


def found_in(bright, tmp_path, ct, **options):
    image = save_ct(tmp_path / "case.nii.gz", ct)
    bright.predict_cases(image, tmp_path / "out", OutputOptions(**options), **HERE)
    (finding,) = read_findings(tmp_path / "out" / "case.json").findings
    return finding, label_map_of(tmp_path / "out" / "case.nii.gz")


def test_none_and_forty_lesions_are_found_as_none_and_forty(bright, tmp_path):
    finding, labels = found_in(bright, tmp_path, body())
    assert (finding.lesions, finding.left_out, labels.max()) == ((), 0, 0)
    ct = body()
    ct[2:27:6, 3:24:6, 5:17:10] = 300  # 5 x 4 x 2
    finding, labels = found_in(bright, tmp_path, ct)
    assert len(finding.lesions) == 40
    assert np.bincount(labels.ravel())[1:].tolist() == [1] * 40
    assert all(lesion.aspects and lesion.diseases for lesion in finding.lesions)
    finding, labels = found_in(bright, tmp_path, ct, min_volume_ml=0.1)
    assert (finding.lesions, finding.left_out, labels.max()) == ((), 40, 0)


def test_a_lesion_across_tiles_is_one_and_one_cut_by_the_border_is_marked(bright, tmp_path):
    ct = body()
    ct[3:27, 12, 10] = 300  # 24 voxels, through four tiles
    ct[20:24, 20, 0:3] = 300
    finding, labels = found_in(bright, tmp_path, ct)
    across, cut = finding.lesions
    assert (across.cut_by_border, cut.cut_by_border) == (False, True)
    assert (across.volume_ml, cut.volume_ml) == (pytest.approx(24 * 0.08), pytest.approx(12 * 0.08))
    np.testing.assert_array_equal(labels[3:27, 12, 10], 1)
    np.testing.assert_array_equal(labels[20:24, 20, 0:3], 2)
    assert np.count_nonzero(labels) == 36
    assert across.aspects
    assert cut.aspects


def test_lesions_that_touch_are_two_where_two_tokens_hold_them(bright, tmp_path, monkeypatch):
    """The reading is the tiny net's but for its tokens: one holds x < 15, the other the rest."""
    from nnunetv2_malenia.inference import predictor

    def read(*arguments):
        reading = predictor_read(*arguments)
        z, y, x = np.nonzero(reading.row >= 0)
        token = np.zeros_like(reading.token)
        token[reading.row[z, y, x], 1] = x * reading.block[2] >= 14
        return reading._replace(token=token)

    predictor_read = predictor.read_similarity
    monkeypatch.setattr(predictor, "read_similarity", read)
    ct = body()
    ct[11:17, 11:14, 9:11] = 300
    ct[13, 12, 10] = 340
    finding, labels = found_in(bright, tmp_path, ct)
    first, second = finding.lesions
    assert (first.id, second.id) == (1, 2)
    assert first.volume_ml + second.volume_ml == pytest.approx(36 * 0.08)
    assert sorted(set(labels[11:14].ravel()) - {0}) in ([1], [2])
    assert sorted(set(labels[14:17].ravel()) - {0}) in ([1], [2])


def test_findings_without_a_table_keep_to_the_published_schema(bright, tmp_path):
    from nnunetv2_malenia.inference.findings import findings_schema_text

    ct = body()
    ct[5:8, 12, 10] = 300
    found_in(bright, tmp_path, ct)
    content = json.loads((tmp_path / "out" / "case.json").read_text())
    jsonschema.Draft202012Validator(json.loads(findings_schema_text())).validate(content)
    assert CaseFindings.model_validate(content).findings[0].lesions[0].diseases
