"""The command line of the benchmark: `python scripts/benchmark.py`."""

import argparse
import platform
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from benchmarking.bench import make_bench
from benchmarking.results import Report, Row
from benchmarking.sections import SECTIONS
from continual.errors import ConfigError, UserError
from continual.machine import compiler_problem, cores, device


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables and write them as JSON, CSV and Markdown; 1 after a user's error, else 0."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(given)
    try:
        report = _measure(options, "python scripts/benchmark.py " + shlex.join(given))
        _write(report, options.output)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Time the program beside a plain PyTorch loop of the same network, data, penalty and "
        "per-step accuracy, in windows that take turns, and write a table (Markdown), the speeds (CSV) and "
        "all numbers (JSON).",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    parser.add_argument(
        "--only",
        type=_sections,
        default=list(SECTIONS),
        metavar="NAME,...",
        help=f"some of: {', '.join(SECTIONS)} (default: all)",
    )
    parser.add_argument("--pairs", type=_positive, default=5, help="windows of each side (default: 5)")
    parser.add_argument(
        "--seconds", type=_duration, default=1.0, help="the length of a window (default: 1.0)"
    )
    parser.add_argument(
        "--clock",
        choices=["wall", "core"],
        default="wall",
        help="core: count only the time for which a process had a core, where other programs run "
        "on the same CPU (default: wall)",
    )
    parser.add_argument(
        "--replicas",
        type=_counts,
        default=[],
        metavar="R,...",
        help="sizes of populations (default: each section's own; on a GPU 1,8,64,256,1024)",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="little of everything, uncompiled, to see that it works: its numbers mean nothing",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("outputs/benchmark"),
        metavar="DIR",
        help="written to (default: outputs/benchmark)",
    )
    return parser


def _measure(options: argparse.Namespace, command: str) -> Report:
    where = device(options.device)
    problem = None if options.quick else compiler_problem(where)
    if where.type == "cuda" and options.clock == "core":
        raise ConfigError("--clock core: a GPU's steps cannot be timed by the core that asks for them.")
    if problem is not None:
        raise ConfigError(f"the benchmark times compiled steps, and {problem}.")
    console = Console(width=1000)
    pairs, seconds = (1, 0.05) if options.quick else (options.pairs, options.seconds)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        bench, data = make_bench(
            where, pairs, seconds, options.clock, options.replicas, options.quick, Path(scratch)
        )
        for name in options.only:
            for row in SECTIONS[name][1](bench):
                rows.append(row)
                console.print(f"{name}: " + ", ".join(f"{k} {v}" for k, v in row.cells().items() if v))
    machine = {
        "CPU": f"{_cpu_model()}, {cores()} cores",
        **({"GPU": torch.cuda.get_device_name(where)} if where.type == "cuda" else {}),
        "versions": f"Python {platform.python_version()}, PyTorch {torch.__version__}",
        "data": data,
        "windows": f"{pairs} pairs of {seconds:g} s, {options.clock} time; medians; one thread a process",
        "command": command,
    }
    if bench.bandwidth is not None:
        machine["copy bandwidth"] = f"{bench.bandwidth / 1e9:,.0f} GB/s"
    report = Report(machine, {name: SECTIONS[name][0] for name in SECTIONS}, rows)
    console.print(report.terminal())
    return report


def _write(report: Report, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in (
            (folder / "benchmark.json", report.json()),
            (folder / "benchmark.md", report.markdown()),
            (folder / "benchmark.csv", report.csv()),
        ):
            path.write_text(text)
            print(path)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}") from error


def _sections(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in SECTIONS:
            raise argparse.ArgumentTypeError(f"{name!r} is no section; possible: {', '.join(SECTIONS)}")
    return names


def _counts(text: str) -> list[int]:
    return [_positive(part) for part in text.split(",")]


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


def _duration(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
