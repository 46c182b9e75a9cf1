"""One step again and again: called, compiled, replayed from native code or from CUDA graphs."""

import functools
import logging
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

from continual import cpu
from continual.machine import remove_damaged_code
from continual.tree import Tree, flattened, transform

log = logging.getLogger(__name__)

# Makes of a function that only starts work on a device one that starts the same work again.
Capture: TypeAlias = Callable[[Callable[[], None]], Callable[[], None]]

# Before the capture: libraries set themselves up and memory is laid out in the first steps of all.
_STEPS_BEFORE_CAPTURE = 3
# Steps in the longer of the two graphs: a replay costs about ten microseconds, however many it holds.
_STEPS_PER_REPLAY = 10


class Stepper:
    """Repeats `step(*inputs, *shared)`, which reads and writes only these tensors and returns nothing.

    `inputs` have a leading replica axis, `shared` have none. With `one_by_one` the step is given one replica
    at a time, all its tensors as slices of length 1, and does all of a replica's steps before the next one's.

    `compiled` passes it through torch.compile; what cannot be compiled is reported and runs as it is. Where
    `native` is given, too, on a CPU, it is tried first: the same step, as it is to be recorded and replayed
    from native code (`continual.cpu`), one replica after another. What cannot be replayed is reported. With
    `capture` (on a GPU: `CudaGraphs`) the first few steps run as they are, then one step and a handful are
    captured, once, and all later steps are replays of these two graphs.
    """

    def __init__(
        self,
        step: Callable[..., None],
        inputs: tuple[Any, ...],
        shared: tuple[Any, ...] = (),
        *,
        compiled: bool,
        capture: Capture | None = None,
        one_by_one: bool = False,
        native: Callable[..., None] | None = None,
    ) -> None:
        self._inputs = (*inputs, *shared)
        self._addresses = _addresses(self._inputs)
        self._calls = [self._inputs]
        if one_by_one:
            replicas = range(len(next(_tensors(inputs))))
            self._calls = [(*(_slice(node, r) for node in inputs), *shared) for r in replicas]
        self._uncompiled = self._step = step
        self._to_compile, self._capture = compiled, capture
        self._compiled: _Compiled | None = None
        self._steps_before_capture = _STEPS_BEFORE_CAPTURE
        self._graphs: tuple[Callable[[], None], Callable[[], None]] | None = None
        self._replay = _replay(native, inputs, shared) if native is not None and compiled else None

    @property
    def is_native(self) -> bool:
        """Whether steps are replayed from native code, whose rounding is its own."""
        return self._replay is not None

    def run(self, steps: int) -> None:
        """Start so many steps. RuntimeError if a tensor of the inputs is not where it was at the first."""
        if _addresses(self._inputs) != self._addresses:
            raise RuntimeError("a tensor that the step reads or writes was replaced by another")
        if self._replay is not None:
            self._replay.run(steps)
            return
        if self._capture is None:
            for inputs in self._calls:
                for _ in range(steps):
                    self._once(inputs)
            return
        while steps and self._steps_before_capture:
            self._all_once()
            self._steps_before_capture -= 1
            steps -= 1
        if not steps:
            return
        one, many = self._graphs = self._graphs or self._captured(self._capture)
        for _ in range(steps // _STEPS_PER_REPLAY):
            many()
        for _ in range(steps % _STEPS_PER_REPLAY):
            one()

    def release(self) -> None:
        """Let go of the inputs and of what was made for them."""
        self._inputs, self._calls, self._graphs = (), [], None
        if self._replay is not None:
            self._replay.release()
        if self._compiled is not None:
            self._compiled.release()

    def _captured(self, capture: Capture) -> tuple[Callable[[], None], Callable[[], None]]:
        def many() -> None:
            for _ in range(_STEPS_PER_REPLAY):
                self._all_once()

        try:
            return capture(self._all_once), capture(many)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            # What is left of a failed capture is not to be trusted: nothing is tried in its place.
            raise RuntimeError(
                f"the step could not be captured in a CUDA graph ({_first_line(error)}); "
                "engine.cuda_graph=false trains without, more slowly."
            ) from error

    def _all_once(self) -> None:
        for inputs in self._calls:
            self._once(inputs)

    def _once(self, inputs: tuple[Any, ...]) -> None:
        if self._to_compile:
            self._compile_and_step(inputs)
        else:
            self._step(*inputs)

    def _compile_and_step(self, inputs: tuple[Any, ...]) -> None:
        """The first step: compile, or say why that failed and go on without."""
        self._to_compile = False
        try:
            # Already preparing may fail, as where the folder for compiled code cannot be made.
            self._step = self._compiled = _Compiled(self._uncompiled)
            self._step(*inputs)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # the compiler's own errors have no common class
            if remove_damaged_code(error):
                return self._compile_and_step(inputs)
            log.warning(
                "compiling failed (%s): steps run uncompiled, several times slower.", _first_line(error)
            )
            self._step = self._uncompiled
            self._step(*inputs)


class CudaGraphs:
    """Captures the work that functions start on the current GPU.

    The graphs share the memory for what is temporary in them: they are never replayed at the same time, and
    leave nothing behind there.
    """

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        # Of this GPU: the stream that PyTorch itself captures on is the first GPU's.
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def __call__(self, function: Callable[[], None]) -> Callable[[], None]:
        """Returns what starts the function's work again.

        RuntimeError if the function does what a graph cannot hold, such as waiting for the GPU.
        """
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            function()
        replay: Callable[[], None] = graph.replay
        return replay


class _Compiled:
    """torch.compile of one population's step, called past torch.compile's own checks.

    The inputs always have the same shapes and every result is written into them, so after the first call what
    the compiler made is called again with the tensors that it asked for then, or with those in their places.
    torch.compile's own call, with all guards filtered out, took 190 us for a step of one replica that takes
    168 so, and 576 for a step of four that takes 570 (Permuted MNIST, MLP). A code object of its own keeps
    populations apart: torch.compile finds compiled code by code object.
    """

    def __init__(self, method: Callable[..., None]) -> None:
        owner, function = method.__self__, method.__func__  # type: ignore[attr-defined]
        fresh = types.FunctionType(
            function.__code__.replace(),
            function.__globals__,
            function.__name__,
            function.__defaults__,
            function.__closure__,
        )
        fresh.__kwdefaults__ = function.__kwdefaults__
        self._made: Callable[..., object] | None = None
        self._asked: list[int | Tensor] = []
        self._again: dict[tuple[int, ...], Callable[[], object]] = {}
        self._first = torch.compile(
            types.MethodType(fresh, owner), fullgraph=True, dynamic=False, backend=self._backend
        )

    def __call__(self, *inputs: Any) -> None:
        if self._made is None:
            self._first_inputs = list(_tensors(inputs))
            try:
                self._first(*inputs)
            finally:  # where memory was lacking, what it holds is to be free for the halves
                self._first_inputs = []
            return
        again = self._again.get(tuple(map(id, inputs)))
        if again is None:
            tensors = list(_tensors(inputs))
            asked = [tensors[of] if isinstance(of, int) else of for of in self._asked]
            again = self._again[tuple(map(id, inputs))] = functools.partial(self._made, *asked)
        again()

    def release(self) -> None:
        """Let go of the tensors: torch.compile keeps its backends, and with them this, for good."""
        self._made, self._asked, self._again = None, [], {}
        del self._first

    def _backend(self, graph: torch.fx.GraphModule, example_inputs: list[Tensor]) -> Callable[..., Any]:
        from torch._inductor import config  # takes a second

        on_cpu = example_inputs[0].device.type == "cpu"
        # Helper processes for compiling take longer to start and to end than they save on the few kernels.
        with config.patch({"compile_threads": 1} if on_cpu else {}), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "TensorFloat32")  # engine.precision says what is wanted
            made = torch._dynamo.lookup_backend("inductor")(graph, example_inputs)

        def first(*tensors: Tensor) -> Any:
            places = {id(tensor): place for place, tensor in enumerate(self._first_inputs)}
            held = {tensor.untyped_storage().data_ptr() for tensor in self._first_inputs}
            for tensor in tensors:
                place = places.get(id(tensor))
                if place is None and tensor.untyped_storage().data_ptr() in held:
                    raise RuntimeError("torch.compile passes on a view of an input in its place")
                self._asked.append(tensor if place is None else place)
            self._made = made
            return made(*tensors)

        return first


def _replay(step: Callable[..., None], inputs: tuple[Any, ...], shared: tuple[Any, ...]) -> cpu.Replay | None:
    """The step replayed from native code, or None where that cannot be, which is reported once."""
    flat, tensors = flattened(step, (*inputs, *shared))
    of_replicas = len(tensors) - len(shared)
    try:
        return cpu.Replay(flat, tensors[:of_replicas], tensors[of_replicas:])
    except cpu.Unavailable as why:
        _report_unavailable(str(why))
        return None


@functools.cache
def _report_unavailable(why: str) -> None:
    log.warning("steps are not replayed from native code, since %s: about half as fast.", why)


def _addresses(inputs: tuple[Any, ...]) -> list[int]:
    return [tensor.data_ptr() for tensor in _tensors(inputs)]


def _tensors(node: Any) -> Iterator[Tensor]:
    if isinstance(node, Tensor):
        yield node
    else:
        for child in node.values() if isinstance(node, Mapping) else node:
            yield from _tensors(child)


def _slice(node: Tree, replica: int) -> Tree:
    """A replica's part of a tree, with a leading axis of length 1."""
    return transform(lambda tensor: tensor[replica : replica + 1], node)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
