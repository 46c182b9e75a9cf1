import itertools

import pytest
from matplotlib.collections import PolyCollection

from continual.errors import ConfigError
from continual.report.figures import totals_figure
from continual.report.layout import lay_out
from continual.report.looks import PALETTE, STYLES
from continual.report.runs import load
from continual.report.statistics import online_accuracy

from .conftest import CONFIG, L2_INIT

L2 = {"nodes": {"agent": L2_INIT}, "options": {"agent": "l2_init"}}


def legend(figure):
    box = figure.legends[0] if figure.legends else figure.axes[0].get_legend()
    return [text.get_text() for text in box.get_texts()]


def with_weight(weight):
    return {"agent": {**L2_INIT, "l2_weight": weight}}


def test_lines_and_bands_are_means_and_intervals(write_run, tmp_path):
    for seed in range(3):
        write_run(f"a/{seed}", seed, (0.1 * seed, 0.5, 0.2 + 0.1 * seed))
        write_run(f"b/{seed}", seed, (0.3, 0.3 + 0.1 * seed, 0.3), **L2)
    runs = load(tmp_path)
    figure = runs.figure("online_accuracy")
    (axis,) = figure.axes
    assert legend(figure) == ["L2 Init", "Plain training"]  # the better one first
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("task", "online accuracy")
    assert axis.get_title() == "Online accuracy per task"
    assert "3 seeds, 95 % intervals" in axis.texts[0].get_text()

    table = online_accuracy(runs)
    bands = [band for band in axis.collections if isinstance(band, PolyCollection)]
    for agent, line, band in zip(["l2_init", "base"], axis.get_lines(), bands, strict=True):
        rows = table[table["agent"] == agent]
        assert line.get_xdata().tolist() == [0, 1, 2]
        assert line.get_ydata().tolist() == rows["mean"].tolist()
        heights = {tuple(point) for point in band.get_paths()[0].vertices.tolist()}
        for end in ("low", "high"):
            assert set(zip([0, 1, 2], rows[end], strict=True)) <= heights


def test_one_seed_has_no_band(write_run, tmp_path):
    write_run("0", 0)
    figure = load(tmp_path).figure("online_accuracy")
    (axis,) = figure.axes
    assert not any(len(band.get_paths()) for band in axis.collections)
    assert axis.texts[0].get_text().endswith("adam, 1 seed")
    assert legend(figure) == ["Plain training"]


def test_one_task_is_a_point(write_run, tmp_path):
    write_run("0", 0, (0.4,))
    (axis,) = load(tmp_path).figure("online_accuracy").axes
    assert axis.get_lines()[0].get_marker() == "o"


def test_long_streams_are_drawn_as_means_and_say_so(write_run, tmp_path):
    write_run("0", 0, [0.001 * task for task in range(250)])
    (axis,) = load(tmp_path).figure("online_accuracy").axes
    assert axis.get_xlabel() == "task (each point: mean of 3 tasks)"
    line = axis.get_lines()[0]
    assert len(line.get_xdata()) == 84
    assert line.get_xdata()[:2].tolist() == [1, 4]
    assert line.get_ydata()[:2].tolist() == pytest.approx([0.001, 0.004])


def test_groups_without_a_completed_run_are_not_drawn(write_run, tmp_path):
    write_run("0", 0)
    write_run("1", 0, status="diverged", **L2)
    assert legend(load(tmp_path).figure("online_accuracy")) == ["Plain training"]


def test_labels_name_what_differs(write_run, tmp_path):
    write_run("0", 0)
    for weight in (0.01, 0.001):
        write_run(str(weight), 0, nodes=with_weight(weight), options={"agent": "l2_init"})
    assert legend(load(tmp_path).figure("online_accuracy")) == [
        "Plain training",
        "L2 Init, l2_weight=0.001",
        "L2 Init, l2_weight=0.01",
    ]


def test_equal_last_names_are_written_in_full(write_run, tmp_path):
    for place, (outer, inner) in enumerate([(1, 1), (1, 2), (2, 1)]):
        optimizer = {"_target_": "Adam", "lr": outer, "inner": {"lr": inner}}
        write_run(str(place), 0, nodes={"optimizer": optimizer})
    labels = legend(load(tmp_path).figure("online_accuracy"))
    assert "optimizer.lr=1, optimizer.inner.lr=2" in labels or (
        "optimizer.inner.lr=2, optimizer.lr=1" in labels
    )


def test_a_panel_per_environment_with_equal_styles(write_run, tmp_path):
    for name in ("one", "two", "three"):
        nodes = {"env": {**CONFIG["env"], "_target_": name}}
        write_run(f"{name}/0", 0, nodes=nodes, options={"env": name})
        write_run(
            f"{name}/1",
            0,
            nodes={**nodes, "agent": L2_INIT},
            options={"env": name, "agent": "l2_init"},
        )
    figure = load(tmp_path).figure("online_accuracy")
    assert [axis.get_title() for axis in figure.axes] == ["one", "three", "two"]
    for axis in figure.axes:
        assert [line.get_color() for line in axis.get_lines()] == list(PALETTE[:2])
    assert legend(figure) == ["Plain training", "L2 Init"]


