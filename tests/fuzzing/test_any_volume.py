"""Volumes with anything in their headers: read as they say, or refused in a line, by every command that reads them."""

import gzip
import re
import shutil
from math import prod

import header_faults as faults
import nibabel as nib
import numpy as np
import pytest
from fuzzed import ends_well, examples, spoiled_bytes
from hypothesis import assume, given
from hypothesis import strategies as st
from tiny_data import ct, mask, msd_task, save
from tiny_model import AFFINE, SPACING_ZYX, tiny_ct, tiny_preparation
from tiny_study import Study

from nnunetv2_malenia import cli
from nnunetv2_malenia.volumes import InputError, open_volume
from nnunetv2_malenia.volumes.volume import MAX_DEFLATION

NUMBERS = [0, 1, -1, 2, 3, 7, 8, 127, 128, 255, 352, 512, 1024, 32767, -32768, 2**31 - 1, 2**63 - 1]
REALS = [0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 1e-3, 352.0, 1e6, 3e38, -3e38, np.nan, np.inf, -np.inf]
WORDS = [
    "", "0", "1", "-1", "1.5", "nan", "inf", "1e999", "1e-30", "9" * 30, "9" * 5000, "none", "(1,0,0)", "(0,0,0)", "()",
    "1 1", "1 1 1", "6 7 8", "99999 99999 99999", "0 0 0", "nan nan nan", "1 0 0 0 1 0 0 0 1", "LOCAL", "other.raw",
    "float", "gzip", "raw", "bzip2", "hex", "True", "False", "big", "\0", "\x1b", "é", "²", "MET_FLOAT", "block", "RAS",
]  # fmt: skip


@st.composite
def nifti_files(draw, voxels, affine):
    """A NIfTI file with up to three fields of its header set to a value of their kind."""
    kind = draw(st.sampled_from([nib.Nifti1Image, nib.Nifti1Image, nib.Nifti2Image]))
    raw = faults.nifti_bytes(voxels, affine, kind=kind)
    fields = kind.header_class.template_dtype.fields
    for name in draw(st.lists(st.sampled_from(sorted(fields)), max_size=3)):
        dtype, offset = fields[name]
        start = offset + dtype.base.itemsize * draw(st.integers(0, max(0, prod(dtype.shape) - 1)))
        content = draw(st.binary(min_size=dtype.base.itemsize, max_size=dtype.base.itemsize) | value_of(dtype.base))
        raw[start : start + len(content)] = content
    return bytes(raw)


def value_of(dtype):
    if dtype.kind == "S":
        return st.just(b"x" * dtype.itemsize)
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return st.sampled_from([np.array(value).astype(dtype).tobytes() for value in REALS])
    return st.sampled_from([np.array(value).astype(dtype).tobytes() for value in NUMBERS])


@st.composite
def text_files(draw, write, path, voxels, affine):
    """An NRRD or MHA file with up to three lines of its header changed, left out, or there twice."""
    write(path, voxels, affine)
    content = path.read_bytes()
    end = re.search(rb"\n\n|LOCAL\n", content).end()
    lines = content[:end].split(b"\n")
    for i in draw(st.lists(st.integers(0, len(lines) - 2), max_size=3)):
        key = re.match(rb"[^:=]*[:=]? ?", lines[i])[0]
        word = draw(st.sampled_from(WORDS)).encode()
        lines[i] = draw(st.sampled_from([key + word, lines[i] + b" " + word, b"", lines[i] + b"\n" + key + word, word]))
    return b"\n".join(lines) + content[end:]


@st.composite
def volume_files(draw, path, voxels=None, affine=AFFINE, endings=(".nii", ".nii.gz", ".nrrd", ".mha")):
    """Write a volume that may be spoiled -> its path."""
    voxels = tiny_ct() if voxels is None else voxels
    ending = draw(st.sampled_from(endings))
    path = path.with_name(path.name + ending)
    if ending in (".nrrd", ".mha"):
        write = faults.write_nrrd if ending == ".nrrd" else faults.write_mha
        content = draw(text_files(write, path, voxels.astype(np.int16), affine))
    else:
        content = draw(nifti_files(voxels, affine))
    if ending == ".nii.gz":
        content = gzip.compress(content, 1)
    path.write_bytes(draw(spoiled_bytes(content)) if draw(st.integers(0, 4)) == 0 else content)
    return path


