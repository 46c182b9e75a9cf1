"""One Weights & Biases run per replica, hundreds of them open in one process.

W&B is an extra: whatever goes wrong with it is said once per process and training goes on. It is
imported only where it is used, since the import alone takes half a second.
"""

import atexit
import contextlib
import logging
import os
import resource
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import wandb

_logger = logging.getLogger(__name__)

_BARE_COLUMNS = frozenset({"task", "task_type", "step"})
_PERFORMANCE_ENDINGS = ("accuracy", "loss", "transfer", "forgetting")
_SECTIONS = ("performance", "plasticity", "layers")

# wandb-core holds three open files per run (and one for a while after its end), this process one.
_FILES_PER_RUN = 4
_OTHER_FILES = 64

_INIT_TIMEOUT = 30.0  # seconds until a server counts as out of reach
_FINISH_TIMEOUT = 60.0  # seconds a finished run may go on uploading; the rest stays on disk
_LONGEST_TAG = 64  # characters; W&B refuses longer ones


def section_key(column: str) -> str:
    """Return the W&B key for a column of `tasks.csv`; the part before its first "/" is a section.

    - `task`, `task_type` and `step` tell where in the run a row lies and keep their names;
    - a column of one layer, `<measure>/<layer>`, becomes `layers/<measure>/<layer>`;
    - what ends in accuracy, loss, transfer or forgetting, with or without a fraction of the task
      (`online_accuracy@0.25`), is `performance/...`;
    - every other measure is `plasticity/...`.
    """
    if column in _BARE_COLUMNS:
        return column
    if "/" in column:
        return f"layers/{column}"
    measure = column.partition("@")[0]
    return f"{'performance' if measure.endswith(_PERFORMANCE_ENDINGS) else 'plasticity'}/{column}"


class WandbRun:
    """The W&B run of one replica; its files lie in `<folder>/wandb/`.

    Where a server cannot be used (no network, no or a bad key), this run and the later ones of the
    process are written offline, for `wandb sync` to send. After any other failure the run does
    nothing more. Both are logged as one warning per process and kind of failure, never raised.

    What W&B has not yet written (offline: up to 15 s) is lost when the process is killed. So a
    resumed run should log all rows of its `tasks.csv` anew: a row has the task's number as W&B's
    step, so an online run skips those that the server has, and the parts of an offline run, which
    share one id, repeat them with the same values.

    A run must be finished before its id is started again in the same process. Runs may be made and
    finished from several threads, which saves time online, where each waits for the server.
    `mode="disabled"` does nothing and does not import wandb.
    """

    def __init__(
        self,
        *,
        folder: Path,
        mode: Literal["online", "offline", "disabled"],
        run_id: str,
        name: str,
        group: str,
        job_type: str,
        tags: Sequence[str],
        config: Mapping[str, Any],
        project: str,
        entity: str | None,
        resumed: bool,
    ) -> None:
        """Start the run.

        `run_id` must be the same when the run is `resumed`; `config` holds plain values only.
        """
        self._run: wandb.Run | None = None
        self._offline = False
        self._folder = folder
        if mode == "disabled":
            return
        self._config = dict(config)
        self._settings: dict[str, Any] = {
            "run_id": run_id,
            "run_name": name,
            "run_group": group,
            "run_job_type": job_type,
            "run_tags": tuple(tag[:_LONGEST_TAG] for tag in tags if tag),
            "project": project,
            "entity": entity,
        }
        if not _process.take_place():
            _process.warn_once(
                "files",
                "Some replicas have no W&B run: %d open files are allowed, too few for more than "
                "%d W&B runs at a time; raise the hard limit (ulimit -H -n).",
                *_file_limit_and_places(),
            )
            return
        try:
            if mode == "online":
                self._start_online(resumed)
            if self._run is None:
                self._start("offline")
        except Exception as error:
            _process.give_place_back()
            _process.warn_once("start", "A W&B run could not be started (%s); training goes on.", _say(error))

    def log(self, row: Mapping[str, float | int | str | None]) -> None:
        """Log one row of `tasks.csv`, without its empty cells, at step `row["task"]`."""
        if self._run is None:
            return
        step = row["task"]
        if not isinstance(step, int):
            raise TypeError(f"a row's task is a whole number, not {step!r}")
        values = {section_key(key): value for key, value in row.items() if value not in (None, "")}
        try:
            # Without commit=True a row would wait for the next one, and the last be lost by a kill.
            self._run.log(values, step=step, commit=True)
        except Exception as error:
            self._run = None
            _process.warn_once("log", "Logging to W&B failed (%s); training goes on without it.", _say(error))

    def finish(self, summary: Mapping[str, Any], exit_code: int = 0) -> None:
        """Write the run's summary, mark it finished (failed for another `exit_code`), close it."""
        run, self._run = self._run, None
        if run is None:
            return
        try:
            run.summary.update(dict(summary))
            if not self._offline and _process.server_lost:
                return  # when the process ends, wandb gives up on all such runs together
            run.finish(exit_code)
            _process.end_run()
            if self._offline:
                _check_and_tidy(Path(run.dir).parent)
        except Exception as error:
            if not self._offline:
                _process.server_lost = True
            _process.warn_once(
                "finish",
                "A W&B run could not be finished (%s); what there is of it lies in %s, for `wandb sync`.",
                _say(error),
                self._folder / "wandb",
            )

    def _start_online(self, resumed: bool) -> None:
        """Start the run at the server, unless that is lost; on failure it counts as lost."""
        with _process.alone_if_first():
            if _process.server_lost:
                return
            parts_before = set(self._folder.glob("wandb/run-*"))
            try:
                self._start("online", resume="allow" if resumed else None)
            except Exception as error:
                _process.server_lost = True
                _process.warn_once(
                    "online",
                    "W&B cannot be used online (%s): runs are written offline; "
                    "`wandb sync %s` sends this one later.",
                    _say(error),
                    self._folder / "wandb",
                )
                _process.forget_failed_start()
                for part in set(self._folder.glob("wandb/run-*")) - parts_before:
                    shutil.rmtree(part, ignore_errors=True)

    def _start(self, mode: Literal["online", "offline"], resume: Literal["allow"] | None = None) -> None:
        import wandb

        _process.start_service()
        self._offline = mode == "offline"
        run = wandb.init(
            config=self._config,
            # wandb writes into the settings it is given: each run needs its own.
            settings=wandb.Settings(
                **self._settings,
                mode=mode,
                resume=resume,
                reinit="create_new",
                root_dir=str(self._folder),
                use_dot_wandb=False,
                symlink=False,
                silent=True,
                quiet=True,
                console="off",
                init_timeout=_INIT_TIMEOUT,
                finish_timeout=0 if self._offline else _FINISH_TIMEOUT,
                finish_timeout_raises=True,
                save_code=False,
                disable_code=True,
                disable_git=True,
                disable_job_creation=True,
                label_disable=True,
                x_disable_meta=True,
                x_disable_stats=True,
                x_disable_machine_info=True,
                x_save_requirements=False,
            ),
        )
        run.define_metric("task")
        for section in _SECTIONS:
            run.define_metric(f"{section}/*", step_metric="task")
        self._run = run
        _process.begin_run()


