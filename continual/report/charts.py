"""The charts of the page, as specifications in the language of Vega-Lite; the library draws them.

A chart's data are in the page's tables, by name. Its parameters are set by the page, the same in all charts:
`shown` (the numbers of the lines that are drawn), `lit` (the one that is highlighted, or null), `panel` (the
environment), and those of the chart's own selects.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Spec = dict[str, Any]
Field = str | tuple[str, str]
"""A column of a table, or one and what it is called in a tooltip."""

_NOT_LIT = {"condition": {"test": "lit === null || datum.line === lit", "value": 1}, "value": 0.12}
_SHOWN = {"filter": "indexof(shown, datum.line) >= 0"}
_PANEL = {"filter": "datum.panel === panel"}
_MOVE = {"name": "move", "select": "interval", "bind": "scales"}
# Names take at most two fifths of a chart.
_NAMES = {"labelLimit": {"expr": "0.4 * containerSize()[0]"}}
_NUMBERS = {
    "totals": ("line", "rank", "score", "low", "high"),
    "runs": ("line", "rank", "score"),
    "curves": ("line", "task"),
    "layers": ("line", "task"),
    "each": ("task", "value"),
    "past": ("line", "task"),
    "comparisons": ("line", "difference", "low", "high"),
    "matrix": ("line", "after", "on", "accuracy"),
    "cells": ("score", "low", "high", "best"),
    "effects": ("line", "score", "low", "high"),
}
"""The columns of each table that are numbers."""


@dataclass(frozen=True)
class Select:
    """A choice beside a chart: the parameter that it sets, its name, and the options as (value, text)."""

    parameter: str
    label: str
    options: Sequence[tuple[str | int, str]]


@dataclass(frozen=True)
class Chart:
    """A chart of the page: its name, what it shows in words, its specification and its selects.

    `narrow` charts stand beside one another.
    """

    name: str
    description: str
    spec: Spec
    selects: Sequence[Select] = ()
    narrow: bool = False

    @property
    def tables(self) -> set[str]:
        """The names of the tables that it draws from."""
        return set(_names_of_data(self.spec))


def totals_chart(words: str, styles: Spec) -> Spec:
    """The score of each group, the best on top: its mean, its interval, and a tick for each run."""
    y: Spec = {
        "field": "label",
        "sort": {"field": "rank", "op": "min"},
        "title": None,
        "axis": _NAMES,
    }
    x: Spec = {"field": "score", "type": "quantitative", "scale": {"zero": False}, "title": words}
    x["axis"] = {"orient": "top", "titleAnchor": "end"}
    about: list[Field] = [
        "label",
        ("score", words),
        "low",
        "high",
        ("n", "seeds"),
        "diverged",
        "failed",
        "unfinished",
    ]
    run: list[Field] = ["label", "seed", ("score", words), "status", "command"]
    runs = _layer("runs", {"type": "tick", "thickness": 1.5, "opacity": 0.55, "height": 9}, run)
    runs["encoding"] |= {"y": y, "x": x}
    low_to_high = _layer("totals", {"type": "rule", "strokeWidth": 2.5}, about)
    low_to_high["encoding"] |= {
        "y": y,
        "x": {"field": "low", "type": "quantitative", "scale": {"zero": False}},
        "x2": {"field": "high"},
    }
    means = _layer("totals", {"type": "point", "filled": True, "size": 75, "opacity": 1}, about)
    means["encoding"] |= {"y": y, "x": x, "shape": styles["shape"]}
    for layer in (runs, low_to_high, means):
        layer["encoding"] |= {"color": styles["color"], "opacity": _NOT_LIT}
        layer["transform"] = [_PANEL, _SHOWN]
    return {**_chart(), "height": {"step": 19}, "layer": [low_to_high, means, runs]}


def curves_chart(x_title: str, styles: Spec, measure: int, table: str = "curves") -> Spec:
    """A measure over tasks, a line and a band for each group; dragging and the wheel move the axes."""
    return _lines(x_title, styles, "measure", table) | {
        "params": [*_parameters(), _parameter("measure", measure)]
    }


def layer_chart(title: str, layer: int, styles: Spec, family: int, layers: int) -> Spec:
    """As `curves_chart`, for one layer: the columns of a family lie side by side, one for each layer."""
    place = f"(family * {layers} + {layer})"
    return _lines("task", styles, place, "layers") | {
        "title": title,
        "height": 200,
        "params": [*_parameters(), _parameter("family", family)],
    }


def each_run_chart(words: str, styles: Spec) -> Spec:
    """The score's measure over tasks, a thin line for each run."""
    y: Spec = {"field": "value", "type": "quantitative", "scale": {"zero": False}, "title": words}
    about: list[Field] = ["label", "seed", "task", ("value", words), "command"]
    of_run = ["line", "panel", "label", "seed", "command"]
    return {
        **_chart(),
        "height": 300,
        "data": _data("each"),
        "transform": [
            {"lookup": "run", "from": {"data": _data("runs"), "key": "run", "fields": of_run}},
            # What is looked up comes as text.
            {"calculate": "toNumber(datum.line)", "as": "line"},
            _PANEL,
            _SHOWN,
        ],
        "encoding": {"x": _task_axis("task"), "y": y, "detail": {"field": "run"}},
        "layer": [
            {
                "mark": {"type": "line", "strokeWidth": 1, "clip": True},
                "encoding": {
                    "color": styles["color"],
                    "strokeDash": styles["strokeDash"],
                    "opacity": _NOT_LIT,
                },
                "params": [_MOVE],
            },
            {
                "mark": {"type": "point", "filled": True, "size": 60, "opacity": 0, "clip": True},
                "encoding": {"tooltip": _tooltip(about)},
            },
        ],
    }


