"""The real steps on tiny plans: what is learned and counted, and what never may be."""

import copy

import numpy as np
import pytest
import torch
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from tiny_training import CPU, MIDDLE, REGIONS, SOFTMAX, TinyTrainer, Workspace, batch_of, image_and_labels

from nnunetv2_malenia.attributes.bank import EmbeddingBank
from nnunetv2_malenia.attributes.tables import vocabulary
from nnunetv2_malenia.attributes.text_encoder import HashingEncoder
from nnunetv2_malenia.files import MaleniaError
from nnunetv2_malenia.training.variants import _MirrorDA

KIDNEY, TUMOR, CYST = range(3)  # among nnU-Net's foreground channels


@pytest.fixture
def work(tmp_path, monkeypatch):
    return Workspace(tmp_path, monkeypatch)


@pytest.fixture
def with_regions(tmp_path, monkeypatch):
    return Workspace(tmp_path, monkeypatch, REGIONS)


def validate(trainer, batch):
    """tp, fp and fn of every foreground channel, and the loss, of the batch as the validation loader gives it."""
    trainer.network.eval()
    with torch.no_grad():
        found = trainer.validation_step({**batch, "target": copy.deepcopy(batch["target"][:-1])})
    trainer.network.train()
    return found


def weights_of(trainer):
    return torch.cat([weights.detach().flatten() for weights in trainer.network.parameters()])


# ---------------------------------------------------------------- steps


@pytest.mark.parametrize("labels", [SOFTMAX, REGIONS, {**SOFTMAX, "ignore": 4}, {**REGIONS, "ignore": 4}])
@pytest.mark.parametrize("annotated", [None, ["kidney", "kidney cyst"], ["kidney"], []], ids=str)
def test_a_step_learns_and_a_validation_counts_every_annotated_voxel(tmp_path, monkeypatch, labels, annotated):
    work = Workspace(tmp_path, monkeypatch, labels)
    if annotated is not None:
        work.write_table(a={"annotated": annotated})
    trainer = work.ready()
    maps = [image_and_labels(i)[1][MIDDLE].copy() for i in range(2)]
    if "ignore" in labels:
        maps[0][:2] = labels["ignore"]
    batch = batch_of(trainer, "a", "b", labels=tuple(maps))
    before = weights_of(trainer)
    terms = trainer.train_step(copy.deepcopy(batch))
    assert set(terms) == {"loss", *trainer.loss_weights}
    assert np.isfinite(list(terms.values())).all()
    assert not torch.equal(before, weights_of(trainer))
    found = validate(trainer, batch)
    assert np.isfinite(found["loss"])
    assert (found["tp_hard"] + found["fn_hard"]).tolist() == wanted_voxels(trainer, batch, annotated)


def wanted_voxels(trainer, batch, annotated):
    """For each label: its voxels in the cases that annotate it, the ignored ones left out."""
    target, labels = batch["target"][0], [name for name in trainer.dataset_json["labels"] if name != "background"]
    has_ignore = labels[-1] == "ignore"
    is_ignored = target[:, -1] == (4 if target.shape[1] == 1 else 1) if has_ignore else target[:, 0] < 0
    counts = []
    for channel, name in enumerate(labels[: 3 if has_ignore else None]):
        is_target = target[:, 0] == channel + 1 if target.shape[1] == 1 else target[:, channel] > 0
        is_drawn = torch.tensor([annotated is None or name in annotated, True])
        counts.append(float((is_target & ~is_ignored & is_drawn[:, None, None, None]).sum()))
    return counts


def test_a_region_that_a_case_annotates_is_supervised_and_what_is_inside_is_not(with_regions):
    with_regions.write_table(a={"annotated": ["kidney"]}, b={"annotated": ["kidney"]})
    trainer = with_regions.ready()
    trainer.train_step(batch_of(trainer, "a", "b"))
    of_channel = trainer.network.decoder.seg_layers[-1].weight.grad.flatten(1).abs().sum(1)
    assert (of_channel > 0).tolist() == [True, False, False]


