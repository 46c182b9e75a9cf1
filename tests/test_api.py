"""`continual.train` and `continual.load`: from a script, a notebook, a thread; what they say of a mistake."""

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import hydra
import pandas as pd
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.version import VersionBase
from omegaconf import OmegaConf

import continual
from continual import UserError, building
from continual.cli.releases import DEFAULTS_OF_1_3
from continual.cli.sweeping import Trained
from continual.tracking.lock import FolderLock
from tests import tiny
from tests.command_line import everything_in, written
from tests.sweep.subprocesses import ROOT, sweep_arguments, until


@pytest.fixture
def overrides(npz: Path, workplace: Path) -> tuple[str, ...]:
    """The overrides of runs that take a blink; `workplace` is the current folder."""
    return (*tiny.OVERRIDES, f"env.dataset.path={npz}")


def test_a_grid_is_trained_as_populations_and_loaded(overrides: tuple[str, ...], workplace: Path) -> None:
    runs = continual.train(
        *overrides, "agent=l2_init,base", "seed=range(2)", folder=workplace / "mine", workers=1
    )
    assert sorted(runs.runs["seed"]) == [0, 0, 1, 1]
    assert set(runs.runs["status"]) == {"completed"}
    assert set(runs.tasks["agent"]) == {"l2_init", "base"}
    assert len(runs.tasks) == 4 * 2
    summaries = [json.loads((workplace / "mine" / name / "summary.json").read_text()) for name in "0123"]
    assert [one["replicas"] for one in summaries] == [2] * 4
    again = continual.load(workplace / "mine")
    assert again.tasks.equals(runs.tasks)


def test_the_same_call_resumes_and_leaves_finished_runs_alone(
    overrides: tuple[str, ...], workplace: Path
) -> None:
    continual.train(*overrides, folder="mine", workers=1)
    before = written(workplace / "mine")
    runs = continual.train(*overrides, "seed=0,1", folder="mine", workers=1)
    assert sorted(runs.runs["seed"]) == [0, 1]
    after = written(workplace / "mine")
    assert {path: after[path] for path in before} == before


def test_it_trains_what_the_command_line_trains(
    overrides: tuple[str, ...], workplace: Path, cli: Any
) -> None:
    grid = ("agent=l2", "seed=3,4", "agent.l2_weight=1e-2,1e-3")
    continual.train(*overrides, *grid, folder="here", workers=1)
    assert cli("-m", *overrides, *grid, "hydra.sweep.dir=there", "hydra.launcher.workers=1").code == 0
    for number in "0123":
        for name in ("tasks.csv", ".hydra/config.yaml"):
            one, other = (workplace / place / number / name for place in ("here", "there"))
            assert one.read_bytes() == other.read_bytes()


def test_each_call_without_a_folder_has_a_new_one(overrides: tuple[str, ...], workplace: Path) -> None:
    for _ in range(3):
        continual.train(*overrides, workers=1)
    assert len(list(workplace.glob("outputs/*/*/0/summary.json"))) == 3


def test_a_folder_of_own_options(overrides: tuple[str, ...], workplace: Path) -> None:
    own = workplace / "o'wn, [configs]"
    (own / "agent").mkdir(parents=True)
    (own / "agent" / "mine.yaml").write_text("_target_: continual.agents.l2.L2\nl2_weight: 0.5\n")
    runs = continual.train(*overrides, "agent=mine,base", folder="mine", workers=1, config_dir=own)
    assert set(runs.tasks["agent"]) == {"mine", "base"}


def test_what_hydra_was_before_it_is_after(overrides: tuple[str, ...], workplace: Path) -> None:
    """The caller may have started Hydra for configs of its own."""
    (workplace / "theirs").mkdir()
    (workplace / "theirs" / "app.yaml").write_text("x: 1\n")
    # Defaults of their own, too, where Hydra has others than the program's.
    defaults = {"version_base": "1.2"} if DEFAULTS_OF_1_3 else {}
    with hydra.initialize_config_dir(str(workplace / "theirs"), **defaults):
        base = VersionBase.instance().version_base
        HydraConfig.instance().cfg = OmegaConf.create({"hydra": {"job": {"name": "theirs"}}})
        running = GlobalHydra.instance().hydra
        continual.train(*overrides, folder="mine", workers=1)
        with pytest.raises(UserError):
            continual.train("agnet=l2")
        assert GlobalHydra.instance().hydra is running
        assert HydraConfig.instance().cfg.hydra.job.name == "theirs"
        assert VersionBase.instance().version_base == base
        assert hydra.compose("app").x == 1
    assert not GlobalHydra.instance().is_initialized()


