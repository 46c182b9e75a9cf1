"""Networks of layers one after another: convolutions, then fully connected layers, then the output."""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, NamedTuple, TypeAlias

import torch
from annotated_types import Ge, Lt
from torch import Tensor, nn

from continual import random
from continual.errors import ConfigError
from continual.networks.activations import Activation, Activations, LearntActivation, activations
from continual.networks.initialization import Distribution, Init, scaled
from continual.networks.injection import FRESH, OLD, Held, held_names
from continual.networks.network import HiddenLayer, Network
from continual.networks.pooling import max_pool
from continual.networks.width import FractionToRemove, hidden_widths

Dropout: TypeAlias = Annotated[float, Ge(0), Lt(1)]
Injectable: TypeAlias = Annotated[int, Ge(0)]


class Convolution(NamedTuple):
    """A convolution of the plain network: kernel size, channels, zeros on each side, pooling window."""

    kernel: int
    channels: int
    padding: int
    pool: int


class Layered(Network):
    """Convolutions conv0, conv1, ...; linear layers hidden0, hidden1, ...; a linear layer `output`.

    Each hidden layer is followed by its norm, if asked for, and its activation, and each convolution then by
    a max-pooling. In training, a fraction `dropout` of the outputs of every hidden layer is zeroed and the
    others are scaled up (Srivastava et al. 2014); features are what they were before. `convolutions` and
    `linears`, widths, are those of the plain network. The last `injectable` layers, the output among them,
    are those that plasticity injection replaces (`continual.networks.injection`); 0 is a network without.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        convolutions: Sequence[Convolution],
        linears: Sequence[int],
        activation: Activations,
        layer_norm: bool,
        dropout: Dropout,
        fraction_to_remove: FractionToRemove,
        init: Init,
        injectable: Injectable,
    ) -> None:
        super().__init__()
        self.dropout, self.init = dropout, init
        channels, height, width = input_shape
        maps = _map_sizes((height, width), convolutions)
        last = convolutions[-1].pool if maps else 1
        flattened = math.prod(size // last for size in maps[-1]) if maps else height * width
        names = [*(f"conv{i}" for i in range(len(maps))), *(f"hidden{i}" for i in range(len(linears)))]
        own = activations(activation, len(names))
        widths = hidden_widths(
            [*(c.channels for c in convolutions), *linears],
            [each.outputs_per_unit for each in own],
            fraction_to_remove,
            inputs=channels,
            windows=[*(c.kernel**2 for c in convolutions), flattened, *(1 for _ in linears)],
            num_classes=num_classes,
        )
        self.activations: Mapping[str, Activation] = dict(zip(names, own, strict=True))
        self.is_random = dropout > 0 or any(each.is_random for each in own)
        layers = []
        inputs = channels
        for i, (name, units) in enumerate(zip(names, widths, strict=True)):
            if i < len(maps):
                convolution = convolutions[i]
                module: nn.Module = nn.Conv2d(inputs, units, convolution.kernel, padding=convolution.padding)
                normalised: tuple[int, ...] = (units, *maps[i])
            else:
                module = nn.Linear(inputs * flattened if i == len(maps) else inputs, units)
                normalised = (units,)
            self.add_module(name, module)
            if layer_norm:
                self.add_module(f"{name}_norm", nn.LayerNorm(normalised))
            learns = bool(own[i].parameters(units))
            if learns:
                self.add_module(f"{name}_activation", LearntActivation(own[i], units))
            layers.append(
                HiddenLayer(
                    name=name,
                    incoming=name,
                    outgoing=[*names, "output"][i + 1],
                    units=units,
                    spread=flattened if i == len(maps) - 1 else 1,
                    norm=f"{name}_norm" if layer_norm else None,
                    outputs_per_unit=own[i].outputs_per_unit,
                    pool=convolutions[i].pool if i < len(maps) else 1,
                    activation=f"{name}_activation" if learns else None,
                )
            )
            inputs = units * own[i].outputs_per_unit
        self.output = nn.Linear(inputs * flattened if len(names) == len(maps) else inputs, num_classes)
        self.hidden_layers = tuple(layers)
        self._before_head = len(names) + 1 - injectable
        if self._before_head < 0:
            raise ConfigError(
                f"network.injectable: {injectable} is more than the {len(names) + 1} layers of the network."
            )
        if injectable:
            head = [(h.incoming, h.norm, h.activation) for h in layers[self._before_head :]]
            own_names = [name for modules in (*head, ("output",)) for name in modules if name is not None]
            for part in (OLD, FRESH):
                held = {name: copy.deepcopy(self.get_submodule(name)) for name in own_names}
                self.add_module(part, Held(held))
        self._is_injectable = injectable > 0

    def forward(self, x_BCHW: Tensor, key: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        features: dict[str, Tensor] = {}
        before, head = self.hidden_layers[: self._before_head], self.hidden_layers[self._before_head :]
        z = self._through(before, x_BCHW, key, features)
        logits_BK = self.output(self._through(head, z, key, features).flatten(1))
        if self._is_injectable:
            old_BK, fresh_BK = (self._held(part, head, z, key) for part in (OLD, FRESH))
            logits_BK = logits_BK + old_BK - fresh_BK
        return logits_BK, features

    def _through(
        self,
        layers: Sequence[HiddenLayer],
        h: Tensor,
        key: Tensor | None,
        features: dict[str, Tensor],
        held: Held | None = None,
    ) -> Tensor:
        """What these layers, or those that are held in their place, make of h; adds their features."""
        for layer in layers:
            z = self._call(layer.incoming, h if self._is_convolution(layer) else h.flatten(1), held)
            if layer.norm is not None:
                z = self._call(layer.norm, z, held)
            layer_key = None if key is None else random.stream(key, layer.name)
            h = features[layer.name] = self._activate(layer, z, layer_key, held)
            if self.dropout > 0 and layer_key is not None:
                h = _dropped(h, self.dropout, random.stream(layer_key, "dropout"))
            if layer.pool > 1:
                h = max_pool(h, layer.pool)
        return h

    def _held(self, part: str, head: Sequence[HiddenLayer], z: Tensor, key: Tensor | None) -> Tensor:
        held = self.get_submodule(part)
        assert isinstance(held, Held)
        return held.call("output", self._through(head, z, key, {}, held).flatten(1))

    def _call(self, name: str, h: Tensor, held: Held | None) -> Tensor:
        found: Tensor = self.get_submodule(name)(h) if held is None else held.call(name, h)
        return found

    def _is_convolution(self, layer: HiddenLayer) -> bool:
        return isinstance(self.get_submodule(layer.incoming), nn.Conv2d)

    def _activate(self, layer: HiddenLayer, z: Tensor, key: Tensor | None, held: Held | None) -> Tensor:
        learnt: dict[str, Tensor] = {}
        if layer.activation is not None:
            module = self.get_submodule(layer.activation) if held is None else held[layer.activation]
            learnt = dict(module.named_parameters())
            if held is not None:
                learnt = {name: param.detach() for name, param in learnt.items()}
        return self.activations[layer.name](z, key, learnt)

    def initial_distribution(self) -> Mapping[str, Distribution]:
        gains = {**{name: activation.gain for name, activation in self.activations.items()}, "output": 1.0}
        parts = {f"{part}.{name}": gain for part in (OLD, FRESH) for name, gain in gains.items()}
        found = scaled(self, self.init, {**gains, **parts})
        held = {name: Distribution(found[name].shape, "constant", 0.0) for name in held_names(self)}
        return {**found, **held}


def _dropped(h: Tensor, fraction: float, key: Tensor) -> Tensor:
    kept = random.uniform(key, h.shape) >= fraction
    return torch.where(kept, h / (1 - fraction), 0.0)


def _map_sizes(image: tuple[int, int], convolutions: Sequence[Convolution]) -> list[tuple[int, int]]:
    """Height and width of each convolution's map, before pooling; ConfigError if nothing is left of one."""
    sizes = []
    height, width = image
    for i, convolution in enumerate(convolutions):
        grown = 2 * convolution.padding - convolution.kernel + 1
        height, width = height + grown, width + grown
        if min(height, width) < convolution.pool:
            kernels = [each.kernel for each in convolutions]
            raise ConfigError(
                f"network.kernel_sizes: images of {image[0]}x{image[1]} are too small for {kernels}: "
                f"convolution {i} leaves nothing to pool; use fewer or smaller kernels, or network=mlp."
            )
        sizes.append((height, width))
        height, width = height // convolution.pool, width // convolution.pool
    return sizes