def test_regions_put_together_of_annotated_ones_are_annotated(with_regions):
    with_regions.dataset_json["labels"] = {
        "background": 0, "kidney": [1, 2, 3], "kidney lesion": [2, 3], "kidney tumor": 2, "kidney cyst": 3,
    }  # fmt: skip
    with_regions.dataset_json["regions_class_order"] = [1, 2, 2, 3]
    with_regions.write_table(
        whole={"annotated": ["kidney lesion"]}, parts={"annotated": ["kidney tumor", "kidney cyst"]}
    )
    space = with_regions.ready().space
    assert space.annotated_channels("whole").tolist() == [False, True, False, False]
    assert space.annotated_channels("parts").tolist() == [False, True, True, True]


def test_labels_that_contradict_what_is_annotated_teach_nothing(work):
    """What is drawn of an unannotated label is as unknown as the rest of it."""
    work.write_table(a={"annotated": ["kidney"]}, b={"annotated": ["kidney"]})
    trainer = work.ready()
    maps = [image_and_labels(i)[1][MIDDLE] for i in range(2)]
    drawn = batch_of(trainer, "a", "b", labels=tuple(maps), seed=0)
    erased = batch_of(trainer, "a", "b", labels=tuple(np.where(each > 1, 0, each) for each in maps), seed=0)
    terms, gradients = [], []
    weights = copy.deepcopy(trainer.network.state_dict())
    for batch in (drawn, erased):
        trainer.network.load_state_dict(weights)
        terms.append(trainer.train_step(batch))
        gradients.append([w.grad.clone() for w in trainer.network.parameters() if w.grad is not None])
    assert terms[0] == terms[1]
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


# ---------------------------------------------------------------- optimiser, queries, temperature, phrases


def test_weight_decay_leaves_norms_biases_tokens_gates_and_embeddings_alone(work):
    trainer = work.ready()
    name_of = {weight: name for name, weight in trainer.network.named_parameters()}
    decay = {name_of[weight]: g["weight_decay"] for g in trainer.optimizer.param_groups for weight in g["params"]}
    assert set(decay) == set(name_of.values())
    spared = {name for name, amount in decay.items() if amount == 0}
    assert all(amount == trainer.weight_decay for name, amount in decay.items() if name not in spared)
    gates = {f"{gate}.{name}" for gate in ("token_gate", "dense_gate") for name in ("scale", "bias", "raw_weight")}
    assert spared >= gates | {"mask_decoder.tokens", "mask_decoder.identity", "fusion.any_lesion"}
    assert spared >= {name for name in decay if name.endswith("bias") or "norm" in name}
    linear = {"token_key.weight", "phrase_projection.weight", "lesion_head.weight"}
    assert not spared & (linear | {name for name in decay if name.endswith(("in_proj_weight", "conv.weight"))})


def queries_of(trainer, batches=2):
    """What the network is asked in some steps on patches from nnU-Net's own loader."""
    asked = []
    hook = trainer.network.register_forward_pre_hook(lambda _, args: asked.append(args[1].is_asked.clone()))
    loaders = trainer.get_dataloaders()
    for _ in range(batches):
        trainer.train_step(next(loaders[0]))
    hook.remove()
    for loader in loaders:
        if hasattr(loader, "_finish"):
            loader._finish()
    return torch.stack(asked)


def test_every_fold_and_continuation_asks_other_queries(work):
    first = work.ready()
    asked = [queries_of(first), queries_of(work.ready(fold=1)), queries_of(work.ready())]
    first.save_checkpoint(f"{first.output_folder}/checkpoint_latest.pth")
    continued = work.trainer(continues=True)
    continued.load_checkpoint(f"{first.output_folder}/checkpoint_latest.pth")
    asked.append(queries_of(continued))
    for i, one in enumerate(asked):
        assert not any(torch.equal(one, other) for other in asked[:i])


