"""`sweep.py upload`: W&B runs from folders, for whatever has not reached the server.

What a run has recorded is all there is to its W&B run, so it does not matter why that is missing: no
network, a killed process, wandb.mode=offline or disabled.
"""

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

from continual import schema
from continual.config import Replica, WandbConfig
from continual.errors import UserError
from continual.tracking import frozen
from continual.tracking.lock import FolderLock, holder
from continual.tracking.recorded import RecordedRun
from continual.tracking.wandb_run import Outages, WandbRun, WandbWriter

log = logging.getLogger(__name__)

_AT_A_TIME = 64  # runs that are sent by one process


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
    outages = Outages("the same command sends what is missing")
    for first in range(0, len(folders), _AT_A_TIME):
        writer, sending = WandbWriter(outages), 0
        with ExitStack() as locks:
            for path in folders[first : first + _AT_A_TIME]:
                try:
                    # Whoever is to train a run that is not sent is not to wait for those that are.
                    with ExitStack() as lock:
                        lock.enter_context(FolderLock(path))
                        new = _send(frozen.load(path, path.parent.name), writer, again)
                        if new:
                            locks.enter_context(lock.pop_all())
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
    log.info("runs sent: %d; at W&B before: %d; missing: %d", len(arrived), before, missing)
    return missing


def _send(replica: Replica, writer: WandbWriter, again: bool) -> bool:
    """Hand a run to the writer, unless it is at the server as it is in its folder, or has nothing to show."""
    given = replica.config.get("wandb")
    wandb = {**asdict(WandbConfig()), **(given if isinstance(given, Mapping) else {}), "mode": "online"}
    schema.check_values(WandbConfig, wandb, f"{replica.folder}: wandb")
    run = WandbRun.of(replace(replica, config={**replica.config, "wandb": wandb}))
    recorded = RecordedRun.read(replica)
    if not recorded.has_content or (run.has_arrived(recorded) and not again):
        return False
    trainer = holder(replica.folder.parent)
    if trainer and not recorded.summary:
        raise UserError(f"{replica.folder} is yet to be trained to its end, by {trainer}.")
    writer.write(run, recorded)
    return True
