"""The process that writes W&B runs: `python wandb_writer.py`, fed with messages by `wandb_run.WandbWriter`.

W&B has a process of its own so that nothing of it is in the way of training: neither its threads and
its seconds of start nor what it keeps for a whole process (settings, environment variables, the last run).

Each line of standard input is a message in JSON. The first of a run is `{"run": ..., "start": {...}}`; then
comes one `{"run": ..., "row": {...}, "step": ...}` per task, and at last a `{"run": ..., "summary": {...},
"failed": ...}`, or `{"run": ..., "interrupted": true}`, as which a run without a last message counts when
the input ends. Each line of standard output is a message in JSON too: `{"warning": ..., "kind": ...}`, or
`{"arrived": ...}` for a run that the server has in full.

This file imports nothing of `continual`: it starts in 0.1 s, and torch does not come with it.
"""

import contextlib
import json
import os
import queue
import shutil
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import wandb

SECTIONS = ("performance", "plasticity", "plasticity_by_layer")

_AT_A_TIME = 4  # runs that are started at a time, or, where their rows are all there, written
_WAITING = 1000  # messages
_SECONDS_TO_CLOSE = 5.0  # that an offline run's file may take to be whole after its run has finished

_BLOCK, _CHUNK = 32768, struct.Struct("<IHB")  # of an offline run's file, see `_is_whole`

Message = dict[str, Any]


class RunWriter(threading.Thread):
    """Writes one run, as its messages come."""

    def __init__(self, start: Message, shared: "Shared") -> None:
        super().__init__()
        # Rows that come as they are trained are never held up; others wait until they can be written.
        self.messages: queue.Queue[Message | None] = queue.Queue(0 if start["live"] else _WAITING)
        self._start, self._shared = start, shared
        self._waits_since = 0.0
        self._is_over = False

    def run(self) -> None:
        """Write the run; a failure becomes a warning."""
        try:
            with self._shared.slots:
                if self._shared.server_lost and self._start["mode"] == "online":
                    raise ConnectionError("the server was out of reach")
                self._waits_since = time.monotonic()
                run = _open(self._start)
                if not self._start["live"]:
                    self._write(run)
            if self._start["live"]:
                self._write(run)
        except Exception as error:  # whatever it is, the run can be written later
            waited = time.monotonic() - self._waits_since
            self._shared.failed(self._start, error, waited >= self._start["timeout"])
            for _ in self._coming():  # nobody is to wait for this run
                pass

    def _coming(self) -> Iterator[Message]:
        """The messages that have not been read, as they come, until the last."""
        while not self._is_over:
            message = self.messages.get()
            self._is_over = message is None
            if message is not None:
                yield message

    def _write(self, run: "wandb.Run") -> None:
        start, rows, last = self._start, 0, Message()
        for message in self._coming():
            if "row" in message:
                run.log(message["row"], step=message["step"], commit=True)
                rows += 1
            else:
                last = message
        if last:
            run.summary.update(last["summary"])
        elif start["folder"] is not None:  # W&B would give an agent the same run again
            run.mark_preempting()
        self._waits_since = time.monotonic()
        run.finish(exit_code=0 if last and not last["failed"] else 1)
        if start["folder"] is None:  # the run that a sweep's agent asked for is nowhere but at the server
            return
        parts = Path(start["folder"]) / "wandb"
        if start["mode"] == "offline":
            _check_written(Path(run.dir).parent)
            for name in ("logs", "tmp"):
                shutil.rmtree(Path(run.dir).parent / name, ignore_errors=True)
            _remove_parts(parts, start["id"], "offline-run-*", keep=Path(run.dir).parent)
        else:
            uploaded = {key: start[key] for key in ("id", "project", "entity")}
            uploaded |= {"rows": rows, "status": last["summary"].get("status") if last else None}
            (parts / "uploaded.json").write_text(json.dumps(uploaded) + "\n")
            _remove_parts(parts, start["id"], "run-*")
            for file in parts.glob(f"offline-run-*-{start['id']}*/*.wandb"):
                file.with_name(f"{file.name}.synced").touch()  # so that `wandb sync` leaves it alone
            self._shared.say(arrived=start["folder"])


