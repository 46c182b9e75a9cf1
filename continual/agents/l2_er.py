"""L2-ER: weights are kept small while the features' effective rank is kept large.

loss(theta) + l2_weight ||theta||^2 - rank_weight * mean over hidden layers of erank(H)
erank(H) = exp(-sum p ln p),  p = the singular values of H divided by their sum

H are a layer's features on the last `window` batches [window B, U], all with the present weights; a
channel's feature is the mean over its map. The rank is at most window B. (L2-ER 2025, arXiv 2509.22335.)
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from continual.agents.agent import Agent, Batch, Context, Step, Update, Weights, half_square
from continual.schema import Count, NonNegative
from continual.tree import Tree


@dataclass(frozen=True)
class L2ER(Agent):
    """A layer that is dead as a whole has no rank to raise: it is left out, its gradient being infinite.

    The inputs of the earlier batches are kept as a ring, [(window - 1) B, C, H, W].
    """

    l2_weight: NonNegative = 1e-4
    rank_weight: NonNegative = 1e-2
    window: Count = 1

    @property
    def decomposes(self) -> bool:
        return True

    def init(self, context: Context) -> Tree:
        if self.window == 1:
            return {}
        batch, *image = context.anatomy.batch.x_BCHW
        return {"x": torch.zeros((self.window - 1) * batch, *image, device=context.key.device)}

    def penalty(self, weights: Weights, state: Tree, context: Context, batch: Batch) -> Tensor:
        l2 = 2 * self.l2_weight * half_square(weights)
        layers = {name: [pooled(h)] for name, h in batch.features.items()}
        if self.window > 1:
            # Places that are empty yet are rows of zeros, which change no singular value.
            place_N = torch.arange(len(state["x"]), device=context.key.device) // len(batch.x_BCHW)
            is_filled_N = place_N < context.step
            for name, h in batch.forward(weights, state["x"])[1].items():
                layers[name].append(torch.where(is_filled_N[:, None], pooled(h), 0.0))
        ranks = [effective_rank(torch.cat(parts)) for parts in layers.values()]
        return l2 - self.rank_weight * torch.stack(ranks).mean() if ranks else l2

    def after_update(self, update: Update, step: Step, context: Context) -> Update:
        if self.window == 1:
            return update
        x_BCHW, ring = step.batch.x_BCHW, update.state["x"].unflatten(0, (self.window - 1, -1))
        is_next = torch.arange(len(ring), device=ring.device) == context.step % len(ring)
        after = torch.where(is_next.reshape(-1, *[1] * x_BCHW.ndim), x_BCHW, ring)
        return update._replace(state={"x": after.flatten(0, 1)})


def pooled(h: Tensor) -> Tensor:
    """Features as [B, U]: of a map its mean."""
    return h.flatten(2).mean(2) if h.ndim > 2 else h


def effective_rank(h_BU: Tensor) -> Tensor:
    """erank of features, 0-d, with a gradient; 0 without one for a matrix that is zero or not finite."""
    has_rank = (h_BU != 0).any() & h_BU.isfinite().all()
    identity = torch.eye(*h_BU.shape, device=h_BU.device)
    # Singular values of NaN are an error, and one diverged replica must not stop the others.
    values = torch.linalg.svdvals(torch.where(has_rank, h_BU, identity))
    share = values / values.sum()
    share = torch.where(share > 1e-12, share, 1.0)  # whose p ln p is 0, and so is its gradient
    return torch.where(has_rank, torch.exp(-(share * share.log()).sum()), 0.0)
