"""Optimisers: a file for each, as pure functions on the plain trees of one network."""

from continual.optimizers.adam import Adam
from continual.optimizers.adam_o import AdamO
from continual.optimizers.adamw import AdamW
from continual.optimizers.muon import Muon
from continual.optimizers.optimizer import Optimizer
from continual.optimizers.rmsprop import RMSprop
from continual.optimizers.sgd import SGD
from continual.optimizers.trac import TRAC

__all__ = ["SGD", "TRAC", "Adam", "AdamO", "AdamW", "Muon", "Optimizer", "RMSprop"]
