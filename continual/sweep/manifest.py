"""`manifest.json` in a sweep's folder: which run is where, and how all of them were submitted."""

import json
import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from continual import provenance
from continual.config import Replica
from continual.errors import UserError
from continual.identity import config_hash, resume_hash
from continual.tracking.storage import replace_file

_NAME = "manifest.json"
_VERSION = 1


@dataclass
class Entry:
    """A run: its number in the sweep that first had it, what was chosen for it, and its config's hash.

    `resume_hash` is equal for runs of which one continues the other with more tasks than `num_tasks`.
    """

    number: int
    overrides: list[str]
    config_hash: str
    resume_hash: str = ""
    num_tasks: int = 0

    @classmethod
    def of(cls, run: Replica, number: int, overrides: Sequence[str]) -> "Entry":
        """The entry of a run."""
        num_tasks = int(run.config["env"]["num_tasks"])
        return cls(number, list(overrides), config_hash(run.config), resume_hash(run.config), num_tasks)


@dataclass
class Manifest:
    """All runs of a sweep by the name of their folder in it, and the SLURM jobs that they were given to.

    `launcher` is the launcher's config node, `code` the code at the first submission, `directory` where
    relative paths in the configs start. `submissions` maps a SLURM job's id (`123_4` in an array) to the
    folders of the runs in its population; `cancelled` are those of which the last job was cancelled.
    """

    sweep: Path
    launcher: dict[str, Any]
    code: dict[str, Any]
    directory: str
    runs: dict[str, Entry] = field(default_factory=dict)
    submissions: dict[str, list[str]] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)

    @classmethod
    def begin(cls, sweep: Path) -> "Manifest":
        """A manifest without runs, of the code that runs now."""
        return cls(sweep, {}, asdict(provenance.code()), str(Path.cwd()))

    @classmethod
    def read(cls, sweep: Path) -> "Manifest | None":
        """The manifest in this folder, or None if there is none; UserError if it cannot be read."""
        path = sweep / _NAME
        try:
            content = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise UserError(
                f"{path} cannot be read ({error}); restore it, or choose another folder."
            ) from error
        if not isinstance(content, dict) or content.pop("version", None) != _VERSION:
            raise UserError(f"{path} was written by another version of this program; choose another folder.")
        return cls(sweep=sweep, **_checked(content, path))

    @property
    def path(self) -> Path:
        """The file."""
        return self.sweep / _NAME

    def write(self) -> None:
        """Put the file in place, whole."""
        content: dict[str, Any] = {"version": _VERSION, **asdict(self)}
        del content["sweep"]
        self.sweep.mkdir(parents=True, exist_ok=True)
        replace_file(self.sweep / _NAME, json.dumps(content, indent=1).encode() + b"\n")
        changes = provenance.uncommitted_changes()
        diff = self.sweep / "code.diff"
        if changes and self.code == asdict(provenance.code()) and not diff.exists():
            replace_file(diff, changes)

    def add(self, run: Replica, number: int, overrides: Sequence[str]) -> None:
        """Enter a run, unless it is there; one that is to have more tasks than it had is entered anew."""
        name, entry = self.name(run.folder), Entry.of(run, number, overrides)
        if name not in self.runs or self.runs[name].config_hash != entry.config_hash:
            self.runs[name] = entry

    def add_submission(self, job: str, population: Iterable[Replica]) -> None:
        """Note that a SLURM job trains these runs."""
        names = [self.name(run.folder) for run in population]
        self.submissions[job] = names
        self.cancelled = [name for name in self.cancelled if name not in names]

    def add_cancelled(self, population: Iterable[Replica]) -> None:
        """Note that these runs have not ended because their SLURM job was cancelled."""
        self.cancelled = [*dict.fromkeys([*self.cancelled, *(self.name(run.folder) for run in population)])]

    def holds(self, folder: Path, config_hash: str) -> bool:
        """Whether the run in this folder is the one with this config."""
        entry = self.runs.get(self.name(folder))
        return entry is not None and entry.config_hash == config_hash

    def name(self, folder: Path) -> str:
        """A run's folder as it is called here."""
        return os.path.relpath(folder, self.sweep)


