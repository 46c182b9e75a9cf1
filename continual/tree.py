"""State is a plain tree: nested dicts with tensors as leaves."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from torch import Tensor

Tree: TypeAlias = dict[str, Any]


def leaves(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    """Each leaf with its path of keys, in the tree's own order."""
    for name, node in tree.items():
        if isinstance(node, Mapping):
            yield from leaves(node, (*path, name))
        else:
            yield (*path, name), node


def transform(function: Callable[[Tensor], Tensor], tree: Mapping[str, Any]) -> Tree:
    """The tree of the function's results for each leaf."""
    return {
        name: transform(function, node) if isinstance(node, Mapping) else function(node)
        for name, node in tree.items()
    }