def test_every_worker_of_the_loader_asks_other_queries(work, monkeypatch):
    """Processes that are forked start with equal generators, unless somebody sees to it."""
    monkeypatch.setenv("nnUNet_n_proc_DA", "3")
    asked = queries_of(work.ready(), batches=8)
    assert len({tuple(each.flatten().tolist()) for each in asked}) == 8


class NoDeepSupervision(TinyTrainer):
    def __init__(self, plans, configuration, fold, dataset_json, device=CPU):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.enable_deep_supervision = False


def test_a_trainer_without_deep_supervision_learns_and_validates(work):
    trainer = work.ready(NoDeepSupervision)
    trainer.set_deep_supervision_enabled(False)
    training, validation = (next(loader) for loader in trainer.get_dataloaders())
    assert np.isfinite(trainer.train_step(training)["loss"])
    with torch.no_grad():
        assert np.isfinite(trainer.validation_step(validation)["loss"])


class OwnTransforms(_MirrorDA, TinyTrainer):
    """With transforms that know nothing of what ours makes of a patch, as trainers derived from nnU-Net's have them."""


def test_targets_are_made_behind_whatever_transforms_a_trainer_has_and_for_training_alone(work):
    work.write_cases("a", "b")
    trainer = work.ready(OwnTransforms)
    training, validation = (next(loader) for loader in trainer.get_dataloaders())
    *levels, packed = training["target"]
    assert len(levels) == len(validation["target"]) == 2
    assert all(level.dtype == torch.int16 for level in levels)
    targets = trainer.make_targets.unpack(packed)
    for case_id, has, lesion, labels in zip(
        training["keys"], targets.has_phrase, targets.any_lesion, levels[0], strict=True
    ):
        assert torch.equal(has, torch.from_numpy(trainer.space.values_of(case_id)))
        assert torch.equal(lesion, labels[0] > 1)
    assert np.isfinite(trainer.train_step(training)["loss"])


class WarmTrainer(TinyTrainer):
    config = TinyTrainer.config.__class__(**{**TinyTrainer.config.to_dict(), "temperature": 0.5})


def test_the_loss_has_the_temperature_of_the_network_that_is_trained(work):
    first = work.ready()
    path = f"{first.output_folder}/checkpoint_latest.pth"
    first.save_checkpoint(path)
    contrast = []
    for kind in (TinyTrainer, WarmTrainer):
        trainer = work.trainer(kind)
        trainer.load_checkpoint(path)
        contrast.append(trainer.train_step(batch_of(trainer, "a", "b", seed=0))["mp_nce"])
    assert contrast[0] == contrast[1]


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
def test_weights_of_a_model_with_other_phrases_leave_this_data_sets_phrases_in_place(work, tmp_path, compiled):
    trainers = []
    for phrase in ("like a balloon", "like a pear"):
        phrases = [*vocabulary().phrases(), ("shape", phrase)]
        EmbeddingBank.build(phrases, HashingEncoder(8)).save(work.raw / "attributes.safetensors")
        work.write_table(a={"lesions": {"kidney cyst": {"shape": phrase}}})
        trainers.append(work.ready(seed=len(trainers)))
    other, own = trainers
    other.save_checkpoint(str(tmp_path / "other.pth"))
    own_net, vectors = own.network, own.network.phrase_vectors.clone()
    means = own_net.phrase_projection.aspect_means.clone()
    assert not torch.equal(vectors, other.network.phrase_vectors)
    load_pretrained_weights(torch.compile(own_net) if compiled else own_net, str(tmp_path / "other.pth"))
    assert torch.equal(own_net.token_key.weight, other.network.token_key.weight)
    assert torch.equal(own_net.phrase_vectors, vectors)
    assert torch.equal(own_net.phrase_projection.aspect_means, means)


# ---------------------------------------------------------------- a loss that is not finite


