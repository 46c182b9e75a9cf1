"""Head reset: every task starts with the output layer as it was at the start.

theta_output <- theta_0,output     before the first step of each task but the first
"""

from dataclasses import dataclass
from typing import Literal

from continual.agents.agent import Agent, Context, TaskStart, Update


@dataclass(frozen=True)
class HeadReset(Agent):
    """Knows when a task starts. `reinit: sample` draws theta_0 anew each time."""

    reinit: Literal["initial", "sample"] = "initial"
    reset_optimizer: bool = True

    def start_task(self, update: Update, start: TaskStart, context: Context) -> Update:
        restarted = context.restarted(sample=self.reinit == "sample")
        of_output = {name: restarted[name] for name in context.anatomy.output_parameters}
        params = {**update.params, **of_output}
        optimizer = start.fresh_optimizer(params) if self.reset_optimizer else update.optimizer
        return update._replace(params=params, optimizer=optimizer)
