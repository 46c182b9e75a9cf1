"""A run's config as it was at its start, in its folder, as Hydra would write it but resolved.

A run that waits, is queued again or resumed never reads the configs of this program anew, nor the
surroundings that they were resolved in. What is read back is data: it names only what the program itself may
load, and what the user says is trusted.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from continual import schema
from continual.config import Replica, check_config, with_defaults
from continual.errors import ConfigError, UserError
from continual.identity import OWN_TARGETS, config_hash, obstacles
from continual.tracking.run_folder import read_summary
from continual.tracking.storage import saying_what_was_lost

# YAML in C is ten times as fast, where PyYAML was built with it.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Quotes texts that some reader of YAML takes for a number: 1e-3 is one to OmegaConf, not to PyYAML."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: Any, text: str) -> Any:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="'" if _is_number(text) else None)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


_Dumper.add_representer(str, _text)


def as_yaml(content: Any) -> str:
    """Plain values as YAML, their keys in order."""
    return str(yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True))


def write(run: Replica, hydra: Mapping[str, Any]) -> None:
    """Write `.hydra/{config,hydra,overrides}.yaml`; `hydra` is Hydra's own node, as plain values."""
    folder = run.folder / ".hydra"
    for name, content in (
        ("hydra", {"hydra": hydra}),
        ("overrides", hydra["overrides"]["task"]),
        ("config", run.config),  # the last: where it is, the others are
    ):
        _put(folder / f"{name}.yaml", as_yaml(content))


def _put(path: Path, text: str) -> None:
    """Put a file in place, whole; not synced, as there are thousands and their contents can be made again."""
    fresh = path.with_name(f"{path.name}.tmp")
    with saying_what_was_lost(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(text, encoding="utf-8")
        os.replace(fresh, path)


def load(folder: Path, group: str) -> Replica:
    """The run whose config is in this folder, as data: nothing that it names is looked up.

    UserError if it is not there or not whole.
    """
    try:
        config = _load(folder / ".hydra" / "config.yaml")
        choices = _load(folder / ".hydra" / "hydra.yaml")["hydra"]["runtime"]["choices"]
        if not isinstance(config, dict) or not isinstance(choices, dict) or not config.keys() >= _KEYS:
            raise TypeError
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder / '.hydra'} does not hold a whole config; start the sweep's command again."
        ) from error
    return Replica(with_defaults(config), folder, chosen(choices), group)


def read(folder: Path, group: str, trusted: Sequence[str] | None = ()) -> Replica:
    """The run whose config is in this folder, to be trained.

    UserError if it is not there, not whole or cannot be run, or if it names code that is neither this
    program's nor in one of the `trusted` modules or packages (None: the caller has frozen it and trusts all).
    """
    run = load(folder, group)
    saved = folder / ".hydra" / "config.yaml"
    for target in schema.targets(run.config) if trusted is not None else ():
        known = (OWN_TARGETS.removesuffix("."), *(trusted or ()))
        if not any(f"{target}.".startswith(f"{name}.") for name in known):
            raise ConfigError(
                f"{saved} names {target}, which is no part of this program; "
                f"if you know what it does, add --trust {target.rpartition('.')[0] or target}, "
                "or start the sweep's own command again."
            )
    try:
        check_config(run.config)
    except ConfigError as error:
        raise ConfigError(f"{saved}: {error}") from error
    return run


def holds(run: Replica) -> bool:
    """Whether the run's folder holds this very config, to the letter: it was checked when it was frozen."""
    try:
        saved = (run.folder / ".hydra" / "config.yaml").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False
    return saved == as_yaml(run.config)


def check(run: Replica) -> None:
    """ConfigError if the run's folder holds a run with other results, or something else."""
    saved = run.folder / ".hydra" / "config.yaml"
    try:
        config = _load(saved)
    except FileNotFoundError:
        summary = read_summary(run.folder)
        if summary and summary.get("config_hash") != config_hash(run.config):
            raise ConfigError(_holds_another(run.folder, "")) from None
        return
    except (OSError, ValueError, yaml.YAMLError):
        config = None
    try:
        differing = obstacles(config, run.config)
    except (AttributeError, KeyError, TypeError, ValueError):
        differing = None
    if not isinstance(config, dict) or differing is None or not config.keys() >= _KEYS:
        raise ConfigError(
            f"{saved} is not the config of a run of this program; choose another output folder."
        )
    if differing:
        raise ConfigError(_holds_another(run.folder, f" ({', '.join(differing)})"))


_KEYS = {"seed", "agent", "network", "env", "optimizer"}


def chosen(choices: Mapping[str, object]) -> dict[str, str]:
    """The options chosen in the program's own config groups, of all that Hydra has chosen."""
    return {name: str(option) for name, option in choices.items() if not name.startswith("hydra/") and option}


def _holds_another(folder: Path, which: str) -> str:
    return (
        f"the output folder {folder} holds a run whose config differs{which}; "
        "choose another folder, or ask for the same config to resume it."
    )


def _load(path: Path) -> Any:
    return yaml.load(path.read_bytes(), Loader=_Loader)
