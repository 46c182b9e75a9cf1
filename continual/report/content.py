"""What a report says: sections of text, tables and figures, and the tables behind them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import nan

import pandas as pd
from matplotlib.figure import Figure

from continual.report.boundaries import MARK, NOTE, boundary_groups
from continual.report.charts import Chart
from continual.report.explore import Explore, Explorer
from continual.report.figures import any_drawn, measure_figure, measured_tasks, totals_figure
from continual.report.folders import STATUSES, TRANSFERS
from continual.report.forgetting import (
    PAST,
    accuracy_matrices,
    has_past_tasks,
    left_out,
    mean_matrices,
    past_task_accuracies,
    past_task_figure,
    past_task_table,
    transfers,
)
from continual.report.layout import Layout, common_names, common_score, label, lay_out
from continual.report.measures import FIGURES, heading
from continual.report.published import Published, published_beside
from continual.report.runs import Runs
from continual.report.sensitivity import (
    Surface,
    ablation_figure,
    ablations,
    surfaces,
    surfaces_figure,
    surfaces_table,
)
from continual.report.statistics import (
    by_seed,
    compare,
    interquartile_mean,
    measure_by_task,
    overall_mean,
    probability_of_improvement,
    stratified_interval,
    summarise,
)

TOTAL = "score"


@dataclass(frozen=True)
class Table:
    """A table of texts; the first `names` columns name the row."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: int = 1


@dataclass(frozen=True)
class Picture:
    """A figure, the name of its files, and what it shows in words; drawn when files are written."""

    name: str
    description: str
    draw: Callable[[], Figure]


@dataclass(frozen=True)
class Section:
    """A headed part of the report; on the page its charts stand for its pictures."""

    title: str
    text: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()


@dataclass(frozen=True)
class Report:
    """A title, what applies to all of it, its sections, and the data by the name of their CSV file.

    `explorer` is what the page's charts share; None if there is no completed run to draw.
    """

    title: str
    notes: Sequence[str]
    sections: Sequence[Section]
    data: dict[str, pd.DataFrame] = field(default_factory=dict)
    explorer: Explorer | None = None

    @property
    def pictures(self) -> list[Picture]:
        return [picture for section in self.sections for picture in section.pictures]


def build(
    runs: Runs,
    swept: Runs | None = None,
    before: Sequence[Section] = (),
    *,
    summary: pd.DataFrame | None = None,
    measures: Sequence[str] | None = None,
) -> Report:
    """The report on these runs.

    `swept` are other runs, by which these were chosen: only the effect of a method's numbers is
    shown from them, and no mean mixes the two. Without them it is shown from `runs`. The sections
    `before` come first. `measures` are the columns of tasks.csv that have figures, by default the score's
    and FIGURES, as far as they were measured.
    """
    summary = summarise(runs) if summary is None else summary
    title = ", ".join(["Results", *common_names(runs)]).replace(", ", ": ", 1)
    measure = common_score(runs).name
    data = {"report": summary, measure: measure_by_task(runs, measure)}
    notes = [*runs.notes, *runs.damaged, *(swept.notes + swept.damaged if swept else [])]
    sections = [*before]
    explore = None
    if summary["n"].any():
        parts = _Parts(runs, summary, lay_out(runs, summary), data, notes)
        explore = parts.explore
        sections += parts.results(measures)
        if swept is None:
            sections += _effects(runs, summary, parts.layout, explore, data)
    else:
        sections.append(Section("No run is complete", tables=(_counts_table(runs, summary),)))
    if swept is not None:
        data["sweep"] = summarise(swept)
        if data["sweep"]["n"].any():
            sections += _effects(swept, data["sweep"], lay_out(swept, data["sweep"]), explore, data)
    sections.append(_definitions())
    return Report(title, notes, sections, data, explore.explorer() if explore else None)


