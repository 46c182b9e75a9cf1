"""Self-normalized resets: a unit that is silent for longer than its history makes plausible is replaced.

A unit's age a counts the steps in which it did not fire: a <- 0 if any h > 0 on the batch, else a + 1. The
ages at which it fires are its history. A unit with a >= tau is replaced. Every threshold_period steps each
unit's tau moves towards the age q that a share `percentile` of its history does not exceed:

tau <- q if q < tau else 2 tau                                                        histogram
tau <- ceil(q) if q < tau else ceil(2 tau),  q = -ln(1 - percentile) sum / count      exponential

(Farias & Jozefiak 2025, "Self-Normalized Resets for Plasticity in Continual Learning", arXiv 2410.20098;
code: ajozefiak/SelfNormalizedResets, and ajozefiak/CL-transformers for the exponential distribution.)
"""

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from continual.agents.agent import Context, Step, Update
from continual.agents.units import ReplacesUnits, positions, replace_units
from continual.networks.network import HiddenLayer
from continual.schema import Count, Period, PerReplica


class Ages(NamedTuple):
    """What is known of a layer's units: ages in steps."""

    age: Tensor  # [U], int32
    threshold: Tensor  # [U], float32: tau
    history: Tensor  # [U, longest_age + 1], counts by age; or [U, 2], the sum of ages and their count


@dataclass(frozen=True)
class SelfNormalizedResets(ReplacesUnits):
    """A replaced unit has fresh incoming weights, bias 0, outgoing weights 0 and the optimiser's state 0.

    That is Adam's count of steps, too; the authors' code resets its moments alone.

    A history starts anew with each period: that of the exponential distribution with sum and count 1. With a
    histogram, ages beyond `longest_age` count as that, and tau stays between 1 and that.
    """

    percentile: Annotated[float, PerReplica(), Gt(0), Lt(1)] = 0.99
    threshold_period: Period = 10000
    first_threshold: Annotated[int, PerReplica(), Ge(1)] = 10
    estimator: Literal["exponential", "histogram"] = "exponential"
    longest_age: Count = 1250

    def init(self, context: Context) -> dict[str, Ages]:
        device = context.key.device

        def newborn(layer: HiddenLayer) -> Ages:
            age_U = torch.zeros(layer.units, dtype=torch.int32, device=device)
            threshold_U = torch.ones(layer.units, device=device) * self.first_threshold
            return Ages(age_U, threshold_U, self._empty_history(layer.units, device))

        return {layer.name: newborn(layer) for layer in context.anatomy.hidden_layers}

    def after_update(self, update: Update, step: Step, context: Context) -> Update:
        fresh = {
            name: torch.zeros_like(drawn) if name.endswith(".bias") else drawn
            for name, drawn in context.draw_initial().items()
        }
        is_due = (context.step + 1) % self.threshold_period == 0
        after = {}
        for layer in context.anatomy.hidden_layers:
            fired_U = (positions(step.features[layer.name]) > 0).any(2).any(0)
            chosen_U, ages = self.observed(update.state[layer.name], fired_U)
            update = replace_units(update, layer, chosen_U, fresh, context)
            threshold_U = torch.where(is_due, self.next_threshold(ages), ages.threshold)
            empty = self._empty_history(layer.units, fired_U.device)
            after[layer.name] = Ages(ages.age, threshold_U, torch.where(is_due, empty, ages.history))
        return update._replace(state=after)

    def observed(self, ages: Ages, fired_U: Tensor) -> tuple[Tensor, Ages]:
        """Which units to replace, bool [U], and the ages after a step in which these units fired."""
        # The exponential distribution is that of the step at which a unit fires: one more than it was silent.
        is_exponential = self.estimator == "exponential"
        history = self._recorded(ages.history, ages.age + int(is_exponential), fired_U)
        age_U = torch.where(fired_U, 0, ages.age + 1)
        chosen_U = age_U >= ages.threshold
        history = self._recorded(history, age_U, chosen_U)
        return chosen_U, Ages(torch.where(chosen_U, 0, age_U), ages.threshold, history)

    def next_threshold(self, ages: Ages) -> Tensor:
        """tau of the next period, [U]."""
        tau_U = ages.threshold
        if self.estimator == "exponential":
            sum_U, count_U = ages.history[:, 0], ages.history[:, 1]
            q_U = -torch.log1p(-torch.as_tensor(self.percentile)) * sum_U / count_U
            return torch.where(q_U < tau_U, q_U.ceil(), (2 * tau_U).ceil())
        counts = ages.history.clone()
        counts[:, 0] = 0
        share_U = self.percentile * counts.sum(1)
        q_U = (counts.cumsum(1) < share_U[:, None]).sum(1).clamp(min=1).to(tau_U.dtype)
        return torch.where(q_U < tau_U, q_U, 2 * tau_U).clamp(1, self.longest_age)

    def _recorded(self, history: Tensor, age_U: Tensor, which_U: Tensor) -> Tensor:
        """The history with these units' ages added."""
        one_U = which_U.to(history.dtype)
        if self.estimator == "exponential":
            return history + torch.stack([age_U * one_U, one_U], 1)
        places = age_U.clamp(max=self.longest_age).long()
        return history.scatter_add(1, places[:, None], one_U[:, None])

    def _empty_history(self, units: int, device: torch.device) -> Tensor:
        if self.estimator == "exponential":
            return torch.ones(units, 2, device=device)
        return torch.zeros(units, self.longest_age + 1, device=device)
