"""A user's mistake: one sentence, exit code 1 or 2, before data are read, and nothing is written."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from continual import building, training
from continual.errors import ConfigError
from tests.command_line import CommandLine, Finished, everything_in
from tests.datasets.writers import random_arrays, write_mnist

# What is typed, and what the sentence says.
MISTAKES = [
    # names
    ("agent=l2 agent.l2_wieght=1", "agent.l2_wieght: no such key; did you mean l2_weight?"),
    ("agent=l2 +agent.l2_wieght=1", "agent.l2_wieght: no such key; did you mean l2_weight?"),
    ("agent=l2 ++agent.l2_wieght=1", "agent.l2_wieght: no such key; did you mean l2_weight?"),
    ("agent.shrink=1", "agent.shrink: no such key; it is a key of agent=shrink_and_perturb."),
    ("agent.l2_weight=1", "agent.l2_weight: no such key; it is a key of agent=.*, agent=l2, .*."),
    ("agent.l2_wieght=1", "agent.l2_wieght: no such key; there is nothing to set here."),
    (
        "seed=[0,1]",
        "seed: must be a valid integer, not [0, 1]; a sweep over several has -m and no brackets.",
    ),
    ("network.hidden_sizes=[[1,2],3]", "network.hidden_sizes[0]: must be a valid integer, not [1, 2]."),
    ("agent.lr=1", "agent.lr: no such key; did you mean optimizer.lr?"),
    ("num_tasks=3", "num_tasks: no such key; did you mean env.num_tasks?"),
    ("engine.thread=3", "engine.thread: no such key; did you mean threads?"),
    ("wandb.foo=1", "wandb.foo: no such key; possible: mode, project, entity, group, name, tags."),
    ("agent=l2_int", "agent=l2_int: no such option; did you mean l2_init?"),
    ("experiment=quickstrat", "experiment=quickstrat: no such option; did you mean quickstart?"),
    ("env/dataset=mnits", "env/dataset=mnits: no such option; did you mean mnist?"),
    ("agnet=l2", "agnet: no such key; did you mean agent?"),
    ("+agnet=l2", "agnet: no such key; did you mean agent?"),
    ("env/datasets=mnist", "env/datasets: no such key; did you mean env/dataset?"),
    ("agent@foo=l2", "agent@foo: no such key; did you mean one of agent, .*?"),
    ("~optimizer.nothing", "~optimizer.nothing: no such key."),
    (
        "~optimizer.lr optimizer.lr=1",
        "optimizer.lr: no such key; possible: betas, eps, weight_decay, clip_norm.",
    ),
    ("~agent=l2", "~agent=l2: is not among the chosen options."),
    ("~seed", "seed: missing; give it a value."),
    ("env/dataset=npz", "env.dataset.path: missing; give it a value."),
    ("agent=null", "agent=null: a config group takes the name of one of its options."),
    ("+agent=l2", "agent: chosen already; leave out the + to choose another."),
    ("+seed=1", "seed: is there already; leave out the +."),
    ("-m seed=0 hydra/launcher=slrum", "hydra/launcher=slrum: no such option; .*"),
    ("hydra.job.nmae=x", "hydra.job.nmae: no such key; did you mean name?"),
    ("--config-name=foo", "foo: there is no such config in the config folders."),
    ("--config-dir=nowhere", "nowhere: there is no such folder of configs."),
    # values
    ("optimizer.lr=fast", "optimizer.lr: must be a valid number, not 'fast'."),
    ("optimizer.lr=0", "optimizer.lr: must be greater than 0, not 0."),
    ("optimizer.lr=-1e-3", "optimizer.lr: must be greater than 0, not -0.001."),
    ("optimizer.lr=nan", "optimizer.lr: must be a finite number, not nan."),
    ("optimizer.lr=inf", "optimizer.lr: must be a finite number, not inf."),
    ("optimizer.betas=[0.9]", "optimizer.betas: must have at least 2 items, not [0.9]."),
    ("optimizer.betas=[0.9,1.5]", "optimizer.betas[1]: must be less than 1, not 1.5."),
    ("optimizer=sgd optimizer.nesterov=true", "optimizer.nesterov: needs a momentum above 0."),
    ("agent=l2 agent.l2_weight=-1", "agent.l2_weight: must be greater than or equal to 0, not -1."),
    ("seed=1.5", "seed: must be a valid integer, not 1.5."),
    ("seed=abc", "seed: must be a valid integer, not 'abc'."),
    ("env.num_tasks=0", "env.num_tasks: must be greater than or equal to 1, not 0."),
    ("env.labels=unifrom", "env.labels: must be 'uniform' or 'permuted', not 'unifrom'."),
    ("engine.compile=maybe", "engine.compile: must be 'auto' or a valid boolean, not 'maybe'."),
    ("wandb=offline", "wandb: must be a valid dictionary, not 'offline'."),
    ("hydra.mode=FOO", "hydra.mode: Invalid value 'FOO', expected one of [RUN, MULTIRUN]."),
    ("device=tpu", "device: 'tpu' is unknown; possible are auto, cpu, cuda and cuda:N."),
    ("device=cuda", "device: cuda was asked for, but there is no CUDA device here; use device=cpu."),
    (
        "agent._target_=nowhere.Mine",
        "agent._target_: cannot import 'nowhere.Mine' (No module named 'nowhere').",
    ),
    ("agent._target_=.Mine", "agent._target_: cannot import '.Mine' ('.Mine' is not a dotted name)."),
    ("data_dir=${nothing}", "data_dir: Interpolation key 'nothing' not found."),
    ("data_dir=${oc.env:NOTHING}", "data_dir: Environment variable 'NOTHING' not found."),
    ("hydra.run.dir=${nothing}", "hydra.run.dir: Interpolation key 'nothing' not found."),
    # grammar
    ("seed", "seed: cannot be read; write key=value, .*"),
    ("=1", "=1: there is no key before the =."),
    ("-m seed=0, 1", "seed=0,: cannot be read; write key=value, without spaces around = or after a comma."),
    ("--seed 1", "unrecognized arguments: --seed; overrides have no dashes (seed=1); see --help."),
    ("seed==3", "seed==3: cannot be read; write key=value, .*"),
    ("agent.l2_weight={", "agent.l2_weight={: cannot be read; write key=value, .*"),
    (
        "seed=0,1",
        "seed=0,1: several values; sweep over them with -m, or write [...] around them where a list is one "
        "value.",
    ),
    ("seed=choice(0,1)", "seed=choice(0,1): several values; sweep over them with -m."),
    ("--run -m", "only one of --run and --multirun can be specified."),
    ("--runn seed=1", "unrecognized arguments: --runn; overrides have no dashes (seed=1); see --help."),
    (
        "agent=[l2,l2_init]",
        "agent=[l2,l2_init]: agent takes the name of one option; to sweep .*, -m agent=l2,l2_init.",
    ),
    (
        "-m agent=[l2,base],l2",
        "agent=[l2,base],l2: agent takes the name of one option; to sweep over .*-m agent=l2,base.",
    ),
    ("~engine.threads", "engine.threads: missing; give it a value."),
    (
        "hydra.job.name=a/b",
        "hydra.job.name: must be a name without slashes, .* 'a/b'.",
    ),
    ("hydra.job.chdir=true", "hydra.job.chdir: the paths of a config start where the command is given; .*"),
    ("hydra.output_subdir=null", "hydra.output_subdir: a run's config is kept in .hydra; leave it as it is."),
    (
        "+hydra.callbacks.mine._target_=os.getcwd",
        "hydra.callbacks: no callbacks are called here; leave it empty.",
    ),
    ("hydra.run.dir=null", "hydra.run.dir: field 'hydra.run.dir' is not Optional."),
    ("-m seed=0 hydra.launcher=null", "hydra.launcher: missing; choose one with hydra/launcher=..."),
    (
        "-m seed=0 hydra.launcher._target_=os.getcwd",
        "hydra.launcher.workers: no such key; .*",
    ),
    ("-m seed=0 hydra.sweeper._target_=os.getcwd", "hydra.sweeper.params: no such key; .*"),
    ("-m seed=0 hydra.sweep.dir=a,b", "hydra.sweep.dir=a,b: Hydra's own keys have one value in a sweep."),
    # agents that are a network
    (
        "-m agent=base,crelu network.activation=tanh",
        "job 1 (agent=crelu network.activation=tanh): agent=crelu: it is network.activation=crelu, and tanh "
        "was given; choose agent=base.",
    ),
    ("agent=layer_norm network.layer_norm=false", "agent=layer_norm: it is network.layer_norm=True, .*"),
    # groups that are written as keys
    (
        "optimizer.schedule=cosine",
        "optimizer.schedule=cosine: options are chosen by their group; write optimizer/schedule=cosine.",
    ),
    ("agent.plus=l2", "agent.plus=l2: options are chosen by their group; write agent@agent.plus=l2."),
    ("schedule=cosine", "schedule: no such key; did you mean optimizer/schedule?"),
    ("dataset=mnist", "dataset: no such key; did you mean env/dataset?"),
    (
        "experiment=dohare2024",
        "experiment=dohare2024: no such option; possible: dohare2024/continual_imagenet, .*",
    ),
    (
        "experiment=lillo2026/permuted_mnits",
        "experiment=lillo2026/permuted_mnits: no such option; did you mean lillo2026/permuted_mnist?",
    ),
    # what is for sweeps, without -m, and the reverse
    ("hydra.sweep.dir=x", "hydra.sweep.dir: is for sweeps; add -m or, for the folder of a single run, .*"),
    ("sweep=paper agent=l2", "sweep: is for sweeps; add -m."),
    ("hydra/launcher=slurm", "hydra/launcher: is for sweeps; add -m."),
    ("hydra/sweeper=optuna", "hydra/sweeper: is for sweeps; add -m."),
    ("hydra.launcher.workers=3", "hydra.launcher.workers: is for sweeps; add -m."),
    ("-m seed=0 hydra.run.dir=x", "hydra.run.dir: is for a single run; a sweep has hydra.sweep.dir, .*"),
    # sweeps: all jobs are checked first
    ("-m seed=0,abc,1", "job 1 (seed=abc): seed: must be a valid integer, not 'abc'."),
    (
        "-m optimizer.lr=1e-3,-1 agent=l2",
        "job 1 (optimizer.lr=-1 agent=l2): optimizer.lr: must be greater than 0, not -1.",
    ),
    ("-m agent=base,l2_int", "job 1 (agent=l2_int): agent=l2_int: no such option; did you mean l2_init?"),
    (
        "-m agent=l2,base agent.l2_weight=1",
        "job 1 (agent=base agent.l2_weight=1): agent.l2_weight: not every agent here has this key; write "
        "'hydra.sweeper.optional={agent.l2_weight:[1]}' in its place, which is for l2 alone.",
    ),
    ("-m seed=0,1 agnet=l2", "agnet: no such key; did you mean agent?"),
    ("-m agent=base,null", "agent=base,null: a config group takes the name of one of its options."),
    ("-m seed=0,1 device=cuda", "job 0 (seed=0 device=cuda): device: cuda was asked for, .*"),
    ("-m seed=0 hydra.launcher.workers=0", "hydra.launcher.workers: must be 'auto' or greater .* 1, not 0."),
    ("-m seed=0 +hydra.launcher.wokers=2", "hydra.launcher.wokers: no such key; did you mean workers?"),
    (
        "-m seed=interval(0,1)",
        "seed=interval(0,1): a grid takes a list or a range of values; to search in an interval, add "
        "hydra/sweeper=optuna.",
    ),
    (
        "-m seed=0,1 hydra.sweep.subdir=same",
        "job 1 (seed=1): the output folder .*same is an earlier job's as well; "
        "let hydra.sweep.subdir differ, as ${hydra.job.num} does.",
    ),
    ("-m seed=0 hydra.sweep.dir=${nothing}", "hydra.sweep.dir: Interpolation key 'nothing' not found."),
]

# Those that only the data can tell.
MISTAKES_IN_DATA = [
    (
        "env.batch_size=801",
        "env.batch_size: 801 is more than the 800 images of a task (env.samples_per_task); "
        "at most 800 is possible.",
    ),
    (
        "env.samples_per_task=2000",
        "env.samples_per_task: 2000 is more than the dataset's 1437 training images; "
        "at most 1437 is possible.",
    ),
    (
        "-m env.batch_size=16,801",
        "job 1 (env.batch_size=801): env.batch_size: 801 is more than the 800 images of a task .*",
    ),
    (
        "env=permuted_mnist",
        "MNIST was not found, since .*here/data/MNIST/raw lacks train-images-idx3-ubyte, .*",
    ),
    (
        "env=permuted_mnist data_dir=damaged",
        ".*train-images-idx3-ubyte is damaged or not what it should be .*",
    ),
    (
        "env/dataset=npz env.dataset.path=none.npz",
        "There is no file .*none.npz: env.dataset.path must name .*",
    ),
    ("env/dataset=npz env.dataset.path=damaged.npz", "damaged.npz is damaged or not what it should be .*"),
    ("env/dataset=npz env.dataset.path=no_y_test.npz", "no_y_test.npz has no array y_test: it must hold .*"),
]


def says(wanted: str) -> re.Pattern[str]:
    """A pattern for the whole sentence: all is meant literally but for `.*`."""
    return re.compile(".*".join(re.escape(part) for part in wanted.split(".*")))


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test fails if data are read."""

    def read(node: str, files: object) -> None:
        raise AssertionError(f"{node} is read")

    monkeypatch.setattr(building, "_dataset", read)


