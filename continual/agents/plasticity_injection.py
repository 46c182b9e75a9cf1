"""Plasticity injection: once, the last layers h are frozen and fresh ones take over from what they compute.

f = h_theta(z)                                                            before injection_step steps
f = h_theta(z) + h_theta1(z) - h_theta2(z)                                from then on

theta1 is a draw from the initial distribution and is trained, theta2 is its copy and is frozen, as theta is;
z is what the layers before give, which go on learning. At the moment of the injection f stays as it is.

(Nikishin et al. 2023, "Deep Reinforcement Learning with Plasticity Injection", arXiv 2305.15555; details as
in timoklein/plasticity-injection-torch.)
"""

from dataclasses import dataclass

import torch

from continual.agents.agent import Agent, Anatomy, Context, Step, Update
from continual.errors import ConfigError
from continual.networks.injection import FRESH, OLD
from continual.networks.network import HiddenLayer
from continual.schema import Period


@dataclass(frozen=True)
class PlasticityInjection(Agent):
    """The network has room for it (network.injectable), and one place for what is trained: first theta, then
    theta1, with an optimiser's state of 0. No gradient, penalty or decay moves what is frozen.
    """

    injection_step: Period = 12500

    def check(self, anatomy: Anatomy) -> None:
        if not any(name.startswith(f"{OLD}.") for name in anatomy.distributions):
            raise ConfigError(
                "agent: plasticity_injection needs a network whose last layers can be injected; set "
                "network.injectable=2."
            )

    def replaced(self, anatomy: Anatomy) -> tuple[HiddenLayer, ...]:
        layers = (*anatomy.hidden_layers, anatomy.output_layer)
        return tuple(
            layer for layer in layers if layer and f"{OLD}.{layer.incoming}.weight" in anatomy.distributions
        )

    def after_update(self, update: Update, step: Step, context: Context) -> Update:
        is_due = context.step + 1 == self.injection_step
        params, drawn = dict(update.params), context.restarted(sample=True)
        slots = {slot: dict(of) for slot, of in update.optimizer.slots.items()}
        for old in [name for name in params if name.startswith(f"{OLD}.")]:
            name = old.removeprefix(f"{OLD}.")
            fresh = f"{FRESH}.{name}"
            params[old] = torch.where(is_due, params[name], step.before[old])
            params[fresh] = torch.where(is_due, drawn[name], step.before[fresh])
            params[name] = torch.where(is_due, drawn[name], params[name])
            for of in slots.values():
                of[name] = torch.where(is_due, 0.0, of[name])
        counts = dict(update.optimizer.counts)
        for layer in self.replaced(context.anatomy):
            if layer.name in counts:
                counts[layer.name] = torch.where(is_due, 0, counts[layer.name])
        return update._replace(params=params, optimizer=update.optimizer._replace(slots=slots, counts=counts))
