"""What a user's own module sets up besides its layers: frozen and shared parameters, values of its own."""

import logging

from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from continual.errors import ConfigError

log = logging.getLogger(__name__)


def check_parameters(network: nn.Module) -> None:
    """ConfigError, in one sentence, if the network has parameters that cannot be those of one of many.

    Says which parameters are frozen: they keep the values that the module gives them, in all replicas.
    """
    of_tensor: dict[int, str] = {}
    for name, param in network.named_parameters(remove_duplicate=False):
        if isinstance(param, UninitializedParameter):
            raise ConfigError(
                f"network: '{name}' has no shape yet (a lazy module); give its layer the number of inputs, "
                "which follows from input_shape."
            )
        first = of_tensor.setdefault(id(param), name)
        if first != name:
            raise ConfigError(
                f"network: '{first}' and '{name}' are one parameter (tied weights), and each replica would "
                "have it twice; call one module twice instead."
            )
    frozen = frozen_names(network)
    if of_tensor and len(frozen) == len(of_tensor):
        raise ConfigError(
            "network: every parameter is frozen (requires_grad is false): nothing can be trained."
        )
    if frozen:
        log.warning(
            "network: %s frozen (requires_grad is false) and never changed, nor drawn from the seed.",
            f"'{frozen[0]}' is" if len(frozen) == 1 else f"{', '.join(map(repr, frozen))} are",
        )


def check_buffers(network: nn.Module, before: dict[str, Tensor]) -> None:
    """ConfigError if a forward pass has changed a buffer, of which these are copies from before it."""
    for name, buffer in network.named_buffers():
        if not buffer.equal(before[name]):
            raise ConfigError(
                f"network: its forward changes the buffer '{name}', which all replicas would share; "
                "leave it as it is, or return it among the features."
            )


def running_statistics(network: nn.Module) -> dict[str, Tensor]:
    """The buffers that training changes: those of batch norms. All others are constants."""
    return {
        f"{path}.{name}" if path else name: buffer
        for path, module in network.named_modules()
        if isinstance(module, nn.modules.batchnorm._NormBase)
        for name, buffer in module.named_buffers(recurse=False)
    }


def frozen_names(network: nn.Module) -> tuple[str, ...]:
    """The parameters that are not to be trained."""
    return tuple(name for name, param in network.named_parameters() if not param.requires_grad)
