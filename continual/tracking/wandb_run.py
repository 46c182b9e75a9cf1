"""Weights & Biases runs, one per replica, made from what the replica has recorded.

Every row is on disk first, so W&B is never in the way of training: another process writes the runs
(`wandb_writer.py`), live where the mode is online, otherwise when the run has ended or is left at a
pause. Whatever does not reach the server is made good by `sweep.py upload` (`continual/sweep/upload.py`).
"""

import contextlib
import hashlib
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from continual.config import Replica
from continual.errors import UserError
from continual.identity import resume_hash
from continual.tracking import wandb_writer
from continual.tracking.recorded import RecordedRun
from continual.tracking.wandb_environment import environment, ignored

_logger = logging.getLogger(__name__)

_BARE_COLUMNS = frozenset({"task", "task_type", "step"})
_PERFORMANCE_ENDINGS = ("accuracy", "loss", "error", "transfer", "forgetting", "score")
_COLUMNS_OF_CHOICES = {
    "agent": "agent",
    "network": "network",
    "env": "env",
    "env/dataset": "dataset",
    "optimizer": "optimizer",
}
_LONGEST_TAG = 64  # characters; W&B refuses longer ones
_TIMEOUT = 30.0  # seconds until a server counts as out of reach; a run's end may take twice that
_SHORT_TIMEOUT = 3.0  # where it was out of reach for the runs before


def section_key(column: str) -> str:
    """Return the W&B key for a column of `tasks.csv`; the part before its first "/" is a section.

    W&B sorts sections by name: what people look for comes first.

    - `task`, `task_type` and `step` tell where in the run a row lies and keep their names;
    - a column of one layer, `<measure>/<layer>`, becomes `plasticity_by_layer/<measure>/<layer>`;
    - what ends in accuracy, loss, error, transfer, forgetting or score, with or without a fraction of the
      task (`online_accuracy@0.25`), is `performance/...`;
    - every other measure is `plasticity/...`.
    """
    if column in _BARE_COLUMNS:
        return column
    if "/" in column:
        return f"plasticity_by_layer/{column}"
    measure = column.partition("@")[0]
    return f"{'performance' if measure.endswith(_PERFORMANCE_ENDINGS) else 'plasticity'}/{column}"


@dataclass(frozen=True)
class WandbRun:
    """What a W&B run is called, where its files lie (`<folder>/wandb`), and what it is grouped by.

    `id` is the same whenever the run is written again, and no other run's. `folder` None leaves no files.
    """

    folder: str | None
    mode: str
    id: str | None
    name: str | None
    group: str | None
    job_type: str | None
    tags: tuple[str, ...]
    config: Mapping[str, Any]
    project: str | None
    entity: str | None
    notes: str | None = None

    @classmethod
    def of(cls, replica: Replica) -> "WandbRun":
        """The W&B run of a replica: the choices are columns of its config, all values are in `settings`."""
        wandb, choices, notes = replica.config["wandb"], replica.choices, replica.config.get("notes")
        folder = replica.folder.resolve()
        run_id = hashlib.sha256(f"{folder} {resume_hash(replica.config)}".encode()).hexdigest()[:16]
        agent, env = choices.get("agent", "agent"), choices.get("env", "env")
        tags = dict.fromkeys([*choices.values(), *wandb["tags"]])
        columns = {name: choices[group] for group, name in _COLUMNS_OF_CHOICES.items() if group in choices}
        return cls(
            folder=str(replica.folder.absolute()),
            mode=wandb["mode"],
            id=run_id,
            name=wandb["name"] or f"{agent}-{env}-seed{replica.config['seed']}",
            group=wandb["group"] or replica.group,
            job_type=agent,
            tags=tuple(tag[:_LONGEST_TAG] for tag in tags if tag),
            config={**columns, "seed": replica.config["seed"], "settings": replica.config},
            project=wandb["project"],
            entity=wandb["entity"],
            notes=None if notes is None else str(notes),
        )

    @classmethod
    def of_agent(cls, runs: Sequence[Replica]) -> "WandbRun":
        """The run that a sweep's agent asked for: W&B knows what it is called; its columns are all runs'."""
        one, *others = (cls.of(run) for run in runs)
        shared = {k: v for k, v in one.config.items() if all(other.config.get(k) == v for other in others)}
        return cls(
            folder=None,
            mode="online",
            id=None,
            name=None,
            group=None,
            job_type=None,
            tags=(),
            config={**shared, "runs": len(runs)},
            project=None,
            entity=None,
        )

    def has_arrived(self, recorded: RecordedRun) -> bool:
        """Whether the server has had the run as its folder has it."""
        try:
            uploaded = json.loads((Path(self.folder or "") / "wandb" / "uploaded.json").read_bytes())
        except (OSError, ValueError):
            return False
        now = {"id": self.id, "project": self.project, "entity": self.entity}
        return bool(uploaded == now | {"rows": len(recorded.rows), "status": recorded.status})


