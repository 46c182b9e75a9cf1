"""A recorded step, run again for every replica from native code."""

import ctypes
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import torch
from torch import Tensor

from continual.cpu.errors import Unavailable
from continual.cpu.library import library
from continual.cpu.recording import Call, Images, Kernel, Product, record

_KERNEL, _PRODUCT, _IMAGES = range(3)  # as in native/replay.cpp
_MESSAGE_BYTES = 500
_PIXELS = (torch.uint8, torch.float32)


class Replay:
    """Runs `step(*inputs, *shared)` for each replica, as often as asked, from native code.

    `inputs` have a leading replica axis and `shared` have none; the step is given one replica, all its
    inputs as slices of length 1, and reads and writes only these tensors. It is recorded on copies of the
    first replica's, so nothing is done before `run`. Unavailable if it cannot be replayed.
    """

    def __init__(self, step: Callable[..., None], inputs: Sequence[Tensor], shared: Sequence[Tensor]) -> None:
        if torch.get_num_threads() > 1:
            raise Unavailable("it has several threads")
        first = [tensor[:1].clone() for tensor in inputs]
        with ThreadPoolExecutor(max_workers=1) as meanwhile:  # both take seconds where nothing is built
            built = meanwhile.submit(library)
            self._calls = record(step, [*first, *shared])
            self._library = built.result()
        self._held = (list(inputs), list(shared))
        replicas = len(inputs[0])
        places = _Places(first, inputs, replicas)
        program = [number for call in self._calls for number in self._encoded(call, places)]
        self._program = torch.tensor(program, dtype=torch.int64)
        self._tables = torch.tensor(places.tables, dtype=torch.int64).T.contiguous()  # [replicas, places]

    def run(self, steps: int) -> None:
        """Do so many steps of each replica. RuntimeError if a kernel raises an error: an index is wrong."""
        message = ctypes.create_string_buffer(_MESSAGE_BYTES)
        replicas, places = self._tables.shape
        failed = self._library.replay(
            ctypes.c_void_p(self._program.data_ptr()),
            ctypes.c_int64(len(self._program)),
            ctypes.c_void_p(self._tables.data_ptr()),
            ctypes.c_int64(places),
            ctypes.c_int64(replicas),
            ctypes.c_int64(steps),
            message,
            ctypes.c_int64(_MESSAGE_BYTES),
        )
        if failed:
            raise RuntimeError(message.value.decode(errors="replace"))

    def release(self) -> None:
        """Let go of all tensors."""
        self._calls, self._held = [], ([], [])

    def _encoded(self, call: Call, places: "_Places") -> Iterator[int]:
        """The call as the numbers that native/replay.cpp reads."""
        if isinstance(call, Kernel):
            if len(call.arguments) > self._library.most_arguments():
                raise Unavailable(f"a kernel has {len(call.arguments)} arguments")
            yield from (_KERNEL, 1 + len(call.arguments), call.address)
            yield from map(places.of, call.arguments)
        elif isinstance(call, Product):
            batch, rows, depth = call.a.shape
            yield from (_PRODUCT, 16, batch, rows, call.b.shape[2], depth)
            for matrix, steps in zip((call.a, call.b, call.c), steps_of(call), strict=True):
                yield from (places.of(matrix), *steps)
        else:
            yield from (_IMAGES, 11, *_image_numbers(call))
            yield from (
                -1 if tensor is None else places.of(tensor)
                for tensor in (call.pixels, call.scale, call.shift, call.rows, call.permutation, call.out)
            )


def steps_of(product: Product) -> list[tuple[int, int, int]]:
    """From one matrix, row and column to the next, of A, B and C, in entries.

    Unavailable if they lie in memory in a way that native/products.h does not take.
    """
    steps = []
    for matrix in (product.a, product.b, product.c):
        # No step is made along an axis of length 1.
        batch, row, column = (s if n > 1 else 1 for n, s in zip(matrix.shape, matrix.stride(), strict=True))
        steps.append((batch, row, column))
    (_, a_row, a_column), (_, b_row, b_column), (_, c_row, c_column) = steps
    if not (b_column == c_column == 1 or a_column == b_row == 1 or a_row == c_row == 1):
        raise Unavailable("it multiplies matrices with gaps")
    return steps


def _image_numbers(call: Images) -> tuple[int, int, int, int, int]:
    """Stored images, images of the batch, channels, pixels, and the kind of pixel."""
    if call.pixels.dtype not in _PIXELS or not all(tensor.is_contiguous() for tensor in call.tensors):
        raise Unavailable(f"its images are {call.pixels.dtype}, or not stored in one piece")
    stored, channels, height, width = call.pixels.shape
    kind = _PIXELS.index(call.pixels.dtype)
    return stored, len(call.rows), channels, channels * height * width, kind


class _Places:
    """Numbers for addresses, and what each of them is for each replica.

    What lies in an input's copy, on which the step was recorded, lies at the same place of each replica's
    part of that input. Everything else is shared.
    """

    def __init__(self, copies: Sequence[Tensor], inputs: Sequence[Tensor], replicas: int) -> None:
        self._inputs = {
            copy.untyped_storage().data_ptr(): (copy, tensor)
            for copy, tensor in zip(copies, inputs, strict=True)
            if copy.numel()
        }
        self._replicas = replicas
        self._numbers: dict[int, int] = {}
        self._next = count()
        self.tables: list[list[int]] = []  # by place, then by replica

    def of(self, tensor: Tensor) -> int:
        """The number of the tensor's address."""
        address = tensor.data_ptr()
        if address not in self._numbers:
            self._numbers[address] = next(self._next)
            self.tables.append(list(self._of_each_replica(tensor)))
        return self._numbers[address]

    def _of_each_replica(self, tensor: Tensor) -> Iterator[int]:
        address = tensor.data_ptr()
        copy, original = self._inputs.get(tensor.untyped_storage().data_ptr(), (None, None))
        for replica in range(self._replicas):
            if copy is None or original is None:
                yield address
            else:
                yield original[replica].data_ptr() + address - copy.data_ptr()
