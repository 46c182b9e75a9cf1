"""sweep=paper is the published grid, for every agent, problem and optimizer."""

from collections.abc import Sequence

import hydra
import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from continual.cli.composing import config_folder
from continual.cli.releases import DEFAULTS_OF_1_3
from continual.cli.resolvers import register_resolvers
from continual.config import check_config, num_steps
from tests import tiny

STRENGTHS = {1e-2, 1e-3, 1e-4, 1e-5}
STEPS_PER_TASK = {
    "permuted_mnist": 625,
    "random_label_mnist": 30_000,
    "random_label_cifar": 30_000,
    "easy_hard_cifar100": 780,
    "continual_imagenet": 120,
}
GRIDS = {
    "base": {},
    "layer_norm": {},
    "crelu": {},
    "l2": {"agent.l2_weight": STRENGTHS},
    "l2_init": {"agent.l2_weight": STRENGTHS},
    "l1_init": {"agent.l1_weight": STRENGTHS},
    "huber_init": {"agent.huber_weight": STRENGTHS},
    "hybrid_init": {"agent.l2_weight": STRENGTHS, "agent.l1_weight": STRENGTHS},
    "shrink_and_perturb": {"agent.shrink": STRENGTHS, "agent.perturb_scale": STRENGTHS},
    "continual_backprop": {
        "agent.replacement_rate": {1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6},
        "agent.util_type": {"adaptable_contribution"},
        "agent.maturity_threshold": {100},
        "agent.decay_rate": {0.99},
    },
    "redo": {"agent.recycle_threshold": {0, 0.01, 0.1}},
}
CONFIGURATIONS = {  # Adam's, with its two step sizes
    "base": 2,
    "layer_norm": 2,
    "crelu": 2,
    "l2": 8,
    "l2_init": 8,
    "l1_init": 8,
    "huber_init": 8,
    "hybrid_init": 32,
    "shrink_and_perturb": 32,
    "continual_backprop": 12,
    "redo": 18,
}
STEP_SIZES = {("adam", env): {1e-3, 1e-4} for env in STEPS_PER_TASK} | {
    ("sgd", env): {1e-2, 1e-3} | ({0.1} if env in ("easy_hard_cifar100", "continual_imagenet") else set())
    for env in STEPS_PER_TASK
}


def jobs(*arguments: str) -> list[dict[str, object]]:
    """The values that the jobs of a sweep with these arguments set, as Hydra's sweeper makes them."""
    register_resolvers()
    with hydra.initialize_config_dir(str(config_folder()), **DEFAULTS_OF_1_3):
        fixed = [argument for argument in arguments if "," not in argument]
        config = hydra.compose("train", fixed, return_hydra_config=True)
        return [values(job) for job in split(config.hydra.sweeper.params, arguments)]


def split(params: dict[str, object], arguments: Sequence[str]) -> list[list[str]]:
    lines = [*(f"{key}={value}" for key, value in params.items()), *arguments]
    overrides = OverridesParser.create().parse_overrides(lines)
    (grid,) = BasicSweeper.split_arguments(overrides, max_batch_size=None)
    return grid


def values(job: Sequence[str]) -> dict[str, object]:
    pairs = [line.split("=", 1) for line in job]
    return {key: OmegaConf.create({"x": value}).x for key, value in pairs} | {
        key: float(value) for key, value in pairs if value[:1].isdigit()
    }


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("env", STEPS_PER_TASK)
@pytest.mark.parametrize("agent", GRIDS)
def test_grid(agent: str, env: str, optimizer: str) -> None:
    found = jobs("sweep=paper", f"agent={agent}", f"env={env}", f"optimizer={optimizer}")
    step_sizes = STEP_SIZES[optimizer, env]
    assert len(found) == 3 * CONFIGURATIONS[agent] * len(step_sizes) / 2
    assert len({tuple(job.items()) for job in found}) == len(found)
    expected = {**GRIDS[agent], "optimizer.lr": step_sizes, "seed": {0, 1, 2}}
    if agent == "redo":
        expected["agent.recycle_period"] = {STEPS_PER_TASK[env] * tasks for tasks in (1, 2, 5)}
    choices = {"sweep", "agent", "env", "optimizer"}
    assert {key for job in found for key in job} == set(expected) | choices
    for key, values in expected.items():
        assert {job[key] for job in found} == values, key


