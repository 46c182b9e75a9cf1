"""What a recording finds, and what it refuses. These fail where PyTorch no longer is as it is taken to be."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from continual import cpu
from continual.cpu.recording import Images, Kernel, Product, record


def test_kernels_products_and_images_are_found_in_order():
    pixels = torch.randint(0, 256, (9, 1, 2, 3), dtype=torch.uint8)
    weight, out, rows = torch.randn(1, 5, 6), torch.zeros(1, 4, 5), torch.tensor([[1, 3, 0, 8]])
    one = torch.ones(1, 1, 1)

    def step(weight, out, rows, pixels):
        x = cpu.images(pixels, one, one, rows[0], None).flatten(1)[None]
        out.copy_(torch.bmm(x, weight.transpose(1, 2)).relu())
        weight.mul_(0.5)

    before = weight.clone()
    calls = record(step, [weight, out, rows, pixels])
    kinds = [type(call) for call in calls]
    assert kinds.index(Images) < kinds.index(Product) < kinds.index(Kernel)
    assert torch.equal(weight, before), "the step was not done"
    assert not out.any()
    cpu.Replay(step, [weight, out, rows], [pixels]).run(1)
    assert torch.equal(weight, before / 2), "the step was done once"
    x = pixels[rows[0]].flatten(1).float() + 1
    torch.testing.assert_close(out[0], (x @ before[0].t()).relu())


def test_all_kernels_of_a_step_are_one_file(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))

    def step(x, y, z):
        z.copy_(torch.bmm(x.sin(), y.cos()).tanh())
        z.mul_(torch.bmm(z, y.exp()).sum())

    calls = record(step, [torch.randn(1, 7, 7) for _ in range(3)])
    assert len({call.address for call in calls if isinstance(call, Kernel)}) > 1
    assert len(list(tmp_path.rglob("*.main.cpp"))) == 1


@pytest.mark.parametrize(
    ("step", "says"),
    [
        (lambda x: x.copy_(torch.linalg.svdvals(x) + x), "linalg_svd"),
        (lambda x: x.copy_(torch.bmm(x.double(), x.double())), "matrices of torch.float64"),
        (lambda x: x.copy_(x[x > 0].sum().expand_as(x)), "aten.index.Tensor"),
    ],
    ids=["unknown operation", "float64", "shapes that depend on data"],
)
def test_what_cannot_be_replayed_is_refused(step, says):
    with pytest.raises(cpu.Unavailable, match=says):
        record(step, [torch.randn(1, 4, 4)])


def test_several_threads_are_refused():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(cpu.Unavailable, match="several threads"):
            cpu.Replay(lambda x: x.add_(1), [torch.zeros(1, 2)], [])
    finally:
        torch.set_num_threads(before)


RECORD_IN_A_PROCESS = """
import torch
from continual.cpu.recording import record
from continual.machine import ensure_compile_cache
ensure_compile_cache()
x = torch.ones(1, 40)
print(len(record(lambda x: x.copy_(x.sin() + 1), [x])), x[0, 0].item())
"""


def test_code_that_a_killed_process_left_half_written_is_compiled_again(tmp_path: Path) -> None:
    """In a process of its own, since one that has loaded the code does not look at the file again."""

    def ran() -> str:
        environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
        command = [sys.executable, "-c", RECORD_IN_A_PROCESS]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    first = ran()
    (kernel,) = tmp_path.rglob("*.main.so")
    os.truncate(kernel, 0)
    assert ran() == first
    assert kernel.stat().st_size > 1000
