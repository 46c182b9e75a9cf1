from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest
import torch
from annotated_types import Ge, MaxLen

from continual import schema
from continual.agents.agent import Agent
from continual.envs.environment import EqualTasks
from continual.errors import ConfigError
from continual.optimizers import SGD, Adam
from continual.schema import (
    Count,
    Decay,
    Fraction,
    NonNegative,
    Number,
    NumberField,
    Period,
    Positive,
    SwitchableDecay,
    SwitchableStrength,
    bind,
    check,
    check_values,
    is_on,
    locate,
    number_fields,
    suggestion,
)


@dataclass(frozen=True)
class Everything:
    """A configurable dataclass with a field of every kind."""

    size: Count
    number: Number = 0.0
    positive: Positive = 1.0
    not_negative: NonNegative = 0.0
    fraction: Fraction = 0.5
    decay: Decay = 0.9
    period: Period = 10
    age: Annotated[int, schema.PerReplica(), Ge(0)] = 0
    switchable: SwitchableStrength = 0.0
    flag: bool = False
    name: Literal["uniform", "permuted"] = "uniform"
    text: str | None = None
    either: Literal["auto"] | Count = "auto"
    few: Annotated[list[Fraction], MaxLen(2)] = field(default_factory=list)


class Plain:
    """A configurable class that is no dataclass."""

    def __init__(self, width: Count, rate: Positive = 0.1) -> None:
        self.width, self.rate = width, rate


def function(width: Count, rate: Positive = 0.1) -> None:
    """A configurable function."""


def anything_goes(width: Count, **others: object) -> None:
    """A function that takes further keys."""


@dataclass(frozen=True)
class Outer:
    """A configurable class with another one inside."""

    inner: object
    depth: Count = 1


NAME = f"{__name__}.Everything"


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"number": -3.5, "positive": 2, "not_negative": 0, "fraction": 1, "decay": 0},
        {"period": 1, "age": 0, "switchable": 0, "flag": True, "name": "permuted", "text": None},
        {"text": "words", "either": 3, "few": [0, 1]},
        {"either": "auto", "few": []},
    ],
)
def test_possible_values_pass(values):
    check({"_target_": NAME, "size": 3, **values}, "node")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"size": 0}, r"^node\.size: must be greater than or equal to 1, not 0\.$"),
        ({"size": 2.5}, r"^node\.size: .*integer.* 2\.5"),
        ({"size": True}, r"^node\.size: .*integer.* True"),
        ({"size": "3"}, r"^node\.size: .*integer.* '3'"),
        ({"size": None}, r"^node\.size: .*integer.* None"),
        ({"number": "much"}, r"^node\.number: .*number.* 'much'"),
        ({"number": float("nan")}, r"^node\.number: .*finite number.* nan"),
        ({"number": float("inf")}, r"^node\.number: .*finite number.* inf"),
        ({"positive": 0}, r"^node\.positive: must be greater than 0, not 0\.$"),
        ({"positive": -1e-3}, r"^node\.positive: must be greater than 0, not -0\.001\.$"),
        ({"not_negative": -1}, r"^node\.not_negative: must be greater than or equal to 0, not -1\.$"),
        ({"fraction": 1.5}, r"^node\.fraction: must be less than or equal to 1, not 1\.5\.$"),
        ({"decay": 1}, r"^node\.decay: must be less than 1, not 1\.$"),
        ({"period": 0}, r"^node\.period: must be greater than or equal to 1"),
        ({"age": -1}, r"^node\.age: must be greater than or equal to 0"),
        ({"switchable": -1}, r"^node\.switchable: must be greater than or equal to 0"),
        ({"flag": "yes"}, r"^node\.flag: .*boolean.* 'yes'"),
        ({"flag": 1}, r"^node\.flag: .*boolean.* 1"),
        ({"name": "unifrom"}, r"^node\.name: must be 'uniform' or 'permuted', not 'unifrom'\.$"),
        ({"text": 3}, r"^node\.text: .*string.* 3"),
        ({"either": 0}, r"^node\.either: must be 'auto'.* or .*greater than or equal to 1, not 0\.$"),
        ({"few": [0.5, 2]}, r"^node\.few.*: must be less than or equal to 1"),
        ({"few": [0, 0, 0]}, r"^node\.few: .*at most 2 items"),
        ({"few": 0.5}, r"^node\.few: .*list"),
        ({"fractoin": 1}, r"^node\.fractoin: no such key; did you mean fraction\?$"),
        ({"zzz": 1}, r"^node\.zzz: no such key; possible: size, number, "),
    ],
)
def test_impossible_values_are_named_with_what_would_be_right(values, said):
    with pytest.raises(ConfigError, match=said) as raised:
        check({"_target_": NAME, "size": 3, **values}, "node")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("given", [{}, {"size": "???"}])
