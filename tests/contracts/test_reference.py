"""What a released version gave stays: every row of the table of reference runs comes out the same."""

import os
from pathlib import Path
from typing import Any

import pytest

from tests import reference, tiny

HAS_MNIST = (Path(os.environ.get("CONTINUAL_DATA_DIR", "data")) / "MNIST" / "raw").is_dir()


@pytest.mark.parametrize("row", reference.table(), ids=lambda row: row["overrides"])
def test_results_stay(row: dict[str, Any], tmp_path: Path) -> None:
    if "mnist" in row["overrides"] and not HAS_MNIST:
        pytest.skip("needs the real MNIST: CONTINUAL_DATA_DIR has no MNIST/raw")
    if "compile=true" in row["overrides"] and tiny.compiles.args[0]:
        pytest.skip(str(tiny.compiles.kwargs["reason"]))
    assert reference.of(reference.train(row["overrides"], tmp_path)) == (row["score"], row["loss"])
