"""What lines look like: a colour, dashes and a mark, the same in files and on the page."""

from typing import Any

# Okabe & Ito's colour-blind-safe palette without its yellow, too light for a line. On dark paper the black
# one is white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DARK_PALETTE = ("#3D9BD9", "#F0762E", "#1DBF92", "#DE95BD", "#7CCBF5", "#F0B429", "#F2F4F6")

# Lengths of a stroke and a gap, in points.
_DASHES = ((), (6.0, 2.0), (1.5, 1.5), (6.0, 2.0, 1.5, 2.0), (10.0, 2.0, 1.5, 2.0, 1.5, 2.0))
_MARKS = (("o", "circle"), ("s", "square"), ("^", "triangle-up"), ("D", "diamond"), ("v", "triangle-down"))

STYLES = len(PALETTE) * len(_DASHES)
"""How many lines look different; the next looks like the first."""


def line_style(place: int) -> dict[str, Any]:
    """Matplotlib's properties of the line at a place in the ranking."""
    dashes = _DASHES[place // len(PALETTE) % len(_DASHES)]
    # In units of the line's width.
    linestyle = (0, tuple(length / 1.8 for length in dashes)) if dashes else "solid"
    return {"color": PALETTE[place % len(PALETTE)], "linestyle": linestyle}


def mark(place: int) -> str:
    """Matplotlib's mark of the points of the line at a place in the ranking."""
    return _MARKS[place // len(PALETTE) % len(_MARKS)][0]


def page_looks(lines: int) -> dict[str, list[Any]]:
    """The looks of so many lines for the page's charts, by channel."""
    rounds = [place // len(PALETTE) % len(_DASHES) for place in range(lines)]
    return {
        "color": [PALETTE[place % len(PALETTE)] for place in range(lines)],
        "strokeDash": [list(_DASHES[place]) or [1, 0] for place in rounds],
        "shape": [_MARKS[place][1] for place in rounds],
    }