def comparisons_chart(words: str, styles: Spec, reference: str) -> Spec:
    """How each group differs from one that is chosen: the mean difference over seeds and its interval."""
    y: Spec = {"field": "label", "sort": {"field": "difference", "order": "descending"}, "title": None}
    y["axis"] = _NAMES
    x: Spec = {
        "field": "difference",
        "type": "quantitative",
        "title": f"difference in {words}",
        "axis": {"orient": "top", "titleAnchor": "end"},
    }
    about: list[Field] = [
        "label",
        "reference",
        "difference",
        "low",
        "high",
        ("pairs", "seeds of both"),
        "better",
    ]
    zero: Spec = {"data": {"values": [{}]}, "mark": {"type": "rule", "strokeDash": [4, 4]}}
    zero["encoding"] = {"x": {"datum": 0, "type": "quantitative"}}
    intervals = _layer("comparisons", {"type": "rule", "strokeWidth": 2.5}, about)
    intervals["encoding"] |= {"y": y, "x": {"field": "low", "type": "quantitative"}, "x2": {"field": "high"}}
    means = _layer("comparisons", {"type": "point", "filled": True, "size": 75}, about)
    means["encoding"] |= {"y": y, "x": x, "shape": styles["shape"]}
    for layer in (intervals, means):
        layer["encoding"] |= {"color": styles["color"], "opacity": _NOT_LIT}
        layer["transform"] = [
            _PANEL,
            _SHOWN,
            {"filter": "datum.reference === reference"},
        ]
    params = [*_parameters(), _parameter("reference", reference)]
    return {**_chart(), "params": params, "height": {"step": 19}, "layer": [zero, intervals, means]}


