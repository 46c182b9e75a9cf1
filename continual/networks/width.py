"""How much narrower a network is whose units have two outputs each than the plain one.

Two outputs, such as crelu's relu(z) and relu(-z), double the weights of the layer that follows. To compare
networks of one size, a fraction of every hidden width is removed (Kumar et al. 2024, appendix A).
"""

from collections.abc import Sequence
from typing import Annotated, Literal, TypeAlias

from annotated_types import Ge, Lt

from continual.errors import ConfigError

FractionToRemove: TypeAlias = Literal["auto"] | Annotated[float, Ge(0), Lt(1)]


def hidden_widths(
    widths: Sequence[int],
    outputs_per_unit: Sequence[int],
    fraction: FractionToRemove,
    inputs: int,
    windows: Sequence[int],
    num_classes: int,
) -> list[int]:
    """The widths to use for these plain ones: as they were, unless units have several outputs.

    "auto" takes the largest fraction, in steps of 0.01, that leaves at least as many weights and biases as
    the plain network has; see `parameter_count` for the rest. ConfigError for a fraction where every unit
    has one output, and for one that leaves no unit.
    """
    if all(outputs == 1 for outputs in outputs_per_unit):
        if fraction not in ("auto", 0):
            raise ConfigError(
                f"network.fraction_to_remove: {fraction} goes with activations of two outputs per unit, "
                "crelu and deep_fourier; use auto or 0."
            )
        return list(widths)
    if fraction == "auto":
        plain = parameter_count(widths, [1] * len(widths), inputs, windows, num_classes)
        for hundredths in range(99, 0, -1):
            cut = _cut(widths, hundredths / 100)
            if min(cut) > 0 and parameter_count(cut, outputs_per_unit, inputs, windows, num_classes) >= plain:
                return cut
        return list(widths)
    cut = _cut(widths, fraction)
    if min(cut) == 0:
        raise ConfigError(
            f"network.fraction_to_remove: {fraction} leaves no unit of {min(widths)}; use less or auto."
        )
    return cut


def parameter_count(
    widths: Sequence[int],
    outputs_per_unit: Sequence[int],
    inputs: int,
    windows: Sequence[int],
    num_classes: int,
) -> int:
    """Weights and biases of the hidden layers and the output layer, without those of norms.

    `inputs` are the first layer's input channels; `windows` tells for each layer, the output included, how
    many places of each input channel one of its units sees (25 for a 5x5 kernel, 1 between linear layers).
    """
    seen = [inputs, *(count * width for count, width in zip(outputs_per_unit, widths, strict=True))]
    units = [*widths, num_classes]
    return sum((w * i + 1) * o for w, i, o in zip(windows, seen, units, strict=True))


def _cut(widths: Sequence[int], fraction: float) -> list[int]:
    """Each width less the fraction, rounded down; 100 less 0.09 is 91 whatever the rounding of floats."""
    return [int(width * (1 - fraction) + 1e-6) for width in widths]
