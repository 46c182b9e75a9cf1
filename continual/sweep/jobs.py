"""A sweep's jobs: which run each of them is, and what is known of how it was asked for."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from continual.config import Replica
from continual.errors import ConfigError, UserError


@dataclass(frozen=True)
class Job:
    """A job of a sweep: its number, what was typed for it, the run that it is, and Hydra's own node."""

    number: int
    overrides: list[str]
    run: Replica
    hydra: dict[str, Any]


@contextmanager
def naming(number: int, overrides: Sequence[str]) -> Iterator[None]:
    """Let a user's mistake in here name the job that it is in."""
    try:
        yield
    except UserError as error:
        raise ConfigError(f"job {number} ({' '.join(overrides)}): {error}") from error
