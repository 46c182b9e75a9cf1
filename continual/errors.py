"""Errors that a user can cause and mend: shown as one sentence, without a traceback."""


class UserError(Exception):
    """A mistake of the user's.

    The message is one sentence that names the key, folder or file and says what would be right.
    """

    def _render_traceback_(self) -> list[str]:
        """What IPython, and so a notebook, shows in place of a traceback."""
        return [f"{type(self).__name__}: {self}"]


class ConfigError(UserError):
    """A config with a key or a value that cannot be used."""


class DataError(UserError):
    """A dataset that is absent, damaged or of an unknown form."""


class Stopped(UserError):
    """Training was asked to stop, and has written its checkpoints; the message says how to resume it."""
