"""Read pickled dicts of plain values and integer arrays without running anything they name.

A pickle names functions to call, and an ordinary unpickler calls whatever it names. This one knows
only the names that NumPy's arrays use (`numpy.core` before NumPy 2, `numpy._core` since), and gives
each a harmless stand-in. What Python 2 wrote, such as CIFAR's files, is read as well.
"""

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from continual.datasets.files import damaged

IntegerArray = npt.NDArray[np.integer[Any]]


def parse_array_dict(path: Path, content: bytes) -> dict[str, Any]:
    """The dict in a pickle's content, with its keys as str; `path` is for errors.

    Python 2's strings stay bytes. Arrays may be read-only.

    Raises:
        DataError: if the pickle is damaged, is no dict, or names anything but arrays of integers.
    """
    try:
        value = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # what a damaged pickle raises is not defined
        raise damaged(path, f"unpickling fails: {error}") from error
    if not isinstance(value, dict):
        raise damaged(path, f"it holds a {type(value).__name__} in place of a dict")
    return {
        key.decode("latin1") if isinstance(key, bytes) else str(key): (
            item.array if isinstance(item, _Array) else item
        )
        for key, item in value.items()
    }


class _Dtype:
    """Stands for numpy.dtype(name, align, copy)."""

    def __init__(self, name: str | bytes, *flags: object) -> None:
        self.dtype = np.dtype(name.decode("ascii") if isinstance(name, bytes) else str(name))
        if self.dtype.kind not in "iu":
            raise pickle.UnpicklingError(f"arrays of {self.dtype} are not read")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in (b">", ">"):
            self.dtype = self.dtype.newbyteorder(">")


class _Array:
    """Stands for the empty array that a pickle makes first and fills afterwards."""

    array: IntegerArray

    def __init__(self, *initial: object) -> None:
        pass

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran_order, content = state
        self.array = _from_buffer(content, dtype, shape, "F" if fortran_order else "C")


def _from_buffer(content: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str) -> IntegerArray:
    if order not in ("C", "F"):
        raise pickle.UnpicklingError(f"arrays of order {order!r} are not read")
    flat: IntegerArray = np.frombuffer(content, dtype.dtype)
    return flat.reshape(shape, order="F" if order == "F" else "C")


def _scalar(dtype: _Dtype, content: bytes) -> int:
    return int(np.frombuffer(content, dtype.dtype)[0])


def _encode(text: str, encoding: str) -> bytes:
    """Python 3 writes bytes so, in the protocol that Python 2 can read."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"the encoding {encoding!r} is not used")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """Python 3 writes the empty bytes so, in the protocol that Python 2 can read."""
    return b""


def _stand_ins() -> dict[tuple[str, str], Callable[..., Any]]:
    stand_ins: dict[tuple[str, str], Callable[..., Any]] = {
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Dtype,
        ("_codecs", "encode"): _encode,
        ("__builtin__", "bytes"): _no_bytes,
    }
    for core in ("numpy.core", "numpy._core"):
        stand_ins[f"{core}.multiarray", "_reconstruct"] = _Array
        stand_ins[f"{core}.multiarray", "scalar"] = _scalar
        stand_ins[f"{core}.numeric", "_frombuffer"] = _from_buffer
    return stand_ins


class _ArrayUnpickler(pickle.Unpickler):
    stand_ins = _stand_ins()

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        try:
            return self.stand_ins[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None
