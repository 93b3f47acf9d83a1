"""The console commands: arguments and exit codes. Libraries are imported by the command that needs them, not here."""

from nnunetv2_malenia.cli.conversion import convert_kits, convert_msd, merge
from nnunetv2_malenia.cli.demonstration import demo
from nnunetv2_malenia.cli.evaluation import evaluate
from nnunetv2_malenia.cli.phantoms import phantom
from nnunetv2_malenia.cli.prediction import predict_zeroshot
from nnunetv2_malenia.cli.tables import attributes

__all__ = ["attributes", "convert_kits", "convert_msd", "demo", "evaluate", "merge", "phantom", "predict_zeroshot"]
