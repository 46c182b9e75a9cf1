"""Runs as tables: what `continual.load` returns and every report is made of."""

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from continual.errors import ConfigError, DataError
from continual.identity import canonical
from continual.report.configs import RunConfig
from continual.report.folders import STATUSES, RunFolder, find, read_run, spoilt
from continual.report.grouping import group_runs, grouped_by
from continual.report.score import Score

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESULTS = ("score", "backward_transfer", "one_step_backward_transfer")
"""The columns of `Runs.runs` that say how a run did."""
_NO_MEASURES = ("run", "group", "status", "task", "task_type", "step")


@dataclass(frozen=True, eq=False, repr=False)
class Runs:
    """Runs, in groups that differ in nothing but their seed.

    Attributes:
        runs: a row per run (index `run`): folder, group, the keys in which configs differ, seed, status,
            score, backward_transfer and one_step_backward_transfer. The score and both transfers are NaN
            unless the run is completed; the last two also unless measured.
        rows: a row per finished task of a run: run, group, status and the columns of tasks.csv.
        groups: a row per group (index `group`), a column per key in which configs differ, "-"
            where a config does not have it.
        shown: the columns of `groups` that suffice to tell the groups apart.
        common: the options that all runs share, such as `network` to `mlp`.
        configs: for each group the config of one of its runs.
        scores: for each group what its runs are compared by.
        commands: for each run the overrides it was started with.
        notes: what a reader of the tables has to know, as sentences.
        damaged: what could not be read, as sentences.
    """

    runs: pd.DataFrame
    rows: pd.DataFrame
    groups: pd.DataFrame
    shown: list[str]
    common: dict[str, str]
    configs: list[RunConfig]
    scores: list[Score]
    commands: list[tuple[str, ...]]
    notes: list[str]
    damaged: list[str]

    @cached_property
    def tasks(self) -> pd.DataFrame:
        """A row per finished task of a run: run, group, the keys in which configs differ, seed, status, and
        the columns of tasks.csv."""
        keys = self.groups.columns
        measured = self.rows.drop(columns=["group", "status"])
        about = self.runs.loc[measured["run"], ["group", *keys, "seed", "status"]].reset_index(drop=True)
        run = measured.pop("run")
        return pd.concat([run, about, measured], axis=1)

    def best(
        self, metric: str | None = None, by: str | Sequence[str] = "agent", seeds: Sequence[int] | None = None
    ) -> pd.DataFrame:
        """The best configuration of each agent, or of whatever `by` names, in each environment.

        A row per choice, index `group`, the best first: the keys in which configs differ, `seeds` (how many
        it was chosen by), the mean over them in a column named like what is compared, `configurations` (how
        many could be chosen) and `diverged` (how many could not, since a run diverged).

        `metric` is what is compared: None for the score, else a number that `runs` has or the mean over
        tasks of one that `tasks` has; of losses, errors and fractions of dead or dormant units less is
        better. Configurations are compared on `seeds`, None for those that all of them have; one without a
        completed run for each of them cannot be chosen. Of equals the smaller step size, then smaller
        other numbers, is chosen.

        Raises ConfigError if there is no such metric or no run has a key of `by`.
        """
        from continual.report.choice import best

        return best(self, metric, [by] if isinstance(by, str) else list(by), seeds)

    @cached_property
    def accuracies(self) -> pd.DataFrame:
        """A row per completed run and pair of tasks, `after_task` and the same or an earlier `on_task`: run,
        group, the keys in which configs differ, seed, and the test `accuracy`. Empty unless
        metrics.forgetting=true.
        """
        from continual.report.forgetting import accuracy_matrices

        keys = ["group", *self.groups.columns, "seed"]
        parts = []
        for run, accuracy_KM in accuracy_matrices(self)[0].items():
            after, on = np.tril_indices(len(accuracy_KM))
            measured = {"run": run, "after_task": after, "on_task": on, "accuracy": accuracy_KM[after, on]}
            parts.append(pd.DataFrame(measured).join(self.runs[keys], on="run"))
        columns = ["run", *keys, "after_task", "on_task", "accuracy"]
        return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)

    def figure(self, measure: str | None = None) -> "Figure":
        """A measure per task: a line per group, the mean over its seeds with a shaded 95 % interval.

        `measure` is a column of `tasks`, None for the score's. Groups count whose completed runs all have it;
        a panel per environment, and the agents' looks, are those of the report. A notebook shows the figure;
        `.savefig("figure.pdf")` writes it.

        Raises ConfigError if no group has it.
        """
        from continual.report.figures import figure

        return figure(self, measure)

    def where(self, keys: Mapping[str, Any], seeds: Sequence[int] | None = None) -> "Runs":
        """The groups alone that have these values: `{"agent": "l2_init", "optimizer.lr": [1e-3, 1e-4]}`.

        Keys are those of configs and of groups of options; a list is one of several values, any of which will
        do. Of the groups runs with these seeds (None: all). Raises ConfigError if no config has a key, or no
        group the values.
        """
        table = [{**config.values, **config.options} for config in self.configs]
        chosen = list(range(len(table)))
        for key, value in keys.items():
            there = {group: table[group][key] for group in chosen if key in table[group]}
            if not there:
                instead = "; give seeds=[...]" if key == "seed" else ""
                raise ConfigError(f"{key}: none of these runs' configs has this key{instead}.")
            # A value may itself be a list, such as hidden_sizes.
            wanted = {canonical(value), *(map(canonical, value) if isinstance(value, list | tuple) else ())}
            chosen = [group for group, found in there.items() if canonical(found) in wanted]
            if not chosen:
                raise ConfigError(f"{key}: no group has {value}; there are {_listed(there.values())}.")
        return self.only(chosen, seeds)

    def only(self, groups: Sequence[int], seeds: Sequence[int] | None = None) -> "Runs":
        """These groups alone, of them runs with these seeds (None: all)."""
        kept = self.runs[self.runs["group"].isin(groups)]
        if seeds is not None:
            kept = kept[kept["seed"].isin(seeds)]
        place = {group: number for number, group in enumerate(groups)}
        number = {run: new for new, run in enumerate(kept.index)}
        rows = self.rows[self.rows["run"].isin(kept.index)]
        table = self.groups.loc[list(groups)].reset_index(drop=True).rename_axis("group")
        differ = [key for key in self.shown if table[key].map(canonical).nunique() > 1]
        return replace(
            self,
            runs=kept.assign(group=kept["group"].map(place)).reset_index(drop=True).rename_axis("run"),
            rows=rows.assign(run=rows["run"].map(number), group=rows["group"].map(place)).reset_index(
                drop=True
            ),
            groups=table,
            shown=differ or self.shown[:1],
            configs=[self.configs[group] for group in groups],
            scores=[self.scores[group] for group in groups],
            commands=[self.commands[run] for run in kept.index],
        )

    def measured(self, metric: str) -> "pd.Series[float]":
        """For each run a number that `runs` has, or the mean over its tasks of one that `tasks` has.

        Only tasks that count are averaged, and only those of completed runs; NaN where it was not measured.
        Raises ConfigError if there is no such number.
        """
        numbers = [name for name in (*RESULTS, *self.rows) if name not in _NO_MEASURES]
        if metric not in numbers:
            raise ConfigError(
                f"{metric}: no run has such a number; there are {', '.join(dict.fromkeys(numbers))}."
            )
        if metric in RESULTS:
            return self.runs[metric].where(self.runs["status"] == "completed")
        counted = self.rows[(self.rows["status"] == "completed") & (self.rows["task_type"] != "easy")]
        return counted.groupby("run")[metric].mean().reindex(self.runs.index)

    def __len__(self) -> int:
        return len(self.runs)

    def __repr__(self) -> str:
        return f"{self._heading()}\n{self._overview().to_string(index=False)}"

    def _repr_html_(self) -> str:
        table = self._overview().to_html(index=False, escape=True, border=0)
        warnings = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in (*self.notes, *self.damaged))
        return f"<p>{html.escape(self._heading())}</p>{table}{warnings}"

    def _heading(self) -> str:
        counts = self.runs["status"].value_counts()
        told = ", ".join(f"{counts[status]} {status}" for status in STATUSES if status in counts)
        words = ", ".join(f"{group} {option}" for group, option in self.common.items())
        return f"{counted(len(self.runs), 'run')} ({told})" + (f": {words}" if words else "")

    def _overview(self) -> pd.DataFrame:
        """A row per group: its keys, how many runs are completed, and the mean of their score."""
        from continual.report.tables import format_value

        completed = self.runs[self.runs["status"] == "completed"].groupby("group")["score"]
        table = self.groups[self.shown].map(format_value)
        table = table.assign(seeds=completed.size()).fillna({"seeds": 0}).astype({"seeds": int})
        return table.assign(score=completed.mean())


