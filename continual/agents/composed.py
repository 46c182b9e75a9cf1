"""Composed: two agents at once, such as a penalty with resets.

loss(theta) + penalty_1(theta) + penalty_2(theta);  after the optimiser's step, what the first does and then
what the second does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from continual import random
from continual.agents.agent import Agent, Anatomy, Context, Update, Weights
from continual.tree import Tree


class Both(NamedTuple):
    """The states of both agents."""

    first: Tree
    second: Tree


@dataclass(frozen=True)
class Composed(Agent):
    """What an agent and its `plus` are together; more than two are composed in a row.

    The first draws the random numbers that it draws alone, the second others.
    """

    first: Agent
    second: Agent

    def check(self, anatomy: Anatomy) -> None:
        self.first.check(anatomy)
        self.second.check(anatomy)

    def init(self, context: Context) -> Both:
        return Both(self.first.init(context), self.second.init(_second(context)))

    def penalty(self, weights: Weights, state: Both, context: Context) -> Tensor | None:
        first = self.first.penalty(weights, state.first, context)
        second = self.second.penalty(weights, state.second, _second(context))
        if first is None or second is None:
            return second if first is None else first
        return first + second

    def after_update(self, update: Update, features: Weights, context: Context) -> Update:
        first, second = update.state
        update = self.first.after_update(update._replace(state=first), features, context)
        first = update.state
        update = self.second.after_update(update._replace(state=second), features, _second(context))
        return update._replace(state=Both(first, update.state))

    def end_task(self, weights: Weights, state: Both, squared_gradients: Callable[[int], Weights]) -> Both:
        return Both(
            self.first.end_task(weights, state.first, squared_gradients),
            self.second.end_task(weights, state.second, squared_gradients),
        )

    @property
    def sees_task_ends(self) -> bool:
        return self.first.sees_task_ends or self.second.sees_task_ends


def composed(agent: Agent) -> Agent:
    """The agent and what it has as `plus`, as one."""
    return agent if agent.plus is None else Composed(agent, composed(agent.plus))


def _second(context: Context) -> Context:
    return context._replace(key=random.stream(context.key, "plus"))
