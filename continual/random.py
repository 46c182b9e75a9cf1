"""Counter-based random numbers: every draw is a pure function of (seed, stream, counters).

A *key* is an int32 tensor of shape [2]. Keys are derived, never advanced: `stream` names a purpose,
`fold` mixes in a counter (a task, an epoch, a step). A draw hashes its element number under the key,
so it does not depend on which replicas share the process, on the order of draws or on the device, and
there is no generator state to save. Everything is integer tensor arithmetic that vmaps and compiles.

The hash is a three-round multiply-xorshift permutation of 32-bit integers (the constants are those of
C. Wellons' `triple32`), with the second half of the key added between the rounds.
"""

import torch
from torch import Tensor

_ROUND_1, _ROUND_2, _ROUND_3 = (c - 2**32 if c >= 2**31 else c for c in (0xED5AD4BB, 0xAC4C1B51, 0x31848BAB))
_SECOND_HALF = 0x6C078965


def key(seed: int, device: torch.device | str = "cpu") -> Tensor:
    """The key of a replica's seed: int32 [2]. Any integer of 64 bits is a seed of its own."""
    halves = torch.tensor([_int32(seed), _int32(seed >> 32)], dtype=torch.int32, device=device)
    return fold(halves, 0)


def stream(key: Tensor, name: str) -> Tensor:
    """The key for one purpose ("labels", "batches"); streams with different names are independent."""
    number = 0x811C9DC5  # FNV-1a; a library's hash would be a builtin, which torch.compile cannot trace
    for character in name:
        number = (number ^ ord(character)) * 0x01000193 % 2**32
    return fold(key, number)


def fold(key: Tensor, counter: int | Tensor) -> Tensor:
    """A key for each value of a counter: int32 [2], from a key [2] and an integer or a 0-d tensor."""
    # One entry, not 0-d: where a 0-d tensor meets a Python integer, the compiler (torch 2.14, under vmap)
    # rounds the integer to float32, and the hash's constants with it.
    if isinstance(counter, int):
        data = torch.full((1,), _int32(counter), dtype=torch.int32, device=key.device)
    else:
        data = counter.to(torch.int32).reshape(1)
    return torch.cat([_hash(data, key[0], key[1]), _hash(data ^ _SECOND_HALF, key[1], key[0])])


def bits(key: Tensor, count: int) -> Tensor:
    """`count` uniformly distributed 32-bit patterns, as int32 [count]."""
    counters = torch.arange(count, dtype=torch.int32, device=key.device)
    return _hash(counters, key[0], key[1])


def uniform(key: Tensor, shape: tuple[int, ...] | torch.Size) -> Tensor:
    """Uniform float32 in [0, 1) with 24 random bits each, of the given shape."""
    return _unit_interval(bits(key, _numel(shape))).reshape(shape)


def normal(key: Tensor, shape: tuple[int, ...] | torch.Size) -> Tensor:
    """Standard normal float32 of the given shape (Box-Muller)."""
    count = _numel(shape)
    radius = torch.sqrt(-2 * torch.log(_unit_interval(bits(fold(key, 0), count)) + 2.0**-25))
    angle = 2 * torch.pi * _unit_interval(bits(fold(key, 1), count))
    return (radius * torch.cos(angle)).reshape(shape)


def integers(key: Tensor, count: int, high: int) -> Tensor:
    """`count` integers uniform in [0, high), as int64 [count]."""
    unsigned = bits(key, count).to(torch.int64) & 0xFFFFFFFF
    return (unsigned * high) >> 32


def permutation(key: Tensor, count: int) -> Tensor:
    """A uniformly random order of 0 .. count-1, as int64 [count]."""
    return torch.argsort(bits(key, count), stable=True)


def subset(key: Tensor, count: int, size: int) -> Tensor:
    """`count` of 0 .. size-1, none of them twice, in random order; all, in their own order, if there are no
    more. int64 [min(count, size)]."""
    if count >= size:
        return torch.arange(size, device=key.device)
    return permutation(key, size)[:count]


def _hash(counter: Tensor, first: Tensor, second: Tensor) -> Tensor:
    x = counter ^ first
    x = (x ^ _shift_right(x, 17)) * _ROUND_1
    x = (x ^ _shift_right(x, 11)) + second
    x = x * _ROUND_2
    x = (x ^ _shift_right(x, 15)) * _ROUND_3
    return x ^ _shift_right(x, 14)


def _shift_right(x: Tensor, places: int) -> Tensor:
    """Logical shift: int32 tensors shift arithmetically, so the copies of the sign are masked."""
    return (x >> places) & (0xFFFFFFFF >> places)


def _unit_interval(pattern: Tensor) -> Tensor:
    return _shift_right(pattern, 8).to(torch.float32) * 2.0**-24


def _int32(value: int) -> int:
    """The signed 32-bit integer with the low bits of `value`."""
    return (value + 2**31) % 2**32 - 2**31


def _numel(shape: tuple[int, ...] | torch.Size) -> int:
    return torch.Size(shape).numel()
