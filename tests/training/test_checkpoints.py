import os
import resource
import sys
from pathlib import Path

import pytest
import torch
from tiny_data import damage_the_middle
from tiny_training import Workspace, batch_of

from nnunetv2_malenia.files import MaleniaError
from nnunetv2_malenia.training.adamw import nnUNetTrainerAdamW

FINAL, LATEST, BEST = "checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth"


@pytest.fixture
def work(tmp_path, monkeypatch):
    return Workspace(tmp_path, monkeypatch)


def empty(path):
    path.write_bytes(b"")


def truncate_a_little(path):
    path.write_bytes(path.read_bytes()[:-100])


def no_archive(path):
    path.write_text("Quota exceeded")


DAMAGES = [empty, truncate_a_little, damage_the_middle, no_archive]


def trained(work, **epoch_of):
    """A trainer with these checkpoints in its folder, each of another epoch; one that continues gets them loaded."""
    trainer = work.ready()
    trainer.train_step(batch_of(trainer, "a", "b"))
    for name, epoch in epoch_of.items():
        trainer.current_epoch = epoch - 1
        trainer.save_checkpoint(f"{trainer.output_folder}/checkpoint_{name}.pth")
    return Path(trainer.output_folder)


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_newest_whole_checkpoint_takes_the_place_of_a_damaged_one(work, capsys, damage):
    folder = trained(work, best=20, latest=30)
    damage(folder / LATEST)
    trainer = work.trainer(continues=True)
    trainer.load_checkpoint(str(folder / LATEST))
    assert trainer.current_epoch == 20
    assert f"{LATEST} is damaged; training goes on from {folder / BEST}" in capsys.readouterr().out


def test_of_two_whole_checkpoints_the_newer_one_is_taken(work):
    folder = trained(work, latest=30, best=40)
    empty(folder / FINAL)
    trainer = work.trainer(continues=True)
    trainer.load_checkpoint(str(folder / FINAL))
    assert trainer.current_epoch == 40


@pytest.mark.parametrize("damage", DAMAGES)
def test_without_a_whole_checkpoint_training_does_not_start_over(work, damage):
    folder = trained(work, latest=10, best=5)
    damage(folder / LATEST), damage(folder / BEST)
    before = {path.name: path.read_bytes() for path in folder.glob("*.pth")}
    with pytest.raises(MaleniaError, match=rf"{LATEST} is damaged \(.*no other.*without --c") as error:
        work.trainer(continues=True).load_checkpoint(str(folder / LATEST))
    one_line(error)
    assert {path.name: path.read_bytes() for path in folder.glob("*.pth")} == before


def test_only_a_continuation_may_take_another_checkpoint_than_was_asked_for(work):
    folder = trained(work, final=20, best=10)
    truncate_a_little(folder / FINAL)
    with pytest.raises(MaleniaError, match=f"{FINAL} is damaged"):
        work.trainer().load_checkpoint(str(folder / FINAL))  # as --val does
    trainer = work.trainer(continues=True)
    trainer.load_checkpoint(str(folder / BEST))
    with pytest.raises(MaleniaError, match=f"{FINAL} is damaged"):
        trainer.load_checkpoint(str(folder / FINAL))  # as --val_best does after training, with the other name


@pytest.mark.parametrize("with_progress", [False, True], ids=["no epoch ended", "epochs ended"])
def test_a_continuation_without_any_checkpoint_starts_over_only_if_nothing_is_lost(work, monkeypatch, with_progress):
    folder = trained(work)
    if with_progress:
        (folder / "progress.png").touch()
    trainer = work.trainer(continues=True)
    monkeypatch.setattr(trainer, "plot_network_architecture", lambda: None)
    if with_progress:
        with pytest.raises(MaleniaError, match=r"--c finds no checkpoint.*progress\.png.*without --c") as error:
            trainer.on_train_start()
        one_line(error)
    else:
        trainer.on_train_start()
        assert trainer.was_initialized


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("hostile",)


@pytest.mark.parametrize("replaced", [{"logging": Hostile()}, {"init_args": {"plans": {}}}], ids=["code", "no Malenia"])
def test_a_checkpoint_that_we_did_not_write_is_not_loaded(work, tmp_path, monkeypatch, replaced):
    folder = trained(work, latest=10)
    content = torch.load(folder / LATEST, weights_only=True)
    torch.save({**content, **replaced}, folder / LATEST)
    monkeypatch.chdir(tmp_path)
    for trainer in (work.trainer(continues=True), work.ready()):
        with pytest.raises(MaleniaError, match=rf"{LATEST} is not a checkpoint that TinyTrainer wrote") as error:
            trainer.load_checkpoint(str(folder / LATEST))
        one_line(error)
    assert not Path("hostile").exists()


