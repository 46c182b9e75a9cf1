"""The multi-layer perceptron."""

from continual.networks.activations import Activations
from continual.networks.initialization import Init
from continual.networks.layered import Dropout, Injectable, Layered
from continual.networks.width import FractionToRemove
from continual.schema import Layers


class MLP(Layered):
    """Fully connected layers: for each of `hidden_sizes` (linear, norm, activation), then a linear output.

    Two layers of 100 for 784 inputs and 10 classes are the paper's network: 89,610 parameters. Without
    hidden layers it is a linear learner.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        hidden_sizes: Layers,
        activation: Activations = "relu",
        layer_norm: bool = False,
        dropout: Dropout = 0.0,
        fraction_to_remove: FractionToRemove = "auto",
        init: Init = "default",
        injectable: Injectable = 0,
    ) -> None:
        super().__init__(
            input_shape,
            num_classes,
            convolutions=[],
            linears=hidden_sizes,
            activation=activation,
            layer_norm=layer_norm,
            dropout=dropout,
            fraction_to_remove=fraction_to_remove,
            init=init,
            injectable=injectable,
        )
