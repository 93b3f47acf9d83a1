"""Reviewed attribute tables, vocabulary and phrase embeddings; installed as nnunetv2_malenia.attribute_tables."""