def test_a_checkpoint_of_an_earlier_version_goes_on_without_its_moments(work, capsys):
    folder = trained(work, latest=10)
    content = torch.load(folder / LATEST, weights_only=True)
    state = content["optimizer_state"]
    first, second = state["param_groups"]
    first["params"] += second["params"]
    torch.save({**content, "optimizer_state": {**state, "param_groups": [first]}}, folder / LATEST)
    trainer = work.trainer(continues=True)
    trainer.load_checkpoint(str(folder / LATEST))
    assert "moments start anew" in capsys.readouterr().out
    assert [group["weight_decay"] for group in trainer.optimizer.param_groups] == [trainer.weight_decay, 0]
    trainer.train_step(batch_of(trainer, "a", "b"))


# ---------------------------------------------------------------- writing


class FullDisk:
    """No file can grow beyond a size, as on a disk that is full."""

    def __init__(self, limit):
        self.limit, self.before = limit, resource.getrlimit(resource.RLIMIT_FSIZE)

    def __enter__(self):
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit, self.before[1]))

    def __exit__(self, *_):
        resource.setrlimit(resource.RLIMIT_FSIZE, self.before)


@pytest.mark.parametrize("limit", [0, 20_000])
@pytest.mark.parametrize("name", [LATEST, FINAL])
def test_what_cannot_be_written_leaves_the_checkpoint_of_before(work, name, limit):
    trainer = work.ready()
    path = Path(trainer.output_folder) / name
    trainer.save_checkpoint(str(path))
    before, listed = path.read_bytes(), sorted(path.parent.iterdir())
    trainer.train_step(batch_of(trainer, "a", "b"))
    with FullDisk(limit), pytest.raises(MaleniaError, match=rf"{name} could not be written.*free some space") as error:
        trainer.save_checkpoint(str(path))
    one_line(error)
    assert path.read_bytes() == before
    assert sorted(path.parent.iterdir()) == listed
    trainer.save_checkpoint(str(path))
    assert path.read_bytes() != before


def test_weights_that_are_not_finite_are_never_saved(work):
    trainer = work.ready()
    path = Path(trainer.output_folder) / LATEST
    trainer.save_checkpoint(str(path))
    before = path.read_bytes()
    with torch.no_grad():
        trainer.network.token_key.bias[0] = torch.nan
    with pytest.raises(MaleniaError, match=r"not finite after epoch 0.*as it was"):
        trainer.save_checkpoint(str(path))
    assert path.read_bytes() == before


def test_what_a_kill_left_of_a_checkpoint_is_removed_and_nothing_else(work, monkeypatch):
    folder = trained(work, latest=1)
    ours, users = folder / f".partial_0123abcd_{LATEST}", folder / "checkpoint_of_mine.pth"
    ours.write_bytes(b"half"), users.write_bytes(b"mine")
    trainer = work.trainer(continues=True)
    monkeypatch.setattr(trainer, "plot_network_architecture", lambda: None)
    trainer.load_checkpoint(str(folder / LATEST))
    trainer.on_train_start()
    assert not ours.exists()
    assert users.read_bytes() == b"mine"


def test_the_baseline_is_as_safe(work):
    trainer = work.ready(nnUNetTrainerAdamW)
    path = Path(trainer.output_folder) / LATEST
    trainer.save_checkpoint(str(path))
    before = path.read_bytes()
    with FullDisk(0), pytest.raises(MaleniaError, match="could not be written"):
        trainer.save_checkpoint(str(path))
    assert path.read_bytes() == before
    truncate_a_little(path)
    with pytest.raises(MaleniaError, match="damaged"):
        work.trainer(nnUNetTrainerAdamW, continues=True).load_checkpoint(str(path))


# ---------------------------------------------------------------- errors


def test_what_a_user_can_put_right_ends_nnunets_command_in_one_line(work, capsys, monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    work.ready()
    for error, lines in ((MaleniaError("a.json: wrong; write it again"), 1), (RuntimeError("our own slip"), 3)):
        try:
            raise error
        except Exception as raised:
            sys.excepthook(type(raised), raised, raised.__traceback__)
        said = capsys.readouterr().err.splitlines()
        assert str(error) in said[-1]
        assert (len(said) == 1) is (lines == 1)
