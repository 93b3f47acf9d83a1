"""The ground floor: whole files or none, what we may replace, JSON from outside, and the one error that users see."""

from nnunetv2_malenia.files.errors import MaleniaError
from nnunetv2_malenia.files.json_files import is_unicode, read_json, validated
from nnunetv2_malenia.files.outputs import OutputFolder, check_free, files_below, sha256_of, stage
from nnunetv2_malenia.files.whole_files import json_text, write_bytes, write_json, write_text, write_whole

__all__ = [
    "MaleniaError",
    "OutputFolder",
    "check_free",
    "files_below",
    "is_unicode",
    "json_text",
    "read_json",
    "sha256_of",
    "stage",
    "validated",
    "write_bytes",
    "write_json",
    "write_text",
    "write_whole",
]
