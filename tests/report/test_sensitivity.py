import itertools

import pytest

from continual.report.layout import lay_out
from continual.report.runs import load
from continual.report.sensitivity import ablation_figure, ablations, surfaces, surfaces_figure, surfaces_table
from continual.report.statistics import summarise

from .conftest import L2_INIT


def write_grid(write_run, agent, grid, seeds=(0, 1), total=lambda point, seed: 0.5, **keywords):
    """A run for each point of a grid and seed; keys are optimizer.lr and the agent's."""
    for place, values in enumerate(itertools.product(*grid.values())):
        point = dict(zip(grid, values, strict=True))
        nodes = {
            "agent": {"_target_": agent, **{k: v for k, v in point.items() if k != "lr"}},
            "optimizer": {"_target_": "Adam", "lr": point.get("lr", 1e-3)},
        }
        overrides = [f"optimizer.lr={point.get('lr')}", *(f"agent.{key}={v}" for key, v in point.items())]
        for seed in seeds:
            accuracy = total(point, seed)
            status = "completed" if accuracy else "diverged"
            write_run(
                f"{agent}/{place}-{seed}",
                seed,
                (accuracy or 0.1,) * 2,
                nodes=nodes,
                options={"agent": agent},
                overrides=overrides,
                status=status,
            )


def found(folder):
    runs = load(folder)
    summary = summarise(runs)
    return runs, summary, lay_out(runs, summary)


def test_strength_over_step_size(write_run, tmp_path):
    grid = {"lr": (1e-3, 1e-4), "l2_weight": (0.1, 0.01, 0.001)}
    write_grid(write_run, "l2", grid, total=lambda p, seed: p["lr"] * 100 + p["l2_weight"] + seed / 10)
    write_grid(write_run, "base", {"lr": (1e-3, 1e-4)})
    (surface,) = surfaces(*found(tmp_path))
    assert (surface.title, surface.row_key, surface.column_key) == ("L2", "optimizer.lr", "agent.l2_weight")
    table = surfaces_table([surface])
    cells = {(row["row"], row["column"]): row["score"] for _, row in table.iterrows()}
    expected = {(lr, w): lr * 100 + w + 0.05 for lr, w in itertools.product(*grid.values())}
    assert cells == pytest.approx(expected)


def test_two_strengths_have_a_surface_for_each_step_size(write_run, tmp_path):
    grid = {"lr": (1e-3, 1e-4), "shrink": (0.1, 0.01), "scale": (0.1, 0.01, 0.001)}
    write_grid(write_run, "sp", grid, seeds=(0,))
    both = surfaces(*found(tmp_path))
    assert [surface.title for surface in both] == ["lr=0.0001", "lr=0.001"]
    assert all(len(surface.cells) == 6 for surface in both)


def test_one_number_alone_has_no_surface(write_run, tmp_path):
    write_grid(write_run, "l2", {"l2_weight": (0.1, 0.01)})
    assert surfaces(*found(tmp_path)) == []


def test_a_cell_with_diverged_runs_is_marked_and_not_the_best(write_run, tmp_path):
    grid = {"lr": (1e-3, 1e-4), "l2_weight": (0.1, 0.01)}
    best = {"lr": 1e-3, "l2_weight": 0.1}
    write_grid(
        write_run, "l2", grid, total=lambda p, seed: (0.9, None)[seed] if p == best else 0.5 + p["l2_weight"]
    )
    (surface,) = surfaces(*found(tmp_path))
    axis = surfaces_figure([surface]).axes[0]
    assert sorted(text.get_text() for text in axis.texts) == [".510", ".510", ".600", ".900\n1 d"]
    (frame,) = axis.get_lines()
    assert (min(frame.get_xdata()) // 1, min(frame.get_ydata()) // 1) == (1, 0)  # l2_weight 0.1, lr 1e-4


def test_lines_join_groups_that_differ_in_one_key(write_run, tmp_path):
    grid = {"lr": (1e-3, 1e-4), "l2_weight": (0.1, 0.01, 0.001)}
    write_grid(write_run, "l2", grid, total=lambda p, seed: p["l2_weight"] + seed / 100)
    runs, _, layout = found(tmp_path)
    effects = {ablation.key: ablation for ablation in ablations(runs, layout)}
    assert set(effects) == {"optimizer.lr", "agent.l2_weight"}
    assert effects["agent.l2_weight"].values == [0.001, 0.01, 0.1]
    axis = ablation_figure(effects["agent.l2_weight"]).axes[0]
    for line in axis.get_lines():
        assert line.get_xdata().tolist() == [0, 1, 2]
        assert line.get_ydata().tolist() == pytest.approx([0.006, 0.015, 0.105])
    assert [text.get_text() for text in axis.get_xticklabels()] == ["0.001", "0.01", "0.1"]


def test_of_many_lines_each_agents_best_is_drawn(write_run, tmp_path):
    weights = [10.0**-k for k in range(8)]
    grid = {"lr": (1e-3, 1e-4), "l2_weight": weights}
    write_grid(write_run, "l2", grid, seeds=(0,), total=lambda p, seed: 0.1 + p["l2_weight"] / 2)
    write_grid(write_run, "l2_init", grid, seeds=(0,), total=lambda p, seed: 0.6 - p["l2_weight"] / 2)
    runs, _, layout = found(tmp_path)
    (effect,) = [a for a in ablations(runs, layout) if a.key == "optimizer.lr"]
    labels = [line.get_label() for line in ablation_figure(effect).axes[0].get_lines()]
    assert labels == ["L2, l2_weight=1.0", "L2 Init, l2_weight=1e-07"]


def test_different_agents_are_no_ablation(write_run, tmp_path):
    write_run("0", 0)
    write_run("1", 0, nodes={"agent": L2_INIT}, options={"agent": "l2_init"})
    runs, _, layout = found(tmp_path)
    assert ablations(runs, layout) == []
