"""Which configuration is the best: one rule, for tables, pages and the published protocol."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from continual.errors import ConfigError
from continual.identity import canonical
from continual.report.configs import is_below, node_path
from continual.report.grouping import ABSENT

if TYPE_CHECKING:
    from continual.report.runs import Runs

STEP_SIZE = "optimizer.lr"
LESS_IS_BETTER = ("_loss", "_error", "_unit_fraction", "zero_gradient_fraction")
"""How the names of measures end of which less is better."""


@dataclass(frozen=True)
class Choice:
    """The best of several groups.

    Attributes:
        group: which it is.
        value: the mean over `seeds` of what was compared.
        seeds: the seeds that all were compared by.
        eligible, diverged: how many groups could be chosen, and how many could not since a run diverged.
    """

    group: int
    value: float
    seeds: tuple[int, ...]
    eligible: int
    diverged: int


def best(runs: "Runs", metric: str | None, by: Sequence[str], seeds: Sequence[int] | None) -> pd.DataFrame:
    """What `Runs.best` says it is."""
    merits, signs, name = _merits(runs, metric)
    chosen = [
        (place, choice)
        for place, groups in _families(runs, by)
        if (choice := choose(runs, groups, seeds, merits)) is not None
    ]
    places = list(dict.fromkeys(place for place, _ in chosen))
    chosen.sort(key=lambda pair: (places.index(pair[0]), -pair[1].value))
    choices = [choice for _, choice in chosen]
    return runs.groups.loc[[choice.group for choice in choices]].assign(
        **{
            "seeds": [len(choice.seeds) for choice in choices],
            name: [choice.value * signs[choice.group] for choice in choices],
            "configurations": [choice.eligible for choice in choices],
            "diverged": [choice.diverged for choice in choices],
        }
    )


def only_best(runs: "Runs") -> tuple["Runs", str]:
    """The best configuration of each agent alone, and a sentence on the seeds that it was chosen by.

    Where all of them have runs with seeds that played no part in the choice, those alone are kept.
    """
    families = [
        (choice, len(groups) > 1)
        for _, groups in _families(runs, ["agent"])
        if (choice := choose(runs, groups)) is not None
    ]
    if not families:
        raise ConfigError("--best: no agent has a configuration whose runs are completed.")
    groups = [choice.group for choice, _ in families]
    # Where there is one configuration alone, no seed has decided for it.
    used = {seed for choice, is_chosen in families if is_chosen for seed in choice.seeds}
    completed = runs.runs[runs.runs["status"] == "completed"]
    fresh = [set(completed[completed["group"] == group]["seed"]) - used for group in groups]
    if all(fresh):
        seeds = sorted(set.union(*fresh))
        return runs.only(groups, seeds), (
            "Of each agent the best configuration is shown, with runs whose seeds had no part in its choice."
        )
    return runs.only(groups), (
        "Warning: of each agent the best configuration is shown, chosen by the same seeds "
        f"({', '.join(map(str, sorted(used)))}) that it is shown with. That flatters it, and most of all "
        "agents with many configurations; scripts/reproduce.py runs fresh seeds."
    )


def choose(
    runs: "Runs",
    groups: Sequence[int],
    seeds: Sequence[int] | None = None,
    merits: "pd.Series[float] | None" = None,
) -> Choice | None:
    """The best of these groups; None if no run of them is completed or none can be chosen.

    `merits` are what is compared, for each run, more is better; by default the score. Configurations are
    compared on `seeds`, by default those that all of them were started with. Only those with a completed
    run for each of these are eligible. Of equals (to 12 digits) the one with the smaller step size is
    chosen, then the one with the smaller other numbers, in the order of the keys.
    """
    merits = _merits(runs, None)[0] if merits is None else merits
    table = runs.runs[runs.runs["group"].isin(groups)]
    started = {int(group): set(members["seed"]) for group, members in table.groupby("group")}
    if seeds is None:
        shared = set.intersection(*started.values()) if started else set()
        # Without a seed that all have, each stands for itself.
        wanted = {group: shared or of for group, of in started.items()}
    else:
        wanted = {group: set(seeds) for group in started}
    keys = sorted(runs.groups.columns, key=lambda key: key != STEP_SIZE)
    candidates, diverged = [], 0
    for group, members in table.groupby("group"):
        members = members[members["seed"].isin(wanted[int(group)])]
        diverged += int((members["status"] == "diverged").any())
        finished = merits[members.index[members["status"] == "completed"]].dropna()
        if finished.empty or len(finished) < len(wanted[int(group)]):
            continue
        numbers = [value for key in keys if _is_number(value := runs.groups.at[group, key])]
        candidates.append((-round(float(finished.mean()), 12), numbers, int(group), float(finished.mean())))
    if not candidates:
        return None
    _, _, group, value = min(candidates)
    return Choice(group, value, tuple(sorted(wanted[group])), len(candidates), diverged)


def _merits(runs: "Runs", metric: str | None) -> tuple["pd.Series[float]", list[int], str]:
    """What is compared, for each run and so that more is better; the sign of each group; and its name."""
    if metric is None:
        values, name = runs.runs["score"], "score"
        signs = [score.sign for score in runs.scores]
    else:
        values, name = runs.measured(metric), metric
        measure = re.split("[/@]", metric)[0]  # without the layer or the fraction of the task
        signs = [-1 if measure.endswith(LESS_IS_BETTER) else 1] * len(runs.groups)
    return values * runs.runs["group"].map(dict(enumerate(signs))), signs, name


def _families(runs: "Runs", by: Sequence[str]) -> list[tuple[str, list[int]]]:
    """The groups with equal values of `by` on equal tasks, with a name of the tasks."""
    rows = [{**config.values, **config.options} for config in runs.configs]
    for key in by:
        if not any(key in row for row in rows):
            known = ", ".join(runs.groups.columns) or "nothing"
            raise ConfigError(f"by={key}: no run has such a key; these runs differ in {known}.")
    tasks = [key for key in runs.groups.columns if is_below(node_path(key), "env") or key == "data"]
    families: dict[tuple[str, str], list[int]] = {}
    for group, row in enumerate(rows):
        place = canonical([runs.groups.at[group, key] for key in tasks])
        name = canonical([row.get(key, ABSENT) for key in by])
        families.setdefault((place, name), []).append(group)
    return [(place, groups) for (place, _), groups in families.items()]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
