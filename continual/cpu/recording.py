"""The kernels and products that one replica's step consists of, found out by running it once.

This is the only place that reaches into the compiler: it has Inductor compile the traced step, and runs the
program that Inductor wrote in Python with its kernels' names bound to functions that note each call. Where a
release of PyTorch changes what this rests on, tests fail (tests/cpu/test_recording.py).
"""

import ctypes
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
from continual.cpu.kernels import made_faster
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
    """What `step(*tensors)`, which returns nothing and writes into these tensors, does; done once meanwhile.

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
    from torch._inductor import config
    from torch._inductor.compile_fx import compile_fx_inner

    graph, mode, fakes = traced(step, tensors)
    # The compiler's cache on the disk is used only where it is told of a mode for tensors without content.
    # Helper processes for compiling take longer to start and to end than they save on the few kernels.
    with config.patch({"compile_threads": 1}), tracing(TracingContext(mode)), made_faster():
        made = compile_fx_inner(graph, fakes, is_inference=True)
    function = getattr(getattr(made, "current_callable", None), "__func__", None)
    if not isinstance(function, FunctionType):
        raise Unavailable(f"the compiler returns a {type(made).__name__} of another kind")
    return function


def _calls(program: FunctionType, tensors: Sequence[Tensor]) -> list[Call]:
    """Run the program once on these tensors and note what it calls."""
    calls: list[Call] = []
    names = {
        name: _noted(name, value, calls) if name.startswith("cpp_fused") else value
        for name, value in program.__globals__.items()
    }
    noting = FunctionType(
        program.__code__, names, program.__name__, program.__defaults__, program.__closure__
    )
    with _Operations(calls):
        noting(None, list(tensors))
    if not any(isinstance(call, Kernel) for call in calls):
        raise Unavailable("the compiler's kernels have other names")
    return calls


def _noted(name: str, kernel: Any, calls: list[Call]) -> Callable[..., None]:
    """The kernel, noting its calls."""
    path = getattr(getattr(kernel, "__self__", None), "__file__", None)
    if path is None:
        raise Unavailable(f"the compiler's {name} is a {type(kernel).__name__}")
    address = ctypes.cast(ctypes.CDLL(path).kernel, ctypes.c_void_p).value
    assert address is not None

    def note(*arguments: Any) -> None:
        if not all(isinstance(argument, Tensor) for argument in arguments):
            raise Unavailable(f"{name} has an argument that is no tensor")
        calls.append(Kernel(address, arguments))
        kernel(*arguments)

    return note


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes products and gathered images; refuses every other operation that PyTorch itself computes."""

    def __init__(self, calls: list[Call]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._calls = calls

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.ops.aten.bmm.out, torch.ops.aten.mm.out):
            matrices = (*args, kwargs["out"])
            if any(matrix.dtype != torch.float32 for matrix in matrices):
                raise Unavailable(f"it multiplies matrices of {matrices[0].dtype}")
            self._calls.append(Product(*(m if m.ndim == 3 else m[None] for m in matrices)))
            return func(*args, **kwargs)
        if func is torch.ops.continual.images.default:
            out = func(*args, **kwargs)
            pixels, scale, shift, rows, permutation = args
            self._calls.append(Images(pixels, scale, shift, rows, permutation, out))
            return out
        if func.is_view:
            return func(*args, **kwargs)
        raise Unavailable(f"it calls {func}")
