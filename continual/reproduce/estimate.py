"""How long a reproduction takes, as far as that can be known beforehand."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from continual.machine import device
from continual.sweep.packed import populations_at_a_time

# Replica-steps a second of one CPU core with the paper's networks, where other programs run as well.
_STATED = {"mlp": 10_000.0, "convnet": 390.0, "deep_convnet": 300.0}


@dataclass(frozen=True)
class Place:
    """Where runs train: in SLURM's jobs or here, on GPUs or CPUs.

    `at_a_time` is how many populations train at a time here, 0 for SLURM, where that depends on the queue;
    `cores` is how many CPU cores each of them has.
    """

    slurm: bool
    gpu: bool
    at_a_time: int
    cores: int = 1


def place(launcher: dict[str, Any], device_name: str) -> Place:
    """The place that a launcher's config and the config's `device` name; ConfigError if it is not there."""
    if str(launcher["_target_"]).endswith(".SlurmLauncher"):
        return Place(True, bool(launcher["gpus"]) and device_name != "cpu", 0, int(launcher["cpus"]))
    at_a_time = populations_at_a_time(launcher.get("workers", "auto"), device_name)
    return Place(False, device(device_name).type == "cuda", at_a_time)


def finished(folder: Path) -> tuple[int, float]:
    """How many runs there are results of, and replica-steps a second of a population, 0 if there are none."""
    steps, seconds, done = 0, 0.0, 0
    for path in sorted(folder.glob("*/*/*/*/summary.json")):
        try:
            summary = json.loads(path.read_text(encoding="utf-8"))
            done += summary["status"] in ("completed", "diverged")
            steps += summary["steps"]
            seconds += summary["wall_seconds"] / summary["replicas"]
        except (OSError, ValueError, LookupError, TypeError, ArithmeticError):  # damaged
            continue
    return done, steps / seconds if seconds else 0.0


def estimate(
    steps: float, where: Place, networks: Sequence[str], measured: float, given: Literal["auto"] | float
) -> str:
    """What is known of the time that so many replica-steps take, as the end of a sentence.

    `measured` are replica-steps a second of one population, 0 if nothing is measured yet; `given` are those
    that the user says: of all this machine, or of one SLURM job.
    """
    if where.gpu and not measured and given == "auto":
        on = "the cluster's GPUs, and in its queue," if where.slurm else "a GPU"
        return (
            f"{steps:,.0f} replica-steps; how long they take on {on} is known once runs have finished "
            "(or give steps_per_second)."
        )
    stated = min(_STATED.get(network, min(_STATED.values())) for network in networks)
    rate, origin = (measured, "measured") if measured else (stated, "a guess")
    if given != "auto":
        rate, origin = given, "as given"
    if where.slurm:
        hours = steps / rate / 3600 * (1 if where.gpu else where.cores)
        kind = "GPU" if where.gpu else "CPU-core"
        return (
            f"{steps:,.0f} replica-steps, about {hours:,.1f} {kind} hours at {rate:,.0f} steps/s a job "
            f"({origin}); when they are done depends on the queue."
        )
    if given == "auto":
        rate *= where.at_a_time
        cores = f"{where.at_a_time} CPU core{'s' * (where.at_a_time > 1)}"
        origin = (
            f"as measured, with {where.at_a_time} at a time"
            if measured
            else f"a guess for {cores}; measured once runs have finished"
        )
    took = timedelta(seconds=round(steps / rate))
    return f"about {took} at {rate:,.0f} steps/s ({origin})."
