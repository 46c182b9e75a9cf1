"""What plasticity injection needs of a network: its last layers h three times, of which one is trained.

f = h(z) + h_old(z) - h_fresh(z),  z what the layers before give

h_old and h_fresh are held: no gradient reaches their parameters, which start at 0, so that f is h(z) until an
agent puts something there.
"""

from collections.abc import Iterator

from torch import Tensor, nn
from torch.func import functional_call

OLD, FRESH = "old", "fresh"


class Held(nn.ModuleDict):
    """Layers by the names of those that are trained; no penalty covers their parameters."""

    def call(self, name: str, h: Tensor) -> Tensor:
        """What a layer gives, with a gradient for h alone."""
        module = self[name]
        held = {name: param.detach() for name, param in module.named_parameters()}
        found: Tensor = functional_call(module, held, (h,))
        return found


def held_names(network: nn.Module) -> Iterator[str]:
    """The names of all parameters that are held."""
    for path, module in network.named_modules():
        if isinstance(module, Held):
            yield from (name for name, _ in module.named_parameters(path))


def trained_name(name: str) -> str:
    """The name of the parameter that this one is the counterpart of; its own, if it is not held."""
    part, _, rest = name.partition(".")
    return rest if part in (OLD, FRESH) else name
