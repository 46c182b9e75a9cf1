"""An agent that goes wrong on purpose, in the process that trains it."""

import itertools
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from torch import Tensor

from continual.agents.agent import Agent, Batch, Context, Weights
from continual.tree import Tree

FATAL_STEP = 15

_calls = {fate: itertools.count(1) for fate in ("fine", "raises", "dies_once", "dies_always")}
_mended: dict[str, bool] = {}


@dataclass(frozen=True)
class Faulty(Agent):
    """Plain training, but for what `fate` says; each step that was begun leaves a dot in `<diary>.<fate>`."""

    fate: Literal["fine", "raises", "dies_once", "dies_always"] = "fine"
    diary: str = "diary"

    def penalty(self, weights: Weights, state: Tree, context: Context, batch: Batch) -> Tensor | None:
        diary = Path(f"{self.diary}.{self.fate}")
        with diary.open("a") as file:
            file.write(".")
        if next(_calls[self.fate]) < FATAL_STEP or self.fate in _mended:
            return None
        if self.fate == "raises":
            raise RuntimeError("this agent raises on purpose")
        first_life = diary.stat().st_size <= FATAL_STEP
        if self.fate == "dies_always" or (self.fate == "dies_once" and first_life):
            assert sys.argv[0] == "-c", "it is a worker that is to die"
            os.kill(os.getpid(), signal.SIGKILL)
        return None


def mend(fate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, in this process, nothing goes wrong with this fate, until the test is over."""
    monkeypatch.setitem(_mended, fate, True)
