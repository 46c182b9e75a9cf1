"""The multi-layer perceptron."""

import math
from collections.abc import Mapping

from torch import Tensor, nn

from continual.networks.activations import Activation, activate
from continual.networks.initialization import Distribution, Init, scaled
from continual.networks.network import HiddenLayer, Network
from continual.schema import Count


class MLP(Network):
    """Fully connected layers of one width: `hidden_layers` times (linear, norm, activation), then linear.

    Two layers of 100 for 784 inputs and 10 classes are the paper's network: 89,610 parameters.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        hidden_layers: Count = 2,
        hidden_size: Count = 100,
        activation: Activation = "relu",
        layer_norm: bool = False,
        init: Init = "default",
    ) -> None:
        super().__init__()
        self.activation, self.init = activation, init
        outputs_per_unit = 2 if activation == "crelu" else 1
        names = [f"hidden{i}" for i in range(hidden_layers)]
        inputs = math.prod(input_shape)
        for name in names:
            self.add_module(name, nn.Linear(inputs, hidden_size))
            if layer_norm:
                self.add_module(f"{name}_norm", nn.LayerNorm(hidden_size))
            inputs = hidden_size * outputs_per_unit
        self.output = nn.Linear(inputs, num_classes)
        self.hidden_layers = tuple(
            HiddenLayer(name, name, following, hidden_size, norm=f"{name}_norm" if layer_norm else None)
            for name, following in zip(names, [*names[1:], "output"], strict=True)
        )

    def forward(self, x_BCHW: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        h_BU = x_BCHW.flatten(1)
        features = {}
        for layer in self.hidden_layers:
            z_BU = self.get_submodule(layer.incoming)(h_BU)
            if layer.norm is not None:
                z_BU = self.get_submodule(layer.norm)(z_BU)
            h_BU = features[layer.name] = activate(self.activation, z_BU)
        return self.output(h_BU), features

    def initial_distribution(self) -> Mapping[str, Distribution]:
        return scaled(self, self.init, self.activation, output="output")
