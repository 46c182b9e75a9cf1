"""Which methods know when a task starts or ends: they are given more than those that see batches alone."""

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from continual import schema
from continual.errors import UserError
from continual.identity import OWN_TARGETS
from continual.report.configs import RunConfig

if TYPE_CHECKING:
    from continual.report.runs import Runs

MARK = "\N{DAGGER}"
"""Stands behind the name of such a method."""
NOTE = f"{MARK} knows task boundaries: it acts when a task starts or ends"


def boundary_groups(runs: "Runs") -> frozenset[int]:
    """The groups whose method knows task boundaries."""
    return frozenset(group for group, config in enumerate(runs.configs) if knows_boundaries(config))


def knows_boundaries(config: RunConfig) -> bool:
    """Whether a run's agent, or what it is combined with, acts when a task starts or ends.

    False for an agent that is not this program's own: its class is not looked up, since an import runs code.
    """
    path = "agent"
    while f"{path}._target_" in config.values:
        if _acts(config.values, path):
            return True
        path += ".plus"
    return False


def _acts(values: Mapping[str, Any], path: str) -> bool:
    """Whether the agent at this path of a config does, without what it is combined with."""
    from continual.agents.agent import Agent  # which imports torch

    target = values[f"{path}._target_"]
    if not (isinstance(target, str) and target.startswith(OWN_TARGETS)):
        return False
    names = {key: key.removeprefix(f"{path}.") for key in values if key.startswith(f"{path}.")}
    given = {
        name: values[key]
        for key, name in names.items()
        if name not in ("_target_", "plus") and "." not in name
    }
    try:
        found = schema.locate(target)
        # Nothing but an agent is called: a stranger's config may name any of this program's functions.
        if not (inspect.isclass(found) and issubclass(found, Agent)):
            return False
        agent = found(**given)
    # Of another version of this program, with other settings.
    except (UserError, ImportError, AttributeError, TypeError, ValueError):
        return False
    return agent.sees_task_starts or agent.sees_task_ends
