"""Activation functions by name, with their numbers.

An activation is chosen by its name (`relu`) or, where its numbers are to differ from the defaults, by a
mapping (`{name: leaky_relu, slope: 0.1}`). The fields of its class are the numbers that it takes.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import torch
from annotated_types import Ge, Gt, Le
from pydantic import AfterValidator
from pydantic_core import PydanticCustomError
from torch import Tensor, nn
from torch.nn import functional as F

from continual import random
from continual.errors import ConfigError
from continual.schema import check_values, suggestion

_Probability: TypeAlias = Annotated[float, Ge(0), Le(1)]


@dataclass(frozen=True)
class Activation(ABC):
    """A function of pre-activations [B, U] or [B, U, H, W], entry by entry.

    A unit has `outputs_per_unit` outputs, which lie one after the other along axis 1: [outputs, U].
    `is_random` says that training draws from a key. `gain` is what Kaiming and Xavier initialisation multiply
    by: PyTorch's where it has one, relu's elsewhere.
    """

    outputs_per_unit: ClassVar[int] = 1
    is_random: ClassVar[bool] = False

    @property
    def gain(self) -> float:
        return math.sqrt(2)

    def parameters(self, units: int) -> Mapping[str, tuple[tuple[int, ...], float | tuple[float, ...]]]:
        """What is learnt of the activation: for each parameter its shape and what it starts as."""
        return {}

    @abstractmethod
    def __call__(self, z: Tensor, key: Tensor | None, learnt: Mapping[str, Tensor]) -> Tensor:
        """The outputs. Without a key, at an evaluation, nothing is drawn; `learnt` holds `parameters`."""


class LearntActivation(nn.Module):
    """The parameters of one layer's activation. No penalty covers them, and no count includes them."""

    def __init__(self, activation: Activation, units: int) -> None:
        super().__init__()
        self.starts = {name: start for name, (_, start) in activation.parameters(units).items()}
        for name, (shape, _) in activation.parameters(units).items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))


@dataclass(frozen=True)
class ReLU(Activation):
    """max(z, 0)."""

    def __call__(self, z: Tensor, key: Tensor | None, learnt: Mapping[str, Tensor]) -> Tensor:
        return F.relu(z)


