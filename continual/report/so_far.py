"""Runs that have not ended, taken as far as they are: for a page that is looked at while they train."""

from dataclasses import replace

import pandas as pd

from continual.report.choice import LESS_IS_BETTER
from continual.report.runs import Runs, counted
from continual.report.score import Score


def so_far(runs: Runs) -> Runs:
    """The runs; where no run of a group is completed, its unfinished ones as if they ended here.

    Of such a group the tasks count that all its runs with a finished task have done. Their mean is the score,
    and their number its config's `env.num_tasks`, so that nothing is compared with groups that are further.
    `notes` say how many groups these are. Runs without a finished task stay unfinished.
    """
    completed = set(runs.runs.loc[runs.runs["status"] == "completed", "group"])
    under_way = runs.rows[(runs.rows["status"] == "unfinished") & ~runs.rows["group"].isin(completed)]
    if under_way.empty:
        return runs
    done = under_way.groupby(["group", "run"]).size().groupby("group").min()
    counted_rows = under_way[under_way["task"] < under_way["group"].map(done)]
    dropped = under_way.index.difference(counted_rows.index)
    table, rows = runs.runs.copy(), runs.rows.drop(index=dropped).reset_index(drop=True)
    scores, configs = list(runs.scores), list(runs.configs)
    for group, members in counted_rows.groupby("group"):
        number = int(str(group))
        scores[number] = score = _score(runs.scores[number], members)
        configs[number] = replace(
            configs[number], values={**configs[number].values, "env.num_tasks": int(done[group])}
        )
        scored = members[members["task_type"] != "easy"]
        means = scored.groupby("run")[score.name].mean().dropna()
        table.loc[means.index, "score"] = means
        table.loc[means.index, "status"] = "completed"
    # What was measured can be missing; such a run has no score, and stays what it is.
    rows.loc[rows["run"].map(table["status"]) == "completed", "status"] = "completed"
    words = f"{counted(len(done), 'group')} still training: curves and scores are of the tasks done so far."
    return replace(runs, runs=table, rows=rows, scores=scores, configs=configs, notes=[*runs.notes, words])


def _score(declared: Score, rows: pd.DataFrame) -> Score:
    """What a run is compared by that has no summary yet: its online measure, whatever that is."""
    for name in rows:
        if str(name).startswith("online_") and not {"@", "/"} & set(str(name)) and rows[name].notna().any():
            return Score(str(name), not str(name).endswith(LESS_IS_BETTER))
    return declared