class Outages:
    """What is known to go wrong with W&B, shared by the writers of a sweep: each kind is said once."""

    def __init__(
        self, advice: str = "training goes on, and `python scripts/sweep.py upload FOLDER` makes it good"
    ) -> None:
        self._advice = advice
        self._known: set[str] = set()

    def is_new(self, kind: str) -> bool:
        """Whether this is the first time; it is known from now on."""
        is_new = kind not in self._known
        self._known.add(kind)
        return is_new

    def warn(self, kind: str, what: str) -> None:
        """Say what went wrong, if nothing of this kind did before."""
        if self.is_new(kind):
            _logger.warning("%s; %s.", what, self._advice)

    def end(self, kind: str) -> None:
        """It works again."""
        self._known.discard(kind)

    def last(self, kind: str) -> bool:
        """Whether something of this kind was wrong when it was last tried."""
        return kind in self._known


class WandbWriter:
    """Writes W&B runs in another process; nothing that goes wrong there is raised here.

    A failure is one warning for each kind of `outages`, and the training goes on. `close` is to be called
    however that ends: runs that were not ended are then left as interrupted. As a context it is closed at
    its end; if that is an exception, in no more than `seconds_when_left`, if they are given: what is not
    written by then can be made good later. With `agent` it writes the run that a sweep's agent asked for.
    """

    def __init__(
        self, outages: Outages | None = None, agent: bool = False, seconds_when_left: float | None = None
    ) -> None:
        self.arrived: set[str] = set()  # folders whose runs the server has in full
        self._outages = outages or Outages()
        self._agent = agent
        self._offline: list[Replica] = []
        self._process: subprocess.Popen[str] | None = None
        self._listener: threading.Thread | None = None
        self._is_lost = False
        self._patience = 5 * _TIMEOUT
        self._seconds_when_left = seconds_when_left

    def start(self, run: WandbRun, resumed: bool, live: bool = True) -> None:
        """Begin a run; one that is `resumed` joins what the server has of it.

        All rows of one that is not `live` come at once: few of them are written at a time.
        """
        resume = "allow" if resumed and run.mode == "online" else None
        timeout = _SHORT_TIMEOUT if live and self._outages.last("online") else _TIMEOUT
        self._patience += 0 if live else _TIMEOUT
        start = {**asdict(run), "resume": resume, "live": live, "timeout": timeout}
        self._send(run, {"start": start})

    def log(self, run: WandbRun, row: Mapping[str, float | int | str | None]) -> None:
        """Log one row of `tasks.csv`, without its empty cells, at step `row["task"]`."""
        values = {section_key(key): value for key, value in row.items() if value not in (None, "")}
        self._send(run, {"row": values, "step": row["task"]})

    def end(self, run: WandbRun, summary: Mapping[str, Any]) -> None:
        """The run is over, with this summary.json."""
        self._send(run, {"summary": dict(summary), "failed": summary["status"] == "failed"})

    def write(self, run: WandbRun, folder: RecordedRun) -> None:
        """Write a run as its folder has it."""
        self.start(run, resumed=True, live=False)
        for row, score in zip(folder.rows, folder.scores, strict=True):
            self.log(run, {**row, "score": score})
        if folder.summary:
            self.end(run, folder.summary)
        else:
            self._send(run, {"interrupted": True})

    def write_on_close(self, replica: Replica) -> None:
        """Write an offline run when this writer is closed: it can then no longer change, or has paused."""
        self._offline.append(replica)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        seconds = self._seconds_when_left if error else None
        timer = threading.Timer(seconds or 0, self._give_up)
        if seconds is not None:
            timer.start()
        self.close()
        timer.cancel()

    def _give_up(self) -> None:
        self._is_lost = True
        self._outages.warn(
            "time", f"W&B was given no more than {self._seconds_when_left:g} s, which are over"
        )
        if self._process:
            self._process.kill()

    def close(self) -> None:
        """Wait until the runs are written, or given up."""
        while self._offline and not self._is_lost:
            replica = self._offline.pop()
            try:
                recorded = RecordedRun.read(replica)
            except UserError as error:
                self._outages.warn("offline", str(error))
                continue
            if recorded.has_content:
                self.write(WandbRun.of(replica), recorded)
        if not self._process or not self._listener:
            return
        with contextlib.suppress(OSError):
            assert self._process.stdin
            self._process.stdin.close()
        self._listener.join(self._patience)
        if self._listener.is_alive():
            self._outages.warn("online", "W&B takes too long")
            self._process.kill()
        self._process.wait()

    def _send(self, run: WandbRun, message: Mapping[str, Any]) -> None:
        if self._is_lost:
            return
        try:
            process = self._process or self._started()
            assert process.stdin
            process.stdin.write(json.dumps({"run": run.folder, **message}) + "\n")
            process.stdin.flush()
        except OSError as error:
            self._is_lost = True
            self._outages.warn("process", f"W&B's process has ended ({error.strerror})")

    def _started(self) -> "subprocess.Popen[str]":
        if (names := ignored(os.environ)) and self._outages.is_new("environment"):
            _logger.info("Not read for W&B: %s; use wandb.* of the config instead.", ", ".join(names))
        self._process = subprocess.Popen(
            [sys.executable, "-P", wandb_writer.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment(os.environ, self._agent),
            start_new_session=True,  # a Ctrl-C asks training to stop, and that writes the rest
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        return self._process

    def _listen(self) -> None:
        assert self._process
        assert self._process.stdout
        with self._process.stdout as lines:
            for message in map(json.loads, lines):
                if "warning" in message:
                    self._outages.warn(message["kind"], message["warning"])
                else:
                    self.arrived.add(message["arrived"])
                    self._outages.end("online")