def test_of_many_groups_the_best_are_drawn(write_run, tmp_path):
    styles = STYLES
    for place in range(styles + 2):
        accuracy = 0.1 + place / 100
        write_run(str(place), 0, (accuracy, accuracy), nodes=with_weight(place))
    figure = load(tmp_path).figure("online_accuracy")
    (axis,) = figure.axes
    assert legend(figure) == [f"l2_weight={place}" for place in reversed(range(2, styles + 2))]
    assert "2 lower groups not drawn" in axis.texts[0].get_text()
    looks = {(line.get_color(), str(line._dash_pattern)) for line in axis.get_lines()}
    assert len(looks) == styles


def test_what_goes_with_an_environment_is_said_once_and_names_no_line(write_run, tmp_path):
    for name, tasks in (("one", 2), ("two", 3)):
        for agent, lr in itertools.product(("base", "l2_init"), (0.1, 0.2)):
            nodes = {
                "env": {**CONFIG["env"], "_target_": name, "num_tasks": tasks},
                "optimizer": {"_target_": "Adam", "lr": lr},
                **({"agent": L2_INIT} if agent == "l2_init" else {}),
            }
            overrides = [f"env.num_tasks={tasks}"]
            options = {"env": name, "agent": agent}
            write_run(
                f"{name}/{agent}{lr}", 0, (0.5,) * tasks, nodes=nodes, options=options, overrides=overrides
            )
    layout = lay_out(load(tmp_path))
    assert [title for title, _ in layout.panels()] == ["one", "two"]
    assert layout.implied() == ["one: num_tasks=2.", "two: num_tasks=3."]
    assert set(layout.styles) == {
        f"{agent}, lr={lr}" for agent in ("Plain training", "L2 Init") for lr in (0.1, 0.2)
    }


def test_totals_are_points_on_an_axis_that_shows_their_differences(write_run, tmp_path):
    for seed in range(2):
        write_run(f"a{seed}", seed, (0.80 + 0.02 * seed,) * 2)
        write_run(f"b{seed}", seed, (0.84,) * 2, **L2)
    runs = load(tmp_path)
    (axis,) = totals_figure(runs, lay_out(runs)).axes
    low, high = axis.get_xlim()
    assert 0.79 < low < 0.80
    assert 0.84 < high < 0.85
    assert [text.get_text() for text in axis.get_yticklabels()] == ["L2 Init", "Plain training"]
    bottom, top = axis.get_ylim()
    assert bottom > top  # the best on top
    assert [text.get_text() for text in axis.texts[:2]] == ["0.840", "0.810"]


def test_long_names_leave_room_for_the_axis(write_run, tmp_path):
    for place in range(5):
        nodes = {"agent": {**L2_INIT, "name": "a very long name " * 8 + str(place)}}
        write_run(str(place), 0, (0.5 + place / 10, 0.5), nodes=nodes)
    runs = load(tmp_path)
    layout = lay_out(runs)
    for figure in (runs.figure("online_accuracy"), totals_figure(runs, layout)):
        figure.draw_without_rendering()
        assert figure.axes[0].get_window_extent().width / figure.dpi > 3.5


def test_long_names_that_differ_at_their_ends_are_told_apart(write_run, tmp_path):
    names = [f"one of the two very long names that go on to their ends, which is {end}" for end in "ab"]
    for name, accuracy in zip(names, (0.6, 0.5), strict=True):
        write_run(name[-1], 0, (accuracy, accuracy), nodes={"agent": {**L2_INIT, "name": name}})
    runs = load(tmp_path)
    totals = totals_figure(runs, lay_out(runs))
    ticks = [text.get_text() for text in totals.axes[0].get_yticklabels()]
    for shown in (legend(runs.figure("online_accuracy")), ticks):
        assert [text.replace("\n", " ") for text in shown] == [f"name={name}" for name in names]
        assert max(len(line) for text in shown for line in text.splitlines()) <= 48


def test_an_agent_combined_with_another_has_both_names(write_run, tmp_path):
    plus = {"_target_": "continual.agents.l2.L2", "l2_weight": 0.1}
    for place, second in enumerate([None, plus]):
        options = {"agent": "redo"} | ({"agent@agent.plus": "l2"} if second else {})
        nodes = {"agent": {"_target_": "r"} | ({"plus": second} if second else {})}
        write_run(str(place), 0, (0.5 + place / 10,) * 2, nodes=nodes, options=options)
    write_run("2", 0, (0.4, 0.4))
    assert legend(load(tmp_path).figure("online_accuracy")) == ["ReDo + L2", "ReDo", "Plain training"]


def test_a_figure_of_any_measure_which_a_notebook_shows(write_run, tmp_path):
    for seed in (0, 1):
        write_run(f"a{seed}", seed, (0.5, 0.7), measures={"srank": [4, 5]})
    runs = load(tmp_path)
    (axis,) = runs.figure("srank").axes
    assert axis.get_lines()[0].get_ydata().tolist() == [4, 5]
    assert runs.figure().axes[0].get_lines()[0].get_ydata().tolist() == pytest.approx([0.5, 0.7])
    assert runs.figure()._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(ConfigError, match=r"^sranks: no run has such a number; there are .*srank"):
        runs.figure("sranks")
    write_run("failed", 2, (0.5,), status="failed")
    with pytest.raises(ConfigError, match=r"^online_accuracy: no group has it"):
        load(tmp_path / "failed").figure("online_accuracy")
