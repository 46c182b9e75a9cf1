"""What the program asks of a network."""

import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils._python_dispatch import TorchDispatchMode

from continual.errors import ConfigError
from continual.networks.initialization import Distribution, torch_default
from continual.networks.module import check_buffers


@dataclass(frozen=True)
class HiddenLayer:
    """A hidden layer: the module that computes its units, and the one that reads them.

    `incoming` and `outgoing` are names of Linear or Conv2d modules. The first axis of the incoming weight
    and of its bias are the units. The second axis of the outgoing weight is [outputs_per_unit, units,
    spread] flattened: `spread` entries for each output where a map is flattened into a linear layer, and
    two outputs for each unit with crelu, all relu(z) before all relu(-z). Axis 1 of the features is
    [outputs_per_unit, units] likewise. `norm` names the layer's LayerNorm, where it has one, and `activation`
    the LearntActivation, whose parameters are [1] or [units]. `pool` is the window and stride of the
    max-pooling between the units and the module that reads them; 1 is none. Of an output layer, where it
    stands as one of these, `outgoing` is "".
    """

    name: str
    incoming: str
    outgoing: str
    units: int
    spread: int = 1
    norm: str | None = None
    outputs_per_unit: int = 1
    pool: int = 1
    activation: str | None = None


class Network(nn.Module):
    """A network that tells its hidden layers and its initial distribution.

    `forward(x_BCHW)` returns the logits [B, K] and the features: for each hidden layer, by name, its
    units' outputs, [B, units] or, of a convolution before pooling, [B, units, H, W].

    A plain nn.Module can be trained too, if its __init__ takes `input_shape` (C, H, W) and `num_classes`,
    its forward returns (logits, features), features being a dict as above or a list, and it has no other
    parameters than those of Linear, Conv2d, LayerNorm and GroupNorm modules, which then start as PyTorch
    starts them. Other parameters need an `initial_distribution`, and agents that replace units need
    `hidden_layers`: those networks derive from this class.
    """

    hidden_layers: tuple[HiddenLayer, ...] = ()
    # Whether a training forward draws from a key; then forward takes it as second argument, None at an
    # evaluation.
    is_random: bool = False

    def forward(self, x_BCHW: Tensor, key: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """The logits [B, K] and the features by layer."""
        raise TypeError(f"{type(self).__name__} has no forward")

    def initial_distribution(self) -> Mapping[str, Distribution]:
        """The distribution from which each parameter is drawn, by name."""
        return torch_default(self)


class _Convolutions(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the convolutions that are computed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count: int = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += int(func.overloadpacket is torch.ops.aten.convolution)
        return func(*args, **(kwargs or {}))


def convolves(network: nn.Module, input_shape: tuple[int, int, int]) -> bool:
    """Whether the network's forward computes convolutions, in whichever way it is written."""
    param = next(network.parameters(), torch.empty(0))
    image = torch.zeros(1, *input_shape, dtype=param.dtype, device=param.device)
    with torch.no_grad(), _Convolutions() as convolutions:
        network(image)
    return bool(convolutions.count)


def check_forward(network: nn.Module, input_shape: tuple[int, int, int], num_classes: int) -> None:
    """Run a network on two blank images, as one of many replicas; ConfigError if its forward will not do.

    The images are of the parameters' type.
    """
    name = type(network).__name__
    params = {key: value.detach()[None] for key, value in network.named_parameters()}
    dtype = next((value.dtype for value in params.values()), torch.float32)
    images = torch.zeros(1, 2, *input_shape, dtype=dtype)

    def forward(params: Mapping[str, Tensor], x_BCHW: Tensor) -> Tensor:
        _check_output(
            functional_call(network, dict(params), (x_BCHW,)), f"network: {name}.forward", num_classes
        )
        return x_BCHW

    buffers = {key: buffer.clone() for key, buffer in network.named_buffers()}
    try:
        with torch.no_grad():
            vmap(forward)(params, images)
        check_buffers(network, buffers)
    except ConfigError:
        raise
    except Exception as error:  # whatever a user's own forward may raise
        frames = traceback.extract_tb(error.__traceback__)
        last = [frame for frame in frames if "torch" not in Path(frame.filename).parts][-1]
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(
            f"network: {name}.forward fails as one of many networks, for images of shape "
            f"{tuple(input_shape)}: {reason} ({Path(last.filename).name}:{last.lineno})"
        ) from error


def _check_output(output: object, who: str, num_classes: int) -> None:
    if not (isinstance(output, tuple) and len(output) == 2 and isinstance(output[0], Tensor)):
        raise ConfigError(f"{who} must return (logits, features), not a {type(output).__name__}.")
    logits, features = output
    if logits.shape != (2, num_classes):
        raise ConfigError(
            f"{who} must return logits of shape {(2, num_classes)} for 2 images and {num_classes} classes, "
            f"not {tuple(logits.shape)}."
        )
    layers = features.values() if isinstance(features, Mapping) else features
    if isinstance(layers, Tensor) or not all(
        isinstance(h, Tensor) and h.ndim in (2, 4) and len(h) == 2 for h in layers
    ):
        raise ConfigError(
            f"{who} must return as features a dict or list of tensors [B, units] or [B, units, H, W]."
        )
