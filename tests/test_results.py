"""The studies in docs/results: a sample of each one's runs is trained again.

That they are drawn again from their files is in tests/test_documents.py: their READMEs have that command.
"""

import json
import os
import shlex
from pathlib import Path

import pandas as pd
import pytest

import continual
from continual.report.study import is_study, tasks_file

RESULTS = Path(__file__).parents[1] / "docs" / "results"
STUDIES = sorted(folder for folder in RESULTS.glob("*") if is_study(folder))
DATA = Path(os.environ.get("CONTINUAL_DATA_DIR", "data"))

studies = pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.name)


@studies
def test_its_readme_has_its_command_and_its_figures(study: Path) -> None:
    text = (study / "README.md").read_text(encoding="utf-8")
    assert "    python scripts/" in text
    for figure in study.glob("*.png"):
        assert f"({figure.name})" in text


def test_all_of_them_are_small() -> None:
    files = [path for path in RESULTS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 20e6
    assert STUDIES


@pytest.mark.slow
@studies
def test_a_sample_of_its_runs_comes_out_the_same(study: Path, tmp_path: Path) -> None:
    """The first task of two of its runs, from their own command; rounding differs from CPU to CPU."""
    if not (DATA / "MNIST").is_dir():
        pytest.skip("no MNIST in CONTINUAL_DATA_DIR")
    runs, rows = pd.read_csv(study / "runs.csv"), pd.read_csv(tasks_file(study))
    completed = runs[runs["status"] == "completed"]
    for _, run in completed.iloc[[0, len(completed) // 2]].iterrows():
        overrides = [
            one for one in json.loads(run["overrides"]) if not one.startswith(("hydra.", "env.num_tasks="))
        ]
        ours = continual.train(
            *overrides,
            *("env.num_tasks=1", "wandb.mode=disabled", f"data_dir={shlex.quote(str(DATA))}"),
            folder=tmp_path / str(run["run"]),
            workers=1,
        ).tasks.iloc[0]
        theirs = rows[(rows["run"] == run["run"]) & (rows["task"] == 0)].iloc[0]
        assert ours["step"] == theirs["step"]
        assert ours[run["score_name"]] == pytest.approx(theirs[run["score_name"]], abs=0.01)