@pytest.fixture
def damaged_data(workplace: Path) -> None:
    """Datasets that cannot be used."""
    x_train, y_train, x_test, y_test = random_arrays(30, 10)
    write_mnist(workplace / "damaged", x_train, y_train, x_test, y_test)
    (workplace / "damaged" / "MNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(b"nonsense")
    Path("damaged.npz").write_bytes(b"nonsense")
    np.savez("no_y_test.npz", x_train=x_train, y_train=y_train, x_test=x_test)


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize(("typed", "wanted"), MISTAKES, ids=[typed for typed, _ in MISTAKES])
def test_a_mistake_in_the_config(cli: CommandLine, workplace: Path, typed: str, wanted: str) -> None:
    assert says(wanted).fullmatch(cli(*typed.split()).error())
    assert everything_in(workplace) == set()


@pytest.mark.usefixtures("damaged_data")
@pytest.mark.parametrize(("typed", "wanted"), MISTAKES_IN_DATA, ids=[typed for typed, _ in MISTAKES_IN_DATA])
def test_a_mistake_in_the_data(cli: CommandLine, workplace: Path, typed: str, wanted: str) -> None:
    before = everything_in(workplace)
    assert says(wanted).fullmatch(cli(*typed.split()).error())
    assert everything_in(workplace) == before


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("typed", ["hydra.run.dir=file/run", "-m hydra.sweep.dir=file/sweep seed=0,1"])
def test_a_folder_that_cannot_be_made(cli: CommandLine, workplace: Path, typed: str) -> None:
    Path("file").touch()
    said = cli(*typed.split()).error()
    folder = "file/sweep" if "-m" in typed else "file/run"
    assert said == (
        f"the output folder {folder} cannot be written (Not a directory: file); "
        "choose another with hydra.run.dir or, for a sweep, hydra.sweep.dir."
    )
    assert everything_in(workplace) == {"file"}


@pytest.mark.usefixtures("unread")
def test_a_folder_with_too_long_a_name(cli: CommandLine, workplace: Path) -> None:
    said = cli("-m", "hydra.sweep.subdir=" + 300 * "x", "seed=0").error()
    assert re.match(r"job 0 \(seed=0\): the output folder .*x cannot be written \(File name too long: ", said)
    assert everything_in(workplace) == set()


@pytest.mark.usefixtures("unread")
def test_a_folder_without_the_right_to_write(
    cli: CommandLine, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operating system's refusal, which root never hears of a plain folder."""

    def refuse(dir: Path) -> None:
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    said = cli("hydra.run.dir=locked/run").error()
    assert said.startswith("the output folder locked/run cannot be written (Permission denied: .); choose")
    assert everything_in(workplace) == set()


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (
            "_target_: nowhere.Mine\n",
            "agent._target_: cannot import 'nowhere.Mine' (No module named 'nowhere').",
        ),
        (
            "l2_weight: 1\n",
            "agent._target_: missing; it must name a class, such as continual.agents.base.Base.",
        ),
        ("_target_: [\n", ".*agent/mine.yaml, line .*: this is no valid YAML (.*)."),
        (
            "_target_: continual.agents.l2.L2\nl2_wieght: 1\n",
            "agent.l2_wieght: no such key; did you mean l2_weight?",
        ),
    ],
)
def test_a_config_of_the_users_own(cli: CommandLine, workplace: Path, content: str, wanted: str) -> None:
    agent = workplace / "my_configs" / "agent"
    agent.mkdir(parents=True)
    (agent / "mine.yaml").write_text(content)
    before = everything_in(workplace)
    assert says(wanted).fullmatch(cli("--config-dir=my_configs", "agent=mine").error())
    assert everything_in(workplace) == before