def load(*folders: Path | str, by: Sequence[str] = ()) -> Runs:
    """Read all runs below `folders`, at any depth.

    Runs are grouped by all keys that differ but the seed, and by the data they were trained on. `by` names
    the keys that are to tell the groups apart in labels and tables; it never merges groups.

    A run is a folder with `.hydra/config.yaml` and `tasks.csv` (or `summary.json`, if it failed
    before its first task was done). Of runs equal in config and seed one counts: the newest that
    is completed or diverged, else the newest. A run that cannot be read is left out or counts as
    unfinished, and `damaged` says so. A folder may also hold the runs.csv and tasks.csv of a report
    (`report.py --data`) instead.

    Raises DataError if a folder is missing or there is no run that can be read, and
    ConfigError if the keys in `by` would put runs together that differ in others.
    """
    from continual.report.study import is_study, read_study

    tops = [Path(folder) for folder in folders]
    studies = [top for top in tops if is_study(top)]
    found = find([top for top in tops if top not in studies])
    read, damaged = [run for study in studies for run in read_study(study)], list(found.damaged)
    for path in found.runs:
        try:
            read.append(read_run(path))
        except DataError as error:
            damaged.append(f"{error} That run is left out.")
    if not read:
        if damaged:
            raise DataError(damaged[0])
        raise DataError(
            f"no run below {', '.join(map(str, tops))}: "
            "a run is a folder with tasks.csv and .hydra/config.yaml."
        )
    runs, notes = _without_repetitions(_with_data(read))
    if found.waiting:
        notes.append(
            f"Left out: {counted(len(found.waiting), 'folder')} with a config but no finished task, "
            f"such as {found.waiting[0]}."
        )
    runs = _with_equal_tasks(runs)
    return tabulate(runs, notes, [*damaged, *(sentence for run in runs for sentence in run.damage)], by)


