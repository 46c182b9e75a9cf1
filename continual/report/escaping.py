"""Texts of configs are data: they are shown as they are, whatever they would mean to the reader of a file."""

import re

_MARKDOWN = re.compile(r"([\\`*|~$])|(\](?=[(\[:]))|(?<![^\W_])(_)|(_)(?![^\W_])")
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "\N{MINUS SIGN}": "$-$",
    "\N{DAGGER}": r"\textdagger{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}
_FORMULA = ("=", "+", "-", "@")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def printable(text: str) -> str:
    """On one line, without characters that a terminal would obey."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


def markdown_text(text: str) -> str:
    """As Markdown: in a table's cell, too."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKDOWN.sub(lambda found: "\\" + found[0], printable(text))


def latex_text(text: str) -> str:
    """As LaTeX."""
    return "".join(_LATEX.get(letter, letter) for letter in printable(text))


def csv_text(text: str) -> str:
    """As a CSV's cell, which a spreadsheet does not take for a formula."""
    is_formula = len(text) > 1 and text.lstrip().startswith(_FORMULA) and not _NUMBER.fullmatch(text)
    return f"'{text}" if is_formula else text
