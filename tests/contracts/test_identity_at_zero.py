"""With its strength at nothing, a method is base bit for bit."""

import pytest
import torch

from tests import tiny
from tests.contracts.every import AGENTS

# What switches each method off. Those that are not here have nothing that does.
OFF = {
    "l2": ("agent.l2_weight=0",),
    "l2_init": ("agent.l2_weight=0",),
    "l1_init": ("agent.l1_weight=0",),
    "huber_init": ("agent.huber_weight=0",),
    "hybrid_init": ("agent.l2_weight=0", "agent.l1_weight=0"),
    "ewc": ("agent.ewc_weight=0",),
    "l2_init_plus_ewc": ("agent.ewc_weight=0", "agent.plus.l2_weight=0"),
    "shrink_and_perturb": ("agent.shrink=0", "agent.perturb_scale=0"),
    "redo": ("agent.recycle_period=1000000",),
    "continual_backprop": ("agent.replacement_rate=0",),
    "weight_clipping": ("agent.kappa=1e30",),
    "spectral": ("agent.spectral_weight=0",),
    "parseval": ("agent.parseval_weight=0",),
    "wasserstein": ("agent.wasserstein_weight=0",),
    "l2_er": ("agent.l2_weight=0", "agent.rank_weight=0"),
    "hare_and_tortoise": ("agent.period=1000000",),
    "regrama": ("agent.recycle_period=1000000",),
    "soft_parameter_reset": ("agent.drift_rate=0",),
    "calibrated_partial_resets": ("agent.period=2", "agent.reset_rate=0"),
    "selective_weight_reinit": ("agent.period=2", "agent.reinit_rate=0"),
    "self_normalized_resets": ("agent.first_threshold=1000000", "agent.threshold_period=1000000"),
    "soft_weight_rescaling": ("agent.rescale_rate=0",),
    "c_chain": ("agent.relative_weight=0", "agent.first_weight=0"),
    "plasticity_injection": ("agent.injection_step=1000000",),
}
# Another network, another start of each task, or a gate that is never quite open.
NEVER_OFF = {
    "base",
    "layer_norm",
    "crelu",
    "normalize_and_project",
    "upgd",
    "dash",
    "fire",
    "full_reset",
    "head_reset",
}


@pytest.mark.parametrize("agent", OFF)
def test_is_base(compose, agent: str) -> None:
    ends = []
    for overrides in (["agent=base"], [f"agent={agent}", *OFF[agent]]):
        population = tiny.population([compose(*overrides)])
        for task in range(2):
            population.start_task(task)
            population.advance(20)
            population.end_task()
        state = population.replica_state(0)
        ends.append({name: value for name, value in state.items() if name.startswith("params/")})
    base, other = ends
    held = {name: value for name, value in other.items() if name.startswith(("params/old.", "params/fresh."))}
    assert not any(value.any() for value in held.values())
    tiny.assert_equal(base, {name: value for name, value in other.items() if name not in held})
    assert torch.isfinite(ends[0]["params/output.bias"]).all()


def test_every_method_is_here_or_says_why_not() -> None:
    assert {*OFF, *NEVER_OFF} == set(AGENTS)
