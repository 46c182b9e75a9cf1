"""What configs may compute: `${steps_of_tasks:2}` is how many steps two tasks of the chosen env have.

Where tasks differ in length, as those of growing data do, it is twice the mean.
"""

import inspect
from typing import Any

from omegaconf import DictConfig, OmegaConf

from continual.config import num_steps


def register_resolvers() -> None:
    """Make the resolvers known to OmegaConf; a second call changes nothing."""
    # OmegaConf 2.4 warns of the name that is right in 2.3, where its own means a function without `replace`.
    renamed = "replace" in inspect.signature(OmegaConf.register_resolver).parameters
    register: Any = OmegaConf.register_resolver if renamed else OmegaConf.register_new_resolver
    register("steps_of_tasks", _steps_of_tasks, replace=True)


def _steps_of_tasks(tasks: int, *, _root_: DictConfig) -> int:
    env = _root_.env
    if "steps_per_task" in env:
        return tasks * int(env.steps_per_task)
    steps = num_steps({"env": OmegaConf.to_container(env, resolve=True)})
    return round(tasks * steps / int(env.num_tasks))
