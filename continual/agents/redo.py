"""ReDo: recycle dormant units.

s_u = mean |h_u| / mean over the layer's units of mean |h|
every recycle_period steps, each unit with s_u <= recycle_threshold is replaced

(Sokar et al. 2023, "The Dormant Neuron Phenomenon in Deep Reinforcement Learning", definition 3.1 and
algorithm 1.)
"""

from dataclasses import dataclass
from typing import Literal

from continual.agents.agent import Context, Step, Update
from continual.agents.units import ReplacesUnits, positions, replace_units
from continual.schema import NonNegative, Period


@dataclass(frozen=True)
class ReDo(ReplacesUnits):
    """Means are over the current batch and, of a convolution, its map before pooling.

    After the optimiser's step, recycled units get the incoming weights and bias that they had at the start
    (`reinit: initial`) or fresh ones (`sample`); their outgoing weights and the optimiser's state become 0,
    Adam's count of steps too, as the moments begin anew. The paper's own code resets moments alone, which
    makes a unit's first steps under Adam up to 6.6 times larger; that of Kumar et al. (2024) resets neither.
    In a layer that is dead as a whole, all units are recycled.
    """

    recycle_period: Period = 625
    recycle_threshold: NonNegative = 0.0
    reinit: Literal["initial", "sample"] = "initial"

    def after_update(self, update: Update, step: Step, context: Context) -> Update:
        is_due = (context.step + 1) % self.recycle_period == 0
        fresh = context.draw_initial() if self.reinit == "sample" else context.initial
        for layer in context.anatomy.hidden_layers:
            activation_U = positions(step.features[layer.name]).abs().mean((0, 2))
            # Not divided by the layer's mean, which may be 0.
            dormant_U = activation_U <= self.recycle_threshold * activation_U.mean()
            update = replace_units(update, layer, is_due & dormant_U, fresh, context)
        return update