def test_a_folder_that_holds_another_run(train: CommandLine, workplace: Path) -> None:
    assert train("hydra.run.dir=run").code == 0
    before = {path: path.stat().st_mtime_ns for path in workplace.rglob("*")}
    said = train("hydra.run.dir=run", "optimizer.lr=1", "agent=l2", "engine.threads=2").error()
    assert said == (
        "the output folder run holds a run whose config differs "
        "(agent._target_, optimizer.lr); "
        "choose another folder, or ask for the same config to resume it."
    )
    assert {path: path.stat().st_mtime_ns for path in workplace.rglob("*")} == before


def test_a_folder_that_holds_another_run_without_its_config(train: CommandLine, workplace: Path) -> None:
    assert train("hydra.run.dir=run").code == 0
    shutil.rmtree(workplace / "run" / ".hydra")
    said = train("hydra.run.dir=run", "seed=1").error()
    assert said.startswith("the output folder run holds a run whose config differs; choose another folder")


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("content", ["a: [", "", "- 1", "seed: 3", "seed: ${nothing}"])
def test_a_folder_that_holds_something_else(cli: CommandLine, workplace: Path, content: str) -> None:
    saved = workplace / "run" / ".hydra" / "config.yaml"
    saved.parent.mkdir(parents=True)
    saved.write_text(content)
    assert cli("hydra.run.dir=run").error() == (
        "run/.hydra/config.yaml is not the config of a run of this program; choose another output folder."
    )


