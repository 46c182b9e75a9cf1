"""A run's config as it was when the sweep was started, in its folder, as Hydra would write it.

A run that waits, is queued again or resumed never reads the configs of this program anew.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf._utils import OmegaConfDumper

from continual.config import Replica
from continual.errors import UserError

# YAML in C is ten times as fast, where PyYAML was built with it.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Quotes strings that OmegaConf would read as numbers, as its own dumper does."""


_Dumper.add_representer(str, OmegaConfDumper.str_representer)


def write(run: Replica, hydra: Mapping[str, Any]) -> None:
    """Write `.hydra/{config,hydra,overrides}.yaml`; `hydra` is Hydra's own node, as plain values."""
    folder = run.folder / ".hydra"
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (
        ("hydra", {"hydra": hydra}),
        ("overrides", hydra["overrides"]["task"]),
        ("config", run.config),  # the last: where it is, the others are
    ):
        text = yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
        (folder / f"{name}.yaml").write_text(text)


def read(folder: Path, group: str) -> Replica:
    """The run whose config is in this folder; UserError if it is not there or not whole."""
    try:
        config = yaml.load((folder / ".hydra" / "config.yaml").read_bytes(), Loader=_Loader)
        hydra = yaml.load((folder / ".hydra" / "hydra.yaml").read_bytes(), Loader=_Loader)
        choices = hydra["hydra"]["runtime"]["choices"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder / '.hydra'} does not hold a whole config; start the sweep's command again."
        ) from error
    return Replica(config, folder, chosen(choices), group)


def chosen(choices: Mapping[str, object]) -> dict[str, str]:
    """The options chosen in the program's own config groups, of all that Hydra has chosen."""
    return {name: str(option) for name, option in choices.items() if not name.startswith("hydra/") and option}