def matrix_chart(of: int, tasks: int) -> Spec:
    """The accuracy on each task after each later one, of one group."""
    step = {"type": "ordinal", "scale": {"padding": 0}}
    labels = {"axis": {"labelOverlap": True, "labelAngle": 0}}
    return {
        **_chart(),
        "height": min(480, 60 + 14 * tasks),
        "params": [*_parameters(), _parameter("of", of)],
        "data": _data("matrix"),
        "transform": [_PANEL, {"filter": "datum.line === of"}],
        "mark": {"type": "rect"},
        "encoding": {
            "x": {"field": "after", "title": "after task", **step, **labels},
            "y": {"field": "on", "title": "accuracy on task", **step, **labels},
            "color": {
                "field": "accuracy",
                "type": "quantitative",
                "scale": {"scheme": "viridis", "zero": False},
                "title": "test accuracy",
            },
            "tooltip": _tooltip(
                ["label", ("on", "on task"), ("after", "after task"), ("accuracy", "test accuracy")]
            ),
        },
    }


def surface_chart(
    title: str,
    row: str,
    column: str,
    words: str,
    rows: Sequence[str],
    columns: Sequence[str],
    domain: tuple[float, float],
    number: int,
) -> Spec:
    """The score over two numbers of a method; a frame around the best without a run that diverged."""
    y: Spec = {"field": "row", "type": "ordinal", "sort": list(rows), "title": row}
    x: Spec = {
        "field": "column",
        "type": "ordinal",
        "sort": list(columns),
        "title": column,
        "axis": {"labelAngle": 0},
    }
    color: Spec = {"field": "score", "type": "quantitative", "legend": None}
    color["scale"] = {"scheme": "viridis", "domain": list(domain)}
    about: list[Field] = [
        ("row", row),
        ("column", column),
        ("score", words),
        "low",
        "high",
        ("n", "seeds"),
        "diverged",
    ]
    middle = sum(domain) / 2
    return {
        **_chart(),
        "title": title or words,
        "height": {"step": 34},
        "data": _data("cells"),
        "transform": [{"filter": f"datum.surface === '{number}'"}],
        "encoding": {"x": x, "y": y, "tooltip": _tooltip(about)},
        "layer": [
            {
                "mark": {"type": "rect", "strokeWidth": 3},
                "encoding": {
                    "color": color,
                    "stroke": {"condition": {"test": "datum.best === 1", "value": "#D55E00"}, "value": None},
                },
            },
            {
                "mark": {"type": "text", "fontSize": 11},
                "encoding": {
                    "text": {"field": "words"},
                    "color": {
                        "condition": {
                            "test": f"datum.score > {middle + 0.2 * (domain[1] - middle)}",
                            "value": "#111",
                        },
                        "value": "#fefefe",
                    },
                },
            },
        ],
    }


def effect_chart(key: str, words: str, values: Sequence[str], number: int, look: Spec) -> Spec:
    """The score over the values of one key, a line for each set of groups that differ in nothing else."""
    x: Spec = {
        "field": "value",
        "type": "ordinal",
        "sort": list(values),
        "title": key,
        "axis": {"labelAngle": 0},
    }
    about: list[Field] = ["name", ("value", key), ("score", words), "low", "high", ("n", "seeds")]
    shared = {"color": look["color"], "opacity": _NOT_LIT, "tooltip": _tooltip(about)}
    y: Spec = {"type": "quantitative", "scale": {"zero": False}, "title": words}
    return {
        **_chart(),
        "height": 260,
        "data": _data("effects"),
        "transform": [
            {"filter": f"datum.effect === '{number}' && (datum.line < 0 || datum.panel === panel)"},
            {"calculate": "datum.line < 0 || indexof(shown, datum.line) >= 0 ? 1 : 0", "as": "is_shown"},
            # A line is drawn whole if one of its groups is shown.
            {
                "joinaggregate": [{"op": "max", "field": "is_shown", "as": "any_shown"}],
                "groupby": ["name"],
            },
            {"filter": "datum.any_shown"},
        ],
        "encoding": {"x": x, "detail": {"field": "name"}},
        "layer": [
            {
                "mark": {"type": "line", "strokeWidth": 1.8},
                "encoding": {"y": {"field": "score", **y}, "strokeDash": look["strokeDash"], **shared},
            },
            {
                "mark": {"type": "rule", "strokeWidth": 1.5},
                "encoding": {"y": {"field": "low", **y}, "y2": {"field": "high"}, **shared},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 60},
                "encoding": {"y": {"field": "score", **y}, "shape": look["shape"], **shared},
            },
        ],
    }


