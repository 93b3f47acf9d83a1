"""From a batch to gradients: targets, matching, losses, and the trainer that nnU-Net finds."""
