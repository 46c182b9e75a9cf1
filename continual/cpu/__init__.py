"""A population's step on a CPU, recorded once and replayed from native code.

The step of one replica is compiled to a row of kernels and matrix products (`recording`); these are run again
for each replica, many steps at a stretch, without coming back to Python (`replay`), with products of small
matrices and a gathering of images that are written for it (`native`, built by `library`). A replica's weights
stay in its core's cache meanwhile, and what it computes cannot depend on the others.

Whatever of this does not apply raises `Unavailable`, which says why.
"""

from continual.cpu.errors import Unavailable
from continual.cpu.gathering import images
from continual.cpu.replay import Replay

__all__ = ["Replay", "Unavailable", "images"]
