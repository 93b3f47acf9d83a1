"""Zero-shot segmentation against its baselines, its upper bound and its ablations, over seeds."""
