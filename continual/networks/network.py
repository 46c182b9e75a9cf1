"""What the program asks of a network."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from continual.networks.initialization import Distribution, torch_default


@dataclass(frozen=True)
class HiddenLayer:
    """A hidden layer: the module that computes its units, and the one that reads them.

    `incoming` and `outgoing` are names of Linear or Conv2d modules. The first axis of the incoming weight
    and of its bias are the units; the second axis of the outgoing weight has `spread` consecutive entries
    for each unit (more than one where a map is flattened into a linear layer).
    `norm` names the layer's LayerNorm, where it has one.
    """

    name: str
    incoming: str
    outgoing: str
    units: int
    spread: int = 1
    norm: str | None = None


class Network(nn.Module):
    """A network that tells its hidden layers and its initial distribution.

    `forward(x_BCHW)` returns the logits [B, K] and the features: for each hidden layer, by name, its
    units' outputs, [B, units] or, of a convolution before pooling, [B, units, H, W].
    A plain nn.Module with such a forward can be trained too; agents that replace units need this class.
    """

    hidden_layers: tuple[HiddenLayer, ...] = ()

    def forward(self, x_BCHW: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The logits [B, K] and the features by layer."""
        raise TypeError(f"{type(self).__name__} has no forward")

    def initial_distribution(self) -> Mapping[str, Distribution]:
        """The distribution from which each parameter is drawn, by name."""
        return torch_default(self)