def styles(field: str, domain: Sequence[Any], looks: Mapping[str, Sequence[Any]]) -> Spec:
    """The encodings of a field by colour, dashes and marks, for the values in `domain` in turn."""
    return {
        channel: {
            "field": field,
            "type": "nominal",
            "scale": {"domain": list(domain), "range": list(looks[channel])},
            "legend": None,
        }
        for channel in ("color", "strokeDash", "shape")
    }


def _lines(x_title: str, look: Spec, place: str, table: str) -> Spec:
    """Lines with bands of the columns m<place>, l<place> and h<place>: mean, low and high."""
    transform: list[Spec] = [
        _PANEL,
        _SHOWN,
        *(
            {"calculate": f"toNumber(datum['{kind}' + {place}])", "as": name}
            for kind, name in (("m", "mean"), ("l", "low"), ("h", "high"))
        ),
        {"filter": "isValid(datum.mean)"},
    ]
    y: Spec = {"type": "quantitative", "scale": {"zero": False}, "title": None}
    detail = {"field": "line"}
    about: list[Field] = ["label", "task", "mean", "low", "high", ("n", "seeds")]
    dim = {"condition": {"test": "lit === null || datum.line === lit", "value": 0.18}, "value": 0.02}
    return {
        **_chart(),
        "height": 380,
        "data": _data(table),
        "transform": transform,
        "encoding": {"x": _task_axis(x_title), "color": look["color"], "detail": detail},
        "layer": [
            {
                "mark": {"type": "area"},
                "encoding": {"y": {"field": "low", **y}, "y2": {"field": "high"}, "opacity": dim},
            },
            {
                "mark": {"type": "line", "strokeWidth": 1.8, "clip": True},
                "encoding": {
                    "y": {"field": "mean", **y},
                    "strokeDash": look["strokeDash"],
                    "opacity": _NOT_LIT,
                },
                "params": [_MOVE],
            },
            {
                "mark": {"type": "point", "filled": True, "size": 90, "opacity": 0, "clip": True},
                "encoding": {"y": {"field": "mean", **y}, "tooltip": _tooltip(about)},
            },
        ],
    }


def _task_axis(title: str) -> Spec:
    return {
        "field": "task",
        "type": "quantitative",
        "title": title,
        "axis": {"tickMinStep": 1},
        "scale": {"nice": False},
    }


def _chart() -> Spec:
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "width": "container",
        "autosize": {"type": "fit-x", "contains": "padding"},
        "params": _parameters(),
    }


def _parameters() -> list[Spec]:
    return [_parameter("shown", []), _parameter("lit", None), _parameter("panel", "")]


def _parameter(name: str, value: Any) -> Spec:
    return {"name": name, "value": value}


def _layer(table: str, mark: Spec, tooltip: Sequence[Field]) -> Spec:
    return {"data": _data(table), "mark": mark, "encoding": {"tooltip": _tooltip(tooltip)}}


def _data(table: str) -> Spec:
    # All other columns are texts, so that a name that looks like a number stays one.
    return {
        "name": table,
        "format": {"type": "csv", "parse": dict.fromkeys(_NUMBERS[table], "number")},
    }


def _tooltip(fields: Sequence[Field]) -> list[Spec]:
    return [
        {"field": field, "title": title}
        for field, title in ((one, one) if isinstance(one, str) else one for one in fields)
    ]


def _names_of_data(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["data"]["name"]] if "name" in node.get("data", {}) else []
        return own + [name for inner in node.values() for name in _names_of_data(inner)]
    if isinstance(node, list):
        return [name for inner in node for name in _names_of_data(inner)]
    return []
