"""From OmegaConf's nodes to plain values."""

from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf


def plain(node: DictConfig | ListConfig, resolve: bool = True) -> dict[str, Any]:
    """The values of a mapping by key, with its interpolations resolved or, if not, as they are written."""
    values = OmegaConf.to_container(node, resolve=resolve, enum_to_str=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}
