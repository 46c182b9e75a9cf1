"""What the terminal shows when a command has trained its runs."""

import shutil
from pathlib import Path

import pytest

from continual.report import ending
from continual.report.ending import show_ending

from .conftest import L2_INIT, Write


@pytest.fixture
def runs(write_run: Write) -> list[Path]:
    """Base and two configurations of L2 Init, two seeds each."""
    folders = []
    for seed in range(2):
        folders.append(write_run(f"a sweep/{seed}", seed, (0.4, 0.5)))
        for place, weight in enumerate((0.1, 0.01)):
            folders.append(
                write_run(
                    f"a sweep/{2 + 2 * place + seed}",
                    seed,
                    (0.5 + place / 10, 0.7),
                    nodes={"agent": {**L2_INIT, "l2_weight": weight}},
                    options={"agent": "l2_init"},
                )
            )
    return folders


def shown(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines() if line.strip()]


def test_the_best_of_each_agent_and_the_next_command(runs: list[Path], capsys) -> None:
    sweep = runs[0].parent
    show_ending(sweep, runs, 6)
    lines = shown(capsys)
    assert "best configuration" in lines[0]
    assert lines[2:4] == [
        "l2_init agent.l2_weight=0.01 (of 2) 0.6500 2",
        "base (of 1) 0.4500 2",
    ]
    assert lines[-2:] == ["6 of 6 runs finished", f"report: python scripts/report.py '{sweep}'"]


def test_of_a_single_run_the_next_command(runs: list[Path], capsys) -> None:
    show_ending(runs[0], runs[:1], 1)
    assert shown(capsys) == [f"report: python scripts/report.py '{runs[0]}'"]


def test_of_very_many_runs_no_folder_is_read(runs: list[Path], capsys, monkeypatch) -> None:
    monkeypatch.setattr(ending, "MOST_RUNS", 5)
    monkeypatch.setattr("continual.report.runs.load", None)
    show_ending(runs[0].parent, runs, 5)
    assert shown(capsys)[0] == "5 of 6 runs finished"


def test_many_agents_are_shortened(write_run: Write, capsys) -> None:
    folders = [
        write_run(
            f"sweep/{n}",
            0,
            (n / 20,),
            nodes={"agent": {"_target_": f"mine.A{n}"}},
            options={"agent": f"a{n}"},
        )
        for n in range(11)
    ]
    show_ending(folders[0].parent, folders, 11)
    lines = shown(capsys)
    assert [line.split()[0] for line in lines[2:10]] == [f"a{n}" for n in range(10, 2, -1)]
    assert lines[10].startswith("and 3 more; score: ")


def test_damage_is_left_out(runs: list[Path], capsys) -> None:
    (runs[0] / ".hydra" / "config.yaml").write_text("{")
    (runs[1] / "summary.json").write_text("{")
    shutil.rmtree(runs[2])
    show_ending(runs[0].parent, runs, 6)
    lines = shown(capsys)
    assert any(line.startswith("base") for line in lines)
    assert lines[-1].startswith("report: ")


def test_nothing_here_fails_a_command(runs: list[Path], monkeypatch) -> None:
    class Closed:
        encoding = "utf-8"

        def write(self, text: str) -> int:
            raise BrokenPipeError

        def flush(self) -> None:
            raise BrokenPipeError

    monkeypatch.setattr("sys.stdout", Closed())
    show_ending(runs[0].parent, runs, 6)


def test_where_nothing_is_trained_there_is_no_report(runs: list[Path], capsys) -> None:
    show_ending(runs[0].parent, runs, 0)
    assert shown(capsys) == ["0 of 6 runs finished"]
