"""Optimisers: a file for each, as pure functions on the plain trees of one network."""

from continual.optimizers.adam import Adam
from continual.optimizers.optimizer import Optimizer
from continual.optimizers.sgd import SGD

__all__ = ["SGD", "Adam", "Optimizer"]