def test_a_key_without_default_is_asked_for(given):
    with pytest.raises(ConfigError, match=r"^node\.size: missing"):
        check({"_target_": NAME, **given}, "node")
    check({"_target_": NAME}, "node", provided=("size",))


@pytest.mark.parametrize("target", [Plain, function, Everything])
def test_classes_functions_and_dataclasses_are_read_alike(target):
    needed = "size" if target is Everything else "width"
    rate = "positive" if target is Everything else "rate"
    check_values(target, {needed: 3, rate: 0.5}, "node")
    for values, said in [
        ({}, rf"^node\.{needed}: missing"),
        ({needed: 3, rate: -1}, rf"^node\.{rate}: must be greater than 0"),
        ({needed: 3, "self": 1}, r"^node\.self: no such key"),
    ]:
        with pytest.raises(ConfigError, match=said):
            check_values(target, values, "node")
    assert number_fields(target)[rate] == NumberField(float, False)
    assert needed not in number_fields(target)


def test_further_keys_pass_where_the_target_takes_them():
    check_values(anything_goes, {"width": 3, "other": "x"}, "node")
    with pytest.raises(ConfigError, match=r"^node\.width"):
        check_values(anything_goes, {"width": 0, "other": "x"}, "node")


def test_the_top_level_has_no_prefix():
    with pytest.raises(ConfigError, match=r"^witdh: no such key; did you mean width\?$"):
        check_values(function, {"witdh": 3}, "")


def test_nodes_inside_a_node_are_checked_by_their_own_targets():
    inner = {"_target_": NAME, "size": 3}
    node = {"_target_": f"{__name__}.Outer", "inner": inner}
    check(node, "node")
    with pytest.raises(ConfigError, match=r"^node\.inner\.decay: must be less than 1"):
        check({**node, "inner": {**inner, "decay": 2.0}}, "node")
    with pytest.raises(ConfigError, match=r"^node\.depth: "):
        check({**node, "depth": 0}, "node")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (None, r"^node\._target_: missing"),
        (3, r"^node\._target_: missing"),
        ("continual.agents.bsae.Base", r"^node\._target_: cannot import 'continual\.agents\.bsae\.Base'"),
        ("continual.agents.base.Bsae", r"^node\._target_: cannot import"),
        ("Base", r"^node\._target_: cannot import 'Base' .*not a dotted name"),
        ("", r"^node\._target_: cannot import '' .*not a dotted name"),
    ],
)
def test_a_target_that_cannot_be_imported(target, said):
    node = {} if target is None else {"_target_": target}
    with pytest.raises(ConfigError, match=said):
        check(node, "node")


class Bare(Agent):
    scale: NonNegative = 1.0


class Inherits(Agent):
    """No number of its own: it needs no decorator."""


class Unfinished(EqualTasks):
    pass


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (Bare, r"Bare has no @dataclass\(frozen=True\) above it, without which scale is no key\.$"),
        (Unfinished, r"Unfinished lacks batch, input_shape, num_classes, task, .*training_examples\.$"),
    ],
)
def test_a_class_that_is_not_whole_is_told_what_it_lacks(target, said):
    with pytest.raises(ConfigError, match=rf"^agent\._target_: {__name__}\.{said}"):
        check({"_target_": f"{__name__}.{target.__name__}"}, "agent")
    check({"_target_": f"{__name__}.{Inherits.__name__}"}, "agent")


def test_locate():
    assert locate("continual.optimizers.SGD") is SGD


def test_marks_of_per_replica_numbers_are_read_off_the_types():
    assert number_fields(Everything) == {
        "number": NumberField(float, False),
        "positive": NumberField(float, False),
        "not_negative": NumberField(float, False),
        "fraction": NumberField(float, False),
        "decay": NumberField(float, False),
        "period": NumberField(int, False),
        "age": NumberField(int, False),
        "switchable": NumberField(float, True),
    }
    assert number_fields(SGD) == {
        "lr": NumberField(float, False),
        "momentum": NumberField(float, True),
        "weight_decay": NumberField(float, True),
        "clip_norm": NumberField(float, True),
    }
    assert set(number_fields(Adam)) == {"lr", "weight_decay", "clip_norm"}


@pytest.mark.parametrize("alias", [SwitchableDecay, SwitchableStrength])
def test_zero_switches_off(alias):
    (mark,) = (m for m in alias.__metadata__ if isinstance(m, schema.PerReplica))
    assert mark.zero_is_off
    assert not is_on(0)
    assert not is_on(0.0)
    assert is_on(1e-9)
    assert is_on(torch.tensor(0.0)), "within a step a number that is on may be 0 in one replica"


