"""Soft parameter reset: before each step, layers drift towards their initial distribution as the batch asks.

theta~ = gamma theta + (1 - gamma) mu_0;  sigma = sigma_0 sqrt(gamma^2 s^2 + 1 - gamma^2)
drift_steps times from gamma = 1:  gamma <- clip(gamma - drift_rate d/dgamma L(theta~ + sigma eps), 0, 1)
theta <- theta~ + (gamma^2 + (1 - gamma^2) / s^2) (the optimiser's step from theta~, with the gradient there)

One gamma for each layer; eps ~ N(0, 1) for each weight and step; L the loss on the batch without penalty;
sigma_0 the standard deviation of the weight's initial distribution, s that of its posterior relative to it.

(Galashov et al. 2024, "Non-Stationary Learning of Neural Networks with Automatic Soft Parameter Reset", arXiv
2411.04034; no code was published.)
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.func import grad

from continual import random
from continual.agents.agent import Agent, Context, Step, Update, Weights, module_of
from continual.schema import Count, NonNegative, Positive


@dataclass(frozen=True)
class SoftParameterReset(Agent):
    """mu_0 is 0 or theta_0 (`prior`). The state is the last step's gamma by layer. Norms do not drift.

    Online measures are taken where the step begins, after the drift, which has seen the batch's labels: it is
    a little ahead of methods that have not.
    """

    drift_rate: NonNegative = 0.01
    drift_steps: Count = 1
    s: Positive = 0.9
    prior: Literal["zero", "initial"] = "zero"

    def init(self, context: Context) -> dict[str, Tensor]:
        layers = dict.fromkeys(map(module_of, context.anatomy.weights))
        return {layer: torch.ones((), device=context.key.device) for layer in layers}

    def before_step(
        self,
        params: Weights,
        state: dict[str, Tensor],
        loss_at: Callable[[Weights], Tensor],
        context: Context,
    ) -> tuple[Weights, dict[str, Tensor]]:
        distributions = context.anatomy.distributions
        noise = {
            name: distributions[name].std * random.normal(random.stream(context.key, name), weight.shape)
            for name, weight in self._drifting(params, context).items()
        }
        gamma = {layer: torch.ones_like(last) for layer, last in state.items()}
        for _ in range(self.drift_steps):
            drifted = self._drifted(params, gamma, context)
            sample = dict(drifted)
            for name, times_sigma_0 in noise.items():
                sample[name] = drifted[name] + self._variance(gamma[module_of(name)]).sqrt() * times_sigma_0
            slope = self._slope(grad(loss_at)(sample), sample, drifted, params, gamma, context)
            gamma = {name: (g - self.drift_rate * slope[name]).clamp(0, 1) for name, g in gamma.items()}
        return self._drifted(params, gamma, context), gamma

    def after_update(self, update: Update, step: Step, context: Context) -> Update:
        params = dict(update.params)
        for name, before in self._drifting(step.before, context).items():
            gamma = update.state[module_of(name)]
            more = (1 - gamma**2) * (1 / self.s**2 - 1)  # the factor less 1
            params[name] = params[name] + more * (params[name] - before)
        return update._replace(params=params)

    def _slope(
        self,
        gradients: Weights,
        sample: Weights,
        drifted: Weights,
        params: Weights,
        gamma: dict[str, Tensor],
        context: Context,
    ) -> dict[str, Tensor]:
        """d/dgamma L(theta~ + sigma eps) of each layer, from the loss's gradients at that sample.

        sum gradient (theta - mu_0 + (d sigma / d gamma) / sigma (sample - theta~))
        """
        slope = {layer: torch.zeros_like(g) for layer, g in gamma.items()}
        for name, weight in self._drifting(params, context).items():
            layer = module_of(name)
            g = gamma[layer]
            from_prior = weight - context.initial[name] if self.prior == "initial" else weight
            from_noise = g * (self.s**2 - 1) / self._variance(g) * (sample[name] - drifted[name])
            slope[layer] = slope[layer] + (gradients[name] * (from_prior + from_noise)).sum()
        return slope

    def _drifted(self, params: Weights, gamma: dict[str, Tensor], context: Context) -> dict[str, Tensor]:
        """theta~, with the parameters that do not drift."""
        after = dict(params)
        for name, weight in self._drifting(params, context).items():
            g = gamma[module_of(name)]
            after[name] = g * weight
            if self.prior == "initial":
                after[name] = after[name] + (1 - g) * context.initial[name]
        return after

    def _variance(self, gamma: Tensor) -> Tensor:
        """(sigma / sigma_0)^2."""
        return gamma**2 * self.s**2 + 1 - gamma**2

    def _drifting(self, params: Weights, context: Context) -> Weights:
        return {name: params[name] for name in context.anatomy.weights}