def _checked(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """The fields of a manifest; UserError if one is missing or of another kind, as in a damaged file."""
    kinds = {
        "launcher": dict,
        "code": dict,
        "directory": str,
        "runs": dict,
        "submissions": dict,
        "cancelled": list,
    }
    content.setdefault("cancelled", [])
    wrong = [name for name, kind in kinds.items() if not isinstance(content.get(name), kind)]
    try:
        if wrong or content.keys() - kinds:
            raise TypeError(f"its {(wrong or sorted(content.keys() - kinds))[0]!r}")
        runs = {name: Entry(**entry) for name, entry in content["runs"].items()}
        for name, entry in runs.items():
            if not (
                isinstance(entry.number, int)
                and _all_texts(entry.overrides)
                and isinstance(entry.config_hash, str)
                and isinstance(entry.resume_hash, str)
                and isinstance(entry.num_tasks, int)
                and not Path(name).is_absolute()
            ):
                raise TypeError(f"its run {name!r}")
        if not all(map(_all_texts, [*content["submissions"].values(), content["cancelled"]])):
            raise TypeError("its jobs")
        provenance.Code(**content["code"])
    except TypeError as error:
        raise UserError(f"{path} is damaged ({error}): restore it, or choose another folder.") from error
    return {**content, "runs": runs}


def _all_texts(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


class Folders:
    """Gives each job of a sweep its folder: a run that the sweep has had keeps its own.

    Runs are known by their config's hash, because a job's number changes when the grid grows; the same run
    with more tasks than it had keeps its folder too. What was asked
    for with the same words, and yet has another config, gets the same folder, where that is noticed.
    Others get the folder with their number or, if that is another run's, the smallest number that is free.
    """

    def __init__(self, sweep: Path, manifest: Manifest | None) -> None:
        self._sweep = sweep
        self._taken = set(manifest.runs) if manifest else set()
        self._entries = manifest.runs if manifest else {}

    def assign(self, wanted: Sequence[Path], jobs: Sequence[Entry]) -> list[Path]:
        """The folders of jobs that would have those wanted by their numbers."""
        own = [os.path.relpath(folder, self._sweep) for folder in wanted]
        names: list[str | None] = [None] * len(own)
        known = self._entries.items()
        same = {folder: entry.config_hash for folder, entry in known}
        self._recognise(names, own, [job.config_hash for job in jobs], same)
        for tasks in sorted({job.num_tasks for job in jobs}):
            shorter = {f: entry.resume_hash for f, entry in known if 0 < entry.num_tasks < tasks}
            longer = [job.resume_hash if job.num_tasks == tasks else None for job in jobs]
            self._recognise(names, own, longer, shorter)
        words = {folder: tuple(entry.overrides) for folder, entry in known}
        self._recognise(names, own, [tuple(job.overrides) for job in jobs], words)
        for i, name in enumerate(own):
            if names[i] is None and name not in self._taken:
                names[i] = name
                self._taken.add(name)
        number = 0
        for i, name in enumerate(own):
            if names[i] is None and name.isdecimal():
                while str(number) in self._taken or (self._sweep / str(number)).exists():
                    number += 1
                names[i] = str(number)
                self._taken.add(str(number))
        return [
            folder if name is None or name == named else self._sweep / name
            for folder, name, named in zip(wanted, names, own, strict=True)
        ]

    @staticmethod
    def _recognise(
        names: list[str | None],
        own: Sequence[str],
        marks: Sequence[Hashable],
        known: Mapping[str, Hashable],
    ) -> None:
        """Name the jobs that have no name yet and bear the mark of a run whose name is not given yet."""
        free: dict[Hashable, list[str]] = {}
        given = set(names)
        for folder, mark in known.items():
            if folder not in given:
                free.setdefault(mark, []).append(folder)
        for i, mark in enumerate(marks):
            folders = free.get(mark)
            if names[i] is None and folders:
                names[i] = own[i] if own[i] in folders else folders[0]
                folders.remove(str(names[i]))
