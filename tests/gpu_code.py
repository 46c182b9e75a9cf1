"""The code that torch.compile makes of a population's step for a GPU, on a machine that has none.

A program, because what it tells torch of this machine would disturb other tests: reads {name: config} as JSON
from standard input, and writes {name: the fields of `Code`} to standard output.
"""

import gc
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch

from continual import building
from continual.config import Replica
from continual.cpu import recording
from continual.tree import flattened

REPLICAS = 8
# Values that decide which code is made; nothing else about the card is asked for.
_H100 = {
    "name": "NVIDIA H100 80GB HBM3",
    "major": 9,
    "minor": 0,
    "multi_processor_count": 132,
    "max_threads_per_multi_processor": 2048,
    "regs_per_multiprocessor": 65536,
    "shared_memory_per_block": 49152,
    "shared_memory_per_block_optin": 232448,
    "shared_memory_per_multiprocessor": 233472,
    "warp_size": 32,
    "total_memory": 80 * 2**30,
    "L2_cache_size": 50 * 2**20,
}
_FAULTS = re.compile(r"tl\.atomic_\w+|cpp_fused|device_put|device='cpu'|\.item\(\)|\.cpu\(\)")
_CALL = re.compile(r"((?:triton_|extern_kernels\.|aten\.)\w+)[\w.]*\((.*)\)$", re.MULTILINE)
_INPUT = re.compile(r"\barg\d+_1\b")
_EACH_LINE = re.MULTILINE | re.DOTALL
_made: dict[tuple[str, str], "Code"] = {}


@dataclass(frozen=True)
class Code:
    """A step: the number of `kernels` made for it, and the functions that it calls besides, from a `library`.

    `traffic` is what they read and write for a replica, in units of its parameters, as the compiler counts:
    all of each tensor that they touch. `faults` are words that the code must not contain: they add up in no
    fixed order, work on the CPU, copy from there or wait for the GPU. `late` are inputs that something still
    reads when they have been overwritten: the step writes in place, and all of it is to see the old values.
    """

    kernels: int
    library: list[str]
    traffic: float
    faults: list[str]
    late: list[str]

    @property
    def launches(self) -> int:
        """How often a step starts something on the GPU."""
        return self.kernels + len(self.library)


def codes(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, Code]:
    """The code of a population's step for each of these configs, made by two processes."""
    shares = [dict(list(configs.items())[i::2]) for i in range(2)]
    with ThreadPoolExecutor() as threads:
        return {name: code for share in threads.map(_in_a_process, shares) for name, code in share.items()}


def _in_a_process(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, Code]:
    found = subprocess.run(
        [sys.executable, "-m", "tests.gpu_code"],
        input=json.dumps(configs),
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
        # Helper processes would begin to make the kernels' machine code, which nothing is asked of.
        env=os.environ | {"TORCHINDUCTOR_COMPILE_THREADS": "1"},
    )
    assert found.returncode == 0, found.stderr
    made = json.loads(found.stdout.splitlines()[-1])
    return {name: Code(**of) for name, of in made.items()}


class _Driver:
    """What the compiler asks Triton of the card."""

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 10 * _H100["major"] + _H100["minor"], _H100["warp_size"])

    def get_current_device(self) -> int:
        return 0


def _code(config: Mapping[str, Any]) -> Code:
    """Trace the step of a population on the CPU and have the code for a GPU made."""
    replicas = [Replica({**config, "seed": seed}, {}, Path("unused"), "gpu_code") for seed in range(REPLICAS)]
    learner, environment = building.prepare(config)
    population = building.population(replicas, learner, environment, compiled=False)
    population.start_task(0)
    graph, inputs = _traced(population._advance, population._stepper._inputs)
    # Agents that act at a task's start alone have the step of the base agent, and are not compiled again.
    same = graph.code, str([(tensor.shape, tensor.stride(), tensor.dtype) for tensor in inputs])
    if same in _made:
        return _made[same]
    changed = sum(node.target is torch.ops.aten.copy_.default for node in graph.graph.nodes)
    program, traffic = _for_a_gpu(graph, inputs)
    calls = program[program.index("def call(") :]
    written, late = written_and_late(program, calls)
    assert len(written) == changed, (written, changed)
    parameters = sum(4 * p.numel() for p in learner.network.parameters())
    _made[same] = Code(
        kernels=len(re.findall(r"^ *triton_\w+\.run\(", calls, re.MULTILINE)),
        library=re.findall(r"(?:extern_kernels|torch\.ops\.\w+)\.(\w+)[\w.]*\(", calls),
        traffic=traffic / REPLICAS / parameters,
        faults=sorted(set(_FAULTS.findall(program))),
        late=late,
    )
    return _made[same]


