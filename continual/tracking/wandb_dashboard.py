"""`dashboard.py FOLDER`: a W&B workspace for the runs in a folder, saved in their project.

A line per agent, the mean over its runs with their standard error as a band, against the task: performance
first, then plasticity; the measures of single layers are folded away. What is drawn is what the runs log.
"""

import argparse
import itertools
import sys
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from continual.errors import UserError
from continual.tracking import frozen
from continual.tracking.run_folder import read_tasks
from continual.tracking.wandb_run import section_key

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Section, Workspace

# Okabe & Ito's colours for the colour-blind without the yellow, then darker ones of Paul Tol's.
_COLORS = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000",
    "#882255", "#117733", "#332288", "#999933", "#AA4499",
)  # fmt: skip
_FIRST = ("score", "online_accuracy", "test_accuracy", "online_loss")


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit code."""
    parser = argparse.ArgumentParser(prog="dashboard.py", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="folders of runs")
    parser.add_argument("--name", default="Plasticity", help="what the workspace is called")
    parser.add_argument("--project", help="the W&B project; else that of the runs")
    parser.add_argument("--entity", help="the team or user that owns it; else that of the runs, or yours")
    asked = parser.parse_args(arguments)
    try:
        print(f"saved: {save(asked.folders, asked.name, asked.project, asked.entity)}")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def save(folders: Iterable[Path], name: str, project: str | None = None, entity: str | None = None) -> str:
    """Save the workspace of these folders' runs; returns its address. UserError if W&B does not take it."""
    runs = [
        frozen.load(config.parents[1], config.parents[2].name)
        for folder in folders
        for config in sorted(folder.glob("**/.hydra/config.yaml"))
    ]
    keys = {section_key(column) for run in runs for row in read_tasks(run.folder)[:1] for column in row}
    if not keys:
        raise UserError("there is no run with a finished task in these folders.")
    agents = sorted({run.choices.get("agent", "agent") for run in runs})
    settings = runs[0].config.get("wandb", {})
    try:
        import wandb

        owner = entity or settings.get("entity") or wandb.Api().default_entity
        where = {"project": project or settings.get("project") or "continual", "entity": str(owner)}
        made = workspace(keys | {section_key("score")}, agents, name, **where)
        made.save()
        return str(made.url)
    except ImportError as error:
        raise UserError("a dashboard needs wandb-workspaces: pip install 'continual[dashboard]'.") from error
    except Exception as error:  # wandb's own are of many kinds
        raise UserError(f"W&B did not take the dashboard ({str(error).splitlines()[0]}).") from error


def workspace(
    keys: Collection[str], agents: Sequence[str], name: str, project: str, entity: str
) -> "Workspace":
    """The workspace of runs that log these keys, of these agents; not saved yet."""
    import wandb_workspaces.workspaces as ws

    return ws.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=[
            _section("performance", keys, is_open=True),
            _section("plasticity", keys, is_open=True),
            _section("plasticity_by_layer", keys, is_open=False),
        ],
        settings=ws.WorkspaceSettings(x_axis="task", max_runs=100),
        runset_settings=ws.RunsetSettings(
            groupby=[ws.Config("agent")],
            group_colors=dict(zip(agents, itertools.cycle(_COLORS), strict=False)),
            pinned_columns=["config:agent", "config:env", "config:seed", "summary:performance/score"],
        ),
    )


def _section(name: str, keys: Collection[str], is_open: bool) -> "Section":
    """A section with a chart for each of its measures; one of the score comes first."""
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    measures = [key for key in keys if key.startswith(f"{name}/")]
    first = {section_key(column): place for place, column in enumerate(_FIRST)}
    panels = [
        wr.LinePlot(
            title=key.partition("/")[2],
            x="task",
            y=[key],
            groupby=wr.Config("agent"),
            groupby_aggfunc="mean",
            groupby_rangefunc="stderr",
            max_runs_to_show=100,
        )
        for key in sorted(measures, key=lambda key: (first.get(key, len(first)), key))
    ]
    return ws.Section(
        name=name,
        panels=panels,
        is_open=is_open,
        pinned=name == "performance",
        panel_settings=ws.SectionPanelSettings(x_axis="task"),
    )
