"""EmbeddingBank: phrase -> vector, with the fingerprint of the encoder that made the vectors. Torch-free."""

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import as_file, files

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from nnunetv2_malenia.attributes.text_encoder import TextEncoder, TextEncoderError, phrase_text
from nnunetv2_malenia.attributes.vocabulary import ASPECTS, vocabulary
from nnunetv2_malenia.files import MaleniaError, write_bytes

Phrase = tuple[str, str]
"""(aspect, value)"""

SHIPPED_BANK = "vocabulary_embeddings.safetensors"
_METADATA_KEY = "nnunetv2_malenia.embedding_bank"
_NAMED_AT_MOST = 5


class EncoderMismatchError(MaleniaError):
    """Vectors of two encoders would meet in one bank; the message is one line with both fingerprints."""


class UnknownPhraseError(MaleniaError):
    """A phrase that has no vector and cannot get one; the message is one line with the three ways out."""


class BankFileError(MaleniaError):
    """A file that is not an embedding bank, or a damaged one; the message is one line."""


@dataclass(frozen=True, eq=False)
class EmbeddingBank:
    """V phrases and their vectors.

    phrases: distinct (aspect, value). vectors: (V, E) float32, finite, in the same order. fingerprint: of the encoder,
    see `TextEncoder`. Raises ValueError when these do not fit together. An empty bank is allowed.
    """

    phrases: tuple[Phrase, ...]
    vectors: np.ndarray
    fingerprint: str

    def __post_init__(self) -> None:
        vectors = self.vectors
        if vectors.ndim != 2 or len(vectors) != len(self.phrases) or vectors.dtype != np.float32:
            raise ValueError(
                f"{len(self.phrases)} phrases need ({len(self.phrases)}, E) float32 vectors, "
                f"got {vectors.shape} {vectors.dtype}"
            )
        _check_aspects(self.phrases)
        if len(self._index) != len(self.phrases):
            raise ValueError("a phrase is stored twice; each may have one vector")
        if not np.isfinite(vectors).all():
            row = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
            raise ValueError(f"the vector of {_show(self.phrases[row])} is not finite; embed it again")

    @classmethod
    def build(cls, phrases: Iterable[Phrase], encoder: TextEncoder) -> "EmbeddingBank":
        """Embed every distinct phrase once, in order of first use. Raises TextEncoderError as the encoder does."""
        distinct = tuple(dict.fromkeys(phrases))
        _check_aspects(distinct)
        return cls(distinct, encoder.encode([phrase_text(*phrase) for phrase in distinct]), encoder.fingerprint)

    @cached_property
    def _index(self) -> dict[Phrase, int]:
        return {phrase: i for i, phrase in enumerate(self.phrases)}

    def __len__(self) -> int:
        return len(self.phrases)

    def __contains__(self, phrase: object) -> bool:
        return phrase in self._index

    def index(self, aspect: str, value: str) -> int:
        """Row of a phrase. Raises UnknownPhraseError when it is not stored."""
        if (aspect, value) not in self:
            raise UnknownPhraseError(_unknown([(aspect, value)], self))
        return self._index[aspect, value]

    def subset(self, phrases: Iterable[Phrase]) -> "EmbeddingBank":
        """A bank of exactly these phrases, each once, in order of first use. Raises UnknownPhraseError."""
        distinct = tuple(dict.fromkeys(phrases))
        if missing := [phrase for phrase in distinct if phrase not in self]:
            raise UnknownPhraseError(_unknown(missing, self))
        rows = [self._index[phrase] for phrase in distinct]
        return EmbeddingBank(distinct, self.vectors[np.asarray(rows, np.intp)], self.fingerprint)

    def extended(self, phrases: Iterable[Phrase], encoder: TextEncoder) -> "EmbeddingBank":
        """This bank, followed by those of the phrases that it lacks, embedded now.

        Raises EncoderMismatchError when the encoder is not the one that made the bank, even if nothing is missing.
        """
        if encoder.fingerprint != self.fingerprint:
            raise EncoderMismatchError(
                f"the bank was made by {self.fingerprint}, the encoder is {encoder.fingerprint}; one model holds one "
                "encoder's vectors: pass the bank's encoder, or embed all phrases anew with `malenia_attributes embed`"
            )
        new = EmbeddingBank.build((phrase for phrase in phrases if phrase not in self), encoder)
        return EmbeddingBank(self.phrases + new.phrases, np.concatenate([self.vectors, new.vectors]), self.fingerprint)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file, beside its place first and then renamed. The same bank gives the same bytes."""
        # one metadata entry only: safetensors writes several in random order
        metadata = json.dumps({"fingerprint": self.fingerprint, "phrases": self.phrases}, ensure_ascii=False)
        data = save({"vectors": np.ascontiguousarray(self.vectors)}, {_METADATA_KEY: metadata})
        write_bytes(path, data)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "EmbeddingBank":
        """Read what `save` wrote.

        Raises BankFileError for any other or a damaged file, and FileNotFoundError when there is none.
        """
        try:
            with safe_open(path, framework="numpy") as file:
                head = json.loads((file.metadata() or {})[_METADATA_KEY])
                vectors = file.get_tensor("vectors")
            phrases = tuple((aspect, value) for aspect, value in head["phrases"])
            return cls(phrases, vectors, head["fingerprint"])
        except KeyError:
            raise BankFileError(
                f"{os.fspath(path)} is not an embedding bank; make one with `malenia_attributes embed`"
            ) from None
        except (SafetensorError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise BankFileError(f"{os.fspath(path)} is damaged: {reason}; make it again or restore it") from None


@cache
def default_bank() -> EmbeddingBank:
    """The embeddings of the controlled vocabulary and the Clinical Knowledge Table that ship with the package."""
    with as_file(files("nnunetv2_malenia.attribute_tables").joinpath(SHIPPED_BANK)) as path:
        return EmbeddingBank.load(path)


def embed_phrases(
    phrases: Iterable[Phrase], bank: EmbeddingBank, encoder: TextEncoder | Callable[[], TextEncoder] | None
) -> EmbeddingBank:
    """A bank of exactly these phrases, each once: stored vectors where there are any, the encoder for the others.

    encoder: one, or a function that builds it, called only if a phrase is not stored; None to use stored vectors only.
    Raises UnknownPhraseError when a phrase is not stored and there is no encoder or it does not load, and
    EncoderMismatchError when the encoder is needed and did not make the bank.
    """
    distinct = tuple(dict.fromkeys(phrases))
    _check_aspects(distinct)
    missing = [phrase for phrase in distinct if phrase not in bank]
    if not missing:
        return bank.subset(distinct)
    if encoder is None:
        raise UnknownPhraseError(_unknown(missing, bank))
    if not isinstance(encoder, TextEncoder):
        try:
            encoder = encoder()
        except TextEncoderError as error:
            raise UnknownPhraseError(_unknown(missing, bank, reason=str(error))) from error
    return bank.extended(missing, encoder).subset(distinct)


def aspect_means(bank: EmbeddingBank) -> np.ndarray:
    """What the network subtracts from every phrase of an aspect before it compares directions: (A, E) float32.

    Mean vector of the aspect's controlled vocabulary if the bank stores all of it, so that free text moves nothing;
    otherwise of all the aspect's phrases in the bank. An aspect with fewer than two phrases has nothing to be told
    apart from: its mean is 0.
    """
    means = np.zeros((len(ASPECTS), bank.vectors.shape[1]), np.float32)
    for mean, aspect in zip(means, ASPECTS, strict=True):
        controlled = [(aspect, value) for value in vocabulary().values(aspect)]
        stored = [phrase for phrase in bank.phrases if phrase[0] == aspect]
        used = controlled if all(phrase in bank for phrase in controlled) else stored
        if len(used) > 1:
            mean[:] = bank.subset(used).vectors.mean(axis=0, dtype=np.float64)
    return means


def _check_aspects(phrases: Iterable[Phrase]) -> None:
    for aspect, value in phrases:
        if aspect not in ASPECTS:
            raise ValueError(f"{aspect!r} ({value!r}) is not an aspect; use one of {', '.join(ASPECTS)}")


def _show(phrase: Phrase) -> str:
    return f"{phrase[0]} {phrase[1]!r}"


def _unknown(missing: list[Phrase], bank: EmbeddingBank, *, reason: str = "") -> str:
    """One line: the phrases, each with the closest stored vocabulary values, and the three ways out."""
    named = []
    for aspect, value in missing[:_NAMED_AT_MOST]:
        near = [each for each in vocabulary().closest(aspect, value) if (aspect, each) in bank]
        named.append(_show((aspect, value)) + (f" (closest: {', '.join(near)})" if near else ""))
    more = f" and {len(missing) - _NAMED_AT_MOST} more" if len(missing) > _NAMED_AT_MOST else ""
    because = f" and the encoder does not load ({reason})" if reason else ""
    return (
        f"no vector is stored for {', '.join(named)}{more}{because}; use a vocabulary value, "
        f"or `pip install nnunetv2_malenia[minilm]` or pass another encoder if it is the bank's ({bank.fingerprint}), "
        "or embed the table with `malenia_attributes embed`"
    )
