"""Why a step cannot be replayed."""


class Unavailable(Exception):
    """The step cannot be replayed from native code; the message says why, in a few words."""