def test_from_threads(overrides: tuple[str, ...], workplace: Path) -> None:
    """Where no signal can be caught; two at a time compose in turns, and train as if alone."""
    long = (*overrides, "env.steps_per_task=200")
    found: dict[str, pd.DataFrame] = {}

    def train(name: str) -> None:
        found[name] = continual.train(*long, f"seed={name}", folder=f"sweep{name}", workers=1).tasks

    threads = [threading.Thread(target=train, args=(name,)) for name in "1234"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in "1234":
        alone = continual.train(*long, f"seed={name}", folder=f"alone{name}", workers=1).tasks
        pd.testing.assert_frame_equal(found[name].drop(columns="run"), alone.drop(columns="run"))


def test_each_thread_has_networks_of_its_own(compose: Any) -> None:
    """PyTorch's functional_call puts its parameters into the module, where another thread would find them."""
    learners = []
    thread = threading.Thread(target=lambda: learners.append(building.prepare(compose())[0]))
    thread.start()
    here, _ = building.prepare(compose())
    thread.join()
    assert building.prepare(compose())[0] is here
    assert learners[0].network is not here.network


PROGRAM = """
import continual
runs = continual.train({overrides}, "network.hidden_sizes=[9],[11]", folder="mine", workers=2)
print("statuses", sorted(set(runs.runs["status"])), len(runs.runs))
"""


@pytest.mark.parametrize("way", ["a script without a guard", "standard input"])
def test_workers_do_not_import_the_main_module(overrides: tuple[str, ...], workplace: Path, way: str) -> None:
    """A notebook's cells and a script on standard input cannot be imported; a script would train again."""
    program = PROGRAM.format(overrides=", ".join(map(repr, overrides)))
    (workplace / "program.py").write_text(program)
    finished = subprocess.run(
        [sys.executable, "-" if "input" in way else "program.py"],
        input=program if "input" in way else None,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == "statuses ['completed'] 2\n"
    assert "Traceback" not in finished.stderr


def slow_runs(npz: Path) -> list[str]:
    """Overrides of two runs that can be interrupted."""
    arguments = sweep_arguments(npz, Path("unused"), seeds=1)
    return [one for one in arguments if not one.startswith(("-m", "hydra."))]


def test_a_notebook_that_was_restarted_in_the_middle(npz: Path, workplace: Path) -> None:
    """The kernel is killed, and so are in time its workers: the same call then resumes, byte for byte."""
    arguments = [
        a for a in sweep_arguments(npz, workplace / "x", seeds=1) if not a.startswith(("-m", "hydra."))
    ]
    (workplace / "cell.py").write_text(
        f"import continual\ncontinual.train(*{arguments!r}, folder='mine', workers=2)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    slowly = environment | {"CONTINUAL_TEST_STEP_SECONDS": "0.1"}
    kernel = subprocess.Popen([sys.executable, "cell.py"], env=slowly, stderr=subprocess.DEVNULL)
    until(lambda: len(list(workplace.glob("mine/*/checkpoint.pt"))) == 2)
    kernel.kill()
    kernel.wait()
    subprocess.run([sys.executable, "cell.py"], env=environment, check=True, capture_output=True)
    shutil.copytree(workplace / "mine", workplace / "killed")
    shutil.rmtree(workplace / "mine")
    subprocess.run([sys.executable, "cell.py"], env=environment, check=True, capture_output=True)
    for number in "01":
        one, other = (workplace / place / number / "tasks.csv" for place in ("killed", "mine"))
        assert one.read_bytes() == other.read_bytes()


# Mistakes


@pytest.mark.parametrize(
    ("given", "more", "said"),
    [
        (["agnet=l2"], {}, "agnet: no such key; did you mean agent?"),
        (
            ["agent=l2,l2_int"],
            {},
            "job 1 (agent=l2_int): agent=l2_int: no such option; did you mean l2_init?",
        ),
        (["seed=interval(0,1)"], {}, "seed=interval(0,1): a grid takes a list or a range of values; .*"),
        (["-m", "seed=0"], {}, "-m: .* give overrides.*"),
        ([3], {}, "3: overrides are texts, such as 'agent=l2_init'."),
        (["seed=0"], {"workers": 0}, "hydra.launcher.workers: must be .*, not 0."),
        (["seed=0", "hydra/launcher=slurm"], {"workers": 2}, "hydra.launcher.workers: no such key; .*"),
        (["hydra.sweep.dir=x"], {"folder": "y"}, "hydra.sweep.dir: given twice, .*"),
        (["seed=0"], {"config_dir": "nowhere"}, "nowhere: there is no such folder of configs."),
        (
            ["seed=0"],
            {"folder": "file/x"},
            "the output folder file/x cannot be written .*",
        ),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_is_written(
    workplace: Path, capfd: pytest.CaptureFixture[str], given: list[Any], more: dict[str, Any], said: str
) -> None:
    Path("file").touch()
    with pytest.raises(UserError) as caught:
        continual.train(*given, **more)
    pattern = ".*".join(map(re.escape, said.split(".*")))
    assert re.fullmatch(pattern, str(caught.value)), str(caught.value)
    assert capfd.readouterr() == ("", "")
    assert everything_in(workplace) == {"file"}


def test_a_notebook_shows_the_sentence_alone(workplace: Path) -> None:
    """The terminal's IPython shows errors with the function that a notebook's kernel has."""
    mistake = "import continual; continual.train('agnet=l2')"
    command = [sys.executable, "-m", "IPython", "--colors=NoColor", "-c", mistake]
    shown = subprocess.run(command, capture_output=True, text=True)
    assert shown.stdout + shown.stderr == "ConfigError: agnet: no such key; did you mean agent?\n"


@pytest.mark.usefixtures("workplace")
def test_a_folder_that_is_not_there() -> None:
    with pytest.raises(UserError, match=r"^nowhere: no such folder\.$"):
        continual.load("nowhere")


def test_a_folder_that_another_process_trains(overrides: tuple[str, ...], workplace: Path) -> None:
    with FolderLock(workplace / "mine"), pytest.raises(UserError, match="mine is in use by process"):
        continual.train(*overrides, folder="mine", workers=1)
    assert everything_in(workplace) == {"mine", "mine/.lock"}


def test_a_run_that_fails_is_a_row_and_is_warned_of(
    overrides: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "continual.api"):
        runs = continual.train(
            *overrides,
            "+agent.fate=raises,fine",
            "agent._target_=tests.sweep.faulty.Faulty",
            folder="mine",
            workers=1,
        )
    assert sorted(runs.runs["status"]) == ["completed", "failed"]
    (warning,) = [record.getMessage() for record in caplog.records if record.name == "continual.api"]
    assert warning.startswith("1 of 2 runs did not finish, such as mine/0: RuntimeError")


def test_results_that_are_not_there_yet(
    overrides: tuple[str, ...], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after `hydra.launcher.detach=true`; tests/sweep/test_slurm.py has it with a cluster."""
    monkeypatch.setattr("continual.api.launch", lambda *_, **__: Trained(workplace, [], is_detached=True))
    with pytest.raises(
        UserError, match=rf"^{workplace}: its runs are in the queue and have no results yet; "
    ):
        continual.train(*overrides)


def test_a_signal_stops_it_with_checkpoints(npz: Path, workplace: Path) -> None:
    arguments = [
        a for a in sweep_arguments(npz, workplace / "x", seeds=1) if not a.startswith(("-m", "hydra."))
    ]
    (workplace / "program.py").write_text(
        "import continual\n"
        f"try:\n    continual.train(*{arguments!r}, folder='mine', workers=1)\n"
        "except continual.Stopped as error:\n    print('stopped:', error)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CONTINUAL_TEST_STEP_SECONDS": "0.1"}
    process = subprocess.Popen(
        [sys.executable, "program.py"], env=environment, stdout=subprocess.PIPE, text=True
    )
    until((workplace / "mine" / "0" / "checkpoint.pt").exists)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out.startswith("stopped: stopped, with checkpoints written; to resume: the same command again")


def test_importing_the_package_costs_nothing() -> None:
    code = (
        "import sys, continual; continual.train, continual.load, continual.UserError; "
        "print([m for m in ('torch', 'pandas', 'hydra', 'wandb', 'rich') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out == "[]\n"
