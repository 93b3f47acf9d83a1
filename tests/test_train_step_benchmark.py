"""What a training step costs in counts, which no busy machine changes."""

import pytest
import torch

from benchmarks.train_step import HostWaits, Kernels, main

MOST_KERNELS = 1560


@pytest.fixture(scope="module")
def step():
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            monkeypatch.setenv(name, "")  # so that they are as before afterwards
        [result] = main(["--quick"])
    return result


def test_a_step_launches_few_kernels_and_waits_for_the_device_twice(step):
    ours, theirs = step["MaleniaTrainer"], step["nnUNetTrainer"]
    assert theirs["kernels"] < ours["kernels"] <= MOST_KERNELS
    assert theirs["host_waits"] == 1
    assert ours["host_waits"] == 2


def test_a_batch_is_hardly_larger_than_nnunets(step):
    """A byte a voxel beside four of the image and two of the labels, and the tables, which weigh more the smaller the
    patch is."""
    voxels = step["batch_size"] * torch.Size(step["patch_size"]).numel()
    more = 1e6 * (step["MaleniaTrainer"]["megabytes_sent"] - step["nnUNetTrainer"]["megabytes_sent"])
    assert voxels < more < voxels + 4000 * step["batch_size"]


def test_views_and_allocations_are_no_kernels_and_asking_for_values_is_a_wait():
    x = torch.zeros(2, 3)
    with Kernels() as kernels:
        y = x.view(3, 2).T + torch.empty(2, 3)
        y.detach().unsqueeze(0)
    assert kernels.count == 1
    with HostWaits() as waits:
        bool(y.isfinite().all())
        y.sum().item()
        y.cpu()
    assert waits.count == 3
