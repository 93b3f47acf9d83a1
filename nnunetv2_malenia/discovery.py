"""Where nnU-Net finds our trainers: nnunetv2_malenia.pth calls `announce_trainers` whenever Python starts.

Every Python program of the environment pays for this module, so it imports nothing that is not already loaded.
"""

import os

TRAINER_VARIABLE = "nnUNet_extTrainer"
TRAINER_FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "nnunet_ext")


def announce_trainers() -> None:
    """Append TRAINER_FOLDER to the folders that the environment variable nnUNet_extTrainer lists.

    The user's own folders come first and stay as they are; a folder that is listed already is not added again.
    Child processes inherit the variable.
    """
    folders = [folder for folder in os.environ.get(TRAINER_VARIABLE, "").split(os.pathsep) if folder]
    if TRAINER_FOLDER not in folders:
        os.environ[TRAINER_VARIABLE] = os.pathsep.join([*folders, TRAINER_FOLDER])
