"""Continual backprop: at every step, replace a few mature units of low utility.

With d = decay_rate, h a unit's output as the next layer reads it, a the unit's age in steps:

    h_mean <- d h_mean + (1 - d) mean h             read as h_mean / (1 - d^a)
    u      <- d u      + (1 - d) y                  read as u / (1 - d^a)

    y = mean|W_out|                                           weight
        mean|W_out| * mean|h|                                 contribution
        1 / mean|W_in|                                        adaptation
        mean|W_out| * mean|h - h_mean|                        zero_contribution
        mean|W_out| * mean|h - h_mean| / mean|W_in|           adaptable_contribution
        mean|h - h_mean| / mean|W_in|                         feature_by_input
    u ~ U(0, 1), drawn anew at every step                     random

    n = replacement_rate * number of the layer's units with a > maturity_threshold

A unit whose incoming weights are all 0, because all that it read was replaced at once, has y = 0 where y is
divided by them: it would otherwise be of infinite use for ever.

(Dohare et al. 2024, "Loss of plasticity in deep continual learning", Nature 632, algorithm 1; the kinds of
utility are those of the code published with it.)
"""

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
from annotated_types import Ge
from torch import Tensor

from continual import random
from continual.agents.agent import Context, Step, Update, Weights
from continual.agents.units import ReplacesUnits, incoming, outgoing, pooled, replace_units
from continual.errors import ConfigError
from continual.networks.network import HiddenLayer
from continual.optimizers.adam import Adam, AdamAsReleased
from continual.optimizers.optimizer import Optimizer
from continual.schema import Decay, Fraction, PerReplica, Positive


class Units(NamedTuple):
    """What is known of a layer's units, U of them; `owed` is the fraction of a unit still to be replaced."""

    age: Tensor  # [U], int64: steps since a unit was replaced
    total: (
        Tensor  # [U]: 1 - d^a, as a running mean of 1: the compiler would repeat the power for every weight
    )
    h_mean: Tensor  # [U, spread]
    utility: Tensor  # [U]
    owed: Tensor  # []


