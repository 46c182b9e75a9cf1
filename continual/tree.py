"""State is a plain tree: nested dicts and NamedTuples with tensors as leaves."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from torch import Tensor

# A dict by name, or a NamedTuple whose fields are the names.
Tree: TypeAlias = Any


def leaves(tree: Tree, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    """Each leaf with its path of keys or fields, in the tree's own order."""
    if not is_inner(tree):
        yield path, tree
        return
    for name, node in _children(tree).items():
        yield from leaves(node, (*path, name))


def transform(function: Callable[[Tensor], Tensor], tree: Tree) -> Tree:
    """The tree of the function's results for each leaf."""
    if not is_inner(tree):
        return function(tree)
    children = {name: transform(function, node) for name, node in _children(tree).items()}
    return type(tree)(**children) if isinstance(tree, tuple) else children


def flattened(
    function: Callable[..., None], nodes: Sequence[Tree]
) -> tuple[Callable[..., None], list[Tensor]]:
    """`function(*nodes)` as a function of the nodes' leaves, one argument each; and these leaves."""

    def flat(*tensors: Tensor) -> None:
        left = iter(tensors)
        function(*(transform(lambda _: next(left), node) for node in nodes))

    return flat, [leaf for node in nodes for _, leaf in leaves(node)]


def is_inner(node: Tree) -> bool:
    """Whether this is a dict or a NamedTuple, not a leaf."""
    return isinstance(node, Mapping | tuple)


def _children(node: Tree) -> Mapping[str, Tree]:
    children: Mapping[str, Tree] = node if isinstance(node, Mapping) else node._asdict()
    return children
