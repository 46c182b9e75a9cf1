import os
import pickle
import subprocess
import sys

import pytest
import torch

from continual.datasets.shared import share
from tests import tiny

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no such memory")


@pytest.fixture
def shared(dataset):
    made = share(dataset)
    assert made is not None
    yield made
    made.close()


def test_what_is_opened_is_what_was_shared(dataset, shared):
    opened = pickle.loads(pickle.dumps(shared)).open()
    for name in ("x_train", "y_train", "x_test", "y_test"):
        assert torch.equal(getattr(opened, name), getattr(dataset, name))
        assert getattr(opened, name).dtype == getattr(dataset, name).dtype
    assert (opened.num_classes, opened.scale, opened.shift) == (5, dataset.scale, dataset.shift)
    assert opened.fingerprint == dataset.fingerprint


def test_who_writes_writes_into_a_copy(dataset, shared):
    one, other = shared.open(), shared.open()
    one.x_train.zero_()
    assert torch.equal(other.x_train, dataset.x_train)
    assert torch.equal(shared.open().x_train, dataset.x_train)


def test_floats_and_many_channels_are_shared_too(rgb_dataset):
    x = rgb_dataset.x_train.float()
    dataset = type(rgb_dataset)(x, rgb_dataset.y_train, x[:10], rgb_dataset.y_test, 5, (1.0,) * 3, (0.0,) * 3)
    shared = share(dataset)
    assert torch.equal(shared.open().x_train, x)
    shared.close()


def test_another_process_opens_it_and_keeps_it_when_it_is_closed(tmp_path, dataset):
    shared = share(dataset)
    (tmp_path / "shared").write_bytes(pickle.dumps(shared))
    program = f"""
import pickle
opened = pickle.load(open({str(tmp_path / "shared")!r}, "rb")).open()
print("opened", flush=True)
input()
print(int(opened.x_train.long().sum()))
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", program], **pipes) as other:
        assert other.stdout.readline() == "opened\n"
        shared.close()
        with pytest.raises(OSError, match="No such file"):
            shared.open()
        assert int(other.communicate("\n")[0]) == int(dataset.x_train.long().sum())


@pytest.mark.parametrize("refusal", ["memfd_create", "posix_fallocate"])
def test_without_such_memory_nothing_is_shared_and_nothing_left_open(monkeypatch, refusal):
    def full(*args):
        raise OSError(28, "No space left on device")

    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(os, refusal, full)
    assert share(tiny.dataset()) is None
    monkeypatch.delattr(os, "memfd_create")
    assert share(tiny.dataset()) is None
    assert os.listdir("/proc/self/fd") == before
