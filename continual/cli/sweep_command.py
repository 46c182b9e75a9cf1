"""`continual-sweep status|wait|cancel|resume|upload|watch FOLDER`: all that a started sweep is seen to by."""

import argparse
import contextlib
from collections.abc import Sequence

from continual.sweep import cli

PORT = 8765


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit code: 1 for a user's mistake or runs that failed."""
    return cli.main(arguments, [_add_watch])


def watch(asked: argparse.Namespace) -> int:
    """Serve the report on a folder that is still being written, as a page that renews itself."""
    with contextlib.suppress(KeyboardInterrupt):  # which is how it ends
        from continual.report.watch import watch as serve  # which takes longer to import

        serve(asked.folder, asked.host, asked.port, asked.every)
    return 0


def _add_watch(commands: cli.Commands) -> None:
    one = cli.add_command(commands, "watch", watch)
    one.add_argument("--port", type=int, default=PORT, help=f"default: {PORT}; 0: any that is free")
    one.add_argument(
        "--host",
        default="127.0.0.1",
        help="the address to listen at (default: 127.0.0.1, so that this machine alone sees the page)",
    )
    one.add_argument(
        "--every",
        type=float,
        default=5.0,
        metavar="SECONDS",
        help="how often the folder is looked at (default: 5)",
    )
