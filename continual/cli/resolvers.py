"""What configs may compute: `${steps_of_tasks:2}` is how many steps two tasks of the chosen env have."""

from omegaconf import DictConfig, OmegaConf


def register_resolvers() -> None:
    """Make the resolvers known to OmegaConf; a second call changes nothing."""
    OmegaConf.register_new_resolver("steps_of_tasks", _steps_of_tasks, replace=True)


def _steps_of_tasks(tasks: int, *, _root_: DictConfig) -> int:
    return tasks * int(_root_.env.steps_per_task)
