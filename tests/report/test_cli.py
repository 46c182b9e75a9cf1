import itertools
import re
import subprocess
import sys

import pandas as pd
import pytest

from continual.report.cli import main

from .conftest import L2_INIT

FIGURES = ["online_accuracy", "total_average_online_accuracy"]
FILES = sorted(
    ["comparisons.csv", "online_accuracy.csv", "report.csv", "report.html", "report.md"]
    + [f"{name}.{kind}" for name in FIGURES for kind in ("pdf", "png", "svg")]
)
PNG_START = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def sweep(write_run, tmp_path):
    """Two agents with two seeds each, as one sweep."""
    for seed in range(2):
        write_run(f"sweep/{seed}", seed, (0.4, 0.1 * seed))
        agent = {"nodes": {"agent": L2_INIT}, "options": {"agent": "l2_init"}}
        write_run(f"sweep/{2 + seed}", seed, (0.3, 0.3), **agent)
    return tmp_path / "sweep"


def test_writes_and_names_its_files(sweep, capsys):
    assert main([str(sweep)]) == 0
    printed = capsys.readouterr().out.splitlines()
    output = sweep / "report"
    assert sorted(path.name for path in output.iterdir()) == FILES
    assert sorted(printed[-len(FILES) :]) == [str(output / name) for name in FILES]
    assert printed[-1] == str(output / "report.html")
    assert (output / "online_accuracy.png").read_bytes().startswith(PNG_START)
    report = pd.read_csv(output / "report.csv").set_index("agent")
    assert report["n"].to_dict() == {"base": 2, "l2_init": 2}
    assert report.loc["base", "score"] == pytest.approx(0.225)
    tasks = pd.read_csv(output / "online_accuracy.csv")
    assert tasks["task"].tolist() == [0, 1, 0, 1]
    assert tasks["mean"].tolist() == pytest.approx([0.4, 0.05, 0.3, 0.3])
    assert tasks["agent.l2_weight"].tolist() == ["-", "-", "0.01", "0.01"]


