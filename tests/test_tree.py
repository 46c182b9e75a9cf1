from typing import NamedTuple

import torch

from continual.tree import flattened, leaves, transform


def test_leaves_come_with_their_paths_in_the_trees_order():
    tree = {"b": {"y": 1, "x": {"z": 2}}, "a": 3, "empty": {}}
    assert list(leaves(tree)) == [(("b", "y"), 1), (("b", "x", "z"), 2), (("a",), 3)]


def test_transform_keeps_the_structure_and_leaves_the_original_alone():
    tree = {"a": torch.ones(2), "b": {"c": torch.zeros(3), "empty": {}}}
    doubled = transform(lambda leaf: leaf + 1, tree)
    assert doubled["a"].tolist() == [2, 2]
    assert doubled["b"]["c"].tolist() == [1, 1, 1]
    assert doubled["b"]["empty"] == {}
    assert tree["a"].tolist() == [1, 1]


class Pair(NamedTuple):
    left: object
    right: object


def test_named_tuples_are_nodes_like_dicts():
    tree = {"a": Pair({"x": torch.ones(1)}, Pair(torch.ones(2), {}))}
    assert [path for path, _ in leaves(tree)] == [("a", "left", "x"), ("a", "right", "left")]
    doubled = transform(lambda leaf: leaf * 2, tree)
    assert isinstance(doubled["a"], Pair)
    assert isinstance(doubled["a"].right, Pair)
    assert doubled["a"].right.left.tolist() == [2, 2]


def test_a_function_of_nodes_becomes_one_of_their_leaves():
    seen = []
    flat, tensors = flattened(lambda *nodes: seen.append(nodes), ({"a": 1, "b": Pair(2, {})}, 3))
    assert tensors == [1, 2, 3]
    assert flat(10, 20, 30) is None
    assert seen == [({"a": 10, "b": Pair(20, {})}, 30)]
