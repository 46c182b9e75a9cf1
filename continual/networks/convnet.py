"""The convolutional network."""

from continual.networks.activations import Activation
from continual.networks.crelu_width import FractionToRemove
from continual.networks.initialization import Init
from continual.networks.layered import Layered
from continual.schema import Count, Layers


class ConvNet(Layered):
    """For each kernel size (convolution, norm, activation, max-pooling of 2x2), then an MLP.

    Kernels of 5 and 5 with 16 channels, and two layers of 100, are the paper's network for 32x32 images with
    3 channels: 58,842 parameters with 10 classes, 67,932 with 100 and 58,034 with 2.
    Features of a convolution are its maps before pooling.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        kernel_sizes: list[Count],
        channels: Count = 16,
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
            convolutions=[(kernel, channels) for kernel in kernel_sizes],
            linears=[hidden_size] * hidden_layers,
            activation=activation,
            layer_norm=layer_norm,
            fraction_to_remove=fraction_to_remove,
            init=init,
        )
