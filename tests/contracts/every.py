"""Every option of the config groups, by listing conf/, with settings under which it does something."""

import pytest

from tests import tiny

# In a few steps of a tiny network, the defaults of the methods that replace units do nothing; by default, EWC
# looks at no data.
_BUSY_AGENTS = {
    "ewc": ("agent.use_fisher=true",),
    "redo": ("agent.recycle_period=5", "agent.recycle_threshold=0.3"),
    "continual_backprop": ("agent.replacement_rate=0.1", "agent.maturity_threshold=4"),
    "regrama": ("agent.recycle_period=5", "agent.recycle_threshold=0.5"),
    "calibrated_partial_resets": ("agent.period=5", "agent.reset_rate=0.3"),
    "selective_weight_reinit": ("agent.period=5", "agent.reinit_rate=0.3", "agent.utility_decay=0.5"),
    "self_normalized_resets": ("agent.first_threshold=2", "agent.threshold_period=7"),
    "hare_and_tortoise": ("agent.period=6", "agent.momentum=0.5"),
    "weight_clipping": ("agent.kappa=0.5",),
    # Enough to see, and too little to diverge.
    "c_chain": (
        *("agent.warmup=5", "agent.window=7", "agent.first_weight=1", "agent.relative_weight=0.0004"),
        "optimizer.lr=0.01",
    ),
    "l2_er": ("agent.window=3",),
    "plasticity_injection": ("agent.injection_step=13",),
}
# A number that is 0 is switched off, and a structure of its own.
_SWITCHED_ON = {
    "sgd": ("optimizer.momentum=0.5", "optimizer.weight_decay=1e-2", "optimizer.nesterov=true"),
    "adam": ("optimizer.weight_decay=1e-2",),
    "adam_o": ("optimizer.weight_decay=1e-2",),
    "muon": ("optimizer.weight_decay=1e-2",),
    "rmsprop": ("optimizer.weight_decay=1e-2",),
    "trac": ("optimizer.weight_decay=1e-2",),
}

AGENTS = tiny.options("agent")
OPTIMIZERS = tiny.options("optimizer")

every_agent = pytest.mark.parametrize("agent", AGENTS)
every_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS)
# The optimisers of most protocols with every agent; the others with an agent that leaves their state alone
# and with one that renews parts of it.
_MET_BY_ALL, _MEET_ALL = ("adam", "sgd"), ("base", "continual_backprop")
every_agent_with_optimizers = pytest.mark.parametrize(
    ("agent", "optimizer"),
    [(a, o) for a in AGENTS for o in OPTIMIZERS if o in _MET_BY_ALL or a in _MEET_ALL],
)
every_network = pytest.mark.parametrize("network", tiny.options("network"))
every_env = pytest.mark.parametrize("env", tiny.options("env"))


def of_agent(agent: str) -> list[str]:
    """The overrides that choose this agent and make it busy."""
    return [f"agent={agent}", *_BUSY_AGENTS.get(agent, ())]


def of_optimizer(optimizer: str, everything_on: bool = False) -> list[str]:
    """The overrides that choose this optimiser, with or without all that can be switched off."""
    return [f"optimizer={optimizer}", *(_SWITCHED_ON.get(optimizer, ()) if everything_on else ())]


def of_network(network: str) -> list[str]:
    """The overrides that choose this network."""
    return [f"network={network}"]
