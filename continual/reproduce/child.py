"""Training as a child process, which stops with a checkpoint when its parent is stopped or killed."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

from continual.sweep.stopping import StopSignals


class Stopped(Exception):
    """The parent was asked to stop, and the training with it."""


def train(overrides: Sequence[str]) -> int:
    """Run `scripts/train.py --multirun` with these overrides; returns its exit status.

    Raises Stopped after a Ctrl-C or SIGTERM, once the training has written its checkpoints.
    """
    with StopSignals() as stop:
        process = subprocess.Popen(
            [sys.executable, "-m", "continual.reproduce.child", "--multirun", *overrides],
            stdin=subprocess.PIPE,
        )
        told = False
        while True:
            try:
                status = process.wait(timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                # Ctrl-C reaches the whole terminal, any other signal this process alone.
                if stop.came == signal.SIGTERM and not told:
                    process.terminate()
                    told = True
        if stop.came is not None:
            raise Stopped
    return status


def _stop_with_the_parent() -> None:
    """Standard input is a pipe from the parent, which nothing is written to: its end is the parent's."""
    os.read(0, 1)  # not sys.stdin: a thread that waits in it could not be left behind at the end
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    try:
        from continual.cli.entry import main

        threading.Thread(target=_stop_with_the_parent, daemon=True).start()
        main()
    except KeyboardInterrupt:  # before training heeds it; the parent says that it is stopped
        sys.exit(130)
