"""The idx format of MNIST's files: a magic number, the sizes of the axes, then the bytes.

Read here and not by torchvision, whose import takes longer than MNIST, and which reports a damaged
file by an assertion or a tensor's view.
"""

import math
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

from continual.datasets.files import damaged

UNSIGNED_BYTE = 0x08


def parse_idx(path: Path, content: bytes, axes: int) -> npt.NDArray[np.uint8]:
    """The array of unsigned bytes, with this number of axes, in an idx file's content.

    Raises:
        DataError: if the magic number is another, or the header does not fit the file's length; it
            names `path`.
    """
    expected = bytes([0, 0, UNSIGNED_BYTE, axes])
    if content[:4] != expected:
        raise damaged(path, f"it begins with {content[:4].hex()} in place of {expected.hex()}")
    start = 4 + 4 * axes
    if len(content) < start:
        raise damaged(path, f"it ends within its header, after {len(content)} bytes")
    shape = struct.unpack(f">{axes}I", content[4:start])
    if len(content) != start + math.prod(shape):
        raise damaged(
            path,
            f"its header announces {' x '.join(map(str, shape))}, so {start + math.prod(shape)} "
            f"bytes, and it has {len(content)}",
        )
    # A copy, because torch warns about arrays that cannot be written to.
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()