def tabulate(
    runs: Sequence[RunFolder], notes: Sequence[str], damaged: Sequence[str], by: Sequence[str]
) -> Runs:
    """The tables of at least one run; ConfigError as `load`."""
    notes = list(notes)
    failed = [run for run in runs if run.status == "failed"]
    if failed:
        reason = failed[0].error or "no reason in its summary.json"
        notes.append(f"{counted(len(failed), 'failed run')}, such as {failed[0].folder}: {reason}")
    grouping = group_runs([run.config for run in runs])
    member_of = dict(zip(grouping.members, runs, strict=True))
    configs = [member_of[group].config for group in range(len(grouping.groups))]
    if by:
        grouping = grouped_by(grouping, configs, by)

    groups = pd.DataFrame(
        {key: [row[key] for row in grouping.groups] for key in grouping.keys},
        index=pd.RangeIndex(len(grouping.groups), name="group"),
        dtype=object,
    )
    results = pd.DataFrame(
        {
            "seed": [run.config.seed for run in runs],
            "status": [run.status for run in runs],
            "score": [run.value for run in runs],
            "backward_transfer": [run.transfers[0] for run in runs],
            "one_step_backward_transfer": [run.transfers[1] for run in runs],
        }
    )
    table = pd.DataFrame({"folder": [str(run.folder) for run in runs], "group": grouping.members})
    table = pd.concat([table.join(groups, on="group"), results], axis=1).rename_axis("run")
    return Runs(
        table,
        _rows(runs, table),
        groups,
        grouping.shown,
        grouping.common,
        configs,
        [
            _score([run for run, of in zip(runs, grouping.members, strict=True) if of == group])
            for group in range(len(groups))
        ],
        [run.config.overrides for run in runs],
        notes,
        list(damaged),
    )


