"""Head reset: every task starts with the output layer as it was at the start.

theta_output <- theta_0,output     before the first step of each task but the first
"""

from dataclasses import dataclass
from typing import Literal

from continual.agents.agent import Agent, Context, TaskStart, Update, module_of
from continual.networks.injection import trained_name


@dataclass(frozen=True)
class HeadReset(Agent):
    """Knows when a task starts. `reinit: sample` draws theta_0 anew each time."""

    reinit: Literal["initial", "sample"] = "initial"
    reset_optimizer: bool = True

    def start_task(self, update: Update, start: TaskStart, context: Context) -> Update:
        roles, restarted = context.anatomy.roles, context.restarted(sample=self.reinit == "sample")
        params = {
            name: restarted[name]
            if roles.get(f"{module_of(trained_name(name))}.weight") == "output"
            else param
            for name, param in update.params.items()
        }
        optimizer = start.fresh_optimizer(params) if self.reset_optimizer else update.optimizer
        return update._replace(params=params, optimizer=optimizer)
