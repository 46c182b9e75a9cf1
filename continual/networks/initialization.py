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
from continual.networks.activations import LearntActivation

Init: TypeAlias = Literal[
    "default",
    "kaiming_uniform",
    "kaiming_normal",
    "xavier_uniform",
    "xavier_normal",
    "lecun_uniform",
    "lecun_normal",
    "orthogonal",
]


@dataclass(frozen=True)
class Distribution:
    """The distribution of one parameter's entries.

    `uniform`: U(-scale, scale); `normal`: N(0, scale^2), all entries independent; `orthogonal`: `scale`
    times a uniformly random matrix [rows, rest] with orthonormal rows or columns, whichever are fewer;
    `constant`: every entry is `scale`, or each its own number.
    """

    shape: torch.Size
    kind: Literal["uniform", "normal", "orthogonal", "constant"]
    scale: float | tuple[float, ...]

    @property
    def std(self) -> float:
        """The standard deviation of an entry; 0 for constants."""
        if self.kind == "constant" or isinstance(self.scale, tuple):
            return 0.0
        if self.kind == "uniform":
            return self.scale / math.sqrt(3)
        if self.kind == "normal":
            return self.scale
        # The squares of a row, or of a column if there are fewer of them, sum to scale^2.
        return self.scale / math.sqrt(max(self.shape[0], self.shape[1:].numel()))

    def draw(self, key: Tensor) -> Tensor:
        """One draw of the whole parameter, float32."""
        if isinstance(self.scale, tuple):
            return torch.tensor(self.scale, device=key.device).reshape(self.shape)
        if self.kind == "uniform":
            return self.scale * (2 * random.uniform(key, self.shape) - 1)
        if self.kind == "normal":
            return self.scale * random.normal(key, self.shape)
        if self.kind == "orthogonal":
            return self.scale * _orthogonal(random.normal(key, self.shape).flatten(1)).reshape(self.shape)
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
            elif isinstance(module, nn.LayerNorm | nn.GroupNorm | nn.modules.batchnorm._BatchNorm):
                scale = 1.0 if name.endswith("weight") else 0.0
                found[name] = Distribution(param.shape, "constant", scale)
            elif isinstance(module, LearntActivation):
                start = module.starts[name.rpartition(".")[2]]
                found[name] = Distribution(param.shape, "constant", start)
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
        elif (
            isinstance(distribution.scale, tuple)
            or distribution.kind == "constant"
            or not _is_uniform(values, distribution.scale)
        ):
            others.append(name)
    return found, tuple(others)


def _is_uniform(values: Tensor, bound: float) -> bool:
    """Whether these may be a draw from U(-bound, bound), by their largest and their mean square."""
    # Of n such draws, the mean of the squares is bound^2 (1/3 +- sqrt(4/45 / n)).
    mean_square = float((values / bound).square().mean())
    tolerance = 6 * math.sqrt(4 / 45 / values.numel())
    return float(values.abs().max()) <= bound * (1 + 1e-6) and abs(mean_square - 1 / 3) <= tolerance


def scaled(network: nn.Module, init: Init, gains: Mapping[str, float]) -> dict[str, Distribution]:
    """The distributions of `init`, by the gain of each linear or convolutional module.

    All but "default" have zero biases. Kaiming (He et al. 2015): variance gain^2 / fan_in; Xavier (Glorot &
    Bengio 2010): variance 2 gain^2 / (fan_in + fan_out); LeCun (LeCun et al. 1998): variance 1 / fan_in,
    whatever the gain; orthogonal (Saxe et al. 2014): gain times an orthogonal matrix.
    """
    found = torch_default(network)
    if init == "default":
        return found
    for path, module in network.named_modules():
        if not isinstance(module, nn.Linear | nn.Conv2d):
            continue
        found[f"{path}.weight"] = _weight(module, init, gains[path])
        if module.bias is not None:
            found[f"{path}.bias"] = Distribution(module.bias.shape, "constant", 0.0)
    return found


def _weight(module: nn.Linear | nn.Conv2d, init: Init, gain: float) -> Distribution:
    if init == "orthogonal":
        return Distribution(module.weight.shape, "orthogonal", gain)
    scheme, kind = init.split("_")
    fan_in, fan_out = _fans(module)
    if scheme == "lecun":
        gain = 1.0
    std = gain / math.sqrt((fan_in + fan_out) / 2 if scheme == "xavier" else fan_in)
    if kind == "uniform":
        return Distribution(module.weight.shape, "uniform", std * math.sqrt(3))
    return Distribution(module.weight.shape, "normal", std)


def _orthogonal(normal_MN: Tensor) -> Tensor:
    """An orthogonal matrix from one of independent normal entries, as torch.nn.init.orthogonal_ makes it."""
    rows, columns = normal_MN.shape
    orthonormal, triangular = torch.linalg.qr(normal_MN.T if rows < columns else normal_MN)
    q: Tensor = orthonormal * triangular.diagonal().sign()
    return q.T if rows < columns else q


def _fans(module: nn.Linear | nn.Conv2d) -> tuple[int, int]:
    """Inputs of one output entry, and outputs of one input entry."""
    outputs, inputs = module.weight.shape[:2]
    window = math.prod(module.weight.shape[2:])
    return inputs * window, outputs * window
