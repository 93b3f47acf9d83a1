"""Words to vectors: attribute tables, the controlled vocabulary and stored text embeddings. Has never seen a voxel."""
