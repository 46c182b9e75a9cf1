"""A run with more tasks is the one with fewer, and what follows: for every environment in conf/."""

import pytest
import torch

from continual import building, random
from continual.schema import locate
from continual.tree import leaves
from tests import tiny


@pytest.mark.parametrize("env", tiny.options("env"))
def test_tasks_do_not_depend_on_how_many_there_are(compose, env):
    """Or the environment says so, and such a run is not prolonged."""
    if locate(compose(f"env={env}")["env"]["_target_"]).tasks_depend_on_their_number:
        return
    fewer, more = (building.prepare(compose(f"env={env}", f"env.num_tasks={n}"))[1] for n in (1, 2))
    assert fewer.num_classes == more.num_classes
    key = random.stream(random.key(0), "environment")
    streams = [dict(leaves(environment.draw_stream(key))) for environment in (fewer, more)]
    assert streams[0].keys() == streams[1].keys()
    assert all(torch.equal(tensor, streams[1][path]) for path, tensor in streams[0].items())
    for number in range(fewer.num_tasks):
        one, other = (e.task(e.draw_stream(key), key, number) for e in (fewer, more))
        assert (fewer.task_size(number), fewer.test_size(number)) == (
            more.task_size(number),
            more.test_size(number),
        )
        used = {"rows": fewer.task_size(number), "labels": fewer.task_size(number)}
        used |= {f"test_{name}": fewer.test_size(number) for name in ("rows", "labels")}
        for name, tensor in one.items():
            size = used.get(name, len(tensor))
            assert torch.equal(tensor[:size], other[name][:size]), name