def test_bind_puts_tensors_into_a_copy():
    configured = SGD(lr=0.1, momentum=0.9)
    bound = bind(configured, {"lr": torch.tensor(0.5)})
    assert isinstance(bound, SGD)
    assert torch.equal(bound.lr, torch.tensor(0.5))
    assert bound.momentum == 0.9
    assert configured.lr == 0.1
    assert bind(configured, {}) is configured


@pytest.mark.parametrize(
    ("name", "known", "said"),
    [
        ("l2_wieght", ["l2_weight", "seed"], "did you mean l2_weight?"),
        ("xyz", ["l2_weight", "seed"], "possible: l2_weight, seed."),
        ("xyz", [], "there is nothing to set here."),
    ],
)
def test_suggestions(name, known, said):
    assert suggestion(name, known) == said


class Loaded:
    """What a loader makes."""


def loader(size: Count) -> Loaded:
    return Loaded()


def silent(size: Count):
    return Loaded()


@dataclass(frozen=True)
class Holder:
    """A configurable class with one inside whose class is declared, and a number."""

    inside: Loaded
    number: Positive = 1.0
    other: Loaded | None = None
    few: list[Count] = field(default_factory=list)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"size": 2**31}, r"^node\.size: must be less than or equal to 2147483647, not 2147483648\.$"),
        ({"size": 10**30}, r"^node\.size: must be less than or equal to 2147483647, not 10{30}\.$"),
        ({"size": 10**5000}, r"^node\.size: .* not an integer of more than 40 digits\.$"),
        (
            {"period": 2**63},
            r"^node\.period: must be at most 9223372036854775807, not 9223372036854775808",
        ),
        ({"age": 10**5000}, r"^node\.age: must be at most 9223372036854775807, not an integer of more"),
        (
            {"number": 1e-60},
            r"^node\.number: 1e-60 is 0 in float32, .* above 0 is 1\.17549e-38\.$",
        ),
        ({"number": -1e-39}, r"^node\.number: -1e-39 is 0 in float32"),
        ({"positive": 1e300}, r"^node\.positive: must be at most 3\.40282e\+38, not 1e\+300\.$"),
        ({"decay": 1 - 1e-12}, r"^node\.decay: must be less than 1; 0\.999999999999 is 1\.0 in float32"),
        ({"number": 2**64}, r"^node\.number: must be at most 9223372036854775807"),
        ({"_partial_": True}, r"^node\._partial_: no such key"),
        ({"_args_": [1]}, r"^node\._args_: no such key"),
    ],
)
def test_numbers_that_no_machine_holds(values, said):
    with pytest.raises(ConfigError, match=said):
        check({"_target_": NAME, "size": 3, **values}, "node")


@pytest.mark.parametrize(
    "values",
    [
        {"period": 2**63 - 1, "number": 3.4e38, "positive": 1.2e-38},
        {"decay": 0.9999999, "switchable": 0, "number": -(2**63) + 1},
    ],
)
def test_numbers_at_the_edge(values):
    check({"_target_": NAME, "size": 2**31 - 1, **values}, "node")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"inside": {"_target_": f"{__name__}.loader", "size": 1}}, None),
        ({"inside": {"_target_": f"{__name__}.Loaded"}, "other": {"_target_": f"{__name__}.Loaded"}}, None),
        (
            {"inside": {"_target_": f"{__name__}.silent", "size": 1}},
            r"^node\.inside\._target_: .*silent does not say that it returns a Loaded \(-> Loaded\)\.$",
        ),
        ({"inside": {"_target_": "os.getcwd"}}, r"^node\.inside\._target_: os\.getcwd does not say"),
        (
            {"inside": {"_target_": f"{__name__}.Plain", "width": 1}},
            r"^node\.inside\._target_: .*Plain is not a subclass of Loaded\.$",
        ),
        (
            {"inside": {"_target_": f"{__name__}.Loaded"}, "number": {"_target_": "os.getcwd"}},
            r"^node\.number: must be a plain value, not something to call \(os\.getcwd\)\.$",
        ),
        (
            {"inside": {"_target_": f"{__name__}.Loaded"}, "few": {"_target_": "os.getcwd"}},
            r"^node\.few: must be a plain value",
        ),
        (
            {"inside": {"_target_": f"{__name__}.Loaded"}, "few": [{"_target_": "os.getcwd"}]},
            r"^node\.few\[0\]: .*integer",
        ),
        ({"inside": {"_target_": "continual.schema"}}, r"^node\.inside\._target_: .* neither a class nor"),
    ],
)
def test_what_may_be_called_where(values, said):
    node = {"_target_": f"{__name__}.Holder", **values}
    if said is None:
        check(node, "node")
        assert isinstance(schema.make(node, "node").inside, Loaded)
        return
    with pytest.raises(ConfigError, match=said):
        check(node, "node")
