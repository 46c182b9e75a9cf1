"""From overrides to configs: Hydra composes, once for each choice of options.

Hydra reads all YAML again for every job, which takes 0.1 s. Jobs that choose the same options differ in
plain values only, and those are set on a copy of what was composed for the first of them.
"""

import copy
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from string import Template
from typing import Any

import hydra
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override, OverrideType
from hydra.version import VersionBase
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from continual.cli.best import register_best
from continual.cli.grammar import Grammar, dirname, quoted, texts
from continual.cli.messages import one_sentence
from continual.cli.options import is_group, own_option
from continual.cli.plain import plain
from continual.cli.releases import DEFAULTS_OF_1_3
from continual.cli.resolvers import register_resolvers
from continual.config import Config
from continual.config import config_folder as config_folder
from continual.errors import ConfigError
from continual.sweep.jobs import naming

# What of Hydra's own node is a job's own.
_OWN = ("job", "overrides", "runtime")
# What no config of a run speaks of, and is the larger part of the node.
_LARGE = ("hydra_logging", "job_logging")


@dataclass(frozen=True)
class Composed:
    """A run as Hydra has composed it, as plain values.

    Attributes:
        number: its number in the sweep.
        overrides: what was typed for it, but for Hydra's own keys.
        config: its config, resolved, without Hydra's own node.
        folder: where its results would go by its number.
        hydra: Hydra's own node, its interpolations as they are, as in the file that Hydra writes.
    """

    number: int
    overrides: list[str]
    config: dict[str, Any]
    folder: Path
    hydra: dict[str, Any]

    @property
    def choices(self) -> dict[str, str]:
        """The options chosen in each config group, `hydra/...` too."""
        return {name: str(option) for name, option in self.hydra["runtime"]["choices"].items() if option}

    @property
    def launcher(self) -> dict[str, Any]:
        """The node of the launcher."""
        return dict(self.hydra["launcher"] or {})

    @property
    def params(self) -> dict[str, Any]:
        """The values to sweep over besides those that are typed: `sweep=paper` gives some."""
        return dict((self.hydra["sweeper"] or {}).get("params") or {})


