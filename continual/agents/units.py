"""What the methods that replace units share: what belongs to a unit, and how it is replaced.

To a unit belong its row of the incoming weight, its bias, its scale and shift in the layer's norm, what its
activation has learnt for it alone, its columns of the outgoing weight, and the entries of all these in the
optimiser's slots.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from continual import random
from continual.agents.agent import Agent, Anatomy, Context, Update, Weights
from continual.errors import ConfigError
from continual.networks.injection import FRESH, OLD
from continual.networks.network import HiddenLayer
from continual.networks.pooling import max_pool


@dataclass(frozen=True)
class ReplacesUnits(Agent):
    """An agent that replaces units, called by its file's name where it cannot."""

    def check(self, anatomy: Anatomy) -> None:
        check_units(anatomy, type(self).__module__.rpartition(".")[2])

    def replaced(self, anatomy: Anatomy) -> tuple[HiddenLayer, ...]:
        return anatomy.hidden_layers


def check_units(anatomy: Anatomy, agent: str) -> None:
    """Raise ConfigError if the network does not tell its units, or they have several outputs."""
    if not anatomy.hidden_layers:
        raise ConfigError(
            f"agent: {agent} needs a network that tells its hidden layers; derive it from "
            "continual.networks.network.Network and give it hidden_layers."
        )
    for layer in anatomy.hidden_layers:
        if layer.outputs_per_unit > 1:
            raise ConfigError(
                f"agent: {agent} cannot replace the units of '{layer.name}', which have "
                f"{layer.outputs_per_unit} outputs each; use a network.activation of one output."
            )


def positions(h: Tensor) -> Tensor:
    """Features [B, U] as [B, U, 1], and maps [B, U, H, W] as [B, U, H * W]."""
    return h.reshape(h.shape[0], h.shape[1], -1)


def pooled(layer: HiddenLayer, h: Tensor) -> Tensor:
    """What the outgoing module reads of the layer's features [B, U] or [B, U, H, W]: [B, U, positions]."""
    return positions(max_pool(h, layer.pool) if layer.pool > 1 else h)


def incoming(layer: HiddenLayer, params: Weights) -> Tensor:
    """The incoming weight, a row for each unit: [U, inputs]."""
    return params[f"{layer.incoming}.weight"].flatten(1)


def outgoing(layer: HiddenLayer, params: Weights) -> Tensor:
    """The outgoing weight by unit: [O, U, S], S the columns of a unit or the window of a convolution."""
    return _by_unit(layer, params[f"{layer.outgoing}.weight"])


def _by_unit(layer: HiddenLayer, weight: Tensor) -> Tensor:
    return weight.reshape(weight.shape[0], layer.units, -1)


def _readers(layer: HiddenLayer, params: Weights) -> list[str]:
    """The weights that read the layer: the outgoing one, and those that are held in its place."""
    name = f"{layer.outgoing}.weight"
    held = () if f"{OLD}.{layer.incoming}.weight" in params else (f"{OLD}.{name}", f"{FRESH}.{name}")
    return [name, *(other for other in held if other in params)]


def replace_units(
    update: Update, layer: HiddenLayer, chosen_U: Tensor, fresh: Weights, context: Context
) -> Update:
    """Replace the chosen units (bool [U]) of one layer; nothing else changes.

    Incoming weights and biases become those of `fresh`, the norm's scale and shift what they were at the
    start, outgoing weights and the optimiser's slots and count of steps 0. A norm's parameters are reset
    because a unit whose shift has silenced it would stay silent with any incoming weights.

    Several layers are replaced from the first to the last. What connects two replaced units belongs to the
    later one, so it ends as an incoming weight: it is of no effect as long as that unit's own outgoing
    weights are 0, and two adjacent layers that are replaced whole are as at the start, not cut off.
    """
    params = dict(update.params)
    optimizer = update.optimizer
    slots = {slot: dict(of) for slot, of in optimizer.slots.items()}
    counts = dict(optimizer.counts)
    if layer.name in counts:
        counts[layer.name] = torch.where(chosen_U, 0, counts[layer.name])
    values = {name: fresh[name] for name in _of(layer.incoming, params)}
    for name in (*_of(layer.norm, params), *_per_unit(layer, params)):
        distribution = context.anatomy.distributions[name]
        values[name] = distribution.draw(random.stream(context.key, name))
    for name, value in values.items():
        rows = chosen_U.reshape(-1, *[1] * (value.ndim - 1))
        params[name] = torch.where(rows, value, params[name])
        for of in slots.values():
            of[name] = torch.where(rows, 0.0, of[name])
    for name in _readers(layer, params):
        for tensors in (params, *slots.values()):
            if name in tensors:
                weight_OUS = _by_unit(layer, tensors[name])
                tensors[name] = torch.where(chosen_U[:, None], 0.0, weight_OUS).reshape(tensors[name].shape)
    return update._replace(params=params, optimizer=optimizer._replace(slots=slots, counts=counts))


def _per_unit(layer: HiddenLayer, params: Weights) -> list[str]:
    """The names of the activation's parameters that every unit has one of."""
    own = [] if layer.activation is None else [n for n in params if n.startswith(f"{layer.activation}.")]
    return [name for name in own if params[name].shape == (layer.units,)]


def _of(module: str | None, params: Weights) -> list[str]:
    """The names of a module's parameters."""
    names = (f"{module}.weight", f"{module}.bias")
    return [name for name in names if name in params]
