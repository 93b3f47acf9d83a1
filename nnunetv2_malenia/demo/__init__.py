"""The whole path on phantoms: data, nnU-Net's own commands, zero-shot queries, scores."""