@dataclass
class Composer:
    """Composes the configs of one command.

    `config_folder` holds the primary config `name`; `own_folder` is the user's, beside it. `fixed` are keys
    of Hydra's own node with values that every config gets; `given` are others, from the caller.
    """

    config_folder: Path = field(default_factory=lambda: config_folder())
    name: str = "train"
    own_folder: Path | None = None
    given: Mapping[str, Any] = field(default_factory=dict)
    fixed: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.own_folder is not None and not self.own_folder.expanduser().is_dir():
            raise ConfigError(f"{self.own_folder}: there is no such folder of configs.")
        self._grammar = Grammar()
        self._templates: dict[tuple[str, ...], tuple[DictConfig, dict[str, Any]]] = {}
        self._options: dict[str, list[str]] = {}
        self._of_sweep: list[str] = []  # overrides of Hydra's own keys, which are every job's
        self._swept: dict[str, list[str]] = {}  # the choices that a sweep goes through, by their place
        self._values: dict[str, list[str]] = {}  # the values that it goes through, by their key
        self._last: DictConfig | None = None  # it knows what time ${now:...} is for all configs

    @contextmanager
    def started(self) -> Iterator[ConfigLoader]:
        """Hydra, started for these folders; what the caller's own use of it had set comes back afterwards."""
        with _hydra(self.config_folder) as loader:
            if self._grammar.loader is None:
                self._grammar = Grammar(loader)
            yield loader

    def read(self, overrides: Sequence[str]) -> list[Override]:
        """These overrides; ConfigError for one that cannot be read, or that gives a group no name."""
        with self.started():
            found = self._grammar.read(overrides)
            for one in found:
                self._check_choice(one)
        return found

    def whole(self, overrides: Sequence[str]) -> DictConfig:
        """The config with these overrides, of which none sweeps, with Hydra's own node."""
        searchpath = [f"file://{self.own_folder.expanduser().absolute()}"] if self.own_folder else []
        found = [one for one in overrides if not one.startswith("hydra.searchpath=")]
        if searchpath:
            for one in self._grammar.read(o for o in overrides if o not in found):
                value: Any = one.value()
                searchpath += value if isinstance(value, list) else [value]
            found.append(f"hydra.searchpath=[{','.join(map(quoted, searchpath))}]")
        else:
            found = list(overrides)
        with self.started():
            composed = hydra.compose(self.name, found, return_hydra_config=True)
        if self._last is not None:
            OmegaConf.copy_cache(self._last, composed)
        self._last = composed
        for key, value in {**self.given, **self.fixed}.items():
            with read_write(composed.hydra):
                OmegaConf.update(composed, key, value)
        return composed

    def job(self, overrides: Sequence[str], number: int) -> Composed:
        """The job of a sweep with these overrides; ConfigError, naming it, if there is no such config."""
        with _naming(number, overrides), self.started():
            config, shared = self._from_template(overrides)
            sweep = config.hydra.sweep
            return _composed(config, shared, number, lambda: Path(sweep.dir) / str(sweep.subdir))

    def run(self, overrides: Sequence[str]) -> Composed:
        """A run of its own, whose folder is `hydra.run.dir`; ConfigError if there is no such config."""
        with _one_sentence(), self.started():
            self.read(overrides)
            config = self.whole(overrides)
            shared = plain(config.hydra, resolve=False)
            return _composed(config, shared, None, lambda: Path(config.hydra.run.dir))

    def swept(self, overrides: Sequence[str]) -> DictConfig:
        """The config of a sweep as a whole, for its folder, launcher and sweeper.

        It has each swept group's default option, so that it lacks what is set below such a group.
        """
        with _one_sentence(), self.started():
            parsed = self.read(overrides)
            for one in parsed:
                if one.is_sweep_override() and one.is_hydra_override():
                    raise ConfigError(f"{one.input_line}: Hydra's own keys have one value in a sweep.")
            below = tuple(_place(one) + "." for one in parsed if one.is_sweep_override())
            kept = [
                text
                for text, one in zip(overrides, parsed, strict=True)
                if not one.is_sweep_override() and not one.key_or_group.startswith(below)
            ]
            self._swept = {
                _place(one): texts(one)
                for one in parsed
                if one.is_discrete_sweep() and self._options_of(one.key_or_group)
            }
            self._values = {
                one.key_or_group: [text.partition("=")[2] for text in texts(one)]
                for one in parsed
                if one.is_discrete_sweep()
            }
            self._of_sweep = [
                text for text, one in zip(overrides, parsed, strict=True) if one.is_hydra_override()
            ]
            config = self.whole([*kept, "hydra.mode=MULTIRUN"])
            self._check_grid(plain(config.hydra.runtime.choices, resolve=False))
            with read_write(config.hydra), open_dict(config.hydra):
                config.hydra.overrides.task = [
                    text for text, one in zip(overrides, parsed, strict=True) if not one.is_hydra_override()
                ]
            return config

    def _check_grid(self, choices: Mapping[str, Any]) -> None:
        """ConfigError if a grid has parts for one agent (env, ...), and several with parts are swept."""
        grid = str(choices.get("sweep"))
        parts = [part for part in own_option("sweep", grid).get("defaults", []) if isinstance(part, dict)]
        for place, name in (item for part in parts for item in part.items()):
            folder, template = place.removeprefix("optional ").partition("@")[0], Template(name)
            groups = template.get_identifiers()
            swept = [group for group in groups if group in self._swept]
            options = [
                [text.partition("=")[2] for text in self._swept.get(group, ())] or [str(choices.get(group))]
                for group in groups
            ]
            names = [
                template.substitute(dict(zip(groups, chosen, strict=True))) for chosen in product(*options)
            ]
            found = [option for one in names if (option := own_option(f"sweep/{folder}", one))]
            # Periods that are given in tasks are those of one env.
            swept += ["env"] if "env" in self._swept and "${steps_of_tasks" in str(found) else []
            if found and swept:
                raise ConfigError(
                    f"sweep={grid}: its grid is that of one {swept[0]}, and several are given; sweep "
                    "over each alone, or let scripts/reproduce.py do it, which takes several agents."
                )

    def has(self, overrides: Sequence[str], key: str) -> bool:
        """Whether the config with these overrides has this key."""
        with self.started():
            config, _ = self._template(overrides)
            missing = object()
            return OmegaConf.select(config, key, default=missing) is not missing

    def _from_template(self, overrides: Sequence[str]) -> tuple[DictConfig, dict[str, Any]]:
        parsed = self.read(overrides)
        sets = [one for one in parsed if self._sets_a_value(one)]
        template, shared = self._template(overrides)
        config = copy.deepcopy(template)
        assert self._last is not None
        OmegaConf.copy_cache(self._last, config)
        self._last = config
        try:
            for one in sets:
                OmegaConf.update(config, one.key_or_group, one.value())
        except OmegaConfBaseException:
            self._check_optional(one)
            self.whole(overrides)  # raises Hydra's own error, which says best what is wrong
            raise
        node = config.hydra
        with read_write(node), open_dict(node):
            typed = [one for one in parsed if not one.is_hydra_override()]
            node.overrides.task = [str(one.input_line) for one in typed]
            how = node.job.config.override_dirname
            node.job.override_dirname = dirname(typed, how.kv_sep, how.item_sep, how.exclude_keys)
        return config, shared

    def _check_optional(self, override: Override) -> None:
        """ConfigError that says what to do, if only some of the options that are swept over have this key."""
        key = override.key_or_group
        for place, options in self._swept.items():
            if not key.startswith(place + "."):
                continue
            with_it = [option.partition("=")[2] for option in options if self.has([option], key)]
            if with_it:
                values = ",".join(self._values.get(key, [override.get_value_string()]))
                instead = f"hydra.sweeper.optional={{{key}:[{values}]}}"
                raise ConfigError(
                    f"{key}: not every {place} here has this key; write '{instead}' in its place, "
                    f"which is for {', '.join(with_it)} alone."
                )

    def _template(self, overrides: Sequence[str]) -> tuple[DictConfig, dict[str, Any]]:
        """What was composed for the options that these overrides choose, without the values that they set."""
        parsed = self._grammar.read(overrides)
        key = tuple(text for text, one in zip(overrides, parsed, strict=True) if not self._sets_a_value(one))
        if key not in self._templates:
            template = self.whole([*self._of_sweep, *key])
            shared = plain(template.hydra, resolve=False)
            with read_write(template), open_dict(template):
                for name in _LARGE:
                    template.hydra[name] = {}
            self._templates[key] = template, shared
        return self._templates[key]

    def forget(self) -> None:
        """What is in `fixed` has changed."""
        self._templates.clear()

    def _sets_a_value(self, override: Override) -> bool:
        """Whether this changes no more than the value of a key that is there."""
        return (
            override.type == OverrideType.CHANGE
            and override.package is None
            and not override.is_hydra_override()
            and not self._options_of(override.key_or_group)
        )

    def _options_of(self, key: str) -> list[str]:
        """The options of a config group; none if this is a key, as everything with a dot is."""
        if "." in key:
            return []  # Hydra would copy all that it knows to look for such a folder
        if key not in self._options:
            loader = self._grammar.loader
            assert loader is not None
            self._options[key] = loader.get_group_options(key, results_filter=ObjectType.CONFIG)
        return self._options[key]

    def _check_choice(self, override: Override) -> None:
        """ConfigError if several options are given to a group that takes one, none at all, or an option to
        a group that is written as a key."""
        group = override.key_or_group
        if override.is_delete():
            return
        meant = "agent@agent.plus" if group == "agent.plus" else group.replace(".", "/")
        is_key = "." in group and is_group(meant.partition("@")[0])
        if not is_key and not self._options_of(group):
            return
        values = list(override.sweep_iterator()) if override.is_discrete_sweep() else [override.value()]
        if is_key:
            if any(isinstance(one, str) for one in values):
                raise ConfigError(
                    f"{override.input_line}: options are chosen by their group; write {meant}={values[0]}."
                )
            return
        for value in values:
            if value is None:
                raise ConfigError(
                    f"{override.input_line}: a config group takes the name of one of its options."
                )
            if isinstance(value, list | dict):
                listed = ",".join(map(str, value))
                raise ConfigError(
                    f"{override.input_line}: {group} takes the name of one option; "
                    f"to sweep over several, -m {group}={listed}."
                )


