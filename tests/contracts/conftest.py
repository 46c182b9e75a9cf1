from pathlib import Path

import pytest

from tests import tiny
from tests.datasets.writers import random_arrays, write_npz


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 60 train and 20 test images that are large enough for every network."""
    arrays = random_arrays(60, 20, (3, 24, 24), tiny.CLASSES)
    return write_npz(tmp_path_factory.mktemp("data") / "images.npz", *arrays)
