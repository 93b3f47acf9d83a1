"""What every test starts from, whatever machine it runs on, whichever ran before it; and the models that tests share.

One thread, one worker and one seed for all. The shared models are made once a session, when first asked for, and are
read-only; a test that changes one copies it first:
- `model`: a model folder as nnU-Net leaves it, with two folds of random weights, for tests of prediction;
- `trained`: a `tiny_workspace.Workspace` in which nnU-Net's commands have prepared phantoms and trained fold 0.
Commands run in-process: ours as functions, `cli.merge([...])`, or, like nnU-Net's, by `in_process.run_command` and
`Workspace.run`. `Workspace.run_alone` starts a Python of its own, for five seconds: where that border is tested.
"""

import os

# before torch and nnU-Net are imported; on tiny tensors more threads only wait for each other
os.environ.update({"OMP_NUM_THREADS": "1", "nnUNet_def_n_proc": "1", "nnUNet_n_proc_DA": "1"})

import multiprocessing
import random
import sys
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session", autouse=True)
def _one_core():
    """The commands give torch as many threads as there are cores."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multiprocessing, "cpu_count", lambda: 1)
        yield


def start_afresh() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - nnU-Net's loaders draw from the global generator
    if torch := sys.modules.get("torch"):  # tests of rooms without torch do not pay for its import
        torch.manual_seed(0)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup() -> None:
    start_afresh()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call() -> None:
    start_afresh()


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    from tiny_model import write_tiny_model

    return write_tiny_model(tmp_path_factory.mktemp("model"), folds=(0, 1))


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    from tiny_workspace import Workspace

    workspace = Workspace(tmp_path_factory.mktemp("trained"))
    workspace.prepare()
    workspace.log = workspace.train(0, "--npz")
    return workspace
