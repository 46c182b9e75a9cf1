"""Full reset: every task is learnt from scratch, which is what keeping plasticity is compared with.

theta <- theta_0     before the first step of each task but the first
"""

from dataclasses import dataclass
from typing import Literal

from continual.agents.agent import Agent, Context, TaskStart, Update


@dataclass(frozen=True)
class FullReset(Agent):
    """Knows when a task starts. `reinit: sample` draws theta_0 anew each time."""

    reinit: Literal["initial", "sample"] = "initial"
    reset_optimizer: bool = True

    def start_task(self, update: Update, start: TaskStart, context: Context) -> Update:
        params = context.restarted(sample=self.reinit == "sample")
        optimizer = start.fresh_optimizer(params) if self.reset_optimizer else update.optimizer
        return update._replace(params=params, optimizer=optimizer)
