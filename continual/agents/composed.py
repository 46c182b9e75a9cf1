"""Composed: two agents at once, such as a penalty with resets.

loss(theta) + penalty_1(theta) + penalty_2(theta);  after the optimiser's step, what the first does and then
what the second does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from continual import random
from continual.agents.agent import (
    Agent,
    Anatomy,
    Batch,
    Context,
    Penalty,
    Step,
    TaskStart,
    Update,
    Weights,
    value_and_found,
)
from continual.networks.network import HiddenLayer
from continual.optimizers.optimizer import Optimizer
from continual.tree import Tree


class Both(NamedTuple):
    """The states of both agents, or what their penalties found."""

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

    def before_step(
        self, params: Weights, state: Both, loss_at: Callable[[Weights], Tensor], context: Context
    ) -> tuple[Weights, Both]:
        params, first = self.first.before_step(params, state.first, loss_at, context)
        params, second = self.second.before_step(params, state.second, loss_at, _second(context))
        return params, Both(first, second)

    def penalty(self, weights: Weights, state: Both, context: Context, batch: Batch) -> Penalty | None:
        first, by_first = value_and_found(self.first.penalty(weights, state.first, context, batch))
        second, by_second = value_and_found(
            self.second.penalty(weights, state.second, _second(context), batch)
        )
        values = [value for value in (first, second) if value is not None]
        found = Both(by_first, by_second)
        return Penalty(sum(values[1:], values[0]), found) if values else None

    def transform_gradients(
        self, gradients: Weights, params: Weights, state: Both, context: Context
    ) -> tuple[Weights, Both]:
        gradients, first = self.first.transform_gradients(gradients, params, state.first, context)
        gradients, second = self.second.transform_gradients(gradients, params, state.second, _second(context))
        return gradients, Both(first, second)

    def after_update(self, update: Update, step: Step, context: Context) -> Update:
        found = step.found if isinstance(step.found, Both) else Both({}, {})
        return self._one_by_one(
            update,
            lambda update: self.first.after_update(update, step._replace(found=found.first), context),
            lambda update: self.second.after_update(
                update, step._replace(found=found.second), _second(context)
            ),
        )

    def start_task(self, update: Update, start: TaskStart, context: Context) -> Update:
        """Only who acts at a task's start is asked: the other may act at other times."""
        first, second = self.first, self.second
        return self._one_by_one(
            update,
            lambda u: first.start_task(u, start, context) if first.sees_task_starts else u,
            lambda u: second.start_task(u, start, _second(context)) if second.sees_task_starts else u,
        )

    def evaluated(self, params: Weights, state: Both) -> Weights:
        return self.second.evaluated(self.first.evaluated(params, state.first), state.second)

    def _one_by_one(
        self, update: Update, first: Callable[[Update], Update], second: Callable[[Update], Update]
    ) -> Update:
        state: Both = update.state
        update = first(update._replace(state=state.first))
        after_first = update.state
        update = second(update._replace(state=state.second))
        return update._replace(state=Both(after_first, update.state))

    def end_task(self, weights: Weights, state: Both, squared_gradients: Callable[[int], Weights]) -> Both:
        return Both(
            self.first.end_task(weights, state.first, squared_gradients),
            self.second.end_task(weights, state.second, squared_gradients),
        )

    def trains_with(self, optimizer: Optimizer) -> Optimizer:
        return self.second.trains_with(self.first.trains_with(optimizer))

    def replaced(self, anatomy: Anatomy) -> tuple[HiddenLayer, ...]:
        return tuple(dict.fromkeys((*self.first.replaced(anatomy), *self.second.replaced(anatomy))))

    @property
    def decomposes(self) -> bool:
        return self.first.decomposes or self.second.decomposes

    @property
    def multiplies_vectors(self) -> bool:
        return self.first.multiplies_vectors or self.second.multiplies_vectors

    @property
    def has_penalty(self) -> bool:
        return self.first.has_penalty or self.second.has_penalty

    @property
    def sees_task_starts(self) -> bool:
        return self.first.sees_task_starts or self.second.sees_task_starts

    @property
    def sees_task_ends(self) -> bool:
        return self.first.sees_task_ends or self.second.sees_task_ends


def composed(agent: Agent) -> Agent:
    """The agent and what it has as `plus`, as one."""
    return agent if agent.plus is None else Composed(agent, composed(agent.plus))


def _second(context: Context) -> Context:
    return context._replace(key=random.stream(context.key, "plus"))
