"""What the README shows is true: its commands compose, its agent trains, its lists are those of conf/."""

import csv
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from continual.cli.composing import Composer
from continual.cli.grid import GridSweeper
from continual.cli.optuna import OptunaSweeper
from continual.config import check_config

ROOT = Path(__file__).parents[1]
README = re.sub(r"\\\n +", "", (ROOT / "README.md").read_text())


def commands(script: str) -> list[str]:
    """The README's command lines that call a script, without comments."""
    return re.findall(rf"^    python scripts/{script}\.py(.*?)(?:\s+#.*)?$", README, re.MULTILINE)


@pytest.mark.parametrize("command", commands("train"))
def test_every_training_command_composes(command: str) -> None:
    words = [word for word in shlex.split(command) if word != "-m" and "weight_clipping" not in word]
    words = [word for word in words if not word.startswith("agent.kappa")]
    composer = Composer()
    composer.swept(words)
    chooses = OptunaSweeper() if "hydra/sweeper=optuna" in words else GridSweeper()
    own = [word for word in words if not word.startswith(("hydra.", "hydra/"))]
    jobs = chooses.foreseen(own, composer)
    without_seeds = {tuple(o for o in job if not o.startswith(("seed=", "device=cuda"))) for job in jobs}
    for job in without_seeds:
        check_config(composer.job(job, 0).config)


def test_the_agent_of_the_readme_trains_as_one_population(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (config,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "weight_clipping.py").write_text(code)
    (tmp_path / "conf" / "agent").mkdir(parents=True)
    yaml = config.replace("continual.agents.weight_clipping", "weight_clipping")
    (tmp_path / "conf" / "agent" / "weight_clipping.yaml").write_text(yaml)
    subprocess.run(
        [
            *(sys.executable, ROOT / "scripts" / "train.py", "-m", "--config-dir", tmp_path / "conf"),
            *("agent=weight_clipping", "agent.kappa=0.5,4", f"hydra.sweep.dir={tmp_path / 'sweep'}"),
            *("env.num_tasks=2", "env.steps_per_task=40", "wandb.mode=disabled", "optimizer.lr=1e-2"),
            *("engine.compile=false", "hydra.launcher.workers=1"),
        ],
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        check=True,
        capture_output=True,
    )
    magnitudes = []
    for job in ("0", "1"):
        with open(tmp_path / "sweep" / job / "tasks.csv") as file:
            magnitudes.append(float(list(csv.DictReader(file))[-1]["weight_magnitude"]))
    # Weights of an untrained network are half of their bound on average: a bound of a half clips them.
    assert magnitudes[0] < 0.8 * magnitudes[1]


@pytest.mark.parametrize("group", ["agent", "network", "env", "env/dataset", "optimizer"])
def test_the_config_tree_lists_every_option(group: str) -> None:
    tree = README.split("## The config tree")[1].split("## Adding an agent")[0]
    (listed,) = re.findall(rf"^      {group}/ +(.*(?:\n {{30,}}.*)*)", tree, re.MULTILINE)
    options = {path.stem for path in (ROOT / "conf" / group).glob("*.yaml")}
    assert set(re.findall(r"\w+", listed)) == options