@dataclass(frozen=True)
class CReLU(Activation):
    """[relu(z), relu(-z)] (Shang et al. 2016; Abbas et al. 2023)."""

    outputs_per_unit: ClassVar[int] = 2

    def __call__(self, z: Tensor, key: Tensor | None, learnt: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([F.relu(z), F.relu(-z)], dim=1)


@dataclass(frozen=True)
class DeepFourier(Activation):
    """[sin(z), cos(z)] (Lewandowski et al. 2024, "Plastic Learning with Deep Fourier Features")."""

    outputs_per_unit: ClassVar[int] = 2

    def __call__(self, z: Tensor, key: Tensor | None, learnt: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([torch.sin(z), torch.cos(z)], dim=1)


@dataclass(frozen=True)
class LeakyReLU(Activation):
    """max(z, 0) + slope min(z, 0)."""

    slope: Annotated[float, Ge(0)] = 0.01

    @property
    def gain(self) -> float:
        return math.sqrt(2 / (1 + self.slope**2))

    def __call__(self, z: Tensor, key: Tensor | None, learnt: Mapping[str, Tensor]) -> Tensor:
        return F.leaky_relu(z, self.slope)


@dataclass(frozen=True)
class RReLU(Activation):
    """max(z, 0) + s min(z, 0), s ~ U(lower, upper) for each entry (Xu et al. 2015).

    At an evaluation s is its mean.
    """

    is_random: ClassVar[bool] = True
    lower: Annotated[float, Ge(0)] = 1 / 8
    upper: Annotated[float, Ge(0)] = 1 / 3

    def __post_init__(self) -> None:
        _check_bounds(self.lower, self.upper)

    def __call__(self, z: Tensor, key: Tensor | None, learnt: Mapping[str, Tensor]) -> Tensor:
        slope = _between(self.lower, self.upper, z, key)
        return torch.where(z > 0, z, slope * z)


@dataclass(frozen=True)
class PReLU(Activation):
    """max(z, 0) + s min(z, 0), s learnt, for each layer or each unit (He et al. 2015).

    For each unit it is AdaLin with ReLU (Mesbahi et al. 2025, arXiv 2505.09486).
    """

    per: Literal["layer", "unit"] = "layer"
    start: float = 0.25

    def parameters(self, units: int) -> Mapping[str, tuple[tuple[int, ...], float | tuple[float, ...]]]:
        return {"slope": ((1 if self.per == "layer" else units,), self.start)}

    def __call__(self, z: Tensor, key: Tensor | None, learnt: Mapping[str, Tensor]) -> Tensor:
        slope = learnt["slope"].reshape(-1, *[1] * (z.ndim - 2))
        return torch.where(z > 0, z, slope * z)


@dataclass(frozen=True)
class SmoothLeaky(Activation):
    """a z + (1 - a) z sigmoid(c z / p) (Lillo & Cheney 2026, arXiv 2509.22562)."""

    a: _Probability = 0.1
    p: Annotated[float, Gt(0)] = 3.0
    c: float = 5.0

    def __call__(self, z: Tensor, key: Tensor | None, learnt: Mapping[str, Tensor]) -> Tensor:
        return self.a * z + (1 - self.a) * z * torch.sigmoid(self.c / self.p * z)


@dataclass(frozen=True)
class RandSmoothLeaky(Activation):
    """smooth_leaky with a ~ U(lower, upper) for each entry; at an evaluation a is its mean."""

    is_random: ClassVar[bool] = True
    lower: _Probability = 1 / 8
    upper: _Probability = 1 / 3
    p: Annotated[float, Gt(0)] = 3.0
    c: float = 5.0

    def __post_init__(self) -> None:
        _check_bounds(self.lower, self.upper)

    def __call__(self, z: Tensor, key: Tensor | None, learnt: Mapping[str, Tensor]) -> Tensor:
        a = _between(self.lower, self.upper, z, key)
        return a * z + (1 - a) * z * torch.sigmoid(self.c / self.p * z)


@dataclass(frozen=True)
class AID(Activation):
    """Each entry is max(z, 0) with probability p, else min(z, 0); at an evaluation the mean of the two.

    (Activation by Interval-wise Dropout, Park et al. 2025, arXiv 2502.01342, algorithm 2.)
    """

    is_random: ClassVar[bool] = True
    p: _Probability = 0.9

    def __call__(self, z: Tensor, key: Tensor | None, learnt: Mapping[str, Tensor]) -> Tensor:
        if key is None:
            return self.p * F.relu(z) - (1 - self.p) * F.relu(-z)
        return torch.where(random.uniform(key, z.shape).to(z.dtype) < self.p, F.relu(z), -F.relu(-z))


@dataclass(frozen=True)
class Rational(Activation):
    """sum_0^5 a_j z^j / (1 + |sum_1^4 b_j z^j|), a and b learnt for each layer (Delfosse et al. 2024).

    It starts close to relu (Molina et al. 2020, "Padé Activation Units").
    """

    def parameters(self, units: int) -> Mapping[str, tuple[tuple[int, ...], float | tuple[float, ...]]]:
        numerator = (0.02996348, 0.61690165, 2.37539147, 3.06608078, 1.52474449, 0.25281987)
        denominator = (1.19160814, 4.40811795, 0.91111034, 0.34885983)
        return {"numerator": ((6,), numerator), "denominator": ((4,), denominator)}

    def __call__(self, z: Tensor, key: Tensor | None, learnt: Mapping[str, Tensor]) -> Tensor:
        a, b = learnt["numerator"], learnt["denominator"]
        above = a[5]
        for j in range(4, -1, -1):
            above = above * z + a[j]
        below = b[3]
        for j in range(2, -1, -1):
            below = below * z + b[j]
        return above / (1 + (below * z).abs())


@dataclass(frozen=True)
class ELU(Activation):
    """z above 0, alpha (exp(z) - 1) below."""

    alpha: Annotated[float, Gt(0)] = 1.0

    def __call__(self, z: Tensor, key: Tensor | None, learnt: Mapping[str, Tensor]) -> Tensor:
        return F.elu(z, self.alpha)


@dataclass(frozen=True)
class CELU(Activation):
    """z above 0, alpha (exp(z / alpha) - 1) below."""

    alpha: Annotated[float, Gt(0)] = 1.0

    def __call__(self, z: Tensor, key: Tensor | None, learnt: Mapping[str, Tensor]) -> Tensor:
        return F.celu(z, self.alpha)


@dataclass(frozen=True)
class SELU(Activation):
    """The self-normalising ELU (Klambauer et al. 2017)."""

    @property
    def gain(self) -> float:
        return 0.75

    def __call__(self, z: Tensor, key: Tensor | None, learnt: Mapping[str, Tensor]) -> Tensor:
        return F.selu(z)


@dataclass(frozen=True)
class GELU(Activation):
    """z times the standard normal distribution function of z."""

    def __call__(self, z: Tensor, key: Tensor | None, learnt: Mapping[str, Tensor]) -> Tensor:
        return F.gelu(z)


@dataclass(frozen=True)
class SiLU(Activation):
    """z sigmoid(z), also called swish."""

    def __call__(self, z: Tensor, key: Tensor | None, learnt: Mapping[str, Tensor]) -> Tensor:
        return F.silu(z)


@dataclass(frozen=True)
class Tanh(Activation):
    """tanh(z)."""

    @property
    def gain(self) -> float:
        return 5 / 3

    def __call__(self, z: Tensor, key: Tensor | None, learnt: Mapping[str, Tensor]) -> Tensor:
        return torch.tanh(z)


@dataclass(frozen=True)
class Sin(Activation):
    """sin(z)."""

    def __call__(self, z: Tensor, key: Tensor | None, learnt: Mapping[str, Tensor]) -> Tensor:
        return torch.sin(z)


@dataclass(frozen=True)
class Identity(Activation):
    """z: no activation."""

    @property
    def gain(self) -> float:
        return 1.0

    def __call__(self, z: Tensor, key: Tensor | None, learnt: Mapping[str, Tensor]) -> Tensor:
        return z


ACTIVATIONS: Mapping[str, type[Activation]] = {
    "relu": ReLU,
    "crelu": CReLU,
    "leaky_relu": LeakyReLU,
    "rrelu": RReLU,
    "prelu": PReLU,
    "smooth_leaky": SmoothLeaky,
    "rand_smooth_leaky": RandSmoothLeaky,
    "aid": AID,
    "rational": Rational,
    "elu": ELU,
    "celu": CELU,
    "selu": SELU,
    "gelu": GELU,
    "silu": SiLU,
    "tanh": Tanh,
    "sin": Sin,
    "deep_fourier": DeepFourier,
    "identity": Identity,
}


def activation(choice: str | Mapping[str, Any]) -> Activation:
    """The activation of this name or {name: ..., number: ...}; ConfigError if there is none such."""
    numbers = {} if isinstance(choice, str) else dict(choice)
    name = choice if isinstance(choice, str) else numbers.pop("name", None)
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise ConfigError(f"there is no activation {name!r}; {suggestion(str(name), list(ACTIVATIONS))}")
    check_values(ACTIVATIONS[name], numbers, name)
    try:
        return ACTIVATIONS[name](**numbers)
    except ValueError as error:
        raise ConfigError(f"{name}.{error}") from error


def activations(choice: "Activations", layers: int) -> list[Activation]:
    """An activation for each hidden layer: one for all, or those of a list.

    ConfigError if the list is not as long as there are layers.
    """
    if isinstance(choice, str | Mapping):
        return [activation(choice)] * layers
    if len(choice) != layers:
        raise ConfigError(
            f"network.activation: {len(choice)} are given for {layers} hidden layers; give one for each, or "
            "one for all."
        )
    return [activation(one) for one in choice]


def _checked(choice: Any) -> Any:
    for each in choice if isinstance(choice, Sequence) and not isinstance(choice, str) else [choice]:
        try:
            activation(each)
        except ConfigError as error:
            raise PydanticCustomError("sentence", "{reason}", {"reason": str(error)}) from error
    return choice


# What a network's argument `activation` may be: one for all hidden layers, or one for each.
_One: TypeAlias = str | dict[str, Any]
Activations: TypeAlias = Annotated[_One | list[_One], AfterValidator(_checked)]


def _check_bounds(lower: float, upper: float) -> None:
    if lower > upper:
        raise ValueError(f"lower: {lower} is above upper, {upper}.")


def _between(lower: float, upper: float, z: Tensor, key: Tensor | None) -> Tensor | float:
    """A draw of U(lower, upper) for each entry of z, or the mean without a key."""
    if key is None:
        return (lower + upper) / 2
    return (lower + (upper - lower) * random.uniform(key, z.shape)).to(z.dtype)
