"""ReGraMa: replace the units whose incoming weights hardly get a gradient.

s_u = mean |dL/dW_in,u| / mean over the layer's units of it
every recycle_period steps, each unit with s_u <= recycle_threshold is replaced

(ReGraMa 2025, arXiv 2505.24061; details as in LucMc/continual-learning.)
"""

from dataclasses import dataclass

import torch

from continual.agents.agent import Context, Step, Update
from continual.agents.units import ReplacesUnits, replace_units
from continual.schema import NonNegative, Period


@dataclass(frozen=True)
class ReGraMa(ReplacesUnits):
    """L is the loss on the batch without penalty, which would hide dead units, before the update.

    A replaced unit has fresh incoming weights, bias 0, outgoing weights 0 and the optimiser's state 0, Adam's
    count of steps too (there: its moments alone). In a layer without any gradient, all units are replaced.
    """

    recycle_period: Period = 1000
    recycle_threshold: NonNegative = 0.01

    def after_update(self, update: Update, step: Step, context: Context) -> Update:
        is_due = (context.step + 1) % self.recycle_period == 0
        fresh = {
            name: torch.zeros_like(drawn) if name.endswith(".bias") else drawn
            for name, drawn in context.draw_initial().items()
        }
        gradients = step.loss_gradients()
        for layer in context.anatomy.hidden_layers:
            size_U = gradients[f"{layer.incoming}.weight"].flatten(1).abs().mean(1)
            # Not divided by the layer's mean, which may be 0.
            dormant_U = size_U <= self.recycle_threshold * size_U.mean()
            update = replace_units(update, layer, is_due & dormant_U, fresh, context)
        return update
