"""Networks of layers one after another: convolutions, then fully connected layers, then the output."""

import math
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from continual.errors import ConfigError
from continual.networks.activations import Activation, activate
from continual.networks.crelu_width import FractionToRemove, hidden_widths
from continual.networks.initialization import Distribution, Init, scaled
from continual.networks.network import HiddenLayer, Network
from continual.networks.pooling import max_pool

_POOL = 2


class Layered(Network):
    """Convolutions conv0, conv1, ...; linear layers hidden0, hidden1, ...; a linear layer `output`.

    Each hidden layer is followed by its norm, if asked for, and the activation, and each convolution then by
    a max-pooling of 2x2. `convolutions` are the (kernel size, channels), without padding, and `linears` the
    widths of the plain network.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        convolutions: Sequence[tuple[int, int]],
        linears: Sequence[int],
        activation: Activation,
        layer_norm: bool,
        fraction_to_remove: FractionToRemove,
        init: Init,
    ) -> None:
        super().__init__()
        self.activation, self.init = activation, init
        channels, height, width = input_shape
        kernels = [kernel for kernel, _ in convolutions]
        maps = _map_sizes((height, width), kernels)
        flattened = math.prod(size // _POOL for size in maps[-1]) if maps else height * width
        outputs_per_unit = 2 if activation == "crelu" else 1
        widths = hidden_widths(
            [*(channels for _, channels in convolutions), *linears],
            activation,
            fraction_to_remove,
            inputs=channels,
            windows=[*(kernel**2 for kernel in kernels), flattened, *(1 for _ in linears)],
            num_classes=num_classes,
        )
        names = [*(f"conv{i}" for i in range(len(kernels))), *(f"hidden{i}" for i in range(len(linears)))]
        layers = []
        inputs = channels
        for i, (name, units) in enumerate(zip(names, widths, strict=True)):
            if i < len(kernels):
                module: nn.Module = nn.Conv2d(inputs, units, kernels[i])
                normalised: tuple[int, ...] = (units, *maps[i])
            else:
                module = nn.Linear(inputs * flattened if i == len(kernels) else inputs, units)
                normalised = (units,)
            self.add_module(name, module)
            if layer_norm:
                self.add_module(f"{name}_norm", nn.LayerNorm(normalised))
            layers.append(
                HiddenLayer(
                    name=name,
                    incoming=name,
                    outgoing=[*names, "output"][i + 1],
                    units=units,
                    spread=flattened if i == len(kernels) - 1 else 1,
                    norm=f"{name}_norm" if layer_norm else None,
                    outputs_per_unit=outputs_per_unit,
                    pool=_POOL if i < len(kernels) else 1,
                )
            )
            inputs = units * outputs_per_unit
        self.output = nn.Linear(inputs, num_classes)
        self.hidden_layers = tuple(layers)

    def forward(self, x_BCHW: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        h = x_BCHW
        features = {}
        for layer in self.hidden_layers:
            module = self.get_submodule(layer.incoming)
            is_convolution = isinstance(module, nn.Conv2d)
            z = module(h if is_convolution else h.flatten(1))
            if layer.norm is not None:
                z = self.get_submodule(layer.norm)(z)
            h = features[layer.name] = activate(self.activation, z)
            if layer.pool > 1:
                h = max_pool(h, layer.pool)
        return self.output(h), features

    def initial_distribution(self) -> Mapping[str, Distribution]:
        return scaled(self, self.init, self.activation, output="output")


def _map_sizes(image: tuple[int, int], kernels: Sequence[int]) -> list[tuple[int, int]]:
    """Height and width of each convolution's map, before pooling; ConfigError if nothing is left of one."""
    sizes = []
    height, width = image
    for i, kernel in enumerate(kernels):
        height, width = height - kernel + 1, width - kernel + 1
        if min(height, width) < _POOL:
            raise ConfigError(
                f"network.kernel_sizes: images of {image[0]}x{image[1]} are too small for {list(kernels)}: "
                f"convolution {i} leaves nothing to pool; use fewer or smaller kernels, or network=mlp."
            )
        sizes.append((height, width))
        height, width = height // _POOL, width // _POOL
    return sizes
