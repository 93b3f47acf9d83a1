"""Training on several processes teaches what training on one does."""

import multiprocessing
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_net import image, tiny_net
from tiny_training import TinyTrainer, Workspace, batch_of
from torch import distributed as dist
from torch._dynamo.utils import counters
from torch.nn.parallel import DistributedDataParallel

from nnunetv2_malenia.network.config import MaleniaConfig

TWO_LESIONS, NO_LESION = np.zeros((2, 8, 8, 8), np.int16)
TWO_LESIONS[1:7] = 1
TWO_LESIONS[2:4, 2:6, 2:6], TWO_LESIONS[5:7, 1:4, 3:8] = 2, 3

SCENARIOS = [
    (("full", "full"), False),
    (("full", "partial"), False),
    (("full", "full"), True),
]  # and is the second NaN


@pytest.fixture
def group(tmp_path):
    """A group of this process alone."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def ready(folder: Path, monkeypatch) -> TinyTrainer:
    """The same weights in every process, and nnU-Net's loss as it is with DDP."""
    work = Workspace(folder, monkeypatch)
    work.write_table(partial={"annotated": ["kidney", "kidney cyst"]})
    trainer = work.ready()
    trainer.is_ddp = True
    trainer.loss, trainer.is_ddp = trainer._build_loss(), False
    return trainer


def train_as(rank: int, folder: Path) -> dict[tuple, TinyTrainer]:
    """One of two processes takes a step of each scenario, with one of its two samples."""
    own, trainers = slice(rank, rank + 1), {}
    for i, (case_ids, spoiled) in enumerate(SCENARIOS):
        with pytest.MonkeyPatch.context() as monkeypatch:
            trainer = ready(folder / f"{rank}{i}", monkeypatch)
        batch = batch_of(trainer, *case_ids, labels=(TWO_LESIONS, NO_LESION), seed=0)
        if spoiled and rank == 1:
            batch["data"][1, 0, 0, 0, 0] = torch.nan
        part = {"data": batch["data"][own], "keys": batch["keys"][own]}
        dist.init_process_group("gloo", init_method=f"file://{folder / f'group{i}'}", rank=rank, world_size=2)
        try:
            trainer.is_ddp, trainer.network = True, DistributedDataParallel(trainer.network)
            trainer.terms = trainer.train_step({**part, "target": [level[own] for level in batch["target"]]})
        finally:
            dist.destroy_process_group()
        trainers[case_ids, spoiled] = trainer
    return trainers


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """Scenario -> the trainer of rank 0 after its step; rank 1 is a process of its own."""
    folder = tmp_path_factory.mktemp("ranks")
    other = multiprocessing.get_context("spawn").Process(target=train_as, args=(1, folder))
    other.start()
    try:
        return train_as(0, folder)
    finally:
        other.join()
        assert other.exitcode == 0


@pytest.mark.parametrize("case_ids", [("full", "full"), ("full", "partial")], ids="-".join)
def test_two_ranks_of_which_one_has_no_lesion_learn_as_one_process(together, tmp_path, monkeypatch, case_ids):
    alone, pair = ready(tmp_path, monkeypatch), together[case_ids, False]
    terms = alone.train_step(batch_of(alone, *case_ids, labels=(TWO_LESIONS, NO_LESION), seed=0))
    assert pair.terms == pytest.approx(terms, rel=1e-4)
    gradients = {name: weight.grad for name, weight in pair.network.module.named_parameters()}
    for name, weight in alone.network.named_parameters():
        torch.testing.assert_close(gradients[name], weight.grad, rtol=1e-3, atol=1e-6, msg=name)


def test_a_loss_that_is_not_finite_on_one_rank_skips_the_step_on_all(together):
    trainer = together[("full", "full"), True]
    assert np.isnan(trainer.terms["loss"])
    assert trainer.num_skipped == 1
    assert not trainer.optimizer.state


@pytest.mark.usefixtures("group")
def test_ddp_splits_the_compiled_network_anywhere():
    """nnU-Net compiles by default, and DDP splits the graph where a bucket of parameters is full."""
    config = MaleniaConfig(
        num_tokens=4, token_dim=168, num_heads=2, embedding_dim=6, num_scales=2, num_fusion_layers=0, evidence=False
    )
    net = tiny_net(config).train()
    assert sum(weight.numel() * 4 for weight in net.parameters()) > 3 * 2**20
    torch.compiler.reset()
    compiled = DistributedDataParallel(torch.compile(net, backend="aot_eager"), bucket_cap_mb=1)
    is_asked = torch.zeros(1, 2, 7, dtype=torch.bool)
    is_asked[0, 1, 0] = True
    queries = net.trained_queries(is_asked, is_asked.roll(1, 2))
    outputs = [forward(image(), queries) for forward in (net, compiled)]
    for plain, split in zip(*(flat(output) for output in outputs), strict=True):
        torch.testing.assert_close(split, plain, rtol=1e-3, atol=1e-4)
    sum(part.float().mean() for part in flat(outputs[1])).backward()
    assert [name for name, weight in net.named_parameters() if weight.grad is None] == []


def test_network_and_losses_compile_without_a_break_and_teach_the_same(tmp_path, monkeypatch, request):
    """As they are on CUDA unless nnUNet_compile says otherwise; the assignment alone is left to the host."""
    plain = ready(tmp_path / "plain", monkeypatch)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    monkeypatch.setattr(TinyTrainer, "_do_i_compile", lambda _: True)
    torch.compiler.reset()
    compiled = ready(tmp_path / "compiled", monkeypatch)
    request.getfixturevalue("group")  # where there is one, nnU-Net's trainer looks for a GPU when it is made
    compiled.is_ddp, compiled.network = True, DistributedDataParallel(compiled.network)
    counters.clear()
    terms = []
    for trainer in (plain, compiled):
        batch = batch_of(trainer, "full", "partial", labels=(TWO_LESIONS, NO_LESION), seed=0)
        terms.append(trainer.train_step(batch))
    assert terms[1] == pytest.approx(terms[0], rel=1e-4)
    assert not counters["graph_break"]
    gradients = {name: weight.grad for name, weight in compiled._malenia_net().named_parameters()}
    for name, weight in plain.network.named_parameters():
        torch.testing.assert_close(gradients[name], weight.grad, rtol=1e-3, atol=1e-5, msg=name)


def flat(output) -> list[torch.Tensor]:
    return [output] if isinstance(output, torch.Tensor) else [tensor for part in output for tensor in flat(part)]
