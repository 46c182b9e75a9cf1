import functools
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from continual.datasets.dataset import Dataset
from tests import tiny
from tests.datasets.writers import random_arrays, write_npz

pytest_plugins = ["tests.command_line"]

# What takes minutes is started first, so that no process is left alone with it at the end.
_LONG = ("contracts/test_compiled.py", "test_documents.py", "contracts/test_gpu_code.py", "test_reproduce.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.path.as_posix().endswith(_LONG))


def pytest_collection_finish() -> None:
    """What has been imported by now stays: looking through it for garbage again and again takes minutes."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def torch_as_in_the_program() -> None:
    """One thread, because more of them wait for each other on a busy machine; no denormal numbers."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


@pytest.fixture(scope="session")
def npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of tiny images, for env/dataset=npz."""
    arrays = random_arrays(60, 20, tiny.IMAGE, tiny.CLASSES)
    return write_npz(tmp_path_factory.mktemp("data") / "tiny.npz", *arrays)


@pytest.fixture(scope="session")
def compose(npz: Path) -> Callable[..., dict[str, Any]]:
    """`compose(*overrides)` is the resolved config of a tiny run with these overrides."""
    return functools.partial(tiny.small, npz)


@pytest.fixture
def dataset() -> Dataset:
    """60 images of 1x4x5 to train on and 20 to test, uint8, 5 classes."""
    return tiny.dataset()


@pytest.fixture
def rgb_dataset() -> Dataset:
    """30 images of 3x8x8 to train on and 10 to test, uint8, 5 classes."""
    return tiny.dataset(30, 10, (3, 8, 8))
