"""The multi-layer perceptron."""

from continual.networks.activations import Activation
from continual.networks.crelu_width import FractionToRemove
from continual.networks.initialization import Init
from continual.networks.layered import Layered
from continual.schema import Count, Layers


class MLP(Layered):
    """Fully connected layers of one width: `hidden_layers` times (linear, norm, activation), then linear.

    Two layers of 100 for 784 inputs and 10 classes are the paper's network: 89,610 parameters.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        hidden_layers: Layers = 2,
        hidden_size: Count = 100,
        activation: Activation = "relu",
        layer_norm: bool = False,
        fraction_to_remove: FractionToRemove = "auto",
        init: Init = "default",
    ) -> None:
        super().__init__(
            input_shape,
            num_classes,
            convolutions=[],
            linears=[hidden_size] * hidden_layers,
            activation=activation,
            layer_norm=layer_norm,
            fraction_to_remove=fraction_to_remove,
            init=init,
        )
