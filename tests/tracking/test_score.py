"""The score so far is the score of the rows so far; a stranger's environment has none."""

import sys
from pathlib import Path

import pytest

from continual.tracking.score import RunningScore, declared_score, score_of
from tests import tiny


@pytest.mark.parametrize("env", ["random_label_digits", "easy_hard_cifar100"])
def test_the_score_so_far_is_the_score_of_the_rows_so_far(env: str) -> None:
    config = tiny.compose(f"env={env}")
    # Tasks of different lengths: an online measure is a mean over steps.
    steps = [10, 30, 70, 75]
    rows = [
        {"task": task, "step": step, "online_accuracy": 0.1 + 0.2 * task, "test_accuracy": 0.5 - 0.1 * task}
        for task, step in enumerate(steps)
    ]
    running = RunningScore(config)
    score = declared_score(config)
    assert running.higher_is_better
    for count, row in enumerate(rows, 1):
        assert running.add(row) == pytest.approx(score_of(config, rows[:count], score))


def test_nothing_is_imported_for_a_strangers_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "strangers_code.py").write_text("raise AssertionError('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    running = RunningScore({"env": {"_target_": "strangers_code.Env"}})
    assert running.add({"task": 0, "step": 10, "online_accuracy": 0.5}) is None
    assert "strangers_code" not in sys.modules
