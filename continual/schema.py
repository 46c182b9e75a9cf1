"""What a config may say, read off the signature of the class it configures.

A config node names a class or function (`_target_`) and gives its arguments; their annotations are the
schema. Two things are said there, once, by a field's type:

- what values are possible (`Positive`, `NonNegative`, `Literal["uniform", "permuted"]`, ...);
- whether replicas of one population may differ in it. A number marked `PerReplica` becomes a tensor
  with a leading replica axis; every other value is structure, equal within a population.
"""

import dataclasses
import difflib
import functools
import importlib
import inspect
import math
import re
import struct
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar, cast, get_args, get_type_hints

import pydantic
from annotated_types import Ge, Gt, Le, Lt, MaxLen

from continual.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from torch import Tensor

D = TypeVar("D", bound="DataclassInstance")


@dataclass(frozen=True)
class PerReplica:
    """Marks a number in which the replicas of one population may differ.

    With `zero_is_off`, zero switches a term off: such replicas keep the plain number 0, so that
    `is_on` can leave the term out of the step, and form a population of their own.
    """

    zero_is_off: bool = False


Number: TypeAlias = Annotated[float, PerReplica()]
Positive: TypeAlias = Annotated[float, PerReplica(), Gt(0)]
NonNegative: TypeAlias = Annotated[float, PerReplica(), Ge(0)]
Fraction: TypeAlias = Annotated[float, PerReplica(), Ge(0), Le(1)]
Decay: TypeAlias = Annotated[float, PerReplica(), Ge(0), Lt(1)]
SwitchableDecay: TypeAlias = Annotated[float, PerReplica(zero_is_off=True), Ge(0), Lt(1)]
SwitchableStrength: TypeAlias = Annotated[float, PerReplica(zero_is_off=True), Ge(0)]
Period: TypeAlias = Annotated[int, PerReplica(), Ge(1)]
Count: TypeAlias = Annotated[int, Ge(1), Le(2**31 - 1)]
Layers: TypeAlias = Annotated[list[Count], MaxLen(1000)]
Seed: TypeAlias = Annotated[int, Ge(-(2**63)), Le(2**63 - 1)]

# Numbers that replicas may differ in are used in float32, whose numbers below this one a CPU takes for 0.
_SMALLEST_FLOAT32 = 2.0**-126
_LARGEST_FLOAT32 = (2 - 2.0**-23) * 2.0**127
_LARGEST_INTEGER = 2**63 - 1


def is_on(number: float) -> bool:
    """Whether a `zero_is_off` number is in use: a tensor within a step, or a number other than 0."""
    return not isinstance(number, int | float) or number != 0


def locate(target: str) -> Callable[..., Any]:
    """The class or function with this dotted name; ImportError or AttributeError if there is none."""
    module, _, name = target.rpartition(".")
    if not module or module.startswith("."):
        raise ImportError(f"'{target}' is not a dotted name")
    return cast(Callable[..., Any], getattr(importlib.import_module(module), name))


@dataclass(frozen=True)
class NumberField:
    """A per-replica argument: float or int, and whether zero switches it off."""

    kind: type
    zero_is_off: bool


@functools.cache
def number_fields(target: Callable[..., Any]) -> dict[str, NumberField]:
    """The arguments of `target` in which the replicas of a population may differ."""
    found = {}
    for name, annotation in _annotations(target).items():
        for mark in getattr(annotation, "__metadata__", ()):
            if isinstance(mark, PerReplica):
                found[name] = NumberField(annotation.__origin__, mark.zero_is_off)
    return found


@functools.cache
def defaults(target: Callable[..., Any]) -> Mapping[str, Any]:
    """The arguments of `target` that have a default, with it."""
    found = {}
    for name, parameter in inspect.signature(target).parameters.items():
        if parameter.default is not inspect.Parameter.empty:
            found[name] = parameter.default
    for field in getattr(target, "__dataclass_fields__", {}).values():
        if field.default_factory is not dataclasses.MISSING:  # a signature has a placeholder for it
            found[field.name] = field.default_factory()
    return found


