"""Activation functions by name."""

from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

Activation: TypeAlias = Literal["relu", "crelu", "leaky_relu", "elu", "gelu", "silu", "tanh", "identity"]


def activate(name: Activation, z: Tensor) -> Tensor:
    """The activation of pre-activations whose axis 1 are units; crelu doubles that axis."""
    match name:
        case "identity":
            return z
        case "crelu":
            return concatenated_relu(z)
        case "tanh":
            return torch.tanh(z)
        case _:
            return getattr(F, name)(z)  # type: ignore[no-any-return]


def concatenated_relu(z: Tensor) -> Tensor:
    """[relu(z), relu(-z)] along axis 1 (Shang et al. 2016; Abbas et al. 2023)."""
    return torch.cat([F.relu(z), F.relu(-z)], dim=1)