def test_figures_in_the_formats_that_are_asked_for(sweep, capsys):
    assert main([str(sweep), "--formats", "png,svg"]) == 0
    figures = {
        path.name for path in (sweep / "report").iterdir() if path.stem in FIGURES and path.suffix != ".csv"
    }
    assert figures == {f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg")}
    for format, shown in (
        ("pdf", r"^\[.+\]\(online_accuracy\.pdf\)"),
        ("svg", r"^!\[.+\]\(online_accuracy\.svg\)"),
    ):
        assert main([str(sweep), "--formats", format]) == 0
        assert re.search(shown, (sweep / "report" / "report.md").read_text(), re.MULTILINE)
    with pytest.raises(SystemExit):
        main([str(sweep), "--formats", "png,jpg"])
    assert "'jpg' is none of png, pdf, svg" in capsys.readouterr().err


def test_a_second_report_equals_the_first(sweep, tmp_path):
    for name in ("one", "two"):
        assert main([str(sweep), "--output", str(tmp_path / name / "deep")]) == 0
    assert len(list((tmp_path / "one" / "deep").iterdir())) == len(FILES)
    for file in FILES:
        one, two = (tmp_path / name / "deep" / file for name in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()
    assert not (sweep / "report").exists()


def test_several_folders_go_to_the_first(sweep, capsys):
    assert main([str(sweep / "0"), str(sweep / "3")]) == 0
    assert len(pd.read_csv(sweep / "0" / "report" / "report.csv")) == 2


def test_a_relative_path_beside_an_absolute_one(sweep, monkeypatch):
    monkeypatch.chdir(sweep)
    assert main(["0", str(sweep / "3"), "--output", "here"]) == 0
    assert len(pd.read_csv(sweep / "here" / "report.csv")) == 2


def test_without_a_completed_run_there_is_a_table_but_no_figure(write_run, tmp_path, capsys):
    write_run("0", status="diverged")
    assert main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "No run is complete yet, so there is no figure of them." in out
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == [
        "online_accuracy.csv",
        "report.csv",
        "report.html",
        "report.md",
    ]
    assert pd.read_csv(tmp_path / "report" / "online_accuracy.csv").empty
    assert "| Plain training | 1 |" in (tmp_path / "report" / "report.md").read_text()


def test_why_a_run_failed_is_told(write_run, tmp_path, capsys):
    error = "Traceback (most recent call last):\n  ...\nRuntimeError: out of memory\n"
    folder = write_run("0", status="failed", error=error)
    (folder / "tasks.csv").unlink()
    assert main([str(tmp_path)]) == 0
    note = f"1 failed run, such as {folder}: RuntimeError: out of memory"
    assert note in capsys.readouterr().out
    assert note in (tmp_path / "report" / "report.md").read_text()


def test_repetitions_are_mentioned(sweep, write_run, capsys):
    write_run("sweep/again", 0, (0.4, 0.0))
    assert main([str(sweep)]) == 0
    assert "1 repetition of a run with the same config and seed" in capsys.readouterr().out


def test_the_sweep_is_apart_from_the_runs_it_chose(write_run, tmp_path, capsys):
    for place, (lr, weight) in enumerate([(1e-3, 1e-2), (1e-3, 1e-3), (1e-4, 1e-2), (1e-4, 1e-3)]):
        nodes = {"agent": {**L2_INIT, "l2_weight": weight}, "optimizer": {"_target_": "Adam", "lr": lr}}
        write_run(f"sweep/{place}", 0, (0.1 * place, 0.1), nodes=nodes, options={"agent": "l2_init"})
    write_run("final/0", 3, (0.9, 0.9), nodes={"agent": L2_INIT}, options={"agent": "l2_init"})
    assert main([str(tmp_path / "final"), "--sweep", str(tmp_path / "sweep")]) == 0
    output = tmp_path / "final" / "report"
    assert pd.read_csv(output / "report.csv")["n"].tolist() == [1]
    assert len(pd.read_csv(output / "sweep.csv")) == len(pd.read_csv(output / "sensitivity.csv")) == 4
    assert (output / "sensitivity.pdf").read_bytes().startswith(b"%PDF")
    assert (output / "effect-agent.l2_weight.png").exists()


def test_grouping_by_too_few_keys_is_refused(write_run, tmp_path, capsys):
    for weight in (0.1, 0.2):
        nodes = {"agent": {**L2_INIT, "l2_weight": weight}}
        write_run(str(weight), 0, nodes=nodes, options={"agent": "l2_init"})
    assert main([str(tmp_path), "--by", "agent"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: --by agent would average over runs that differ in agent.l2_weight;")
    assert error.count("\n") == 1
    assert main([str(tmp_path), "--by", "agent,agent.l2_weight"]) == 0


def test_user_errors_are_one_sentence(tmp_path, capsys):
    for folder in (tmp_path / "absent", tmp_path):
        assert main([str(folder)]) == 1
        out, error = capsys.readouterr()
        assert out == ""
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert str(folder) in error


def test_output_that_cannot_be_written(sweep, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main([str(sweep), "--output", str(tmp_path / "file" / "inside")]) == 1
    assert "cannot write to" in capsys.readouterr().err


def test_the_command_line_answers_before_the_heavy_libraries_load():
    code = (
        "import sys, continual.report; "
        "print(sorted({'pandas', 'scipy', 'matplotlib', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_one_damaged_run_is_named_in_the_report_on_the_others(sweep, capsys):
    (sweep / "3" / "summary.json").write_text('{"stat')
    assert main([str(sweep)]) == 0
    sentence = f"{sweep / '3' / 'summary.json'} is damaged"
    assert sentence in capsys.readouterr().out
    assert sentence in (sweep / "report" / "report.html").read_text()


def pdf_width(path):
    """In inches."""
    box = re.search(rb"/MediaBox \[\s*0 0 ([\d.]+) ", path.read_bytes())
    assert box
    return float(box[1]) / 72


def test_figures_of_a_venues_size_for_chosen_measures(write_run, tmp_path):
    for seed in range(2):
        write_run(str(seed), seed, measures={"srank": [3, 2, 1], "srank/hidden_0": [1, 2, 3]})
    output = tmp_path / "report"
    assert main([str(tmp_path), "--size", "icml", "--measure", "srank,srank/hidden_0"]) == 0
    figures = sorted(path.name for path in output.glob("*.svg"))
    assert figures == ["srank-hidden_0.svg", "srank.svg", "total_average_online_accuracy.svg"]
    for figure in figures:
        assert pdf_width((output / figure).with_suffix(".pdf")) == pytest.approx(3.25, abs=0.01)
    assert "Type3" not in (output / "srank.pdf").read_bytes().decode("latin-1")


def test_a_measure_that_no_run_has(sweep, capsys):
    assert main([str(sweep), "--measure", "sranks"]) == 1
    assert capsys.readouterr().err.startswith("error: sranks: no run has such a number; there are score")


def test_tables_as_latex(sweep):
    assert main([str(sweep), "--latex"]) == 0
    text = (sweep / "report" / "report.tex").read_text()
    assert "\\toprule\ngroup & seeds & mean [95 \\%] &" in text
    assert re.search(r"L2 Init & 2 & 0\.300 .* \\\\", text)
    for start, end in (("begin{table}", "end{table}"), ("toprule", "bottomrule")):
        assert text.count(f"\\{start}") == text.count(f"\\{end}") == 2


@pytest.fixture
def grid(write_run, tmp_path):
    """Two agents with two step sizes each, two seeds."""
    for agent, lr, seed in itertools.product(("base", "l2_init"), (1e-3, 1e-4), range(2)):
        nodes = {"optimizer": {"_target_": "Adam", "lr": lr}}
        nodes |= {"agent": L2_INIT} if agent == "l2_init" else {}
        total = 0.5 + (0.1 if lr == 1e-4 else 0) + (0.2 if agent == "l2_init" else 0)
        write_run(f"grid/{agent}{lr}{seed}", seed, (total, total), nodes=nodes, options={"agent": agent})
    return tmp_path / "grid"


def test_the_best_of_each_agent_with_a_warning(grid, write_run, capsys):
    assert main([str(grid), "--best"]) == 0
    out = capsys.readouterr().out
    assert "Warning: of each agent the best configuration is shown, chosen by the same seeds (0, 1)" in out
    report = pd.read_csv(grid / "report" / "report.csv")
    assert report["agent"].tolist() == ["base", "l2_init"]
    assert report["score"].tolist() == pytest.approx([0.6, 0.8])
    assert report["n"].tolist() == [2, 2]
    assert len(pd.read_csv(grid / "report" / "sweep.csv")) == 4
    assert "Warning: of each agent" in (grid / "report" / "report.html").read_text()

    # With seeds of their own there is nothing to warn of, and the others are left out.
    for agent in ("base", "l2_init"):
        nodes = {"optimizer": {"_target_": "Adam", "lr": 1e-4}}
        nodes |= {"agent": L2_INIT} if agent == "l2_init" else {}
        write_run(f"grid/fresh/{agent}", 7, (0.4, 0.4), nodes=nodes, options={"agent": agent})
    assert main([str(grid), "--best"]) == 0
    assert "Warning" not in capsys.readouterr().out
    report = pd.read_csv(grid / "report" / "report.csv")
    assert report["score"].tolist() == pytest.approx([0.4, 0.4])
    assert report["n"].tolist() == [1, 1]


def test_a_report_from_its_own_data_equals_the_first(grid, tmp_path, capsys):
    study, again = tmp_path / "study", tmp_path / "again"
    assert main([str(grid), "--output", str(study), "--data"]) == 0
    first = capsys.readouterr().out
    assert main([str(study), "--output", str(again)]) == 0
    assert capsys.readouterr().out.splitlines()[:9] == first.splitlines()[:9]
    for name in ("report.csv", "online_accuracy.csv", "comparisons.csv", "report.md"):
        assert (again / name).read_bytes() == (study / name).read_bytes()

    few = tmp_path / "few"
    assert main([str(grid), "--output", str(few), "--data", "--measure", "online_accuracy"]) == 0
    columns = [*pd.read_csv(few / "tasks.csv")]
    assert columns == ["run", "task", "task_type", "step", "online_accuracy"]
    assert {*pd.read_csv(study / "tasks.csv")} == {*columns, "test_accuracy"}

    (study / "runs.csv").write_text("run\n0\n")
    assert main([str(study)]) == 1
    assert "cannot be read as runs" in capsys.readouterr().err