def numbers(nodes: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """The values in which replicas may differ, from the same node of each one's config, by name.

    Those of a node inside it have dotted names ("plus.l2_weight"). Numbers that are switched off are left
    out: they are so in all replicas of a population.
    """
    first = nodes[0]
    found: dict[str, list[float]] = {}
    for name, field in number_fields(locate(first["_target_"])).items():
        if name in first and not (field.zero_is_off and first[name] == 0):
            found[name] = [field.kind(node[name]) for node in nodes]
    for name, value in first.items():
        if is_node(value):
            inner = numbers([node[name] for node in nodes])
            found |= {f"{name}.{key}": values for key, values in inner.items()}
    return found


def is_node(value: object) -> bool:
    """Whether a value of a config names a class or function to call."""
    return isinstance(value, Mapping) and "_target_" in value


def targets(node: object) -> Iterator[str]:
    """All that a config names to be called, wherever it does."""
    if is_node(node):
        yield str(cast("Mapping[str, Any]", node)["_target_"])
    inner = node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ()
    for value in inner:
        yield from targets(value)


def bind(configured: D, numbers: "Mapping[str, Tensor]") -> D:
    """A copy of a frozen dataclass in which these fields hold one replica's tensors.

    A dotted name is a field of the dataclass in a field. It is made inside the vmapped step, so no check of
    plain numbers (`__post_init__`) runs again. It has the dataclass's fields and nothing else.
    """
    if not numbers:
        return configured
    inside: dict[str, dict[str, Tensor]] = {}
    for path, number in numbers.items():
        name, dot, rest = path.partition(".")
        if dot:
            inside.setdefault(name, {})[rest] = number
    # Not copy.copy, into which torch.compile cannot look before torch 2.12.
    bound: D = object.__new__(type(configured))
    for field in dataclasses.fields(configured):
        value = getattr(configured, field.name)
        if field.name in numbers:
            value = numbers[field.name]
        elif field.name in inside:
            value = bind(value, inside[field.name])
        object.__setattr__(bound, field.name, value)
    return bound


def check(node: Mapping[str, Any], path: str, provided: Collection[str] = ()) -> None:
    """Check a node with a `_target_`, and those inside it, against the target's signature.

    `path` is the node's place in the config ("agent"); `provided` names the arguments that the program
    adds itself. Raises ConfigError: a target that cannot be imported, an unknown or missing key, a wrong
    type, an impossible value.
    """
    target_name = node.get("_target_")
    if not isinstance(target_name, str):
        raise ConfigError(
            f"{path}._target_: missing; it must name a class, such as continual.agents.base.Base."
        )
    try:
        target = locate(target_name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{path}._target_: cannot import '{target_name}' ({error}).") from error
    if not callable(target):
        raise ConfigError(f"{path}._target_: '{target_name}' is neither a class nor a function.")
    _check_class(target, f"{path}._target_: {target_name}")
    values = {name: value for name, value in node.items() if name != "_target_"}
    inner = {name: value for name, value in values.items() if is_node(value)}
    check_values(target, values, path, provided={*provided, *inner})
    for name, value in inner.items():
        check(value, f"{path}.{name}")
        if name not in provided:
            check_kind(value["_target_"], _annotations(target).get(name, Any), f"{path}.{name}")


def _check_class(target: Callable[..., Any], name: str) -> None:
    """ConfigError for a class that lacks what makes it one of its kind."""
    if not inspect.isclass(target):
        return
    if inspect.isabstract(target):
        lacking = sorted(getattr(target, "__abstractmethods__", ()))
        raise ConfigError(f"{name} lacks {', '.join(lacking)}.")
    is_dataclass = "__dataclass_fields__" in vars(target)
    annotated = [n for n, kind in inspect.get_annotations(target).items() if "ClassVar" not in str(kind)]
    if hasattr(target, "__dataclass_fields__") and annotated and not is_dataclass:
        raise ConfigError(
            f"{name} has no @dataclass(frozen=True) above it, without which {annotated[0]} is no key."
        )


def make(node: Mapping[str, Any], path: str, **provided: Any) -> Any:
    """What a checked node describes: its target called with its values, inner nodes made first.

    `provided` are the arguments that the program adds. ConfigError for a ValueError of the target's.
    """
    arguments = {
        name: make(value, f"{path}.{name}") if isinstance(value, Mapping) and "_target_" in value else value
        for name, value in node.items()
        if name != "_target_" and name not in provided
    }
    try:
        return locate(node["_target_"])(**arguments, **provided)
    except ValueError as error:
        raise ConfigError(f"{path}.{error}") from error


def check_values(
    target: Callable[..., Any], values: Mapping[str, Any], path: str, provided: Collection[str] = ()
) -> None:
    """Check values against a signature without calling it; `path` is "" for the top level."""
    prefix = f"{path}." if path else ""
    signature = _signature(target)
    for name in provided:
        if name not in signature.known and not signature.open_ended and name not in values:
            raise ConfigError(f"{prefix}_target_: its class must take the argument '{name}'.")
    settable = [name for name in signature.known if name not in provided or name in values]
    for name in values:
        if name not in signature.known and not signature.open_ended:
            raise ConfigError(f"{prefix}{name}: no such key; {suggestion(name, settable)}")
    for name in signature.required:
        if name not in provided and values.get(name, "???") == "???":
            raise ConfigError(f"{prefix}{name}: missing; give it a value.")
    given = {n: v for n, v in values.items() if n in signature.known and n not in provided}
    try:
        signature.model.model_validate(given)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        key, *inside = first["loc"]
        if first["type"] == "sentence":  # a validator's own, which says it all
            raise ConfigError(f"{prefix}{key}: {first['msg']}") from error
        index = f"[{inside[0]}]" if inside and isinstance(inside[0], int) else ""
        place = first["loc"][: 2 if index else 1]
        reasons = [_sentence(e["msg"]) for e in error.errors() if e["loc"][: len(place)] == place]
        wanted = " or ".join(dict.fromkeys(reasons)).replace(" or must be ", " or ")
        found = first["input"] if index else values.get(str(key))
        takes_a_list = bool(index) or "list" in wanted or wanted.startswith("must have")
        swept = isinstance(found, list) and not takes_a_list
        instead = "; a sweep over several has -m and no brackets" if swept else ""
        raise ConfigError(f"{prefix}{key}{index}: {wanted}, not {_shown(found)}{instead}.") from error
    fields = number_fields(target)
    for name, value in given.items():
        _check_range(value, f"{prefix}{name}")
        if name in fields and fields[name].kind is float:
            _check_rounded(signature, name, value, f"{prefix}{name}")


def _check_range(value: Any, path: str) -> None:
    """ConfigError for a number, wherever it is in a value, that no 64-bit integer and no float32 holds."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _check_range(inner, f"{path}.{name}")
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            _check_range(inner, f"{path}[{i}]")
    elif isinstance(value, int) and abs(value) > _LARGEST_INTEGER:
        raise ConfigError(f"{path}: must be at most {_LARGEST_INTEGER}, not {_shown(value)}.")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{path}: must be a finite number, not {value!r}.")
    elif isinstance(value, float) and abs(value) > _LARGEST_FLOAT32:
        raise ConfigError(f"{path}: must be at most {_LARGEST_FLOAT32:.6g}, not {value!r}.")


def _check_rounded(signature: "_Signature", name: str, value: Any, path: str) -> None:
    """ConfigError if a number is impossible in float32, in which it is used: 1e-60 is 0 there."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if 0 < abs(value) < _SMALLEST_FLOAT32:
        raise ConfigError(
            f"{path}: {value!r} is 0 in float32, in which it is used; "
            f"the smallest possible number above 0 is {_SMALLEST_FLOAT32:.6g}."
        )
    (rounded,) = struct.unpack("f", struct.pack("f", value))
    try:
        signature.model.model_validate({name: rounded})
    except pydantic.ValidationError as error:
        reason = _sentence(error.errors()[0]["msg"])
        raise ConfigError(
            f"{path}: {reason}; {value!r} is {rounded!r} in float32, in which it is used."
        ) from error


def check_kind(target: str, wanted: Any, path: str) -> None:
    """ConfigError if what a target makes is not what is wanted there, as its class or its annotation says.

    `wanted` is a type as it is annotated: a class, or several (`Agent | None`); Any and object are anything.
    """
    located = locate(target)
    made = located if inspect.isclass(located) else _annotations(located).get("return")
    if wanted in (Any, object, inspect.Parameter.empty):
        return
    kinds = [kind for kind in (get_args(wanted) or (wanted,)) if inspect.isclass(kind)]
    kinds = [kind for kind in kinds if kind is not type(None)]
    if not kinds or any(issubclass(kind, _PLAIN) for kind in kinds):
        raise ConfigError(f"{path}: must be a plain value, not something to call ({target}).")
    if inspect.isclass(made) and issubclass(made, tuple(kinds)):
        return
    names = " or ".join(kind.__name__ for kind in kinds)
    if inspect.isclass(located):
        raise ConfigError(f"{path}._target_: {target} is not a subclass of {names}.")
    raise ConfigError(f"{path}._target_: {target} does not say that it returns a {names} (-> {names}).")


_PLAIN = (bool, int, float, str, list, tuple, dict, Mapping)


def _shown(value: object) -> str:
    """A value as a sentence shows it: whole, unless it is endless."""
    if isinstance(value, int) and abs(value) >= 10**40:
        return "an integer of more than 40 digits"
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


@dataclass(frozen=True)
class _Signature:
    """A target's arguments: all, those without a default, whether any other is taken, and their types."""

    known: tuple[str, ...]
    required: tuple[str, ...]
    open_ended: bool
    model: type[pydantic.BaseModel]


@functools.cache
def _signature(target: Callable[..., Any]) -> _Signature:
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError) as error:  # some of Python's own functions have none
        raise ConfigError(f"_target_: the arguments of {target!r} are not known.") from error
    annotations = _annotations(target)
    known = tuple(n for n, p in parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL))
    required = tuple(n for n in known if parameters[n].default is inspect.Parameter.empty)
    config = pydantic.ConfigDict(strict=True, arbitrary_types_allowed=True, allow_inf_nan=False)
    # A leading underscore or a name of pydantic's own would be refused as a field, hence the aliases.
    aliased: dict[str, Any] = {
        f"field_{i}": (annotations.get(name, Any), pydantic.Field(None, alias=name))
        for i, name in enumerate(known)
    }
    return _Signature(
        known,
        required,
        any(p.kind is p.VAR_KEYWORD for p in parameters.values()),
        pydantic.create_model("Values", __config__=config, **aliased),
    )


def suggestion(name: str, known: Collection[str]) -> str:
    """What to say of an unknown name: the nearest known one, or all of them."""
    close = difflib.get_close_matches(name, list(known), n=1)
    if close:
        return f"did you mean {close[0]}?"
    return f"possible: {', '.join(known)}." if known else "there is nothing to set here."


def _annotations(target: Callable[..., Any]) -> dict[str, Any]:
    """The types of a signature; a dataclass's are its fields', another class's its __init__'s."""
    if inspect.isclass(target) and not hasattr(target, "__dataclass_fields__"):
        return get_type_hints(target.__init__, include_extras=True)
    return get_type_hints(target, include_extras=True)


def _sentence(message: str) -> str:
    message = re.sub(r"^\w+ should have (.*) after validation, not \d+$", r"must have \1", message)
    return message.replace("Input should be", "must be").replace("Input should", "must").removesuffix(".")
