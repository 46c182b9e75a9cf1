"""The distributions that initial parameters are drawn from.

They are kept as data, not as calls of nn.init, for three reasons: every replica draws from its own key;
agents draw from them again during training; and what is drawn depends on the parameter's name and
shape alone, so that with one seed all agents start from the same weights where shapes agree.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from continual import random
from continual.errors import ConfigError

Init: TypeAlias = Literal["default", "kaiming_uniform", "kaiming_normal", "xavier_uniform", "xavier_normal"]


@dataclass(frozen=True)
class Distribution:
    """The distribution of one parameter's entries, all independent.

    `uniform`: U(-scale, scale); `normal`: N(0, scale^2); `constant`: every entry is `scale`.
    """

    shape: torch.Size
    kind: Literal["uniform", "normal", "constant"]
    scale: float

    def draw(self, key: Tensor) -> Tensor:
        """One draw of the whole parameter, float32."""
        if self.kind == "uniform":
            return self.scale * (2 * random.uniform(key, self.shape) - 1)
        if self.kind == "normal":
            return self.scale * random.normal(key, self.shape)
        return torch.full(self.shape, self.scale, device=key.device)


def draw(distributions: Mapping[str, Distribution], key: Tensor) -> dict[str, Tensor]:
    """A draw of every parameter, each from the stream of its own name."""
    return {name: d.draw(random.stream(key, name)) for name, d in distributions.items()}


def torch_default(network: nn.Module) -> dict[str, Distribution]:
    """PyTorch's own initial distribution: U(+-1/sqrt(fan_in)) for weights and biases, norms at (1, 0).

    Raises ConfigError for a parameter of any other kind of module: its network has to say itself.
    """
    found: dict[str, Distribution] = {}
    for path, module in network.named_modules():
        for name, param in module.named_parameters(path, recurse=False):
            if not param.requires_grad:
                continue
            if isinstance(module, nn.Linear | nn.Conv2d):
                bound = 1 / math.sqrt(_fans(module)[0])
                found[name] = Distribution(param.shape, "uniform", bound)
            elif isinstance(module, nn.LayerNorm | nn.GroupNorm):
                scale = 1.0 if name.endswith("weight") else 0.0
                found[name] = Distribution(param.shape, "constant", scale)
            else:
                raise ConfigError(
                    f"network: the initial distribution of '{name}' ({type(module).__name__}) is unknown; "
                    "derive the network from continual.networks.network.Network and give it an "
                    "initial_distribution()."
                )
    return found


def as_set_up(network: nn.Module) -> tuple[dict[str, Distribution], tuple[str, ...]]:
    """`torch_default`, but a parameter that the module has set to one value everywhere starts at that.

    Also returns the parameters whose values, as the module has set them, are neither that nor a draw from
    PyTorch's own distribution, to within six standard deviations of such a draw.
    """
    found, others = torch_default(network), []
    params = dict(network.named_parameters())
    for name, distribution in found.items():
        values = params[name].detach().double()
        first = values.flatten()[:1]
        if len(first) and (values == first).all() and (values.numel() > 1 or distribution.kind == "constant"):
            found[name] = Distribution(distribution.shape, "constant", float(first))
        elif distribution.kind == "constant" or not _is_uniform(values, distribution.scale):
            others.append(name)
    return found, tuple(others)


def _is_uniform(values: Tensor, bound: float) -> bool:
    """Whether these may be a draw from U(-bound, bound), by their largest and their mean square."""
    # Of n such draws, the mean of the squares is bound^2 (1/3 +- sqrt(4/45 / n)).
    mean_square = float((values / bound).square().mean())
    tolerance = 6 * math.sqrt(4 / 45 / values.numel())
    return float(values.abs().max()) <= bound * (1 + 1e-6) and abs(mean_square - 1 / 3) <= tolerance


def scaled(network: nn.Module, init: Init, activation: str, output: str) -> dict[str, Distribution]:
    """The distributions of `init`; all but "default" have zero biases and gain 1 at the `output` module.

    Kaiming (He et al. 2015): variance gain^2 / fan_in; Xavier (Glorot & Bengio 2010): variance
    2 gain^2 / (fan_in + fan_out); the gain is that of the hidden layers' activation.
    """
    found = torch_default(network)
    if init == "default":
        return found
    scheme, kind = init.split("_")
    for path, module in network.named_modules():
        if not isinstance(module, nn.Linear | nn.Conv2d):
            continue
        gain = 1.0 if path == output else _gain(activation)
        fan_in, fan_out = _fans(module)
        std = gain / math.sqrt(fan_in if scheme == "kaiming" else (fan_in + fan_out) / 2)
        scale = std * math.sqrt(3) if kind == "uniform" else std
        shape = module.weight.shape
        found[f"{path}.weight"] = Distribution(shape, "uniform" if kind == "uniform" else "normal", scale)
        if module.bias is not None:
            found[f"{path}.bias"] = Distribution(module.bias.shape, "constant", 0.0)
    return found


def _fans(module: nn.Linear | nn.Conv2d) -> tuple[int, int]:
    """Inputs of one output entry, and outputs of one input entry."""
    outputs, inputs = module.weight.shape[:2]
    window = math.prod(module.weight.shape[2:])
    return inputs * window, outputs * window


def _gain(activation: str) -> float:
    """PyTorch's recommended gain for the activation; for those it has none for, that of relu.

    crelu passes on relu's half of the variance twice, so its gain is 1, like the identity's.
    """
    gains = {"identity": 1.0, "crelu": 1.0, "tanh": 5 / 3}
    return gains.get(activation, math.sqrt(2 / 1.0001) if activation == "leaky_relu" else math.sqrt(2))
