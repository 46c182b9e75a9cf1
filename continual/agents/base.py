"""Base: plain training, nothing added to the loss and nothing done to the network."""

from dataclasses import dataclass

from continual.agents.agent import Agent


@dataclass(frozen=True)
class Base(Agent):
    """loss(theta): what every other method is compared with."""