class _Process:
    """What the runs of this process share."""

    def __init__(self) -> None:
        self.places_taken = 0
        self.runs_open = 0
        self.server_lost = False
        self._service_owner: int | None = None  # the process that started it; a fork has none
        self._warned: set[str] = set()
        self._lock = threading.RLock()
        self._first_start = threading.Lock()

    def warn_once(self, kind: str, message: str, *args: object) -> None:
        with self._lock:
            if kind in self._warned:
                return
            self._warned.add(kind)
        _logger.warning(message, *args)

    def take_place(self) -> bool:
        """Count one more open run, if the limit of open files allows it."""
        with self._lock:
            if not allow_open_runs(self.places_taken + 1):
                return False
            self.places_taken += 1
            return True

    def give_place_back(self) -> None:
        with self._lock:
            self.places_taken -= 1

    def begin_run(self) -> None:
        with self._lock:
            self.runs_open += 1

    def end_run(self) -> None:
        with self._lock:
            self.places_taken -= 1
            self.runs_open -= 1

    @contextlib.contextmanager
    def alone_if_first(self) -> Iterator[None]:
        """Hold back other threads' first runs, so that one alone finds out if there is a server."""
        with self._first_start if self.runs_open == 0 else contextlib.nullcontext():
            yield

    def forget_failed_start(self) -> None:
        """Free the id of a run that failed to start; wandb can do so only by ending every run."""
        import wandb

        if self.runs_open == 0:
            wandb.teardown()
            self._service_owner = None

    def start_service(self) -> None:
        """Start wandb-core, quietly and with its own log in a folder that ends with the process."""
        import wandb

        # On a full disk, each line of wandb's debug.log would put a traceback on stderr instead.
        logging.raiseExceptions = False
        with self._lock:
            if self._service_owner == os.getpid():
                return
            # A parent's wandb-core keeps the ids of a killed child in use: each process has its own.
            os.environ.pop("WANDB_SERVICE", None)
            log_folder = tempfile.mkdtemp(prefix="wandb-log-")
            atexit.register(shutil.rmtree, log_folder, ignore_errors=True)
            with _environment_defaults(WANDB_CACHE_DIR=log_folder, WANDB_ERROR_REPORTING="false"):
                wandb.setup(wandb.Settings(silent=True))
            self._service_owner = os.getpid()


_process = _Process()


def allow_open_runs(runs: int) -> bool:
    """Raise this process's soft limit of open files so that this many W&B runs can be open.

    wandb-core inherits the hard limit; past it, it loses whole runs without an error.
    Returns False where the hard limit is too low for that many.
    """
    needed = _OTHER_FILES + _FILES_PER_RUN * runs
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return True
    limit = needed if hard == resource.RLIM_INFINITY else hard
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    except (OSError, ValueError):
        return False
    return limit >= needed


def _file_limit_and_places() -> tuple[int, int]:
    """Return the limit of open files and the number of runs that fit under it."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return limit, max(0, (limit - _OTHER_FILES) // _FILES_PER_RUN)


def _check_and_tidy(run_files: Path) -> None:
    """Remove the debug logs of a finished offline run; raise if they tell of lost records.

    wandb-core reports a full disk or too many open files nowhere else.
    """
    if not any(run_files.glob("*.wandb")):
        raise OSError(f"{run_files} has no .wandb file")
    log = run_files / "logs" / "debug-internal.log"
    if log.exists():
        with open(log, "a+", errors="replace") as file:
            file.write("\n")  # on a disk that is full, the log cannot tell of it either: this says so
            file.seek(0)
            if '"level":"ERROR"' in file.read():
                raise OSError(f"records were lost, see {log}")
    for name in ("logs", "tmp"):
        shutil.rmtree(run_files / name, ignore_errors=True)


@contextlib.contextmanager
def _environment_defaults(**values: str) -> Iterator[None]:
    """Set environment variables that have no value, for the time of a block."""
    absent = {key: value for key, value in values.items() if key not in os.environ}
    os.environ.update(absent)
    try:
        yield
    finally:
        for key in absent:
            os.environ.pop(key, None)


def _say(error: Exception) -> str:
    """Return an error's kind and the first line of its text."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}".rstrip(": ")
