"""Conversions that are stopped at any moment, by a kill or a full disk, and what lies where they want to write."""

import io
import itertools
import os
import resource
import shutil
import signal
import subprocess
import sys

import pytest
from tiny_data import ct, mask, msd_task, save, stored, tree

from nnunetv2_malenia.cli import convert_msd, merge
from nnunetv2_malenia.dataset_conversion.nnunet_raw import RawDataset

FULL_DISK = 2**16
CASES = {"liver_0": (1, 2), "liver_1": ()}


@pytest.fixture
def raw(tmp_path):
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


@pytest.fixture
def task(tmp_path):
    """Two cases with masks, one of them a 4-D image, and one without."""
    task = msd_task(tmp_path / "Task03_Liver", CASES, test_cases=("liver_2",))
    save(task / "imagesTr" / "liver_1.nii.gz", ct()[..., None])
    return task


def convert(task, raw, *options, dataset="3"):
    return convert_msd(["-i", str(task), "-d", dataset, "-o", str(raw), *options])


def merged(sources, raw):
    return merge(["-i", *map(str, sorted(sources.iterdir())), "-d", "3", "-o", str(raw), "--holdout", "liver tumor"])


@pytest.fixture
def two_datasets(tmp_path):
    for i in range(2):
        folder = tmp_path / "sources" / f"Dataset00{i}_Part"
        cases = {f"{'ab'[i]}_{j}": values for j, values in enumerate([(1, 2), (1,)])}
        task = msd_task(tmp_path / f"part_{i}" / "Task03_Liver", cases)
        assert convert_msd(["-i", str(task), "-d", folder.name, "-o", str(folder.parent)]) == 0
    return folder.parent


def contents(folder):
    return {name: (folder / name).read_bytes() for name in tree(folder)}


def in_a_process_of_its_own(run, before=lambda: None):
    """The wait status of a child that does `before`, then `run`, and exits with what that returns."""
    if child := os.fork():
        return os.waitpid(child, 0)[1]
    try:
        before()
        os._exit(run())
    finally:
        os._exit(99)


def kill_at(number, folder):
    """Let this process be killed, as by kill -9, before its number-th change of what lies in a folder."""
    changes = itertools.count(1)

    def hook(event, arguments):
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if not (writes or event in ("os.mkdir", "os.rename", "os.link", "os.symlink", "os.remove", "os.rmdir")):
            return
        if any(str(each).startswith(str(folder)) for each in arguments[:2]) and next(changes) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


@pytest.mark.parametrize(
    ("run", "source", "step"), [(convert, "task", 2), (merged, "two_datasets", 5)], ids=["convert", "merge"]
)
def test_a_kill_at_any_moment_and_the_same_command_give_what_an_uninterrupted_run_does(
    tmp_path, raw, request, run, source, step
):
    source = request.getfixturevalue(source)
    before = contents(source)
    assert run(source, tmp_path / "whole") == 0
    (whole,) = (tmp_path / "whole").iterdir()
    for number in itertools.count(1, step):
        status = in_a_process_of_its_own(lambda: run(source, raw), lambda number=number: kill_at(number, raw))
        if not os.WIFSIGNALED(status):
            break
        target = raw / whole.name
        if not target.exists():
            assert run(source, raw) == 0, number
            assert os.listdir(raw) == [whole.name], number
        assert contents(target) == contents(whole), number
        shutil.rmtree(raw)
        raw.mkdir()
    assert number > 25
    assert contents(source) == before


def test_two_kills_in_a_row_and_leftovers_of_a_kill_after_the_end_do_no_harm(tmp_path, raw, task):
    assert convert(task, tmp_path / "whole") == 0
    for number in (30, 3, 12):
        in_a_process_of_its_own(lambda: convert(task, raw), lambda number=number: kill_at(number, raw))
    assert not (raw / "Dataset003_Liver").exists()
    assert convert(task, raw) == 0
    assert contents(raw / "Dataset003_Liver") == contents(tmp_path / "whole" / "Dataset003_Liver")