def _score(members: Sequence[RunFolder]) -> Score:
    """What the runs of a group are compared by: what those that are completed say."""
    return next((run.score for run in members if run.status == "completed"), members[0].score)


def _with_data(runs: Sequence[RunFolder]) -> list[RunFolder]:
    """The runs, those of one config on several data sets told apart by `data`.

    Runs that do not say what they were trained on belong to the others if those agree.
    """
    known: dict[str, set[str]] = {}
    for run in runs:
        known.setdefault(run.config.identity, set()).update({run.data} - {""})
    return [_on(run, run.data) if len(known[run.config.identity]) > 1 else run for run in runs]


def _on(run: RunFolder, data: str) -> RunFolder:
    config = run.config
    values = {**config.values, "data": data or "not recorded"}
    return replace(run, config=replace(config, values=values))


def _with_equal_tasks(runs: Sequence[RunFolder]) -> list[RunFolder]:
    """The runs; a completed one with fewer tasks than others of its config cannot be averaged with them."""
    most: dict[str, int] = {}
    for run in runs:
        if run.status == "completed":
            most[run.config.identity] = max(most.get(run.config.identity, 0), len(run.tasks))
    return [
        spoilt(run, f"{run.folder / 'tasks.csv'} lacks tasks that other runs of the same config have")
        if run.status == "completed" and len(run.tasks) < most[run.config.identity]
        else run
        for run in runs
    ]


def _without_repetitions(runs: Sequence[RunFolder]) -> tuple[list[RunFolder], list[str]]:
    """Of runs equal in config and seed the one that counts; and a note on the others."""
    kept: dict[tuple[str, str], RunFolder] = {}
    dropped: list[RunFolder] = []
    for run in runs:
        key = (run.config.identity, canonical(run.config.seed))
        rival = kept.setdefault(key, run)
        if rival is not run:
            kept[key], older = (run, rival) if _worth(run) > _worth(rival) else (rival, run)
            dropped.append(older)
    if not dropped:
        return list(kept.values()), []
    return list(kept.values()), [
        f"Left out: {counted(len(dropped), 'repetition')} of a run with the same config and seed, "
        f"such as {dropped[0].folder}; the newest finished one counts."
    ]


def _worth(run: RunFolder) -> tuple[bool, float]:
    return run.status in ("completed", "diverged"), run.written


def _rows(runs: Sequence[RunFolder], table: pd.DataFrame) -> pd.DataFrame:
    """All rows of all tasks.csv, with the run, its group and its status in front."""
    parts = []
    for index, run in enumerate(runs):
        if not run.tasks.empty:
            group = table.at[index, "group"]
            parts.append(
                pd.concat(
                    [
                        pd.DataFrame(
                            {"run": index, "group": group, "status": run.status}, index=run.tasks.index
                        ),
                        run.tasks,
                    ],
                    axis=1,
                )
            )
    if not parts:
        return pd.DataFrame(columns=["run", "group", "status", "task", "task_type"])
    return pd.concat(parts, ignore_index=True)


def _listed(values: Iterable[Any]) -> str:
    """The values, each once, as a sentence has them."""
    from continual.report.tables import format_value

    return ", ".join(dict.fromkeys(map(format_value, values)))


def counted(number: int, noun: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