class _Parts:
    """The sections on a report's runs; what they show goes into `data` too, what is damaged into `notes`."""

    def __init__(
        self,
        runs: Runs,
        summary: pd.DataFrame,
        layout: Layout,
        data: dict[str, pd.DataFrame],
        notes: list[str],
    ) -> None:
        self.runs, self.summary, self.layout, self.data, self.notes = runs, summary, layout, data, notes
        self.published = published_beside(runs)
        self.explore = Explore(runs, layout)

    def results(self, measures: Sequence[str] | None) -> list[Section]:
        """All of them, but for those without content."""
        made = (
            self._summary(),
            self._over_tasks(measures or (self.layout.score.name, *FIGURES)),
            self._layers(),
            self._forgetting(),
            self._comparisons(),
            self._aggregates(),
        )
        return [section for section in made if section is not None]

    def _summary(self) -> Section:
        layout = self.layout
        self.data["report"] = _with_published(self.summary, self.published, layout)
        words = f"{layout.score.heading} of each group."
        return Section(
            "Summary",
            layout.implied(),
            [Picture(layout.score.total, words, partial(totals_figure, self.runs, layout))],
            [_summary_table(self.runs, self.summary, layout, self.published)],
            [self.explore.totals()],
        )

    def _over_tasks(self, measures: Sequence[str]) -> Section | None:
        pictures = []
        for measure in dict.fromkeys(measures):
            if any_drawn(measured_tasks(self.runs, measure), self.layout):
                if measure not in self.data:
                    self.data[_file_name(measure, "")] = measure_by_task(self.runs, measure)
                words = f"{heading(measure)} per task, a line for each group."
                draw = partial(measure_figure, self.runs, measure, self.layout)
                pictures.append(Picture(_file_name(measure, ""), words, draw))
        charts = [chart for chart in (self.explore.over_tasks(), self.explore.each_run()) if chart]
        return Section("Over tasks", (), pictures, (), charts) if charts else None

    def _layers(self) -> Section | None:
        found = self.explore.by_layer()
        return Section("Layers", charts=found) if found else None

    def _forgetting(self) -> Section | None:
        """Backward transfer, and test accuracy on past tasks, where runs measured them."""
        matrices, damaged = accuracy_matrices(self.runs)
        self.notes += damaged.values()
        past = past_task_accuracies(self.runs, matrices)
        pictures, tables = [], []
        if has_past_tasks(past) and any_drawn(past, self.layout):
            self.data[PAST] = past_task_table(self.runs, past)
            words = "Test accuracy on a task over how many tasks ago it was learned, a line for each group."
            draw = partial(past_task_figure, self.runs, past, self.layout)
            pictures.append(Picture(PAST, words, draw))
        transferred = transfers(self.runs)
        if not transferred.empty:
            names = (*TRANSFERS, TOTAL)
            self.data["forgetting"] = _with_published(transferred, self.published, self.layout, names)
            tables.append(_forgetting_table(transferred, self.layout, self.published))
        if not (pictures or tables):
            return None
        charts = self.explore.past_tasks(past, mean_matrices(self.runs, matrices)) if pictures else []
        return Section("Forgetting", left_out(self.runs, {*matrices, *damaged}), pictures, tables, charts)

    def _comparisons(self) -> Section | None:
        pairs = self.explore.pairs()
        comparisons = compare(self.runs, pairs) if pairs else pd.DataFrame()
        if comparisons.empty:
            return None
        self.data["comparisons"] = _named(comparisons, self.layout)
        chart = self.explore.comparisons(comparisons)
        return Section(
            "Comparisons",
            tables=_comparison_tables(comparisons, self.layout),
            charts=[chart] if chart else [],
        )

    def _aggregates(self) -> Section | None:
        aggregates = _aggregates(self.runs, self.layout)
        if aggregates.empty:
            return None
        self.data["aggregates"] = aggregates
        weights = "Scores are averaged as they are: environments in which they lie further apart weigh more."
        return Section(
            "All environments together", [weights], (), [_aggregate_table(aggregates, self.layout)]
        )


def _effects(
    runs: Runs,
    summary: pd.DataFrame,
    layout: Layout,
    explore: Explore | None,
    data: dict[str, pd.DataFrame],
) -> Iterable[Section]:
    """Sensitivity and ablations."""
    found = [surface for surface in surfaces(runs, summary, layout) if surface.cells["score"].notna().any()]
    if found:
        data["sensitivity"] = surfaces_table(found)
        by_panel: dict[str, list[Surface]] = {}
        for surface in found:
            by_panel.setdefault(surface.panel, []).append(surface)
        words = f"Heat maps of {layout.score.words} over a method's strength and its step size."
        yield Section(
            "Sensitivity",
            ["A frame marks the best configuration without a diverged run, a star one with some."],
            pictures=[
                Picture(_file_name("sensitivity", panel), words, partial(surfaces_figure, surfaces_here))
                for panel, surfaces_here in by_panel.items()
            ],
            charts=explore.surfaces(found) if explore else (),
        )
    effects = ablations(runs, layout)
    if effects:
        yield Section(
            "Ablations",
            ["Each line joins groups that differ in nothing but the key on the axis."],
            [
                Picture(
                    _file_name("effect", effect.key),
                    f"{layout.score.heading} by {effect.key}.",
                    partial(ablation_figure, effect),
                )
                for effect in effects
            ],
            charts=explore.effects(effects, runs) if explore else (),
        )