@examples(150)
@given(data=st.data())
def test_any_file_is_opened_as_a_volume_or_refused(tmp_path, data):
    path = data.draw(volume_files(tmp_path / "a"))
    refusal = None
    try:
        volume = open_volume(path)
        voxels = volume.voxels()
    except InputError as error:
        refusal = str(error)
    if refusal is not None:
        assert str(path) in refusal
        assert len(refusal.splitlines()) == 1
    else:
        assert voxels.shape == volume.shape
        assert np.isfinite(volume.affine).all()
        assert voxels.nbytes <= 8 * MAX_DEFLATION * path.stat().st_size
        assert all(len(doubt.splitlines()) == 1 for doubt in volume.doubts)
    path.unlink()


@examples(30)
@given(data=st.data())
def test_any_image_is_prepared_for_the_network_or_a_fault(tmp_path, data):
    path = data.draw(volume_files(tmp_path / "a"))
    try:
        volume = open_volume(path)
        assume(prod(volume.shape * nib.affines.voxel_sizes(volume.affine)) < 1e6 * prod(SPACING_ZYX))
    except InputError:
        pass
    case = tiny_preparation()({0: path})
    assert (case.data is None) is bool(case.fault)
    if case.fault:
        assert len(case.fault.splitlines()) == 1
    else:
        assert np.isfinite(case.data).all()
    path.unlink()


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return msd_task(tmp_path_factory.mktemp("msd") / "Task03_Liver", {"liver_0": (1, 2)})


@examples(30)
@given(data=st.data(), part=st.sampled_from(["imagesTr", "labelsTr"]), is_dry=st.booleans())
def test_any_case_of_msd_is_converted_or_refused(task, tmp_path, data, part, is_dry):
    for name, voxels in (("imagesTr", ct()), ("labelsTr", mask(1, 2))):
        path = save(task / name / "liver_0.nii.gz", voxels)
        if name == part:
            data.draw(volume_files(path.with_name("liver_0"), voxels, nib.load(path).affine, (".nii.gz",)))
    options = ["--dry-run"] if is_dry else []
    ends_well(cli.convert_msd, "-i", task, "-d", "3", "-o", tmp_path / "raw", *options, folder=tmp_path)
    shutil.rmtree(tmp_path / "raw", ignore_errors=True)


@examples(12)
@given(data=st.data(), part=st.sampled_from(["predictions", "references"]))
def test_any_prediction_and_reference_is_evaluated_or_refused(tmp_path, data, part):
    shutil.rmtree(tmp_path / "study", ignore_errors=True)
    study = Study(tmp_path / "study")
    study.ask(liver_tumor=True, liver_cyst=False)
    for case_id in "ab":
        study.predict(case_id, {1: (0, 0, 0), 2: (3, 3, 3)}, liver_tumor=0.9, liver_cyst=0.8)
    path = getattr(study, part) / "a.nii.gz"
    image = nib.load(path)
    voxels = np.asarray(image.dataobj)
    path.unlink()
    data.draw(volume_files(path.with_name("a"), voxels, image.affine))
    ends_well(cli.evaluate, "-i", study.predictions, "-g", study.references, "--labels", study.labels, "-np", "1",
              "-o", study.folder / "out", "--disable_progress_bar", folder=study.folder)  # fmt: skip


@examples(15)
@given(data=st.data(), command=st.sampled_from(["render", "insert"]), part=st.sampled_from(["a", "organs"]))
def test_any_label_map_or_image_is_drawn_on_or_refused(tmp_path, data, command, part):
    shutil.rmtree(tmp_path / "in", ignore_errors=True)
    labels = np.zeros((14, 12, 10), np.uint8)
    labels[2:12, 2:10, 2:8] = 1
    (tmp_path / "in").mkdir()
    (tmp_path / "t.json").write_text('{"lesions": {"liver tumor": {"location": "liver", "density": "hypodense"}}}')
    (tmp_path / "names.json").write_text('{"background": 0, "liver": 1}')
    spoilt = data.draw(volume_files(tmp_path / "in" / part, labels, AFFINE, (".nii.gz",)))
    whole = save(tmp_path / "whole.nii.gz", labels, AFFINE)
    image, organs = (spoilt, whole) if part == "a" else (whole, spoilt)
    source = ["--labels", tmp_path / "in"] if command == "render" else ["--image", image, "--organs", organs]
    out = tmp_path / "Dataset001_Out"
    ends_well(cli.phantom, command, *source, "--attributes", tmp_path / "t.json", "--names", tmp_path / "names.json",
              "-o", out, folder=tmp_path)  # fmt: skip
    shutil.rmtree(out, ignore_errors=True)