def test_a_sweep_folder_that_holds_the_same_runs_with_another_config(
    train: CommandLine, workplace: Path
) -> None:
    """The same words mean something else after a YAML was edited."""
    mine = workplace / "agent" / "mine.yaml"
    mine.parent.mkdir()
    mine.write_text("_target_: continual.agents.l2.L2\nl2_weight: 1\n")
    command = (
        "-m",
        "--config-dir=.",
        "hydra.sweep.dir=sweep",
        "hydra.launcher.workers=1",
        "agent=mine",
        "seed=0,1",
    )
    assert train(*command).code == 0
    mine.write_text("_target_: continual.agents.l2.L2\nl2_weight: 2\n")
    before = {path: path.stat().st_mtime_ns for path in workplace.rglob("*")}
    said = train(*command).error()
    wanted = r"job 0 \(.*seed=0\): the output folder sweep/0 holds a run .* \(agent\.l2_weight\); choose"
    assert re.match(wanted, said)
    assert {path: path.stat().st_mtime_ns for path in workplace.rglob("*")} == before


@pytest.mark.parametrize("typed", ["agent=buggy", "-m agent=buggy seed=0,1"])
def test_a_bug_shows_where_it_is_and_nothing_is_written(
    cli: CommandLine, workplace: Path, monkeypatch: pytest.MonkeyPatch, typed: str
) -> None:
    (workplace / "buggy.py").write_text("1 / 0\n")
    (workplace / "agent").mkdir()
    (workplace / "agent" / "buggy.yaml").write_text("_target_: buggy.Agent\n")
    monkeypatch.syspath_prepend(workplace)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = everything_in(workplace)
    finished = cli("--config-dir=.", *typed.split())
    assert finished.code == 1
    assert "Traceback (most recent call last)" in finished.err
    assert 'buggy.py", line 1' in finished.err
    assert finished.err.endswith("ZeroDivisionError: division by zero\n")
    assert everything_in(workplace) == before


def test_an_error_within_the_run_is_one_sentence_too(
    train: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a dataset that vanishes after the check."""

    def vanish(*_: object) -> None:
        raise ConfigError("the dataset has vanished.")

    monkeypatch.setattr(training, "train", vanish)
    assert train("hydra.run.dir=run").error() == "the dataset has vanished."


@pytest.mark.parametrize("typed", ["hydra.run.dir=file/run", "-m seed=0,abc"])
def test_in_a_process_of_its_own(workplace: Path, typed: str) -> None:
    Path("file").touch()
    script = Path(__file__).parents[2] / "scripts" / "train.py"
    finished = subprocess.run([sys.executable, script, *typed.split()], capture_output=True, text=True)
    assert Finished(finished.returncode, finished.stdout, finished.stderr).error()
    assert everything_in(workplace) == {"file"}