def _definitions() -> Section:
    return Section(
        "How to read this",
        (
            "Total average online accuracy: the mean over all steps, of hard tasks only where tasks are hard "
            "or easy, of the accuracy on the batch before the update on it. Accuracies are fractions.",
            "A group is a set of completed runs that differ in nothing but their seed; runs that diverged, "
            "failed or are unfinished are counted, not averaged.",
            "Intervals: 95 %, percentile bootstrap over seeds, stratified by environment where there are "
            "several. IQM: the mean of the middle half of the runs. Probability of improvement: how probably "
            "a run of one group beats a run of another, ties counting half. All as defined by Agarwal et al. "
            "2021, Deep Reinforcement Learning at the Edge of the Statistical Precipice (arXiv 2108.13264).",
            "Difference: the mean over seeds that both groups have of their difference; runs of equal seed "
            "see the same tasks and the same batches. The best is so by these very runs, which flatters "
            "its lead. With few seeds all intervals are too narrow.",
            "Backward transfer: the mean over tasks but the last of the test accuracy after the last task "
            "minus that right after the task; one-step: after the next task instead of the last. "
            "Test accuracy on past tasks: the mean over tasks, hard ones only where tasks are hard or easy, "
            "of the test accuracy so many tasks after the task; the longer ago, the fewer tasks there are.",
        ),
    )


def _counts_table(runs: Runs, summary: pd.DataFrame) -> Table:
    """What became of the runs of each group, where there is nothing to average."""
    statuses = [status for status in STATUSES if status != "completed" and summary[status].any()]
    rows = [
        [label(row, runs.shown) or "all runs", *(str(row[status]) for status in statuses)]
        for _, row in summary.iterrows()
    ]
    return Table("Runs", ["group", *statuses], rows)


def _summary_table(
    runs: Runs, summary: pd.DataFrame, layout: Layout, published: dict[int, Published]
) -> Table:
    statuses = [name for name in STATUSES if name != "completed" and summary[name].any()]
    means = {
        "first_task": "first task",
        "last_task": "last task",
        "last_task_test": "last task, test",
    }
    means = {column: head for column, head in means.items() if summary[column].notna().any()}
    head = [*_panel_head(layout), "group", "seeds", *statuses, "mean [95 %]", "IQM [95 %]", *means.values()]
    if published:
        head.append("published")
    rows = []
    ordered = summary.assign(panel=[label(row, layout.panel_keys) for _, row in summary.iterrows()])
    ordered = ordered.join(layout.summary["rank"])
    ordered = ordered.sort_values("rank", kind="stable").sort_values("panel", kind="stable")
    knowing = boundary_groups(runs)
    for group, row in ordered.iterrows():
        name = label(row, layout.line_keys) or "all runs"
        rows.append(
            [
                *([row["panel"]] if layout.panel_keys else []),
                f"{name} {MARK}" if group in knowing else name,
                *(str(row[name]) for name in ("n", *statuses)),
                _interval(row[TOTAL], row["low"], row["high"]),
                _interval(row["iqm"], row["iqm_low"], row["iqm_high"]),
                *(_number(row[column]) for column in means),
            ]
        )
        if published:
            entry = published.get(int(str(group)))
            rows[-1].append(_number(_printed(entry, TOTAL, layout)) if entry else "-")
    caption = layout.score.heading + _sources(published.values()) + (f". {NOTE}" if knowing else "")
    return Table(caption, head, rows, names=1 + bool(layout.panel_keys))


def _forgetting_table(transferred: pd.DataFrame, layout: Layout, published: dict[int, Published]) -> Table:
    columns = dict(
        zip((*TRANSFERS, TOTAL), ("backward transfer", "one-step", layout.score.words), strict=True)
    )
    head = [*_panel_head(layout), "group", "seeds", *columns.values()]
    entries = {group: published[group] for group in transferred.index if group in published}
    if entries:
        head += [f"published: {name}" for name in columns.values()]
    rows = []
    for group, row in transferred.iterrows():
        named = layout.summary.loc[group]
        entry = entries.get(int(str(group)))
        rows.append(
            [
                *([named["panel"]] if layout.panel_keys else []),
                named["label"],
                str(row["n"]),
                *(_interval(row[name], row[f"{name}_low"], row[f"{name}_high"]) for name in columns),
            ]
        )
        if entries:
            rows[-1] += [_number(_printed(entry, name, layout)) if entry else "-" for name in columns]
    return Table(
        "Backward transfer [95 %]" + _sources(entries.values()), head, rows, names=1 + bool(layout.panel_keys)
    )