# What each of the other methods chooses among, from its paper or code, and the number of configurations.
OWN = {
    "calibrated_partial_resets": ({"reset_rate", "period", "utility_decay"}, 24),
    "c_chain": ({"relative_weight", "warmup"}, 8),
    "dash": ({"dash_alpha", "shrink_least"}, 6),
    "ewc": ({"ewc_weight"}, 5),
    "full_reset": ({"reinit"}, 2),
    "hare_and_tortoise": ({"period", "momentum"}, 6),
    "head_reset": ({"reinit"}, 2),
    "l2_er": ({"l2_weight", "rank_weight"}, 9),
    "l2_init_plus_ewc": ({"ewc_weight", "plus.l2_weight"}, 20),
    "parseval": ({"parseval_weight"}, 4),
    "plasticity_injection": ({"injection_step"}, 3),
    "regrama": ({"recycle_period", "recycle_threshold"}, 21),
    "selective_weight_reinit": ({"reinit_rate", "period"}, 6),
    "self_normalized_resets": ({"percentile", "threshold_period"}, 30),
    "soft_parameter_reset": ({"drift_rate", "s"}, 6),
    "soft_weight_rescaling": ({"rescale_rate"}, 5),
    "spectral": ({"spectral_weight", "power"}, 16),
    "upgd": ({"utility_decay", "noise"}, 16),
    "wasserstein": ({"wasserstein_weight"}, 4),
    "weight_clipping": ({"kappa"}, 5),
    # Nothing to choose.
    "fire": (set(), 1),
    "normalize_and_project": (set(), 1),
}


@pytest.mark.parametrize("agent", OWN)
def test_the_grid_of_a_method_of_its_own(agent: str) -> None:
    keys, count = OWN[agent]
    found = jobs("sweep=paper", f"agent={agent}", "env=permuted_mnist", "seed=0", "optimizer.lr=1e-3")
    assert len({tuple(job.items()) for job in found}) == len(found) == count
    chosen = {key for job in found for key in job if key.startswith("agent.")}
    assert chosen == {f"agent.{key}" for key in keys}
    for job in (found[0], found[-1]):
        pairs = ((key, job[key]) for key in chosen)
        own = [f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}" for key, value in pairs]
        check_config(tiny.compose(f"agent={agent}", "env=permuted_mnist", "device=cpu", *own))


def test_every_agent_has_its_grid_here() -> None:
    assert sorted({*GRIDS, *OWN}) == tiny.options("agent")


@pytest.mark.parametrize("env", tiny.options("env"))
def test_grids_count_the_tasks_of_every_env(env: str) -> None:
    """Where tasks differ in length, in tasks of the mean length."""
    found = jobs("sweep=paper", "agent=redo", f"env={env}")
    config = tiny.compose(f"env={env}")
    steps = num_steps(config) / config["env"]["num_tasks"]
    assert {job["agent.recycle_period"] for job in found} == {round(k * steps) for k in (1, 2, 5)}


def test_periods_follow_the_length_of_a_task() -> None:
    found = jobs("sweep=paper", "agent=redo", "env.steps_per_task=7")
    assert {job["agent.recycle_period"] for job in found} == {7, 14, 35}


def test_the_command_line_replaces_a_keys_grid() -> None:
    found = jobs("sweep=paper", "agent=l2", "seed=5", "agent.l2_weight=0.5,0.25")
    assert {job["seed"] for job in found} == {5}
    assert {job["agent.l2_weight"] for job in found} == {0.5, 0.25}
    assert len(found) == 4
