"""Continual backprop: at every step, replace the mature units of lowest utility.

With d = decay_rate, h a unit's output as the next layer reads it, a the unit's age in steps:

    h_mean <- d h_mean + (1 - d) mean h                          read as h_mean / (1 - d^a)
    u <- d u + (1 - d) y                                         read as u / (1 - d^a)

    y = mean|W_out|                                              weight
      = mean|W_out| mean|h|                                      contribution
      = 1 / mean|W_in|                                           adaptation
      = mean|W_out| mean|h - h_mean|                             zero_contribution
      = mean|W_out| mean|h - h_mean| / mean|W_in|                adaptable_contribution
      = mean|h - h_mean| / mean|W_in|                            feature_by_input
    u ~ U(0, 1) at every step                                    random

n = replacement_rate * the number of units with a > maturity_threshold

(Dohare et al. 2024, "Loss of plasticity in deep continual learning", Nature 632, algorithm 1; the other
utilities are those of the code published with it.)
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from continual import random
from continual.agents.agent import Agent, Anatomy, Context, Update, Weights
from continual.agents.units import check_units, incoming, outgoing, pooled, replace_units
from continual.networks.network import HiddenLayer
from continual.schema import Decay, Fraction, PerReplica
from continual.tree import Tree


@dataclass(frozen=True)
class ContinualBackprop(Agent):
    """Of the mature units of each layer, the n of lowest utility are replaced after the optimiser's step.

    With `accumulate`, n is added up over the steps and one unit is replaced for each whole. Without, floor(n)
    units are replaced at every step; if n < 1, one with probability n.

    A replaced unit gets fresh incoming weights, bias 0 and outgoing weights 0. What it contributed on average,
    W_out h_mean, moves into the bias of the next layer. Its utility, mean, age and optimiser's state become 0.
    Utilities are of the step's features and of the weights after the optimiser's step, in all layers before
    any unit is replaced.

    Of a convolution, the output is the map after its pooling and means are also over the map; where it is
    flattened into a linear layer, the contribution of each place is moved by the mean of that place.
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

    def check(self, anatomy: Anatomy) -> None:
        check_units(anatomy, "continual_backprop")

    def init(self, context: Context) -> Tree:
        def newborn(layer: HiddenLayer) -> Tree:
            device = context.key.device
            units: Tree = {
                "age": torch.zeros(layer.units, dtype=torch.int64, device=device),
                "mean": torch.zeros(layer.units, layer.spread, device=device),
            }
            if self.util_type != "random":
                units["utility"] = torch.zeros(layer.units, device=device)
            if self.accumulate:
                units["owed"] = torch.zeros((), device=device)
            return units

        return {layer.name: newborn(layer) for layer in context.anatomy.hidden_layers}

    def after_update(self, update: Update, features: Weights, context: Context) -> Update:
        weights, state = update.params, {}
        drawn = context.draw_initial()
        fresh = {name: torch.zeros_like(v) if name.endswith(".bias") else v for name, v in drawn.items()}
        for layer in context.anatomy.hidden_layers:
            units = self._observed(update.state[layer.name], layer, features[layer.name], weights)
            chosen_U, units = self._chosen(units, layer, context)
            mean_US = units["mean"] / self._bias_correction(units)[:, None]
            update = _contribution_moved(update, layer, chosen_U, mean_US)
            update = replace_units(update, layer, chosen_U, fresh, context)
            for name in units.keys() - {"owed"}:
                chosen = chosen_U[:, None] if name == "mean" else chosen_U
                units[name] = torch.where(chosen, 0, units[name])
            state[layer.name] = units
        return update._replace(state=state)

    def _observed(self, units: Tree, layer: HiddenLayer, h: Tensor, weights: Weights) -> Tree:
        """The layer's state one step older, with this batch's features and these weights in its means."""
        decay = self.decay_rate
        units = {**units, "age": units["age"] + 1}
        read_BUP = pooled(layer, h)
        mean_US = read_BUP.mean(0)
        if mean_US.shape[1] != layer.spread:
            mean_US = mean_US.mean(1, keepdim=True).expand(-1, layer.spread)
        units["mean"] = decay * units["mean"] + (1 - decay) * mean_US
        if self.util_type != "random":
            h_mean_U = units["mean"].mean(1) / self._bias_correction(units)
            y_U = self._use(read_BUP, h_mean_U, incoming(layer, weights), outgoing(layer, weights))
            units["utility"] = decay * units["utility"] + (1 - decay) * y_U
        return units

    def _use(self, read_BUP: Tensor, h_mean_U: Tensor, in_UI: Tensor, out_OUS: Tensor) -> Tensor:
        """y of the equations above: [U]."""
        match self.util_type:
            case "weight":
                return out_OUS.abs().mean((0, 2))
            case "contribution":
                return out_OUS.abs().mean((0, 2)) * read_BUP.abs().mean((0, 2))
            case "adaptation":
                return 1 / in_UI.abs().mean(1)
        spread_U = (read_BUP - h_mean_U[:, None]).abs().mean((0, 2))
        match self.util_type:
            case "zero_contribution":
                return out_OUS.abs().mean((0, 2)) * spread_U
            case "feature_by_input":
                return spread_U / in_UI.abs().mean(1)
        return out_OUS.abs().mean((0, 2)) * spread_U / in_UI.abs().mean(1)

    def _chosen(self, units: Tree, layer: HiddenLayer, context: Context) -> tuple[Tensor, Tree]:
        """Which units to replace (bool [U]), and the layer's state with these counted off."""
        is_mature_U = units["age"] > self.maturity_threshold
        due = self.replacement_rate * is_mature_U.sum()
        if self.accumulate:
            owed = units["owed"] + due
            count = owed.floor()
            units = {**units, "owed": owed - count}
        else:
            chance = random.uniform(random.stream(context.key, f"{layer.name}/chance"), ())
            count = torch.where(due < 1, chance < due, due.floor())
        if self.util_type == "random":
            score_U = random.uniform(random.stream(context.key, f"{layer.name}/utility"), (layer.units,))
        else:
            score_U = units["utility"] / self._bias_correction(units)
        # Of equals, the first.
        order_U = torch.where(is_mature_U, score_U, torch.inf).argsort(stable=True)
        return is_mature_U & (order_U.argsort() < count), units

    def _bias_correction(self, units: Tree) -> Tensor:
        """1 - d^a, [U]: what the weights in a running mean add up to at this age."""
        correction: Tensor = 1 - self.decay_rate ** units["age"]
        return correction


def _contribution_moved(update: Update, layer: HiddenLayer, chosen_U: Tensor, mean_US: Tensor) -> Update:
    """Add to the bias of the next layer what the chosen units contribute to it on average."""
    name = f"{layer.outgoing}.bias"
    if name not in update.params:
        return update
    removed_US = torch.where(chosen_U[:, None], mean_US, 0.0)
    added_O = (outgoing(layer, update.params) * removed_US).sum((1, 2))
    return update._replace(params={**update.params, name: update.params[name] + added_O})
