"""Replays: each replica's own tensors, as often as asked; what goes wrong in a kernel is an error here."""

import gc
import weakref

import pytest
import torch

from continual import cpu


def test_each_replica_has_its_own_and_shares_the_rest():
    total, weight, count = torch.zeros(3, 2), torch.randn(3, 2, 2), torch.zeros(3, dtype=torch.int64)
    shared = torch.tensor([[1.0, 10.0]])

    def step(total, weight, count, shared):
        total.add_(torch.bmm(shared[None], weight)[:, 0])
        count.add_(1)

    replay = cpu.Replay(step, [total, weight, count], [shared])
    assert not count.any(), "nothing is done before it runs"
    replay.run(3)
    replay.run(2)
    assert count.tolist() == [5, 5, 5]
    torch.testing.assert_close(total, 5 * (shared @ weight)[:, 0])
    shared.zero_()
    before = total.clone()
    replay.run(1)
    assert torch.equal(total, before), "shared tensors are read where they are"


def test_a_wrong_index_is_an_error():
    table, place = torch.zeros(1, 4), torch.zeros(1, dtype=torch.int64)

    def step(table, place):
        table.copy_(torch.gather(table, 1, place[:, None]).expand_as(table) + 1)

    replay = cpu.Replay(step, [table, place], [])
    place.fill_(9)
    with pytest.raises(RuntimeError, match="out of bounds"):
        replay.run(1)


def test_released_it_holds_nothing():
    tensor = torch.zeros(2, 3)
    held = weakref.ref(tensor.untyped_storage())
    replay = cpu.Replay(lambda x: x.add_(1), [tensor], [])
    replay.run(1)
    gc.disable()
    try:
        replay.release()
        del tensor
        assert held() is None
    finally:
        gc.enable()