class Shared:
    """What the runs of this process share: slots, whether the server is lost, and the way to say it."""

    def __init__(self, out: IO[str]) -> None:
        self.slots = threading.BoundedSemaphore(_AT_A_TIME)
        self.server_lost = False
        self.all_well = True
        self._out, self._lock = out, threading.Lock()

    def say(self, **message: str) -> None:
        """Print a message, if anyone still listens."""
        with self._lock, contextlib.suppress(OSError):
            print(json.dumps(message), file=self._out, flush=True)

    def failed(self, start: Message, error: Exception, timed_out: bool) -> None:
        """Say what became of a run."""
        mode = start["mode"]
        self.all_well = False
        self.server_lost |= mode == "online" and timed_out
        what = "W&B cannot be reached" if mode == "online" else "W&B runs cannot be written"
        self.say(kind=mode, warning=f"{what} ({_in_words(error)})")


def _open(start: Message) -> "wandb.Run":
    """Start a run, with all that wandb would otherwise take from its surroundings left out."""
    import wandb

    run = wandb.init(
        config=start["config"],
        settings=wandb.Settings(
            run_id=start["id"],
            run_name=start["name"],
            run_group=start["group"],
            run_job_type=start["job_type"],
            run_tags=tuple(start["tags"]),
            run_notes=start["notes"],
            project=start["project"],
            entity=start["entity"],
            root_dir=start["folder"] or tempfile.gettempdir(),
            program="continual",
            mode=start["mode"],
            resume=start["resume"],
            reinit="create_new",
            symlink=False,
            silent=True,
            quiet=True,
            console="off",
            init_timeout=start["timeout"],
            finish_timeout=2 * start["timeout"],
            finish_timeout_raises=True,
            save_code=False,
            disable_code=True,
            disable_git=True,
            disable_job_creation=True,
            label_disable=True,
            sagemaker_disable=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
        ),
    )
    run.define_metric("task")
    for section in SECTIONS:
        run.define_metric(f"{section}/*", step_metric="task")
    return run


def _check_written(part: Path) -> None:
    """OSError if an offline run's file is not whole: of a write that fails, wandb itself says nothing."""
    give_up = time.monotonic() + _SECONDS_TO_CLOSE
    while not any(map(_is_whole, part.glob("*.wandb"))):
        if time.monotonic() > give_up:
            raise OSError(f"records are missing in {part}")
        time.sleep(0.05)


def _is_whole(file: Path) -> bool:
    """Whether a file of records ends with that of the run's end; after a failed write none would follow.

    The records lie in the format of LevelDB's log, after a header of 7 bytes: blocks of 32 KiB with chunks,
    each with its checksum (4 bytes), its length (2), and whether it is all of a record (1), its first (2),
    middle (3) or last (4) part (1 byte).
    """
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]  # made at run time

    data = file.read_bytes()
    at, record, last = 7, b"", b""
    while at < len(data):
        left = _BLOCK - at % _BLOCK
        if left < _CHUNK.size:  # too few bytes for a chunk end a block
            at += left
            continue
        if at + _CHUNK.size > len(data):
            return False
        _, length, part = _CHUNK.unpack_from(data, at)
        at += _CHUNK.size + length
        record += data[at - length : at]
        if part in (1, 4):
            record, last = b"", record
    return at == len(data) and not record and bool(Record.FromString(last).HasField("exit"))


def _remove_parts(parts: Path, run_id: str, pattern: str, keep: Path | None = None) -> None:
    """Remove what was written of this run before; an offline part that was synced stays what it is."""
    for part in parts.glob(f"{pattern}-{run_id}*"):
        if part != keep and not any(part.glob("*.synced")):
            shutil.rmtree(part, ignore_errors=True)


def _in_words(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}".rstrip(": ")


def _messages(lines: Iterator[str]) -> Iterator[Mapping[str, Any]]:
    for line in lines:
        with contextlib.suppress(ValueError):  # a killed process may have left half a line
            yield json.loads(line)


def main() -> None:
    """Write the runs that standard input tells of."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what W&B prints is no message
    shared = Shared(out)
    writers: dict[str, RunWriter] = {}
    with tempfile.TemporaryDirectory(prefix="wandb-", ignore_cleanup_errors=True) as scratch:
        os.environ["TMPDIR"] = tempfile.tempdir = scratch
        os.environ.setdefault("WANDB_CACHE_DIR", scratch)
        for message in _messages(sys.stdin):
            if "start" in message:
                writers[message["run"]] = RunWriter(message["start"], shared)
                writers[message["run"]].start()
                continue
            messages = writers[message["run"]].messages
            if "interrupted" not in message:
                messages.put(dict(message))
            if "row" not in message:
                messages.put(None)
        for writer in writers.values():
            writer.messages.put(None)
        for writer in writers.values():
            writer.join()
        if shared.all_well and writers:
            import wandb

            wandb.teardown()
    os._exit(0)  # wandb would wait once more, for runs that cannot reach the server


if __name__ == "__main__":
    main()