@dataclass(frozen=True)
class ContinualBackprop(ReplacesUnits):
    """Of each layer's mature units, the n of lowest utility are replaced after the optimiser's step.

    With `accumulate`, n is added up over steps and one unit replaced for each whole. Without, floor(n) units
    are replaced at each step or, if n < 1, one with probability n.

    A replaced unit has fresh incoming weights (of linear layers times `reinit_scale`), bias 0 and outgoing
    weights 0, and starts again with age, utility, mean, optimiser's state and Adam's count 0. What it
    contributed on average, W_out h_mean, moves into the bias of the next layer. The weights in y are those
    after the optimiser's step, before any unit is replaced.

    The code that Kumar et al. (2024) released draws the weights of linear layers from Kaiming's bound, which
    is `reinit_scale: 2.45`, and corrects Adam's moments otherwise, which is `adam_correction: released`.

    Of a convolution, h is the pooled map, and means are over its places too. Where it is flattened into a
    linear layer, every place has a mean of its own, so that what moves into the bias is exact.
    """

    replacement_rate: Fraction = 1e-3
    decay_rate: Decay = 0.99
    maturity_threshold: Annotated[int, PerReplica(), Ge(0)] = 100
    util_type: Literal[
        "weight",
        "contribution",
        "adaptation",
        "zero_contribution",
        "adaptable_contribution",
        "feature_by_input",
        "random",
    ] = "adaptable_contribution"
    accumulate: bool = False
    reinit_scale: Positive = 1.0
    adam_correction: Literal["adam", "released"] = "adam"

    def trains_with(self, optimizer: Optimizer) -> Optimizer:
        if self.adam_correction == "adam":
            return optimizer
        if type(optimizer) is not Adam:
            raise ConfigError("agent.adam_correction: released goes with optimizer=adam only; use adam.")
        return AdamAsReleased(**vars(optimizer))

    def init(self, context: Context) -> dict[str, Units]:
        device = context.key.device

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, device=device)

        return {
            layer.name: Units(
                age=torch.zeros(layer.units, dtype=torch.int64, device=device),
                total=zeros(layer.units),
                h_mean=zeros(layer.units, layer.spread),
                utility=zeros(layer.units),
                owed=zeros(),
            )
            for layer in context.anatomy.hidden_layers
        }

    def after_update(self, update: Update, step: Step, context: Context) -> Update:
        weights, state = update.params, update.state
        fresh = {
            name: self._scaled(drawn) if name.endswith(".weight") else torch.zeros_like(drawn)
            for name, drawn in context.draw_initial().items()
        }
        after = {}
        for layer in context.anatomy.hidden_layers:
            units = self._observed(state[layer.name], layer, step.features[layer.name], weights, context)
            is_mature_U = units.age > self.maturity_threshold
            n = self.replacement_rate * is_mature_U.sum()
            owed = units.owed
            if self.accumulate:
                count = (owed + n).floor()
                owed = owed + n - count
            else:
                chance = random.uniform(random.stream(context.key, f"{layer.name}/chance"), ())
                count = torch.where(n < 1, chance < n, n.floor())
            utility_U = units.utility if self.util_type == "random" else units.utility / units.total
            chosen_U = is_mature_U & (_rank(torch.where(is_mature_U, utility_U, torch.inf)) < count)
            h_mean_US = units.h_mean / units.total[:, None]
            update = _contribution_moved(update, layer, chosen_U, h_mean_US)
            update = replace_units(update, layer, chosen_U, fresh, context)
            after[layer.name] = Units(
                age=torch.where(chosen_U, 0, units.age),
                total=torch.where(chosen_U, 0, units.total),
                h_mean=torch.where(chosen_U[:, None], 0, units.h_mean),
                utility=torch.where(chosen_U, 0, units.utility),
                owed=owed,
            )
        return update._replace(state=after)

    def _scaled(self, drawn: Tensor) -> Tensor:
        return drawn if drawn.ndim > 2 else self.reinit_scale * drawn

    def _observed(
        self, units: Units, layer: HiddenLayer, features: Tensor, weights: Weights, context: Context
    ) -> Units:
        """The units' state one step older, with this batch's features and these weights in its means."""
        d = self.decay_rate
        h_BUP = pooled(layer, features)
        h_US = h_BUP.mean(0)
        if h_US.shape[1] != layer.spread:
            h_US = h_US.mean(1, keepdim=True).expand(-1, layer.spread)
        total_U = d * units.total + (1 - d)
        h_mean_US = d * units.h_mean + (1 - d) * h_US
        if self.util_type == "random":
            utility_U = random.uniform(random.stream(context.key, f"{layer.name}/utility"), (layer.units,))
        else:
            h_mean_U = h_mean_US.mean(1) / total_U
            y_U = self._use(h_BUP, h_mean_U, incoming(layer, weights), outgoing(layer, weights))
            utility_U = d * units.utility + (1 - d) * y_U
        return Units(units.age + 1, total_U, h_mean_US, utility_U, units.owed)

    def _use(self, h_BUP: Tensor, h_mean_U: Tensor, w_in_UI: Tensor, w_out_OUS: Tensor) -> Tensor:
        """y of the equations above, [U]."""
        y_U = torch.ones_like(h_mean_U)
        if self.util_type == "contribution":
            y_U = h_BUP.abs().mean((0, 2))
        if self.util_type in ("zero_contribution", "adaptable_contribution", "feature_by_input"):
            y_U = (h_BUP - h_mean_U[:, None]).abs().mean((0, 2))
        if self.util_type in ("weight", "contribution", "zero_contribution", "adaptable_contribution"):
            y_U = y_U * w_out_OUS.abs().mean((0, 2))
        if self.util_type in ("adaptation", "adaptable_contribution", "feature_by_input"):
            w_in_U = w_in_UI.abs().mean(1)
            y_U = torch.where(w_in_U > 0, y_U / w_in_U, 0.0)
        return y_U


def _rank(score_U: Tensor) -> Tensor:
    """The place of each in ascending order, float32 [U]; of equals, the first comes first.

    argsort().argsort() says the same. For as few as a layer's units it is faster to compare all pairs, and
    on a CPU much faster with floats than with integers.
    """
    index_U = torch.arange(len(score_U), dtype=torch.float32, device=score_U.device)
    is_below = score_U < score_U[:, None]
    is_before = (score_U == score_U[:, None]) & (index_U < index_U[:, None])
    return (is_below | is_before).sum(1, dtype=torch.float32)


def _contribution_moved(update: Update, layer: HiddenLayer, chosen_U: Tensor, h_mean_US: Tensor) -> Update:
    """Add to the next layer's bias, if it has one, what the chosen units contribute to it on average."""
    name = f"{layer.outgoing}.bias"
    if name not in update.params:
        return update
    moved_US = torch.where(chosen_U[:, None], h_mean_US, 0.0)
    moved_O = (outgoing(layer, update.params) * moved_US).sum((1, 2))
    return update._replace(params={**update.params, name: update.params[name] + moved_O})
