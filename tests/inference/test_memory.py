"""Where device memory runs out, less is done at once, and the answer stays the same. The CPU stands in for a device."""

import numpy as np
import pytest
import torch
from tiny_model import tiny_ct, write_tiny_model

from nnunetv2_malenia.attributes.schema import AttributeTable
from nnunetv2_malenia.inference.predictor import MaleniaPredictor

TABLE = AttributeTable(
    lesions={
        "liver tumor": {"location": "liver", "density": "hypodense"},
        "kidney stone": {"density": "hyperdense"},
        "kidney cyst": {"location": "left kidney", "surface": "well-defined"},
        "any dense one": {"density": "hyperdense", "shape": "round-like"},
    }
)
IMAGE = torch.from_numpy(tiny_ct(1, (20, 14, 12)).astype(np.float32) / 100)[None]


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    model = write_tiny_model(tmp_path_factory.mktemp("model"))
    predictor = MaleniaPredictor.from_model_folder(model, device="cpu", use_mirroring=False)
    predictor.ask(TABLE)
    return predictor


def fails(predictor, monkeypatch, error, *, above):
    """Let the network fail when asked for more than `above` channels at once; -> the numbers that it was asked."""
    forward, asked = predictor.network.forward, []

    def limited(x):
        logits = forward(x)
        asked.append(logits.shape[1])
        if logits.shape[1] > above:
            raise error
        return logits

    monkeypatch.setattr(predictor.network, "forward", limited)
    return asked


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_fewer_queries_at_once_give_the_same_answer(predictor, monkeypatch, at_once):
    whole = predictor.predict_logits_from_preprocessed_data(IMAGE)
    asked = fails(predictor, monkeypatch, torch.OutOfMemoryError("out of memory"), above=at_once)
    torch.testing.assert_close(predictor.predict_logits_from_preprocessed_data(IMAGE), whole, atol=1e-3, rtol=0)
    assert whole.shape[0] == asked[0] == 5
    assert min(asked) == at_once or max(asked[2:]) <= at_once
    assert predictor.label_manager.num_segmentation_heads == 5


def test_without_memory_for_one_query_the_error_is_that_of_memory(predictor, monkeypatch):
    fails(predictor, monkeypatch, torch.OutOfMemoryError("out of memory"), above=0)
    with pytest.raises(torch.OutOfMemoryError):
        predictor.predict_logits_from_preprocessed_data(IMAGE)
    assert predictor.label_manager.num_segmentation_heads == 5


def test_another_error_is_not_taken_for_lack_of_memory(predictor, monkeypatch):
    asked = fails(predictor, monkeypatch, RuntimeError("a slip of shapes"), above=0)
    with pytest.raises(RuntimeError, match="a slip of shapes"):
        predictor.predict_logits_from_preprocessed_data(IMAGE)
    assert asked == [5]


def test_tiles_of_air_do_not_reach_the_network_and_hold_nothing(predictor, monkeypatch):
    image = IMAGE.clone()
    image[..., 4:] = image.min()
    whole = predictor.predict_logits_from_preprocessed_data(IMAGE)
    asked = fails(predictor, monkeypatch, RuntimeError("never"), above=99)
    logits = predictor.predict_logits_from_preprocessed_data(image)
    assert 0 < len(asked) < len(predictor._internal_get_sliding_window_slicers(IMAGE.shape[1:]))
    assert logits.shape == whole.shape
    assert logits.isfinite().all()
    assert (logits[..., 8:] == logits.min()).all()
    assert (logits[..., :4] > logits.min()).any()
    asked.clear()
    assert (predictor.predict_logits_from_preprocessed_data(torch.zeros_like(image)) < -9).all()
    assert asked == []
