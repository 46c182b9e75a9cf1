"""What the columns of tasks.csv are called in figures and on the page."""

FIGURES = ("online_accuracy", "test_accuracy", "weight_magnitude", "srank")
"""The columns that have a figure and a table by task in files."""


def in_words(column: str) -> str:
    """A column's name as words: `srank/hidden_0` is of a layer, `test_accuracy@0.25` within a task."""
    name, _, layer = column.partition("/")
    name, _, fraction = name.partition("@")
    words = name.replace("_", " ")
    if fraction:
        words += " within tasks" if fraction == "within" else f" after {fraction} of a task"
    return f"{words}, {layer}" if layer else words


def heading(column: str) -> str:
    """A column's name at the start of a line."""
    words = in_words(column)
    return words[:1].upper() + words[1:]
