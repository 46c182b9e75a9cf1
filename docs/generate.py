"""Pages that are made from the program itself: one for each option in conf/, and one for the measures."""

import importlib
import inspect
import re
import shutil
from pathlib import Path
from typing import Any

import yaml

from continual import metrics, schema

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


def write(folder: Path) -> None:
    """Write all pages into this folder, and nothing else that was there."""
    shutil.rmtree(folder, ignore_errors=True)
    for group, name, title, introduction in GROUPS:
        (folder / name).mkdir(parents=True)
        for option in options(group):
            (folder / name / f"{option}.md").write_text(_page(group, option), encoding="utf-8")
        (folder / f"{name}.md").write_text(_index(group, name, title, introduction), encoding="utf-8")
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


def _index(group: str, folder: str, title: str, introduction: str) -> str:
    rows = [f"| [`{name}`]({folder}/{name}.md) | {_read(group, name)[0]} |" for name in options(group)]
    table = "\n".join((f"| `{group}=` | |", "| --- | --- |", *rows))
    tree = "\n".join(
        ("```{toctree}", ":hidden:", "", *(f"{folder}/{name}" for name in options(group)), "```")
    )
    return "\n\n".join((f"# {title}", introduction, table, tree)) + "\n"


def _page(group: str, name: str) -> str:
    summary, text, content = _read(group, name)
    parts = [f"# {name}", summary, f"```bash\npython scripts/train.py {group}={name}\n```"]
    target = content.get("_target_")
    if target:
        located = schema.locate(target)
        module = importlib.import_module(located.__module__)
        if inspect.isclass(located):
            parts += [_docstring(module.__doc__ or "")]
        parts += [_docstring(located.__doc__ or ""), _keys(located)]
    parts += ["## Its config", f"```yaml\n# conf/{group}/{name}.yaml\n{text.rstrip()}\n```"]
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
