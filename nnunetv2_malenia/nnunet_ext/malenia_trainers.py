"""Our trainers, where nnU-Net looks for them. It imports every module of this folder, so nothing else lives here."""

from nnunetv2_malenia.training.variants import *  # noqa: F403 - re-exporting is this module's one job
