"""The sizes of figures that venues ask for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """A figure's width in inches and the size of its texts in points, as a paper or slides ask for them."""

    width: float
    font: float


SIZES = {
    "icml": Size(3.25, 7),
    "icml-wide": Size(6.75, 8),
    "neurips": Size(5.5, 8),
    "iclr": Size(5.5, 8),
    "jmlr": Size(6.0, 9),
    "slide": Size(11, 16),
}
