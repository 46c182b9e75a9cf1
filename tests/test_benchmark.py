import csv
import io
import json
import math
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from benchmarking import convolutions, main
from benchmarking.c_loop import CLoop, compiler
from benchmarking.contender import Contender, Rate, Window, compare, loop_of, time_window
from benchmarking.plain_loop import PlainLoop
from benchmarking.results import Amount, Report, Speed
from benchmarking.sections import SECTIONS
from continual import building
from continual.config import Replica
from tests import tiny

CPU = torch.device("cpu")


def replica(*overrides: str) -> Replica:
    digits = ("env=permuted_mnist", "env/dataset=digits", "env.permute_first=true", "env.test_samples=9")
    sizes = (
        "env.samples_per_task=67",
        "env.batch_size=8",
        "env.steps_per_task=30",
        "network.hidden_sizes=[20,20]",
    )
    engine = ("device=cpu", "engine.compile=false", "network.hidden_sizes=[20,20]")
    return Replica(tiny.compose(*digits, *sizes, *engine, *overrides), Path(), {}, "")


def rate(*windows: tuple[int, int, float], core_share: float = 1.0, peak: int = 0) -> Rate:
    return Rate(tuple(Window(steps, r, seconds, core_share, peak) for steps, r, seconds in windows))


@pytest.mark.parametrize(
    "overrides",
    [
        ["agent=base", "optimizer=sgd"],
        ["agent=base", "optimizer=sgd", "optimizer.momentum=0.9", "optimizer.nesterov=true"],
        ["agent=l2_init", "agent.l2_weight=0.1", "optimizer=sgd", "optimizer.lr=0.1"],
        ["agent=l2_init", "agent.l2_weight=0.1", "optimizer=adam", "optimizer.weight_decay=0.1"],
        ["agent=l2_init", "optimizer=adam", "network.layer_norm=true", "env.permute_first=false"],
    ],
    ids=" ".join,
)
def test_the_plain_loop_has_the_losses_and_accuracies_of_the_engine(overrides: list[str]):
    run = replica("seed=3", *overrides)
    learner, environment = building.prepare(run.config)
    population = building.population([run], learner, environment)
    population.start_task(0)
    plain = loop_of([run], "plain")
    assert isinstance(plain, PlainLoop)

    losses = []
    for done in range(20):  # two epochs and a half, so that shuffles are compared too
        before = population.online_loss()[0] * done if done else 0.0
        population.advance(1)
        theirs = population.online_loss()[0] * (done + 1) - before
        losses.append(plain.step().item())
        assert losses[-1] == pytest.approx(theirs, abs=1e-5)
    assert len(set(losses)) == 20
    assert plain.correct / plain.steps == pytest.approx(population.online_measure()[0])


def test_there_is_no_plain_loop_for_other_agents():
    with pytest.raises(ValueError, match="EWC"):
        loop_of([replica("agent=ewc")], "plain")


@pytest.mark.skipif(compiler() is None, reason="there is no C compiler")
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_c_program_does_the_steps_of_the_engine(optimizer: str):
    run = replica("agent=base", f"optimizer={optimizer}", "env.batch_size=1", "seed=3", "optimizer.lr=1e-2")
    learner, environment = building.prepare(run.config)
    population = building.population([run], learner, environment)
    population.start_task(0)
    program = loop_of([run], "c")
    assert isinstance(program, CLoop)
    for steps in (1, 2, 27):  # 67 images an epoch
        population.advance(steps)
        program.run(steps)
        params = torch.cat([tensor.flatten() for tensor in population.state["params"].values()])
        torch.testing.assert_close(program.params, params, rtol=1e-4, atol=1e-5)
        assert program.correct / program.steps == pytest.approx(population.online_measure()[0])


def test_there_is_no_c_program_for_batches_or_other_agents():
    for overrides, says in ((["agent=l2"], "base alone"), (["agent=base"], "batches of one")):
        with pytest.raises(ValueError, match=says):
            loop_of([replica(*overrides)], "c")


def test_a_window_counts_what_was_done_in_it(monkeypatch: pytest.MonkeyPatch):
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    monkeypatch.setattr("time.process_time", lambda: clock[0] / 2)

    class Counting:
        def run(self, steps: int) -> None:
            clock[0] += 0.25 * steps

    window = time_window(Counting(), replicas=3, where=CPU, at_a_time=2, seconds=1.2)
    assert window == Window(steps=6, replicas=3, seconds=1.5, core_share=0.5, peak_memory=0)
    window = time_window(Counting(), replicas=3, where=CPU, at_a_time=2, seconds=1.2, clock="core")
    assert window == Window(steps=6, replicas=3, seconds=0.75, core_share=0.5, peak_memory=0)


def test_rates_of_processes_that_run_together_add_up():
    together = rate((100, 8, 1.0), (300, 4, 2.0))
    assert together.steps_per_second == 125
    assert together.replica_steps_per_second == 800 + 600


