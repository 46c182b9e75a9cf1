import io

import pandas as pd
import pytest
from rich.console import Console

from continual.report.runs import load
from continual.report.statistics import summarise
from continual.report.tables import format_value, terminal_table, write_csv

from .conftest import L2_INIT


def printed(folder):
    runs = load(folder)
    console = Console(file=io.StringIO(), width=300)
    console.print(terminal_table(runs, summarise(runs)))
    return console.file.getvalue()


def cells(line):
    return [cell.strip() for cell in line.strip("│ ").split("│")]


def test_terminal_table(write_run, tmp_path):
    for seed, total in enumerate((0.25, 0.25)):
        write_run(f"base/{seed}", seed, (0.0, total, 2 * total))
    write_run("x", 0, (0.5, 0.6, 0.7), nodes={"agent": L2_INIT}, options={"agent": "l2_init"})
    text = printed(tmp_path)
    rows = [cells(line) for line in text.splitlines() if line.startswith("│")]
    assert rows == [
        ["base", "2", "0.250", "0.250 to 0.250", "0.000", "0.500"],
        ["l2_init", "1", "0.600", "-", "0.500", "0.700"],
    ]
    assert "env random_label_digits, env/dataset digits, network mlp, optimizer adam" in text
    for absent in ("diverged", "unfinished", "test", "l2_weight"):
        assert absent not in text


@pytest.mark.parametrize(("status", "head"), [("diverged", "diverged"), (None, "unfinished")])
def test_runs_that_do_not_count_have_a_column(write_run, tmp_path, status, head):
    write_run("0", 0, (0.5, 0.5), test_accuracies=(0.1, 0.9))
    write_run("1", 1, (0.9, 0.9), status=status)
    text = printed(tmp_path)
    assert head in text
    (row,) = [cells(line) for line in text.splitlines() if line.startswith("│")]
    assert row == ["base", "1", "1", "0.500", "-", "0.500", "0.500", "0.900"]


def test_csv(write_run, tmp_path):
    write_run("0", 0, (1 / 3, 1 / 3), nodes={"agent": {"_target_": "a", "sizes": [1, 2]}})
    write_run("1", 0, (0.5, 0.5), nodes={"agent": {"_target_": "a", "flag": True}})
    path = tmp_path / "report.csv"
    write_csv(summarise(load(tmp_path)), path)
    table = pd.read_csv(path).set_index("agent.flag")
    assert table["agent.sizes"].to_dict() == {"-": "[1, 2]", "true": "-"}
    assert table["n"].tolist() == [1, 1]
    assert table.loc["-", "score"] == 0.333333
    assert table["low"].isna().all()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.001, "0.001"),
        (1e-5, "1e-05"),
        (True, "true"),
        (None, "null"),
        ([100, 100], "[100, 100]"),
        ("adam", "adam"),
    ],
)
def test_format_value(value, text):
    assert format_value(value) == text
