"""Pages that are made from the program itself: one for each option in conf/, and one for the measures."""

import csv
import importlib
import inspect
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from continual import metrics, schema
from continual.agents.agent import Agent, Anatomy, BatchShape
from continual.errors import ConfigError
from continual.report import runs
from continual.report.boundaries import MARK, NOTE
from continual.report.choice import only_best
from continual.report.study import is_study

RESULTS = Path(__file__).parent / "results"
# From `python scripts/benchmark.py --only agents,online --clock core --replicas 1 --pairs 4`.
SPEEDS = "speed/benchmark.csv"
CONF = Path(__file__).parents[1] / "conf"
# Config group, folder of its pages, title and first paragraph of its table.
GROUPS = (
    ("agent", "methods", "Methods", "A method: what is added to the loss, and what is done to the network."),
    ("env", "problems", "Problems", "The stream of tasks; `env/dataset=NAME` chooses the data under it."),
    ("network", "networks", "Networks", "Any plain `nn.Module` can be one: [how](../extending.md)."),
    ("optimizer", "optimizers", "Optimisers", "Where `torch.optim` has it, results equal its results."),
    (
        "env/dataset",
        "datasets",
        "Datasets",
        "They are looked for in `data_dir` (default `$CONTINUAL_DATA_DIR`, else `data`), as torchvision\n"
        "lays them out; `env.dataset.download=true` fetches those that torchvision can. `digits` ships with\n"
        "scikit-learn. `npz` reads a file of your own: `x_train, y_train, x_test, y_test`.",
    ),
)
MEASURES = yaml.safe_load((Path(__file__).parent / "measures.yaml").read_text(encoding="utf-8"))


class Measured(NamedTuple):
    """By agent, as text: its speed relative to base; by study, the mean score of its best configuration."""

    speeds: dict[str, str]
    studies: dict[str, dict[str, str]]


def write(folder: Path, results: Path = RESULTS) -> None:
    """Write all pages into this folder, and nothing else that was there; `results` has studies and speeds."""
    shutil.rmtree(folder, ignore_errors=True)
    measured = measured_in(results)
    for group, name, title, introduction in GROUPS:
        (folder / name).mkdir(parents=True)
        for option in options(group):
            own = results_of(option, measured) if group == "agent" else ""
            (folder / name / f"{option}.md").write_text(_page(group, option, own), encoding="utf-8")
        index = methods(measured) if group == "agent" else _index(group, name)
        page = "\n\n".join((f"# {title}", introduction, index, _tree(group, name))) + "\n"
        (folder / f"{name}.md").write_text(page, encoding="utf-8")
    (folder / "measures").mkdir()
    for name in MEASURES:
        (folder / "measures" / f"{name}.md").write_text(_measure(name), encoding="utf-8")
    (folder / "measures.md").write_text(_measures(), encoding="utf-8")


def options(group: str) -> list[str]:
    """The names of the options of a config group."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def _read(group: str, name: str) -> tuple[str, str, dict[str, Any]]:
    """An option's summary (the comment that its YAML begins with), its text and its content."""
    text = (CONF / group / f"{name}.yaml").read_text(encoding="utf-8")
    comment = re.match(r"(?:# ?.*\n)*", text)
    assert comment is not None
    summary = " ".join(line.lstrip("# ") for line in comment[0].splitlines() if "@package" not in line)
    return summary, text, yaml.safe_load(text) or {}


def _index(group: str, folder: str) -> str:
    rows = [f"| [`{name}`]({folder}/{name}.md) | {_read(group, name)[0]} |" for name in options(group)]
    return "\n".join((f"| `{group}=` | |", "| --- | --- |", *rows))


def _tree(group: str, folder: str) -> str:
    return "\n".join(
        ("```{toctree}", ":hidden:", "", *(f"{folder}/{name}" for name in options(group)), "```")
    )


def measured_in(results: Path) -> Measured:
    """What a folder of studies and speeds says of the methods."""
    studies = {path.name: _scores(path) for path in sorted(results.glob("*")) if is_study(path)}
    return Measured(_speeds(results / SPEEDS), {name: scores for name, scores in studies.items() if scores})


def methods(measured: Measured) -> str:
    """The table of methods: idea, source, needs, and speeds and scores as far as they were measured."""
    speeds, studies = measured
    heads = ["`agent=`", "idea", "source", "needs", *(["speed"] if speeds else []), *studies]
    lines = [heads, ["---"] * 4 + ["---:"] * (len(heads) - 4)]
    for name in options("agent"):
        idea, source, needs = _facts(name)
        measured = [speeds.get(name, "")] if speeds else []
        scores = [of.get(name, "") for of in studies.values()]
        lines.append([f"[`{name}`](methods/{name}.md)", idea, source, needs, *measured, *scores])
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    below = [f"{NOTE}."]
    if speeds:
        below.append(
            "Speed: steps per second of one replica on one CPU core, beside plain training "
            "(Permuted MNIST, MLP, batch 16, SGD)."
        )
    if studies:
        below.append(
            "The last columns are studies: the mean score of the best configuration in each method's grid, "
            "on seeds that played no part in choosing it where there are any (↓: less is better)."
        )
    return f"{table}\n\n{' '.join(below)}"


