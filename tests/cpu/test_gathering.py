"""The gathering of images from native code is that of the environment, bit for bit."""

import pytest
import torch

from continual import cpu
from continual.envs.image_tasks import images


def replayed(pixels, scale, shift, rows, permutation):
    """A batch gathered by a replay of a step that does that and little else."""
    out = torch.zeros(1, len(rows), *pixels.shape[1:])
    inputs = [out, rows[None]] + ([] if permutation is None else [permutation[None]])

    def step(out, rows, *rest):
        *permutations, pixels = rest
        permutation = permutations[0][0] if permutations else None
        out.copy_(cpu.images(pixels, scale, shift, rows[0], permutation)[None] + 0.0)

    replay = cpu.Replay(step, inputs, [pixels])
    replay.run(1)
    return out[0]


@pytest.mark.parametrize("permuted", [False, True], ids=["as they are", "permuted"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_as_by_the_environment(permuted, channels, dtype):
    draw = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (30, channels, 21, 22), generator=draw).to(dtype)
    scale, shift = (torch.rand(channels, 1, 1, generator=draw) for _ in range(2))
    rows = torch.randint(0, 30, (7,), generator=draw)
    permutation = torch.randperm(pixels[0].numel(), generator=draw) if permuted else None
    wanted = images(pixels, scale, shift, rows, permutation)
    assert torch.equal(replayed(pixels, scale, shift, rows, permutation), wanted)


@pytest.mark.parametrize(
    ("rows", "permutation", "says"),
    [([0, 30], None, "no image 30"), ([0, -1], None, "no image -1"), ([0, 1], -1, "past the pixels")],
)
def test_what_is_not_there_is_an_error(rows, permutation, says):
    pixels = torch.zeros(30, 1, 4, 5, dtype=torch.uint8)
    places = None if permutation is None else torch.full((20,), permutation)
    scale = shift = torch.ones(1, 1, 1)
    out = torch.zeros(1, 2, 1, 4, 5)
    inputs = [out, torch.zeros(1, 2, dtype=torch.int64)] + ([] if places is None else [places[None] * 0])

    def step(out, rows, *rest):
        *permutations, pixels = rest
        permutation = permutations[0][0] if permutations else None
        out.copy_(cpu.images(pixels, scale, shift, rows[0], permutation)[None] + 0.0)

    replay = cpu.Replay(step, inputs, [pixels])
    inputs[1][0] = torch.tensor(rows)
    if places is not None:
        inputs[2][0] = places
    with pytest.raises(RuntimeError, match=says):
        replay.run(1)


def test_many_replicas_are_gathered_one_by_one():
    pixels = torch.arange(60, dtype=torch.uint8).reshape(15, 1, 2, 2)
    scale, shift = torch.full((1, 1, 1), 2.0), torch.ones(1, 1, 1)
    rows = torch.tensor([[3, 4], [0, 14]])
    found = torch.func.vmap(lambda rows: cpu.images(pixels, scale, shift, rows, None))(rows)
    assert torch.equal(found, torch.stack([images(pixels, scale, shift, of, None) for of in rows]))
