"""The convolutional network."""

from typing import Annotated, TypeAlias

from annotated_types import Ge

from continual.errors import ConfigError
from continual.networks.activations import Activations
from continual.networks.initialization import Init
from continual.networks.layered import Convolution, Dropout, Injectable, Layered
from continual.networks.width import FractionToRemove
from continual.schema import Count, Layers

Padding: TypeAlias = Annotated[int, Ge(0)]


class ConvNet(Layered):
    """For each kernel size (convolution, norm, activation, max-pooling), then an MLP of `hidden_sizes`.

    Kernels of 5 and 5 with 16 channels each, and two layers of 100, are the paper's network for 32x32 images
    with 3 channels: 58,842 parameters with 10 classes, 67,932 with 100 and 58,034 with 2. `padding` (zeros on
    each side) and `pool` (window and stride; 1 is none) are one number for all convolutions or one for each.
    Features of a convolution are its maps before pooling.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        kernel_sizes: Layers,
        channels: Layers,
        hidden_sizes: Layers,
        padding: Padding | list[Padding] = 0,
        pool: Count | list[Count] = 2,
        activation: Activations = "relu",
        layer_norm: bool = False,
        dropout: Dropout = 0.0,
        fraction_to_remove: FractionToRemove = "auto",
        init: Init = "default",
        injectable: Injectable = 0,
    ) -> None:
        paddings, pools = (
            [value] * len(kernel_sizes) if isinstance(value, int) else value for value in (padding, pool)
        )
        for name, values in (("channels", channels), ("padding", paddings), ("pool", pools)):
            if len(values) != len(kernel_sizes):
                raise ConfigError(
                    f"network.{name}: {list(values)} does not go with the {len(kernel_sizes)} convolutions "
                    f"of network.kernel_sizes={list(kernel_sizes)}; give one value for each."
                )
        super().__init__(
            input_shape,
            num_classes,
            convolutions=[
                Convolution(*sizes) for sizes in zip(kernel_sizes, channels, paddings, pools, strict=True)
            ],
            linears=hidden_sizes,
            activation=activation,
            layer_norm=layer_norm,
            dropout=dropout,
            fraction_to_remove=fraction_to_remove,
            init=init,
            injectable=injectable,
        )