@pytest.fixture
def small_disk(tmp_path):
    """A folder with room for FULL_DISK bytes, and a function that leaves room for fewer."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={FULL_DISK}", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written_under_a_final_name(tmp_path, task, small_disk, capsys):
    assert convert(task, tmp_path / "whole", "--copy") == 0
    whole = contents(tmp_path / "whole" / "Dataset003_Liver")
    page = resource.getpagesize()
    full = 0
    for room in range(0, FULL_DISK, page):
        (small_disk / "taken").write_bytes(b"x" * (FULL_DISK - room))
        capsys.readouterr()
        if convert(task, small_disk, "--copy") == 0:
            break
        full += 1
        (told,) = [line for line in capsys.readouterr().err.splitlines() if "checking" not in line]
        assert told.startswith(f"error: {small_disk}: no room (No space left on device)")
        assert {path.name for path in small_disk.iterdir()} <= {"taken", ".Dataset003_Liver.partial"}
        (small_disk / "taken").unlink()
        if room % (2 * page):  # every second time what was left is gone on with
            assert convert(task, small_disk, "--copy") == 0
            assert contents(small_disk / "Dataset003_Liver") == whole
        shutil.rmtree(small_disk / "Dataset003_Liver", ignore_errors=True)
        shutil.rmtree(small_disk / ".Dataset003_Liver.partial", ignore_errors=True)
    assert full > 5
    assert contents(small_disk / "Dataset003_Liver") == whole


@pytest.mark.parametrize("limit", [0, 60, 100, 300, 400, 900])
def test_a_file_that_may_not_grow_is_one_line_too(raw, task, limit):
    def limit_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        sys.stdout = sys.stderr = io.StringIO()

    def run():
        status = convert(task, raw, "--copy")
        told = sys.stderr.getvalue()
        return status if told.startswith(f"error: {raw}: no room (File too large)") and told.count("\n") == 1 else 98

    assert os.waitstatus_to_exitcode(in_a_process_of_its_own(run, limit_files)) == 1
    assert {path.name for path in raw.iterdir()} <= {".Dataset003_Liver.partial"}
    assert convert(task, raw, "--copy") == 0


@pytest.mark.parametrize("name", [".Dataset003_Liver.partial", "Dataset003_Liver"])
@pytest.mark.parametrize(
    "content",
    [{"my.plan": ""}, {".plan": "my plan"}, {"dataset/.a": ""}, {".plan": "nnunetv2_malenia 1", "notes.txt": ""}],
    ids=["a file", "a plan of their own", "a data set", "a file beside leftovers"],
)
def test_what_lies_in_the_way_and_is_not_ours_is_kept(raw, task, capsys, name, content):
    for path, text in content.items():
        (raw / name / path).parent.mkdir(parents=True, exist_ok=True)
        (raw / name / path).write_text(text)
    before = contents(raw)
    assert convert(task, raw) == 1
    assert str(raw / name) in capsys.readouterr().err.splitlines()[-1]
    assert contents(raw) == before


def test_a_link_or_file_in_the_way_is_kept(tmp_path, raw, task, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / ".plan").write_text("mine")
    for make in (lambda path: path.symlink_to(tmp_path / "mine"), lambda path: path.write_text("mine")):
        make(raw / ".Dataset003_Liver.partial")
        assert convert(task, raw) == 1
        assert "is in the way, and is not what an interrupted run left; move it away" in capsys.readouterr().err
        assert (tmp_path / "mine" / ".plan").read_text() == "mine"
        (raw / ".Dataset003_Liver.partial").unlink()


def test_files_that_are_linked_from_the_source_are_never_written_through(raw, task):
    before = contents(task)
    in_a_process_of_its_own(lambda: convert(task, raw), lambda: kill_at(25, raw))
    assert convert(task, raw) == 0
    folder = raw / "Dataset003_Liver"
    linked = [path for path in folder.rglob("*.nii.gz") if path.stat().st_nlink > 1]
    assert {path.parent.name for path in linked} == {"imagesTr", "imagesTs"}
    assert merge(["-i", str(folder), "-d", "4", "-o", str(raw)]) == 0
    assert contents(task) == before


def interrupt_at(monkeypatch, number):
    """Let the number-th mask that is written be the last thing that happens."""
    from nnunetv2_malenia.dataset_conversion import conversion

    written = []

    def write_mask(voxels, image, path):
        written.append(path.name)
        if len(written) == number:
            path.write_bytes(b"half of a mask")
            raise KeyboardInterrupt
        return original(voxels, image, path)

    original = conversion.write_mask
    monkeypatch.setattr(conversion, "write_mask", write_mask)
    return written


def test_an_interrupted_conversion_goes_on_where_it_stopped(tmp_path, raw, monkeypatch):
    task = msd_task(tmp_path / "Task03_Liver", {f"liver_{i}": (1, 2) for i in range(3)})
    with monkeypatch.context() as patch:
        interrupt_at(patch, 2)
        assert convert(task, raw) == 130
    assert [path.name for path in raw.iterdir()] == [".Dataset003_Liver.partial"]
    with monkeypatch.context() as patch:
        written = interrupt_at(patch, 99)
        assert convert(task, raw) == 0
    assert len(written) == 2
    assert convert(task, raw, dataset="4") == 0
    one, other = raw / "Dataset003_Liver", raw / "Dataset004_Liver"
    assert tree(one) == tree(other)
    for name in tree(one) - {"conversion_summary.json"}:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    assert sorted(path.name for path in raw.iterdir()) == ["Dataset003_Liver", "Dataset004_Liver"]


def test_leftovers_are_not_trusted_when_the_source_has_changed(tmp_path, raw, monkeypatch):
    task = msd_task(tmp_path / "Task03_Liver", {f"liver_{i}": (1, 2) for i in range(3)})
    with monkeypatch.context() as patch:
        interrupt_at(patch, 2)
        assert convert(task, raw) == 130
    save(task / "labelsTr" / "liver_0.nii.gz", mask(2, 1))
    assert convert(task, raw) == 0
    assert (stored(raw / "Dataset003_Liver" / "labelsTr" / "liver_0.nii.gz") == mask(2, 1)).all()


def test_a_second_run_into_one_data_set_is_told_and_changes_nothing(task, raw, capsys, monkeypatch):
    """A second run starts while the first one writes its last case."""
    seen = []

    write_attributes = RawDataset.write_attributes

    def with_a_second_run(self, table, name="attributes.json"):
        before, _ = tree(raw), capsys.readouterr()
        monkeypatch.undo()
        seen.append((convert(task, raw), capsys.readouterr().err, tree(raw) == before))
        write_attributes(self, table, name)

    monkeypatch.setattr(RawDataset, "write_attributes", with_a_second_run)
    assert convert(task, raw) == 0
    ((status, told, unchanged),) = seen
    assert status == 1
    assert told == (
        f"error: another run is writing {raw / 'Dataset003_Liver'}; wait for its end, or choose another name with -d\n"
    )
    assert unchanged
    assert (raw / "Dataset003_Liver" / "attributes.json").is_file()
    assert [path.name for path in raw.iterdir()] == ["Dataset003_Liver"]
