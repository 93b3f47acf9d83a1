"""Why a volume cannot be used."""

from nnunetv2_malenia.files import MaleniaError


class InputError(MaleniaError):
    """A volume that cannot be used; the message is one line: which file, what is wrong, what to do."""
