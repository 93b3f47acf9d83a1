"""The trainers under the names that nnU-Net looks up; it imports every module of this folder, so nothing else lives here."""

from nnunetv2_malenia.training.variants import *  # noqa: F403 - re-exporting is this module's one job