def _facts(name: str) -> tuple[str, str, str]:
    """An agent's idea in a line, where it is from, and what it needs."""
    summary, _, content = _read("agent", name)
    node = content.get("agent", content)
    named = re.search(r"\(([^()]*\d{4})\)", summary)
    # The source has a column of its own, and so has what else is said.
    alone = summary if named is None else summary.replace(f" {named[0]}", "")
    idea = re.split(r"[.;](?: |$)", alone)[0]
    source = named[1] if named else ""
    needs = [f"`network.{key}={str(value).lower()}`" for key, value in content.get("network", {}).items()]
    if "_target_" in node:
        target = schema.locate(node["_target_"])
        identifier = re.search(
            r"arXiv\s+(\d{4}\.\d{5})", importlib.import_module(target.__module__).__doc__ or ""
        )
        if identifier:
            source = f"[{source or identifier[1]}](https://arxiv.org/abs/{identifier[1]})"
        values = {
            key: value for key, value in node.items() if not isinstance(value, list) and key != "defaults"
        }
        agent = schema.make(values, "agent")
        assert isinstance(agent, Agent)
        needs += [
            *(["units"] if _needs_units(agent) else []),
            *([f"boundaries {MARK}"] if _sees_tasks(agent) else []),
        ]
    elif isinstance(node.get("defaults", [None])[0], str):  # what it is made of
        needs.append(_facts(node["defaults"][0])[2])
    return idea, source, ", ".join(needs)


def _needs_units(agent: Agent) -> bool:
    """Whether it refuses a network that does not tell its hidden layers."""
    try:
        agent.check(Anatomy((), (), {}, {}, BatchShape()))
    except ConfigError as error:
        return "tells its hidden layers" in str(error)
    return False


def _sees_tasks(agent: Agent) -> bool:
    return agent.sees_task_starts or agent.sees_task_ends


def _speeds(path: Path) -> dict[str, str]:
    """By agent, its speed relative to base; {} without such a file."""
    if not path.exists():
        return {}
    with path.open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["section"] == "agents" and row["replicas"] == "1"]
    return {
        "base": "1",
        **{row["what"]: f"{float(row['ratio']):.2f}" for row in rows if row["against"] == "base"},
    }


def _scores(study: Path) -> dict[str, str]:
    """By agent, the mean score of its best configuration; {} if there are several, for several streams."""
    best, _ = only_best(runs.load(study))
    if "agent" not in best.groups or best.groups["agent"].duplicated().any():
        return {}
    means = best.runs[best.runs["status"] == "completed"].groupby("group")["score"].mean()
    marks = ["" if score.higher_is_better else " ↓" for score in best.scores]
    return {
        str(best.groups.loc[group, "agent"]): f"{mean:.3f}{marks[group]}" for group, mean in means.items()
    }


def results_of(agent: str, measured: Measured) -> str:
    """An agent's scores and speed beside those of base, as a section of its page; empty without any."""
    speeds, studies = measured
    rows = [
        f"| [{study}](../../results/{study}/README.md) | {of[agent]} | {of.get('base', '')} |"
        for study, of in studies.items()
        if agent in of
    ]
    if agent in speeds:
        rows.append(f"| speed on a CPU | {speeds[agent]} | {speeds['base']} |")
    return (
        "\n".join(("## Measured", "", "| | its best | base |", "| --- | ---: | ---: |", *rows))
        if rows
        else ""
    )


def _page(group: str, name: str, measured: str) -> str:
    summary, text, content = _read(group, name)
    parts = [f"# {name}", summary, f"```bash\npython scripts/train.py {group}={name}\n```"]
    target = content.get("_target_")
    if target:
        located = schema.locate(target)
        module = importlib.import_module(located.__module__)
        if inspect.isclass(located):
            parts += [_docstring(module.__doc__ or "")]
        parts += [_docstring(located.__doc__ or ""), _keys(located)]
    parts += [measured, "## Its config", f"```yaml\n# conf/{group}/{name}.yaml\n{text.rstrip()}\n```"]
    if target:
        parts += [f"Source: `{module.__name__.replace('.', '/')}.py`, `{located.__name__}`."]
    return "\n\n".join(part for part in parts if part) + "\n"


def _keys(located: Any) -> str:
    """Which keys the runs of one population may differ in."""
    listed = ", ".join(f"`{name}`" for name in sorted(schema.number_fields(located)))
    return f"Runs that differ only in {listed} (and in their seed) train as one population." if listed else ""


def _docstring(text: str) -> str:
    """A docstring as Markdown: its paragraphs, and what stands apart from them as it stands."""
    return "\n\n".join(_block(block) for block in inspect.cleandoc(text).split("\n\n"))


def _block(block: str) -> str:
    is_formula = re.search(r"<-|~|\^|  +| = |->", block) and not re.search(r"[.:]$", block.strip())
    if is_formula or block.startswith(" "):
        return f"```text\n{block}\n```"
    return re.sub(r"([<*\[\]|])", r"\\\1", block)


def _measures() -> str:
    rows = [
        f"| [`{name}`](measures/{name}.md) | {_first_sentence(name)} | {facts['recorded_by']} |"
        for name, facts in MEASURES.items()
    ]
    table = "\n".join(("| measure | what it is | recorded by |", "| --- | --- | --- |", *rows))
    tree = "\n".join(("```{toctree}", ":hidden:", "", *(f"measures/{name}" for name in MEASURES), "```"))
    return "\n\n".join(("# Measures", _docstring(metrics.__doc__ or ""), table, tree)) + "\n"


def _measure(name: str) -> str:
    facts = MEASURES[name]
    table = f"| in tables | recorded by |\n| --- | --- |\n| {facts['in_tables']} | {facts['recorded_by']} |"
    about = _docstring(getattr(metrics, name).__doc__ or "")
    source = f"Source: `continual/metrics.py`, `{name}`."
    return "\n\n".join((f"# {name}", facts["use"], table, "## Definition", about, source)) + "\n"


def _first_sentence(name: str) -> str:
    docstring = inspect.cleandoc(getattr(metrics, name).__doc__ or "")
    return _block(docstring.partition("\n\n")[0].replace("\n", " "))
