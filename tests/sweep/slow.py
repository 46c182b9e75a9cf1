"""An agent for runs that are to be interrupted: each step of theirs takes a while, unless told otherwise."""

import os
import time
from dataclasses import dataclass

from continual.agents.agent import Agent, Batch, Context, Weights
from continual.schema import NonNegative
from continual.tree import Tree

TARGET = f"{__name__}.Slow"
SECONDS = "CONTINUAL_TEST_STEP_SECONDS"


@dataclass(frozen=True)
class Slow(Agent):
    """Plain training; `strength` is there to let replicas differ."""

    strength: NonNegative = 0.0

    def penalty(self, weights: Weights, state: Tree, context: Context, batch: Batch) -> None:
        time.sleep(float(os.environ.get(SECONDS, "0")))
