"""Replays: each replica's own tensors, as often as asked; what goes wrong in a kernel is an error here."""

import gc
import threading
import weakref

import pytest
import torch

from continual import cpu
from continual.cpu import replay
from continual.cpu.library import library
from continual.cpu.recording import record


def test_each_replica_has_its_own_and_shares_the_rest():
    total, weight, count = torch.zeros(3, 2), torch.randn(3, 2, 2), torch.zeros(3, dtype=torch.int64)
    shared = torch.tensor([[1.0, 10.0]])

    def step(total, weight, count, shared):
        total.add_(torch.bmm(shared[None], weight)[:, 0])
        count.add_(1)

    steps = cpu.Replay(step, [total, weight, count], [shared])
    assert not count.any(), "nothing is done before it runs"
    steps.run(3)
    steps.run(2)
    assert count.tolist() == [5, 5, 5]
    torch.testing.assert_close(total, 5 * (shared @ weight)[:, 0])
    shared.zero_()
    before = total.clone()
    steps.run(1)
    assert torch.equal(total, before), "shared tensors are read where they are"


def test_a_wrong_index_is_an_error():
    table, place = torch.zeros(1, 4), torch.zeros(1, dtype=torch.int64)

    def step(table, place):
        table.copy_(torch.gather(table, 1, place[:, None]).expand_as(table) + 1)

    steps = cpu.Replay(step, [table, place], [])
    place.fill_(9)
    with pytest.raises(RuntimeError, match="out of bounds"):
        steps.run(1)


def test_the_library_is_built_while_the_step_is_recorded(monkeypatch):
    is_recording = threading.Event()

    def library_when_recording():
        assert is_recording.wait(60)
        return library()

    def telling_record(step, tensors):
        is_recording.set()
        return record(step, tensors)

    monkeypatch.setattr(replay, "library", library_when_recording)
    monkeypatch.setattr(replay, "record", telling_record)
    tensor = torch.zeros(1, 3)
    cpu.Replay(lambda x: x.add_(1), [tensor], []).run(1)
    assert tensor.tolist() == [[1, 1, 1]]


def test_released_it_holds_nothing():
    tensor = torch.zeros(2, 3)
    held = weakref.ref(tensor.untyped_storage())
    steps = cpu.Replay(lambda x: x.add_(1), [tensor], [])
    steps.run(1)
    gc.disable()
    try:
        steps.release()
        del tensor
        assert held() is None
    finally:
        gc.enable()
