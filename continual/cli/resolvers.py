"""What configs may compute: `${steps_of_tasks:2}` is how many steps two tasks of the chosen env have.

Where tasks differ in length, as those of growing data do, it is twice the mean.
"""

from omegaconf import DictConfig, OmegaConf

from continual.config import num_steps


def register_resolvers() -> None:
    """Make the resolvers known to OmegaConf; a second call changes nothing."""
    OmegaConf.register_new_resolver("steps_of_tasks", _steps_of_tasks, replace=True)


def _steps_of_tasks(tasks: int, *, _root_: DictConfig) -> int:
    env = _root_.env
    if "steps_per_task" in env:
        return tasks * int(env.steps_per_task)
    steps = num_steps({"env": OmegaConf.to_container(env, resolve=True)})
    return round(tasks * steps / int(env.num_tasks))
