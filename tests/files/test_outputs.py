"""What we wrote may be replaced or removed; what anybody else wrote, or changed, stays as it is."""

import os
from pathlib import Path

import pytest

from nnunetv2_malenia.files import MaleniaError, OutputFolder, check_free


def text(content):
    return lambda name: Path(name).write_text(content)


@pytest.fixture
def results(tmp_path):
    """A folder with one result of an earlier run, a.txt."""
    earlier = OutputFolder(tmp_path / "results")
    earlier.open()
    earlier.write("a.txt", text("earlier"))
    earlier.close()
    return tmp_path / "results"


def names_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_later_run_replaces_what_an_earlier_one_wrote(results):
    later = OutputFolder(results)
    later.claim(["a.txt"])
    later.open()
    later.write("a.txt", text("later"))
    assert (results / "a.txt").read_text() == "later"


@pytest.mark.parametrize("how", ["changed", "never ours", "a link"])
def test_what_is_not_ours_is_an_error_before_anything_is_written(results, how):
    path = results / "a.txt"
    if how == "changed":
        path.write_text("by hand")
    elif how == "never ours":
        (results / "b.txt").write_text("a user's")
    else:
        path.rename(results / "elsewhere.txt")
        path.symlink_to("elsewhere.txt")
    before = {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    with pytest.raises(MaleniaError, match=r"[ab]\.txt was not written by an earlier run, or was changed since"):
        OutputFolder(results).claim(["a.txt", "b.txt"])
    assert before == {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}


def test_what_may_be_overwritten_is_replaced_and_nothing_else(results):
    (results / "b.txt").write_text("a user's")
    (results / "c.txt").write_text("a user's too")
    later = OutputFolder(results)
    later.claim(["b.txt"], overwrite=True)
    later.open()
    later.remove(["b.txt", "c.txt"])  # as for a case that fails: to be replaced is not to be removed
    assert (results / "b.txt").read_text() == "a user's"
    later.write("b.txt", text("ours"))
    later.remove(["b.txt", "c.txt"])
    assert not (results / "b.txt").exists()
    assert (results / "c.txt").read_text() == "a user's too"


def test_a_link_that_may_be_overwritten_gives_way_and_what_it_leads_to_stays(results, tmp_path):
    (tmp_path / "archive.txt").write_text("a user's")
    (results / "b.txt").symlink_to(tmp_path / "archive.txt")
    later = OutputFolder(results)
    later.claim(["b.txt"], overwrite=True)
    later.open()
    later.write("b.txt", text("ours"))
    assert (results / "b.txt").read_text() == "ours"
    assert (tmp_path / "archive.txt").read_text() == "a user's"


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_an_input_is_never_replaced_even_where_overwriting_is_allowed(results, tmp_path, link):
    (results / "image.txt").write_text("an image")
    (tmp_path / "images").mkdir()
    link(results / "image.txt", tmp_path / "images" / "patient.txt")
    with pytest.raises(MaleniaError, match=r"image\.txt is read by this command"):
        OutputFolder(results).claim(["image.txt"], [tmp_path / "images" / "patient.txt"], overwrite=True)


def test_a_folder_in_the_way_is_an_error_even_where_overwriting_is_allowed(results):
    (results / "b.txt").mkdir()
    with pytest.raises(MaleniaError, match="is a folder where a result would go"):
        OutputFolder(results).claim(["b.txt"], overwrite=True)


def test_only_own_files_are_removed_and_only_folders_that_they_leave_empty(results):
    later = OutputFolder(results)
    later.open()
    later.write("masks/p/one.txt", text("1"))
    later.write("masks/q/one.txt", text("1"))
    (results / "masks/q/reader.txt").write_text("a user's")
    later.remove(["masks/p/one.txt", "masks/q/one.txt", "masks/q/reader.txt", "not there"])
    later.close()
    assert names_in(results) == [".malenia_outputs.jsonl", "a.txt", "masks/q/reader.txt"]
    assert not (results / "masks/p").exists()


def test_a_file_that_comes_during_the_run_is_not_replaced(results):
    later = OutputFolder(results)
    later.claim(["b.txt"])
    later.open()
    (results / "b.txt").write_text("a user's")
    with pytest.raises(MaleniaError, match=r"b\.txt appeared during the run"):
        later.write("b.txt", text("ours"))
    assert (results / "b.txt").read_text() == "a user's"


def test_after_a_kill_between_record_and_renaming_both_contents_are_ours(results, monkeypatch):
    def kill(*_):
        raise KeyboardInterrupt

    later = OutputFolder(results)
    later.open()
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", kill)
        with pytest.raises(KeyboardInterrupt):
            later.write("a.txt", text("later"))
    assert (results / "a.txt").read_text() == "earlier"
    again = OutputFolder(results)
    again.claim(["a.txt"])
    again.open()
    assert names_in(results) == [".malenia_outputs.jsonl", "a.txt"]
    again.write("a.txt", text("later"))
    assert (results / "a.txt").read_text() == "later"


def test_a_record_whose_last_line_was_cut_off_still_counts(results):
    with (results / ".malenia_outputs.jsonl").open("a") as file:
        file.write('{"file": "b.txt", "sha')
    OutputFolder(results).claim(["a.txt"])


def test_runs_side_by_side_know_each_others_files_and_leave_them(results):
    parts = [OutputFolder(results, f"_part_{i}_of_2") for i in range(2)]
    for i, part in enumerate(parts):
        part.open()
        part.write(f"case_{i}.txt", text("answer"))
    for part in parts:
        part.close()
    OutputFolder(results).claim(["a.txt", "case_0.txt", "case_1.txt"])
    assert {"case_0.txt", "case_1.txt"} < set(names_in(results))


@pytest.mark.parametrize("there", ["file", "broken link"])
def test_a_single_file_is_replaced_only_where_that_is_asked_for(tmp_path, there):
    path = tmp_path / "table.json"
    path.write_text("by hand") if there == "file" else path.symlink_to("nowhere")
    with pytest.raises(MaleniaError, match=r"table\.json exists; .*--overwrite"):
        check_free([path])
    check_free([path], overwrite=True)
    with pytest.raises(MaleniaError, match="is a folder"):
        check_free([tmp_path], overwrite=True)
    path.unlink()
    path.write_text("by hand")
    with pytest.raises(MaleniaError, match=r"table\.json is read by this command"):
        check_free([path], [tmp_path / "." / "table.json"], overwrite=True)