def damaged_batch(trainer, value=np.nan):
    batch = batch_of(trainer, "a", "b")
    batch["data"][1, 0, 2, 3, 4] = value
    return batch


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "scaler"])
def test_a_step_without_a_finite_loss_is_skipped_and_the_tenth_in_a_row_is_the_last(work, capsys, value, scaled):
    trainer = work.ready()
    if scaled:
        trainer.grad_scaler = torch.amp.GradScaler("cpu")
    before = weights_of(trainer)
    for _ in range(9):
        assert not np.isfinite(trainer.train_step(damaged_batch(trainer, value))["loss"])
    assert torch.equal(before, weights_of(trainer))
    assert capsys.readouterr().out.count("step skipped") == 9
    if scaled:
        trainer.grad_scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    assert np.isfinite(trainer.train_step(batch_of(trainer, "a", "b"))["loss"])
    assert not torch.equal(before, weights_of(trainer))
    for _ in range(9):
        trainer.train_step(damaged_batch(trainer, value))
    with pytest.raises(MaleniaError, match=r"not finite in 10 steps in a row.*a, b.*--c") as error:
        trainer.train_step(damaged_batch(trainer, value))
    assert "\n" not in str(error.value)
    assert weights_of(trainer).isfinite().all()


@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "scaler"])
def test_a_step_is_skipped_though_only_the_loss_and_no_gradient_is_not_finite(work, scaled):
    trainer = work.ready()
    trainer.grad_scaler = torch.amp.GradScaler("cpu", init_scale=1.0) if scaled else None
    trainer.contrast = lambda *_: torch.tensor(torch.inf)
    before = weights_of(trainer)
    trainer.train_step(batch_of(trainer, "a", "b"))
    assert torch.equal(before, weights_of(trainer))
    assert trainer.num_skipped == 1


def test_an_overflow_that_the_scaler_can_mend_does_not_count(work):
    trainer = work.ready()
    trainer.grad_scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    for _ in range(12):
        assert np.isfinite(trainer.train_step(batch_of(trainer, "a", "b"))["loss"])
    assert trainer.num_skipped == 0


def finish_epoch(trainer, steps, dice=0.5):
    """The end of an epoch as nnU-Net's loop has it, with a validation that measured this Dice."""
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    trainer.on_train_epoch_end([trainer.train_step(batch) for batch in steps])
    counts = {"tp_hard": np.array([dice]), "fp_hard": np.array([1 - dice]), "fn_hard": np.array([1 - dice])}
    trainer.on_validation_epoch_end([{"loss": np.float32(1), **counts}])
    trainer.on_epoch_end()


def test_an_epoch_that_ends_in_skipped_steps_is_never_the_best(work, monkeypatch):
    trainer = work.ready()
    monkeypatch.setattr(trainer.logger, "plot_progress_png", lambda folder: None)  # takes a second, and is nnU-Net's
    best = work.preprocessed.parents[1] / trainer.output_folder / "checkpoint_best.pth"
    finish_epoch(trainer, [batch_of(trainer, "a", "b"), damaged_batch(trainer)], dice=0.9)
    assert not best.exists()
    assert trainer._best_ema is None
    finish_epoch(trainer, [damaged_batch(trainer), batch_of(trainer, "a", "b")], dice=0.4)
    assert best.exists()
    logged = torch.load(best, weights_only=True)["logging"]
    assert np.isfinite(logged["train_losses"]).all()
    assert np.isfinite(logged["train_mp_nce"]).all()
    assert trainer._best_ema == logged["ema_fg_dice"][-1]


def test_an_epoch_without_any_class_does_not_spoil_the_moving_average(work, monkeypatch):
    trainer = work.ready()
    monkeypatch.setattr(trainer.logger, "plot_progress_png", lambda folder: None)
    trainer.lr_scheduler.max_steps = 4
    for dice in (np.nan, 0.2, np.nan, 0.6):
        with np.errstate(invalid="ignore"), pytest.warns() if np.isnan(dice) else np.errstate():
            finish_epoch(trainer, [batch_of(trainer, "a", "b")], dice=dice)
    averages = trainer.logger.get_value("ema_fg_dice", step=None)
    assert np.isnan(averages[0])
    assert averages[1:] == pytest.approx([0.2, 0.2, 0.24])
    assert trainer._best_ema == pytest.approx(0.24)
