import json

import pytest
from tiny_data import truncate
from tiny_training import Workspace

from nnunetv2_malenia.files import MaleniaError
from nnunetv2_malenia.training.adamw import nnUNetTrainerAdamW


@pytest.fixture
def work(tmp_path, monkeypatch):
    return Workspace(tmp_path, monkeypatch)


def start(work):
    trainer = work.trainer(nnUNetTrainerAdamW)
    trainer.initialize()
    trainer.get_dataloaders()


def cut_the_end(path):
    path.write_bytes(path.read_bytes()[:-1])


def zero_the_end(path):
    """As after a crash of a machine whose file system wrote the size, but not yet the content."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))


def empty(path):
    path.write_bytes(b"")


def remove(path):
    path.unlink()


@pytest.mark.parametrize("damage", [truncate, cut_the_end, zero_the_end, empty, remove])
@pytest.mark.parametrize("name", ["b.b2nd", "b_seg.b2nd", "b.pkl"])
def test_a_half_written_file_is_named_before_the_first_epoch(work, name, damage):
    work.write_cases("a", "b", "c")
    damage(work.cases / name)
    with pytest.raises(MaleniaError, match=f"1 preprocessed files .*{work.cases / name} .*nnUNetv2_preprocess") as said:
        start(work)
    assert "\n" not in str(said.value)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *((name, damage) for name in ("b.npz", "b.pkl", "b_seg.npy") for damage in (truncate, cut_the_end, empty)),
        ("b.npz", zero_the_end),
        ("b.pkl", zero_the_end),
    ],
)
def test_data_that_is_stored_as_numpy_arrays_is_checked_as_well(work, name, damage):
    work.write_cases("a", "b", as_npz=True)
    trainer = work.trainer(nnUNetTrainerAdamW)
    trainer.get_tr_and_val_datasets()
    trainer.dataset_class.unpack_dataset(str(work.cases), num_processes=1)
    trainer.get_tr_and_val_datasets()
    damage(work.cases / name)
    with pytest.raises(MaleniaError, match=f"1 preprocessed files .*{work.cases / name} "):
        trainer.get_tr_and_val_datasets()


def test_all_faults_are_counted_and_cases_outside_the_fold_do_not_matter(work):
    work.write_cases("a", "b", "c", "d")
    (work.preprocessed / "splits_final.json").write_text(json.dumps([{"train": ["a", "b"], "val": ["c", "e"]}]))
    remove(work.cases / "d.pkl"), empty(work.cases / "a.pkl"), cut_the_end(work.cases / "c.b2nd")
    with pytest.raises(MaleniaError, match=r"5 preprocessed files .*a\.pkl \(0 bytes, EOFError\)"):
        start(work)


def test_a_half_written_split_is_named(work):
    work.write_cases("a", "b")
    truncate(work.preprocessed / "splits_final.json")
    with pytest.raises(MaleniaError, match=r"splits_final\.json: not JSON"):
        start(work)


def test_whole_data_passes(work):
    work.write_cases("a", "b")
    start(work)
