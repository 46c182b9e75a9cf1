"""Adam, which counts steps for each unit where units are replaced."""

from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

import torch
from annotated_types import Ge, Lt, MaxLen, MinLen
from torch import Tensor

from continual.networks.network import HiddenLayer
from continual.optimizers.optimizer import Optimizer, OptimizerContext, Params, decayed, zeros_like
from continual.schema import Positive, SwitchableStrength


class Corrections(NamedTuple):
    """1 / (1 - b1^t) and 1 / sqrt(1 - b2^t) of a count t of steps: float32, each [] or [units]."""

    first: Tensor
    second: Tensor


class AdamState(NamedTuple):
    """The corrections are those of the next step, made one step ahead.

    Computed within the step, the compiler would repeat the powers for every parameter's entry.
    """

    steps: Tensor  # [], float64: those done
    correction: Corrections
    counts: dict[str, Tensor]  # by layer whose units are replaced: [units], float64
    corrections: dict[str, Corrections]  # by layer, of the counts
    slots: dict[str, Params]  # "first_moment" and "second_moment"


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam (Kingma & Ba 2015), weight decay added to the gradient; as torch.optim.Adam.

    m <- b1 m + (1-b1) g;  v <- b2 v + (1-b2) g^2
    theta <- theta - lr (m / (1-b1^t)) / (sqrt(v / (1-b2^t)) + eps)

    t are the steps since the start or, where the agent replaces units, since one of the two units that a
    weight connects was last replaced (Dohare et al. 2024), which is when its moments began at 0.
    """

    lr: Positive = 1e-3
    betas: Annotated[list[Annotated[float, Ge(0), Lt(1)]], MinLen(2), MaxLen(2)] = field(
        default_factory=lambda: [0.9, 0.999]
    )
    eps: Annotated[float, Ge(0)] = 1e-8
    weight_decay: SwitchableStrength = 0.0

    def init(self, params: Params, context: OptimizerContext) -> Any:
        device = next(iter(params.values())).device
        slots: dict[str, Params] = {"first_moment": zeros_like(params), "second_moment": zeros_like(params)}
        zero = torch.zeros((), dtype=torch.float64, device=device)
        counts = {
            layer.name: torch.zeros(layer.units, dtype=torch.float64, device=device)
            for layer in context.replaced
        }
        return self.prepared(AdamState(zero, Corrections(zero, zero), counts, {}, slots))

    def update(
        self, params: Params, grads: Params, state: Any, context: OptimizerContext
    ) -> tuple[dict[str, Tensor], Any]:
        return self.step(params, decayed(params, grads, self.weight_decay), state, context)

    def step(
        self, params: Params, grads: Params, state: Any, context: OptimizerContext
    ) -> tuple[dict[str, Tensor], Any]:
        """One step without weight decay; the state is AdamState or has its fields."""
        beta1, beta2 = self.betas
        first, second, after = {}, {}, {}
        for name, grad in grads.items():
            first[name] = beta1 * state.slots["first_moment"][name] + (1 - beta1) * grad
            second[name] = beta2 * state.slots["second_moment"][name] + (1 - beta2) * grad * grad
            correction = self._correction(name, params[name].shape, state, context.replaced)
            step_size = self.lr * correction.first
            root = torch.sqrt(second[name]) * correction.second
            after[name] = params[name] - step_size * first[name] / (root + self.eps)
        slots: dict[str, Params] = {"first_moment": first, "second_moment": second}
        counts = {layer: count_U + 1 for layer, count_U in state.counts.items()}
        return after, state._replace(steps=state.steps + 1, counts=counts, slots=slots)

    def prepared(self, state: Any) -> Any:
        return state._replace(
            correction=self._of_count(state.steps + 1),
            corrections={layer: self._of_count(count_U + 1) for layer, count_U in state.counts.items()},
        )

    def _of_count(self, count: Tensor) -> Corrections:
        beta1, beta2 = self.betas
        return Corrections(
            (1 / (1 - beta1**count)).to(torch.float32), torch.rsqrt(1 - beta2**count).to(torch.float32)
        )

    def _correction(
        self, name: str, shape: torch.Size, state: AdamState, replaced: tuple[HiddenLayer, ...]
    ) -> Corrections:
        """The correction of each entry of a parameter of this shape, to be broadcast with it."""
        found = []
        for layer in replaced:
            first_U, second_U = state.corrections[layer.name]
            module = name.rpartition(".")[0]
            is_per_unit = module == layer.activation and shape == (layer.units,)
            if module in (layer.incoming, layer.norm) or is_per_unit:
                rows = (-1, *[1] * (len(shape) - 1))
                found.append(Corrections(first_U.reshape(rows), second_U.reshape(rows)))
            elif name == f"{layer.outgoing}.weight":
                columns = (1, -1, *[1] * (len(shape) - 2))
                first_US, second_US = (of[:, None].expand(-1, layer.spread) for of in (first_U, second_U))
                found.append(Corrections(first_US.reshape(columns), second_US.reshape(columns)))
        if not found:
            return state.correction
        if len(found) == 1:
            return found[0]
        own, others = found
        return Corrections(
            self._of_smaller_count(own.first, others.first), self._of_smaller_count(own.second, others.second)
        )

    def _of_smaller_count(self, one: Tensor, other: Tensor) -> Tensor:
        """Of two corrections the one whose count is smaller."""
        return torch.maximum(one, other)


@dataclass(frozen=True)
class AdamAsReleased(Adam):
    """Adam as in the code that Kumar et al. (2024) released for continual backprop.

    theta <- theta - lr (1-b2^t) m / (sqrt(v) + eps)
    """

    def _of_count(self, count: Tensor) -> Corrections:
        scale = (1 - self.betas[1] ** count).to(torch.float32)
        return Corrections(scale, torch.ones_like(scale))

    def _of_smaller_count(self, one: Tensor, other: Tensor) -> Tensor:
        return torch.minimum(one, other)
