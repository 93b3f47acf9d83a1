"""The error that a command shows to its user."""


class MaleniaError(ValueError):
    """What a user can put right; the message is one line: what is wrong, where, what to do.

    Every command ends with it as `error: MESSAGE` and exit status 1. Subclasses say which part could not be used.
    """