def _traced(step: Callable[..., None], inputs: tuple[Any, ...]) -> tuple[torch.fx.GraphModule, list[Any]]:
    """The step's operations on the tensors of `inputs`, simplified, and these without their content.

    Without Dynamo, which takes longer than all else here and has found the same operations; that it can read
    the steps is for the tests of compiled steps to tell.
    """
    from torch._guards import TracingContext, tracing
    from torch._inductor import compile_fx
    from torch.fx.passes.fake_tensor_prop import FakeTensorProp

    graph, mode, fakes = recording.traced(*flattened(step, inputs))
    with tracing(TracingContext(mode)):
        FakeTensorProp(graph, mode).propagate_dont_convert_inputs(*fakes)
        compile_fx._recursive_joint_graph_passes(graph)
    return graph, fakes


def written_and_late(program: str, calls: str) -> tuple[set[str], list[str]]:
    """Inputs (arg1_1, ...) into which a kernel stores, and those that are arguments of a later call, too."""
    stores = {}
    for name, parameters, body in re.findall(r"^def (triton_\w+)\((.*?)\):\n(.*?)^'''", program, _EACH_LINE):
        stored = set(re.findall(r"tl\.(?:store|atomic_\w+)\((\w+) ", body))
        stores[name] = [parameter in stored for parameter in parameters.split(", ")]
    written: set[str] = set()
    late: set[str] = set()
    for name, arguments in _CALL.findall(calls):
        late |= written & set(_INPUT.findall(arguments))
        for argument, is_stored in zip(arguments.split(", "), stores.get(name, []), strict=False):
            if is_stored and _INPUT.fullmatch(argument):
                written.add(argument)
    return written, sorted(late)


def _for_a_gpu(graph: torch.fx.GraphModule, inputs: list[Any]) -> tuple[str, int]:
    """The program made of a graph that was traced on the CPU, and the bytes that it reads and writes."""
    from torch._guards import TracingContext, tracing
    from torch._inductor import compile_fx, scheduler
    from torch._inductor import graph as inductor_graph
    from torch._inductor.debug import DebugContext
    from torch._inductor.virtualized import V
    from torch.fx.passes.fake_tensor_prop import FakeTensorProp
    from triton.runtime import driver

    gpu = torch.device("cuda", 0)
    fake = torch._dynamo.utils.detect_fake_mode(inputs)
    with fake:
        inputs = [torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=gpu) for t in inputs]
    for node in graph.graph.nodes:
        node.kwargs = {name: gpu if isinstance(of, torch.device) else of for name, of in node.kwargs.items()}
    graph.recompile()
    properties = SimpleNamespace(type="cuda", index=0, **_H100)
    with (
        patch.multiple(
            torch.cuda,
            is_available=lambda: True,
            device_count=lambda: 1,
            current_device=lambda: 0,
            _lazy_init=lambda: None,
            get_device_capability=lambda device=None: (_H100["major"], _H100["minor"]),
            get_device_properties=lambda device=None: properties,
            _get_device_properties=lambda device=None: properties,
            create=True,
        ),
        patch.object(scheduler, "has_triton", lambda: True),
        patch.object(driver, "_active", _Driver()),
        V.set_fake_mode(fake),
        tracing(TracingContext(fake)),
    ):
        compile_fx.view_to_reshape(graph)
        FakeTensorProp(graph, fake).propagate_dont_convert_inputs(*inputs)
        compile_fx._recursive_post_grad_passes(graph, is_inference=True)
        lowering = inductor_graph.GraphLowering(graph, example_inputs=inputs, is_inference=True)
        with DebugContext(), V.set_graph_handler(lowering):
            lowering.run(*inputs)
            program, *_ = lowering.codegen()
            traffic, *_ = lowering.count_bytes()
    return program.value, traffic


def _main() -> None:
    """Make the code, looking through the compiler's garbage once per config and never through its modules."""
    gc.disable()
    found = {}
    for name, config in json.load(sys.stdin).items():
        found[name] = asdict(_code(config))
        gc.collect()
        if len(found) == 1:  # now all modules are loaded
            gc.freeze()
    print(json.dumps(found))


if __name__ == "__main__":
    _main()
