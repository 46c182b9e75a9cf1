"""`sweep.py upload`: W&B runs from folders, for whatever has not reached the server.

What a run has recorded is all there is to its W&B run, so it does not matter why that is missing: no
network, a killed process, wandb.mode=offline or disabled.
"""

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

from continual import schema
from continual.config import Replica, WandbConfig
from continual.errors import UserError
from continual.identity import OWN_TARGETS
from continual.tracking import frozen
from continual.tracking.lock import FolderLock
from continual.tracking.run_folder import read_summary, read_tasks
from continual.tracking.score import running_scores
from continual.tracking.wandb_run import WandbRun, WandbWriter

log = logging.getLogger(__name__)

_AT_A_TIME = 64  # runs whose rows are held in memory


def upload(folder: Path, again: bool = False) -> int:
    """Send the runs in this folder to W&B; returns how many have not arrived.

    Those that have arrived before as they are now are left out, unless they are to be sent `again`; those
    that are being trained are left to their own process. UserError if there is no run.
    """
    folders = sorted(found.parents[1] for found in folder.glob("**/.hydra/config.yaml"))
    if not folders:
        raise UserError(f"{folder} holds no runs.")
    arrived: set[str] = set()
    before = missing = 0
    for first in range(0, len(folders), _AT_A_TIME):
        writer, sending = WandbWriter(live=False), 0
        with ExitStack() as locks:
            for path in folders[first : first + _AT_A_TIME]:
                try:
                    locks.enter_context(FolderLock(path))
                    new = _send(frozen.load(path, path.parent.name), writer, again)
                except UserError as error:  # in use, or damaged
                    log.warning("%s", error)
                    missing += 1
                    continue
                sending += new
                before += not new
            writer.close()
        arrived |= writer.arrived
        missing += sending - len(writer.arrived)
        if sending and not writer.arrived:
            missing += len(folders) - len(folders[: first + _AT_A_TIME])
            break
    log.info("%d runs sent, %d were there before, %d are missing", len(arrived), before, missing)
    return missing


def _send(replica: Replica, writer: WandbWriter, again: bool) -> bool:
    """Hand a run to the writer, unless it is at the server as it is in its folder, or has nothing to show."""
    given = replica.config.get("wandb")
    wandb = {**asdict(WandbConfig()), **(given if isinstance(given, Mapping) else {})}
    schema.check_values(WandbConfig, wandb, f"{replica.folder}: wandb")
    replica = replace(replica, config={**replica.config, "wandb": wandb})
    rows, summary = read_tasks(replica.folder), read_summary(replica.folder)
    run = replace(WandbRun.of(replica), mode="online")
    if not (rows or summary) or (run.has_arrived(len(rows), summary) and not again):
        return False
    scores: Sequence[float | None] = [None] * len(rows)
    # A folder may be a stranger's: only what is this program's own is imported for it.
    if str(replica.config["env"].get("_target_")).startswith(OWN_TARGETS):
        scores = running_scores(replica.config, rows)
    writer.start(run, resumed=True)
    for row, score in zip(rows, scores, strict=True):
        writer.log(run, {**row, "score": score})
    if summary:
        writer.end(run, summary)
    return True
