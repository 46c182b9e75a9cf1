"""What options are called in figures, on the page and in Markdown: what the first line of their YAML says."""

import re
from collections import Counter
from functools import cache

from continual.config import config_folder

_NAMED = ("agent", "env", "env/dataset")
_FIRST_WORDS = re.compile(r"# ([^@:;.(,]{1,36}):")


def display_name(group: str, option: str) -> str:
    """The name of an option; of other groups, and of options of the user's own, the option as it is."""
    return _names(group).get(option, option) if group in _NAMED else option


@cache
def _names(group: str) -> dict[str, str]:
    """The names of a group's options; no two have the same."""
    found: dict[str, str] = {}
    for path in sorted((config_folder() / group).glob("*.yaml")):
        lines = path.read_text(encoding="utf-8").splitlines()[:2]
        named = next((match for line in lines if (match := _FIRST_WORDS.match(line))), None)
        if named:
            found[path.stem] = named[1]
    times = Counter(found.values())
    return {option: name for option, name in found.items() if times[name] == 1}
