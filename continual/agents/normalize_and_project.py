"""Normalize and Project: with norms before the activations, hidden weights keep their initial norm.

W <- W ||W_0|| / ||W||     hidden layers, after every step; their biases by the same factor
(scale, shift) <- (scale, shift) sqrt(U) / ||(scale, shift)||     of a norm of U entries (project_norms)

(Lyle et al. 2024, "Normalization and effective learning rates in reinforcement learning", arXiv 2407.01800.)
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from continual.agents.agent import Agent, Anatomy, Context, Step, Update
from continual.errors import ConfigError


@dataclass(frozen=True)
class NormalizeAndProject(Agent):
    """The output layer and the optimiser's state are left as they are."""

    project_norms: bool = True

    def check(self, anatomy: Anatomy) -> None:
        if not anatomy.hidden_layers or any(layer.norm is None for layer in anatomy.hidden_layers):
            raise ConfigError(
                "agent: normalize_and_project needs a norm in each layer; use network.layer_norm=true."
            )

    def init(self, context: Context) -> dict[str, Tensor]:
        layers = context.anatomy.hidden_layers
        return {layer.name: _norm(context.initial[f"{layer.incoming}.weight"]) for layer in layers}

    def after_update(self, update: Update, step: Step, context: Context) -> Update:
        params = dict(update.params)

        def scale(module: str, factor: Tensor) -> None:
            for name in (f"{module}.weight", f"{module}.bias"):
                if name in params:
                    params[name] = factor * params[name]

        for layer in context.anatomy.hidden_layers:
            weight = params[f"{layer.incoming}.weight"]
            scale(layer.incoming, update.state[layer.name] / _norm(weight).clamp(min=1e-12))
            if self.project_norms and layer.norm is not None:
                own, shift = params[f"{layer.norm}.weight"], params[f"{layer.norm}.bias"]
                joint = torch.sqrt((own**2).sum() + (shift**2).sum()).clamp(min=1e-12)
                scale(layer.norm, own.numel() ** 0.5 / joint)
        return update._replace(params=params)


def _norm(weight: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(weight)
    return norm
