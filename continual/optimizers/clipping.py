"""Gradients of at most some norm."""

import torch

from continual.optimizers.optimizer import Params


def clipped(grads: Params, most: float) -> Params:
    """All gradients of one network times min(1, most / (||g|| + 1e-6)); as torch.nn.utils.clip_grad_norm_."""
    norms = torch.stack([torch.linalg.vector_norm(grad) for grad in grads.values()])
    factor = (most / (torch.linalg.vector_norm(norms) + 1e-6)).clamp(max=1)
    return {name: grad * factor for name, grad in grads.items()}