def _named(comparisons: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    """Comparisons with labels instead of group numbers."""
    labels, panels = layout.summary["label"], layout.summary["panel"]
    named = comparisons.assign(x=comparisons["x"].map(labels), y=comparisons["y"].map(labels))
    if layout.panel_keys:
        named.insert(0, "environment", comparisons["x"].map(panels))
    return named


def _comparison_tables(comparisons: pd.DataFrame, layout: Layout) -> list[Table]:
    """Of each set of comparable groups the best against all others."""
    tables = []
    seen: set[int] = set()
    for best, rows in comparisons.groupby("x", sort=False):
        if best in seen:
            continue
        seen |= {int(str(best)), *rows["y"]}
        named = layout.summary.loc[best]
        where = f" on {named['panel']}" if layout.panel_keys else ""
        tables.append(
            Table(
                f"{named['label']}, the best{where}, against",
                ["group", "pairs", "difference [95 %]", "probability of improvement [95 %]"],
                [
                    [
                        layout.summary.at[row["y"], "label"],
                        str(int(row["pairs"])),
                        _interval(row["difference"], row["low"], row["high"]),
                        _interval(row["probability"], row["probability_low"], row["probability_high"]),
                    ]
                    for _, row in rows.iterrows()
                ],
            )
        )
    return tables


def _aggregates(runs: Runs, layout: Layout) -> pd.DataFrame:
    """A row per label that has one group in each of several panels; strata are panels."""
    panels = list(dict.fromkeys(layout.summary["panel"]))
    strata = {
        name: [by_seed(runs, int(group)) for group in members.set_index("panel").loc[panels, "group"]]
        for name, members in layout.summary.rename_axis("group").reset_index().groupby("label", sort=False)
        if len(panels) > 1 and sorted(members["panel"]) == sorted(panels)
    }
    if not strata or len(set(runs.scores)) > 1:
        return pd.DataFrame()
    means = {name: stratified_interval(parts, overall_mean) for name, parts in strata.items()}
    sign = layout.score.sign
    best = max(means, key=lambda name: sign * float(means[name].mean))
    rows = []
    for name, parts in strata.items():
        row: dict[str, object] = {"group": name, "environments": len(parts), "runs": sum(map(len, parts))}
        estimates = {"mean": means[name], "iqm": stratified_interval(parts, interquartile_mean)}
        if name != best:
            compared = [*strata[best], *parts] if sign == 1 else [*parts, *strata[best]]
            beaten = stratified_interval(compared, probability_of_improvement, 2_000)
            estimates["probability_that_best_is_better"] = beaten
        for column, estimate in estimates.items():
            row |= {column: float(estimate.mean), f"{column}_low": float(estimate.low)}
            row[f"{column}_high"] = float(estimate.high)
        rows.append(row)
    return pd.DataFrame(rows).sort_values("mean", ascending=sign == -1, kind="stable")


def _aggregate_table(aggregates: pd.DataFrame, layout: Layout) -> Table:
    columns = {"mean": "mean [95 %]", "iqm": "IQM [95 %]"}
    if "probability_that_best_is_better" in aggregates:
        columns["probability_that_best_is_better"] = "probability that the best is better [95 %]"
    return Table(
        f"{layout.score.heading} over {layout.summary['panel'].nunique()} environments",
        ["group", "runs", *columns.values()],
        [
            [
                str(row["group"]),
                str(row["runs"]),
                *(_interval(row[name], row[f"{name}_low"], row[f"{name}_high"]) for name in columns),
            ]
            for _, row in aggregates.iterrows()
        ],
    )


def _with_published(
    table: pd.DataFrame, published: dict[int, Published], layout: Layout, names: Sequence[str] = (TOTAL,)
) -> pd.DataFrame:
    """The table, with the published numbers of these names and their source where a group has some."""
    beside = {group: entry for group, entry in published.items() if group in table.index}
    if not beside:
        return table
    columns: dict[str, dict[int, object]] = {
        "published" if names == (TOTAL,) else f"published_{name}": {
            group: _printed(entry, name, layout) for group, entry in beside.items()
        }
        for name in names
    }
    columns["published_source"] = {group: entry.source for group, entry in beside.items()}
    return table.assign(**{name: table.index.map(values) for name, values in columns.items()})


def _printed(entry: Published, name: str, layout: Layout) -> float:
    """A published number; NaN where that paper has another score."""
    return entry.numbers.get(layout.score.total if name == TOTAL else name, nan)


def _panel_head(layout: Layout) -> list[str]:
    return ["environment"] if layout.panel_keys else []


def _sources(entries: Iterable[Published]) -> str:
    sources = dict.fromkeys(entry.source for entry in entries)
    return "".join(f". Published: {source}" for source in sources)


def _number(value: float) -> str:
    return "-" if pd.isna(value) else f"{value:.3f}".replace("-", "\N{MINUS SIGN}")


def _interval(value: float, low: float, high: float) -> str:
    return _number(value) if pd.isna(low) else f"{_number(value)} [{_number(low)}, {_number(high)}]"


def _file_name(start: str, end: str) -> str:
    name = f"{start}-{end}" if end else start
    return "".join(letter if letter.isalnum() or letter in "._-@" else "-" for letter in name)
