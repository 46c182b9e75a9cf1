"""L2-ER: weights are kept small while the features' effective rank is kept large.

loss(theta) + l2_weight ||theta||^2 - rank_weight * mean over hidden layers of erank(H)
erank(H) = exp(-sum p ln p),  p = the singular values of H divided by their sum

H are a layer's features on the batch [B, U]; a channel's feature is the mean over its map. The rank is at
most B. (L2-ER 2025, arXiv 2509.22335.)
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from continual.agents.agent import Agent, Batch, Context, Weights, half_square
from continual.schema import NonNegative
from continual.tree import Tree


@dataclass(frozen=True)
class L2ER(Agent):
    """A layer that is dead as a whole has no rank to raise: it is left out, its gradient being infinite."""

    l2_weight: NonNegative = 1e-4
    rank_weight: NonNegative = 1e-2

    @property
    def decomposes(self) -> bool:
        return True

    def penalty(self, weights: Weights, state: Tree, context: Context, batch: Batch) -> Tensor:
        l2 = 2 * self.l2_weight * half_square(weights)
        ranks = [effective_rank(h.flatten(2).mean(2) if h.ndim > 2 else h) for h in batch.features.values()]
        return l2 - self.rank_weight * torch.stack(ranks).mean() if ranks else l2


def effective_rank(h_BU: Tensor) -> Tensor:
    """erank of features, 0-d, with a gradient; 0 without one for a matrix that is zero or not finite."""
    has_rank = (h_BU != 0).any() & h_BU.isfinite().all()
    identity = torch.eye(*h_BU.shape, device=h_BU.device)
    # Singular values of NaN are an error, and one diverged replica must not stop the others.
    values = torch.linalg.svdvals(torch.where(has_rank, h_BU, identity))
    share = values / values.sum()
    share = torch.where(share > 1e-12, share, 1.0)  # whose p ln p is 0, and so is its gradient
    return torch.where(has_rank, torch.exp(-(share * share.log()).sum()), 0.0)
