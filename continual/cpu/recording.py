"""The kernels and products that one replica's step consists of.

This and kernels.py are the only places that reach into the compiler: Inductor compiles the traced step, and
the program that it writes in Python is run with functions that note each call and compute nothing. Where a
release of PyTorch changes what this rests on, tests fail (tests/cpu/test_recording.py).
"""

import dataclasses
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.utils._python_dispatch import TorchDispatchMode

from continual.cpu.errors import Unavailable
from continual.cpu.kernels import Source, addresses, written_only
from continual.machine import remove_damaged_code

if TYPE_CHECKING:
    from torch._subclasses.fake_tensor import FakeTensorMode

# Of several threads: what the compiler is told, and how its kernels are made faster, holds for all of them.
_one_at_a_time = threading.RLock()


@dataclass(frozen=True)
class Kernel:
    """A call of a function that the compiler made, at `address`, with the addresses of tensors."""

    address: int
    arguments: tuple[Tensor, ...]


@dataclass(frozen=True)
class Product:
    """C = A B, for matrices [batch, rows, depth] and [batch, depth, columns] of float32."""

    a: Tensor
    b: Tensor
    c: Tensor


@dataclass(frozen=True)
class Images:
    """A call of `continual.cpu.images`, and what it returned."""

    pixels: Tensor
    scale: Tensor
    shift: Tensor
    rows: Tensor
    permutation: Tensor | None
    out: Tensor

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors but those that are None, in the order of the fields."""
        values = (getattr(self, field.name) for field in dataclasses.fields(self))
        return tuple(value for value in values if value is not None)


Call: TypeAlias = Kernel | Product | Images


def record(step: Callable[..., None], tensors: Sequence[Tensor]) -> list[Call]:
    """What `step(*tensors)`, which returns nothing and writes into these tensors, does; it is not done.

    The calls hold on to every tensor whose address they need. Unavailable if the step consists of anything
    but kernels that the compiler makes, products and gathered images, or if the compiler fails.
    """
    try:
        with _one_at_a_time, torch.no_grad():
            program = _compiled(step, tensors)
            return _calls(program, tensors)
    except Unavailable:
        raise
    except Exception as error:  # the compiler's own errors have no common class
        if remove_damaged_code(error):
            return record(step, tensors)
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise Unavailable(f"it cannot be recorded ({type(error).__name__}: {said[0]})") from error


def traced(
    step: Callable[..., None], tensors: Sequence[Tensor]
) -> tuple[GraphModule, "FakeTensorMode", list[Tensor]]:
    """The operations of `step(*tensors)`, as PyTorch's tracer finds them by running it on copies.

    What the step writes into these tensors is written at the graph's end. With the graph come the tensors
    without their content, and the mode that they belong to.
    """
    from torch._inductor.decomposition import select_decomp_table
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    def without_result(*tensors: Tensor) -> list[Tensor]:
        step(*tensors)
        return []

    in_place = torch.func.functionalize(without_result, remove="mutations")
    copies = [tensor.clone() for tensor in tensors]
    with torch.no_grad():
        graph = make_fx(in_place, decomposition_table=select_decomp_table())(*copies)
    mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    return graph, mode, [mode.from_tensor(tensor, static_shapes=True) for tensor in copies]


def _compiled(step: Callable[..., None], tensors: Sequence[Tensor]) -> FunctionType:
    """The Python function that Inductor writes: it takes a list of tensors and calls kernel after kernel."""
    from torch._guards import TracingContext, tracing
    from torch._inductor.compile_fx import compile_fx_inner

    graph, mode, fakes = traced(step, tensors)
    # The compiler's cache on the disk is used only where it is told of a mode for tensors without content.
    with tracing(TracingContext(mode)), written_only():
        made = compile_fx_inner(graph, fakes, is_inference=True)
    function = getattr(getattr(made, "current_callable", None), "__func__", None)
    if not isinstance(function, FunctionType):
        raise Unavailable(f"the compiler returns a {type(made).__name__} of another kind")
    return function


def _calls(program: FunctionType, tensors: Sequence[Tensor]) -> list[Call]:
    """Run the program on these tensors, computing nothing, and note what it calls."""
    kernels = {name: value for name, value in program.__globals__.items() if name.startswith("cpp_fused")}
    for name, kernel in kernels.items():
        if not isinstance(kernel, Source):
            raise Unavailable(f"the compiler's {name} is a {type(kernel).__name__}")
    if not kernels:
        raise Unavailable("the compiler's kernels have other names")
    calls: list[Call] = []
    found = zip(kernels, addresses(list(kernels.values())), strict=True)
    names = {**program.__globals__, **{name: _noting(name, address, calls) for name, address in found}}
    noting = FunctionType(
        program.__code__, names, program.__name__, program.__defaults__, program.__closure__
    )
    with _Operations(calls):
        noting(None, list(tensors))
    return calls


def _noting(name: str, address: int, calls: list[Call]) -> Callable[..., None]:
    """What notes a call of this kernel."""

    def note(*arguments: Any) -> None:
        if not all(isinstance(argument, Tensor) for argument in arguments):
            raise Unavailable(f"{name} has an argument that is no tensor")
        calls.append(Kernel(address, arguments))

    return note


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes products and gathered images, and makes room for what they return; refuses other operations."""

    def __init__(self, calls: list[Call]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._calls = calls

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.ops.aten.bmm.out, torch.ops.aten.mm.out):
            out = kwargs["out"]
            matrices = (*args, out)
            if any(matrix.dtype != torch.float32 for matrix in matrices):
                raise Unavailable(f"it multiplies matrices of {matrices[0].dtype}")
            self._calls.append(Product(*(m if m.ndim == 3 else m[None] for m in matrices)))
            return out
        if func is torch.ops.continual.images.default:
            pixels, scale, shift, rows, permutation = args
            out = torch.empty(len(rows), *pixels.shape[1:], dtype=torch.float32)
            self._calls.append(Images(pixels, scale, shift, rows, permutation, out))
            return out
        if func.is_view:
            return func(*args, **kwargs)
        raise Unavailable(f"it calls {func}")