def test_a_ratio_is_the_median_over_pairs_and_not_that_of_medians():
    pairs = [
        (rate((10, 1, 1.0)), rate((10, 4, 1.0))),  # 4
        (rate((20, 1, 1.0)), rate((10, 4, 1.0))),  # 2
        (rate((2, 1, 1.0), core_share=0.5), rate((5, 4, 1.0))),  # 10
    ]
    row = Speed.of("engine", "sgd", 4, "plain loop", pairs, at_least=3.0)
    assert (row.ratio, row.ratio_low, row.ratio_high) == (4, 2, 10)
    assert (row.steps_per_second, row.replica_steps_per_second) == (10, 40)
    assert row.core_share == 1
    assert row.met
    assert not Speed.of("engine", "sgd", 4, "plain loop", pairs, at_least=4.1).met


@pytest.mark.parametrize(("value", "met"), [(299.9, True), (300.0, True), (300.1, False)])
def test_an_amount_meets_its_target_up_to_it(value: float, met: bool):
    assert Amount("memory", "64 replicas", value, "MB", 300.0).met is met


def test_a_report_says_the_same_in_all_its_forms():
    pairs = [(rate((1000, 1, 1.0), core_share=0.4), rate((1234, 2, 1.0), peak=3 * 2**20))]
    rows = [
        Speed.of("engine", "sgd", 2, "plain loop", pairs, at_least=3.0),
        Amount("memory", "one", 512.3, "MB"),
    ]
    report = Report({"CPU": "a CPU"}, {"engine": "Engine", "agents": "Agents", "memory": "Memory"}, rows)
    saved = json.loads(report.json())
    assert saved["machine"] == {"CPU": "a CPU"}
    assert saved["rows"][0]["ratio"] == pytest.approx(2.468)
    assert [row["met"] for row in saved["rows"]] == [False, None]
    (speed,) = csv.DictReader(io.StringIO(report.csv()))
    assert (speed["section"], speed["what"], speed["against"]) == ("engine", "sgd", "plain loop")
    assert (speed["replicas"], speed["ratio"]) == ("2", "2.468")
    lines = report.markdown().splitlines()
    assert lines == [
        "- CPU: a CPU",
        "- other programs were running: in 1 rows a process had less than 90% of its core, at worst 40%",
        "",
        "### Engine",
        "",
        "| what | replicas | steps/s | replica-steps/s | ratio | low to high | to | target | peak MB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- | --- | ---: |",
        "| sgd | 2 | 1,234 | 2,468 | 2.47 | 2.47 to 2.47 | plain loop | >= 3 missed | 3 |",
        "",
        "### Memory",
        "",
        "| what | value | unit | target |",
        "| --- | ---: | --- | --- |",
        "| one | 512 | MB |  |",
    ]


def test_contenders_run_in_processes_of_their_own_and_take_turns():
    runs = [replica("agent=base", f"seed={seed}") for seed in range(3)]
    with Contender([runs[:1]], "plain") as plain, Contender([runs[:2], runs[2:]]) as populations:
        pairs = compare(plain, populations, pairs=2, seconds=0.02)
    assert [[w.replicas for w in pair[0].windows] for pair in pairs] == [[1], [1]]
    assert [[w.replicas for w in pair[1].windows] for pair in pairs] == [[2, 1], [2, 1]]
    assert all(w.steps >= 1 and w.seconds >= 0.02 for pair in pairs for side in pair for w in side.windows)


@pytest.mark.parametrize("name", convolutions.WAYS)
def test_all_ways_to_convolve_give_the_same(name):
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(3, 4, 2, 9, 8, generator=draw, dtype=torch.float64)
    w = torch.randn(3, 5, 2, 3, 3, generator=draw, dtype=torch.float64)
    wanted = torch.stack([F.conv2d(x[r], w[r]) for r in range(3)])
    torch.testing.assert_close(convolutions.WAYS[name](x, w), wanted)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--only", "engine,speed"], "'speed' is no section; possible: engine, jax"),
        (["--pairs", "0"], "'0' is not a number of at least 1"),
        (["--replicas", "1,x"], "'x' is not a number of at least 1"),
        (["--seconds", "nan"], "'nan' is not a number of seconds above 0"),
    ],
)
def test_a_wrong_argument_is_named(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert says in capsys.readouterr().err


def test_an_unknown_device_is_one_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    assert main(["--device", "gpu", "--output", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("error: device: 'gpu' is unknown")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_quick_benchmark_fills_every_section(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("CONTINUAL_DATA_DIR", str(tmp_path / "nothing"))
    assert main(["--quick", "--output", str(tmp_path / "out")]) == 0
    saved = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert saved["machine"]["data"].startswith("random images of MNIST's shape")
    on_cpu = set(SECTIONS) - {"graphs", "precisions"} - ({"jax"} if find_spec("jax") is None else set())
    assert {row["section"] for row in saved["rows"]} == on_cpu
    for row in saved["rows"]:
        number = row["replica_steps_per_second"] if "ratio" in row else row["value"]
        assert math.isfinite(number)
    markdown = (tmp_path / "out" / "benchmark.md").read_text()
    assert all(f"### {SECTIONS[name][0]}" in markdown for name in on_cpu)
    assert "Engine: Permuted MNIST" in capsys.readouterr().out