@contextmanager
def resolving(config: DictConfig) -> Iterator[None]:
    """Within it, ${hydra:...} stands for what is in this config."""
    settings = HydraConfig.instance()
    before = settings.cfg
    settings.cfg = config  # type: ignore[assignment]  # set_config would make a copy
    try:
        yield
    finally:
        settings.cfg = before


def _composed(
    config: DictConfig, shared: Mapping[str, Any], number: int | None, folder: Callable[[], Path]
) -> Composed:
    """A composed config as plain values, resolved as Hydra would within its run."""
    with resolving(config):
        with read_write(config.hydra), open_dict(config.hydra):
            if number is not None:
                config.hydra.job.id, config.hydra.job.num = str(number), number
            where = folder().expanduser()
            config.hydra.runtime.output_dir = str(where.absolute())
        values = {str(name): _resolved(config[name]) for name in config if name != "hydra"}
        own = {name: plain(config.hydra[name], resolve=False) for name in _OWN}
    overrides = own["overrides"]["task"]
    _check_network(values, own["runtime"]["choices"], overrides)
    return Composed(number or 0, list(overrides), values, where, {**shared, **own})


def _check_network(config: Config, choices: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """ConfigError if a typed agent that sets the network, such as crelu, is not what its name says.

    A preset may have changed what it sets, or the command line what is all that there is to it.
    """
    typed = {override.partition("=")[0].lstrip("+") for override in overrides}
    if "agent" not in typed:
        return
    agent, preset = choices["agent"], choices.get("experiment")
    option = own_option("agent", agent)
    is_network = option.get("agent", {}).get("_target_") == "continual.agents.base.Base"
    for key, value in option.get("network", {}).items():
        found = config["network"].get(key)
        if found == value or value == "auto":
            continue
        if f"network.{key}" in typed and is_network:
            raise ConfigError(
                f"agent={agent}: it is network.{key}={value}, and {found} was given; choose agent=base."
            )
        if f"network.{key}" not in typed and preset:
            raise ConfigError(
                f"agent={agent}: it is network.{key}={value}, which experiment={preset} sets to {found}; "
                f"choose another agent, or give network.{key}={value}."
            )


def _place(override: Override) -> str:
    """Where in the config it puts what it chooses or sets."""
    return override.package or override.key_or_group.replace("/", ".")


def _resolved(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


_one_at_a_time = threading.RLock()
_folders: list[Path] = []


@contextmanager
def _hydra(folder: Path) -> Iterator[ConfigLoader]:
    """Hydra with this folder of configs, of which a process has one at a time."""
    with _one_at_a_time:
        if _folders == [folder]:
            yield GlobalHydra.instance().config_loader()
            return
        running, settings = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
        version = VersionBase.instance().version_base
        GlobalHydra.instance().clear()
        register_best(config_folder() / "best.yaml")
        register_resolvers()
        _folders.append(folder)
        try:
            with hydra.initialize_config_dir(str(folder.absolute()), job_name="train", **DEFAULTS_OF_1_3):
                yield GlobalHydra.instance().config_loader()
        finally:
            _folders.pop()
            GlobalHydra.instance().clear()
            if running is not None:
                GlobalHydra.instance().initialize(running)
            HydraConfig.instance().cfg = settings
            VersionBase.instance().version_base = version


@contextmanager
def _naming(number: int, overrides: Sequence[str]) -> Iterator[None]:
    """Let a user's mistake in here name the job that it is in."""
    with naming(number, overrides), _one_sentence():
        yield


@contextmanager
def _one_sentence() -> Iterator[None]:
    """Errors of Hydra's and OmegaConf's that a user can mend become a ConfigError of one sentence."""
    try:
        yield
    except Exception as error:
        sentence = one_sentence(error)
        if sentence is None:
            raise
        raise ConfigError(sentence) from error
