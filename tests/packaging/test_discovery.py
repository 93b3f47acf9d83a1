"""What the .pth line calls whenever Python starts."""

import os

import pytest

from nnunetv2_malenia.discovery import TRAINER_FOLDER, TRAINER_VARIABLE, announce_trainers


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, [TRAINER_FOLDER]),
        ("", [TRAINER_FOLDER]),
        ("theirs", ["theirs", TRAINER_FOLDER]),
        (os.pathsep.join(["a", "b"]), ["a", "b", TRAINER_FOLDER]),
        ("theirs" + os.pathsep, ["theirs", TRAINER_FOLDER]),
        (TRAINER_FOLDER, [TRAINER_FOLDER]),
        (os.pathsep.join([TRAINER_FOLDER, "theirs"]), [TRAINER_FOLDER, "theirs"]),
    ],
    ids=["unset", "empty", "one", "two", "trailing separator", "ours alone", "ours first"],
)
def test_our_folder_joins_the_users_folders_once(monkeypatch, before, after):
    if before is None:
        monkeypatch.delenv(TRAINER_VARIABLE, raising=False)
    else:
        monkeypatch.setenv(TRAINER_VARIABLE, before)

    announce_trainers()

    assert os.environ[TRAINER_VARIABLE].split(os.pathsep) == after


def test_the_announced_folder_holds_the_trainers_and_nothing_else_to_import():
    modules = [name for name in os.listdir(TRAINER_FOLDER) if name != "__pycache__"]

    assert modules == ["malenia_trainers.py"]
