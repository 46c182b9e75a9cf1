"""Steps called, compiled and replayed; here a stand-in captures, tests/contracts/test_cuda.py needs a GPU."""

import gc
import logging
import weakref
from pathlib import Path

import pytest
import torch

from continual import cpu, stepping
from continual.machine import compile_cache, ensure_compile_cache
from continual.stepping import Stepper
from tests import tiny


class Recorder:
    """A stand-in for a CUDA graph: notes what is captured, and does it when it is replayed."""

    def __init__(self):
        self.captured = 0
        self.replays = 0

    def __call__(self, function):
        self.captured += 1

        def replay():
            self.replays += 1
            function()

        return replay


def add_one(counter, _):
    counter.add_(1)


def test_steps_are_captured_once_and_replayed():
    counter, capture = torch.zeros(()), Recorder()
    stepper = Stepper(add_one, (counter, {"other": [torch.ones(2)]}), compiled=False, capture=capture)
    done = 0
    for steps, replays in ((2, 0), (1, 0), (25, 2 + 5), (10, 1), (9, 9)):
        before = capture.replays
        stepper.run(steps)
        done += steps
        assert (float(counter), capture.replays - before) == (done, replays)
    assert capture.captured == 2, "one step and several, once"


def test_a_tensor_in_another_place_is_an_error_and_not_overlooked():
    inputs = {"counter": torch.zeros(())}
    stepper = Stepper(lambda tree: tree["counter"].add_(1), (inputs,), compiled=False, capture=Recorder())
    stepper.run(5)
    inputs["counter"] = inputs["counter"].clone()
    with pytest.raises(RuntimeError, match="was replaced by another"):
        stepper.run(1)


def test_a_capture_without_memory_is_an_error_of_memory():
    """By which training knows that half a population may fit."""

    def refuse(step):
        raise torch.OutOfMemoryError("CUDA out of memory")

    stepper = Stepper(add_one, (torch.zeros(()), torch.ones(())), compiled=False, capture=refuse)
    with pytest.raises(torch.OutOfMemoryError):
        stepper.run(100)


def test_a_step_that_cannot_be_captured_says_what_to_do():
    def refuse(function):
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    stepper = Stepper(add_one, (torch.zeros(()), torch.ones(())), compiled=False, capture=refuse)
    with pytest.raises(RuntimeError, match=r"not permitted .*engine.cuda_graph=false"):
        stepper.run(4)


@pytest.mark.parametrize("chunks", [(20,), (1, 1, 1, 1, 16), (2, 11, 7)])
def test_replayed_steps_are_those_of_the_population(compose, chunks):
    configs = [tiny.vary(compose("agent=redo", "agent.recycle_period=5"), r) for r in range(2)]
    plain, replayed = tiny.population(configs), tiny.population(configs, capture=Recorder())
    for task in range(2):
        for population in (plain, replayed):
            population.start_task(task)
        plain.advance(20)
        for steps in chunks:
            replayed.advance(steps)
        tiny.assert_equal(plain.replica_state(1), replayed.replica_state(1))


def test_a_failing_compiler_is_named_and_done_without(compose, monkeypatch, caplog):
    def broken(*inputs):
        raise RuntimeError("the compiler says no\nand much more")

    configs = [compose("agent=l2_init")]
    monkeypatch.setattr(stepping._Compiled, "__call__", broken)
    trained, plain = tiny.population(configs, compiled=True, native=False), tiny.population(configs)
    with caplog.at_level(logging.WARNING):
        for population in (trained, plain):
            population.start_task(0)
            population.advance(20)
    assert [record.message for record in caplog.records] == [
        "compiling failed (the compiler says no): steps run uncompiled, several times slower."
    ]
    tiny.assert_equal(trained.replica_state(0), plain.replica_state(0))


def test_damaged_code_is_removed_and_compiled_again(compose, monkeypatch, caplog, tmp_path):
    """As a killed process leaves it, and as the loader then says it."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    ensure_compile_cache()
    damaged = Path(compile_cache()) / "code.so"
    damaged.touch()
    compiled = stepping._Compiled.__call__

    def loaded(self, *inputs):
        if damaged.exists():
            raise ImportError(f"{damaged}: file too short")
        return compiled(self, *inputs)

    monkeypatch.setattr(stepping._Compiled, "__call__", loaded)
    population = tiny.population([compose("agent=base")], compiled=True, native=False)
    with caplog.at_level(logging.WARNING):
        population.start_task(0)
        population.advance(2)
    assert not damaged.exists()
    assert [record.message for record in caplog.records if record.name.startswith("continual")] == []


def test_compiling_that_cannot_be_prepared_is_said_and_done_without(compose, monkeypatch, caplog):
    """As where the folder for compiled code cannot be made."""

    def refuse(*arguments, **settings):
        raise NotADirectoryError(20, "Not a directory", "/dev/null/x")

    monkeypatch.setattr(torch, "compile", refuse)
    trained, plain = tiny.population([compose()], compiled=True, native=False), tiny.population([compose()])
    with caplog.at_level(logging.WARNING):
        for population in (trained, plain):
            population.start_task(0)
            population.advance(20)
    (message,) = [record.message for record in caplog.records]
    assert message.startswith(
        "compiling failed ([Errno 20] Not a directory: '/dev/null/x'): steps run uncompiled"
    )
    tiny.assert_equal(trained.replica_state(0), plain.replica_state(0))


@pytest.mark.parametrize("compiled", [False, True])
def test_a_released_population_holds_no_memory(compose, compiled):
    """Also while Python's collector of cycles does not run, which it may not for long."""
    population = tiny.population([compose("agent=l2_init", "network.hidden_sizes=[9]")], compiled=compiled)
    population.start_task(0)
    population.advance(5)
    weight = weakref.ref(population.state["params"]["output.weight"].untyped_storage())
    gc.disable()
    try:
        population.release()
        del population
        assert weight() is None
    finally:
        gc.enable()


def test_what_cannot_be_replayed_from_native_code_is_said_once_and_compiled(compose, monkeypatch, caplog):
    def refuse(*arguments):
        raise cpu.Unavailable("its native code cannot be built (no compiler)")

    monkeypatch.setattr(cpu, "Replay", refuse)
    configs = [compose("agent=base", "network.hidden_sizes=[9]")]
    compiled, again = (tiny.population(configs, compiled=True) for _ in range(2))
    with caplog.at_level(logging.WARNING):
        for population in (compiled, again):
            population.start_task(0)
    compiled.advance(20)
    assert not compiled.is_native
    assert [record.message for record in caplog.records if record.name == stepping.__name__] == [
        "steps are not replayed from native code, since its native code cannot be built (no compiler): "
        "about half as fast."
    ]
    monkeypatch.undo()
    native = tiny.population(configs, compiled=True)
    native.start_task(0)
    native.advance(20)
    assert native.is_native
    tiny.assert_close(native.replica_state(0), compiled.replica_state(0), relative=1e-5)


def test_a_first_step_that_does_not_fit_holds_on_to_nothing(monkeypatch):
    """torch.compile keeps its backends, so that the halves would start with that memory lost."""

    class Doubling:
        def step(self, tensor):
            tensor.mul_(2)

    def too_large(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch._dynamo, "lookup_backend", lambda name: lambda *_: too_large)
    compiled = stepping._Compiled(Doubling().step)
    tensor = torch.ones(3)
    alive = weakref.ref(tensor)
    with pytest.raises(torch.OutOfMemoryError):
        compiled(tensor)
    compiled.release()
    del tensor
    gc.collect()
    assert alive() is None
