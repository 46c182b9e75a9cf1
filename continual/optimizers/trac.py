"""TRAC: Adam, whose whole way from the start is scaled by a number that tunes itself."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from continual.optimizers.adam import Adam, Corrections
from continual.optimizers.optimizer import OptimizerContext, Params, decayed, zeros_like

_ERFI_OF_ROOT_HALF = 0.95343827  # erfi(1 / sqrt(2))
_SMALL = 1e-8


class TRACState(NamedTuple):
    """That of Adam, whose slots hold Delta as "way"; and for each of six decays v and s. S is the last."""

    steps: Tensor
    correction: Corrections
    counts: dict[str, Tensor]
    corrections: dict[str, Corrections]
    slots: dict[str, Params]
    variance: Tensor  # [6], float64: v
    evidence: Tensor  # [6], float64: s
    scale: Tensor  # [], float64: S


@dataclass(frozen=True)
class TRAC(Adam):
    """TRAC (Muppidi et al. 2024, arXiv 2405.16642; code: ComputationalRobotics/TRAC).

    h = <Delta, g>;  Delta <- Delta + Adam's step;  for beta = 1 - 10^-i, i = 1 ... 6:
    v <- beta^2 v + h^2;  s <- beta s - h  (1e-8 at first)
    S = max(0, sum over beta of 1e-8 erfi(s / (sqrt(2 v) + 1e-8)) / erfi(1 / sqrt(2)))
    theta = theta_0 + S Delta

    Delta is kept, and not recovered from theta as in that code: S is 1e-7 at first, and in float32 it would
    be lost. What an agent does to theta stays: theta moves by what S Delta changes.
    """

    def init(self, params: Params, context: OptimizerContext) -> Any:
        adam = super().init(params, context)
        zeros = torch.zeros(6, dtype=torch.float64, device=adam.steps.device)
        slots = {**adam.slots, "way": zeros_like(params)}
        return TRACState(
            adam.steps, adam.correction, adam.counts, adam.corrections, slots, zeros, zeros + _SMALL, zeros[0]
        )

    def update(
        self, params: Params, grads: Params, state: Any, context: OptimizerContext
    ) -> tuple[dict[str, Tensor], Any]:
        grads = decayed(params, grads, self.weight_decay)
        way = state.slots["way"]
        along = torch.stack([(way[name].double() * g.double()).sum() for name, g in grads.items()]).sum()
        moved, after = self.step(zeros_like(params), grads, state, context)
        further = {name: of + moved[name] for name, of in way.items()}
        variance, evidence, scale = tuned(state.variance, state.evidence, along)
        params = {
            name: param + (scale * further[name].double() - state.scale * way[name].double()).float()
            for name, param in params.items()
        }
        slots = {**after.slots, "way": further}
        return params, after._replace(slots=slots, variance=variance, evidence=evidence, scale=scale)


def tuned(variance: Tensor, evidence: Tensor, along: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """v, s and S after a step with <Delta, g> = along."""
    beta = 1 - 10.0 ** -torch.arange(1, 7, dtype=torch.float64, device=along.device)
    variance = beta**2 * variance + along**2
    evidence = beta * evidence - along
    terms = _SMALL * erfi(evidence / (torch.sqrt(2 * variance) + _SMALL)) / _ERFI_OF_ROOT_HALF
    return variance, evidence, terms.sum().clamp(min=0)


def erfi(x: Tensor) -> Tensor:
    """The imaginary error function, float64, from 100 terms of its series: right up to |x| = 6."""
    n = torch.arange(100, dtype=torch.float64, device=x.device)
    factor = torch.exp(-torch.lgamma(n + 1)) / (2 * n + 1)
    series = (x[:, None] ** (2 * n + 1) * factor).sum(1)
    found: Tensor = 2 / torch.pi**0.5 * series
    return found
