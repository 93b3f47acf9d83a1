"""report.html: what it says, what it escapes, what it does without."""

import gzip
import html
import json
import re
import shutil
from base64 import b64decode

import nibabel as nib
import numpy as np
import pytest
from tiny_run import RECOGNISED, TinyRun

from nnunetv2_malenia.attributes.schema import AttributeTable
from nnunetv2_malenia.files import MaleniaError, OutputFolder
from nnunetv2_malenia.report.html import write_report

AFFINE = np.diag([4.0, 4.0, 5.0, 1.0])
SHAPE = (20, 18, 12)
TUMOR = np.zeros(SHAPE, bool)
TUMOR[5:9, 6:9, 4:6] = True
STONE = np.zeros(SHAPE, bool)
STONE[12:14, 8:10, 5] = True


def ct():
    image = np.full(SHAPE, -1000, np.int16)
    image[2:-2, 2:-2, 1:-1] = 50
    return nib.Nifti1Image(image, AFFINE)


@pytest.fixture
def run(tmp_path):
    return TinyRun(tmp_path / "run")


def report_of(run):
    run.files.finish()
    return write_report(run.run_json, run.source).read_text(encoding="utf-8")


def text_of(page):
    """What a reader sees, without white space between lines and without what scripts hold."""
    page = re.sub(r"<(script|style|template).*?</\1>", "", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", page)).split())


def test_measures_of_every_lesion_are_in_the_page(run):
    run.answer("a", ct(), {"liver tumor": TUMOR, "kidney stone": STONE})
    text = text_of(report_of(run))

    assert "liver tumor seen in training 1 lesion, 1.92 ml in all highest score 0.90" in text  # 24 voxels of 0.08 ml
    assert "kidney stone unseen 1 lesion, 0.32 ml in all" in text
    assert "1 1.92 17.9 16 x 12 x 10 -26, -28, 22 0.90 Show" in text  # 17.9: root of 16 x 16 + 8 x 8
    assert "not for clinical use" in text
    assert "uncalibrated" in text


def test_what_was_recognised_and_discarded_is_shown_where_the_case_has_it(run):
    run.answer("a", ct(), {"liver tumor": TUMOR}, more=RECOGNISED)
    page = report_of(run)

    text = text_of(page)
    assert "Location liver 0.91 spleen (0.20)" in text
    assert "Surface ill-defined -0.05 smooth (-0.10)" in text
    assert "1. liver tumor seen in training 0.81 2. liver cyst unseen 0.55" in text
    assert "Density hypodense selected 0.80 Density hyperdense discarded 0.11" in text
    assert "Shape round-like" in text
    assert 'style="width:91.0%"' in page
    assert 'style="width:0%"' in page  # a bar below nought is empty, not broken


def test_a_case_without_these_shows_nothing_in_their_place(run):
    run.answer("a", ct(), {"liver tumor": TUMOR})
    text = text_of(report_of(run))

    assert "what was recognised" not in text
    assert "Query as asked Location liver Shape round-like Density hypodense Density hyperdense" in text


def test_failures_warnings_and_empty_answers_are_told(run):
    run.answer("empty", ct(), {}, warnings=("units other than mm",))
    run.fail("broken", "broken.nii.gz: the file is damaged")
    text = text_of(report_of(run))

    assert "empty none 1 warning broken failed broken.nii.gz: the file is damaged" in text
    assert "units other than mm" in text
    assert "nothing found" in text


def test_whatever_comes_from_files_is_escaped(tmp_path):
    evil = "<img src=x onerror=alert(1)>"
    run = TinyRun(tmp_path / "run", AttributeTable(lesions={"a</script><b>": {"location": evil}}))
    more = {"aspects": [{"aspect": evil, "value": evil, "score": 0.5, "runner_up": evil, "runner_up_score": 0.1}],
            "diseases": [{"name": evil, "score": 0.1, "seen_in_training": False}],
            "checked": [{"aspect": "location", "value": evil, "score": 0.5, "verdict": "kept"}]}  # fmt: skip
    run.answer("case<i>", ct(), {"a</script><b>": TUMOR}, more={"a</script><b>": more}, warnings=(evil,))
    run.fail("other", evil)
    page = report_of(run)

    for fragment in ("<img", "<b>a<", "</script><b>", "case<i>"):
        assert fragment not in page
    assert page.count("<script") == page.count("</script>")
    assert f"{evil}" in text_of(page)


def test_the_file_asks_for_nothing_outside_itself(run):
    run.answer("a", ct(), {"liver tumor": TUMOR})
    page = report_of(run)

    assert "default-src 'none'" in page
    assert set(re.findall(r'(?:src|href)="(data:image|#)?', page)) == {"data:image", "#"}


def test_embedded_volumes_are_the_case(run):
    run.answer("a", ct(), {"liver tumor": TUMOR})
    page = report_of(run)

    content = re.search(r'id="case-1-mask-1">([^<]+)<', page).group(1)
    mask = nib.Nifti1Image.from_bytes(gzip.decompress(b64decode(content)))
    centre = nib.affines.apply_affine(mask.affine, np.argwhere(np.asarray(mask.dataobj))).mean(axis=0)
    assert np.allclose(centre, nib.affines.apply_affine(AFFINE, np.argwhere(TUMOR)).mean(axis=0))
    assert 'id="case-1-mask-2"' not in page  # found nothing


@pytest.mark.parametrize("save_masks", [False, True])
def test_overlap_is_shown_whole_or_said_to_be_cut(run, save_masks):
    run.answer("a", ct(), {"liver tumor": TUMOR, "kidney stone": TUMOR}, save_masks=save_masks)
    page = report_of(run)

    assert ('id="case-1-mask-2"' in page) == save_masks
    assert ("Masks are taken from the label map" in page) != save_masks


def test_where_no_type_was_asked_for_every_lesion_is_shown_and_none_is_called_unseen(tmp_path):
    run = TinyRun(tmp_path / "run", AttributeTable(lesions={"any lesion": {"location": "liver"}}), discovers=True)
    both = TUMOR | STONE
    run.answer("a", ct(), {"any lesion": both})
    nib.save(nib.Nifti1Image((TUMOR + 2 * STONE).astype(np.uint8), AFFINE), run.output / "a.nii.gz")
    answers = json.loads((run.output / "a.json").read_text())
    answers["findings"][0]["seen_in_training"] = None
    (run.output / "a.json").write_text(json.dumps(answers))
    page = report_of(run)

    content = re.search(r'id="case-1-mask-1">([^<]+)<', page).group(1)
    mask = nib.Nifti1Image.from_bytes(gzip.decompress(b64decode(content)))
    assert np.asarray(mask.dataobj).sum() == both.sum()
    assert "any lesion 2 lesions" in text_of(page)
    assert "Masks are taken from the label map" not in page


def test_without_its_image_a_case_keeps_its_numbers(run):
    run.answer("a", ct(), {"liver tumor": TUMOR})
    shutil.rmtree(run.source)
    text = text_of(report_of(run))

    assert "no pictures: " in text
    assert "1.92" in text


def test_one_image_as_source(run):
    run.answer("a", ct(), {"liver tumor": TUMOR})
    run.files.finish()

    assert "case-1-image" in write_report(run.run_json, run.source / "a_0000.nii.gz").read_text(encoding="utf-8")


@pytest.mark.parametrize("in_the_way", ["a folder", "a user's own page"])
def test_a_report_replaces_nothing_that_is_not_ours(run, in_the_way):
    run.answer("a", ct(), {})
    run.files.finish()
    page = run.output / "report.html"
    page.mkdir() if in_the_way == "a folder" else page.write_text("a user's own")
    with pytest.raises(MaleniaError, match=r"report\.html"):
        write_report(run.run_json, run.source)
    assert page.is_dir() or page.read_text() == "a user's own"
    assert not list(run.output.glob(".malenia_partial/report*"))


def test_a_new_run_takes_the_report_of_the_last_one_away(tmp_path):
    run = TinyRun(tmp_path / "run")
    run.answer("a", ct(), {})
    report_of(run)
    type(run.files)(OutputFolder(run.output), run.files.record)

    assert not (run.output / "report.html").exists()
