"""What a benchmark found: rows, and the tables and the JSON made of them."""

import csv
import dataclasses
import io
import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from rich.console import Group
from rich.table import Table

from benchmarking.contender import Rate

# A loop that had less than this of its core was disturbed by other programs.
_UNDISTURBED = 0.9
_IN_CSV = (
    *("section", "what", "replicas", "replica_steps_per_second"),
    *("against", "ratio", "ratio_low", "ratio_high"),
)


@dataclass(frozen=True)
class Speed:
    """How fast `what` is, with so many `replicas` in all, and its ratio to `against`.

    The ratio is that of replica-steps per second: the median over pairs of windows, with the least and the
    largest. `bandwidth_share` (CUDA only) is the memory traffic that the parameters alone cause, as a share
    of what the card can copy; `peak_memory_mb` is on the GPU.
    """

    section: str
    what: str
    replicas: int
    steps_per_second: float
    replica_steps_per_second: float
    against: str
    ratio: float
    ratio_low: float
    ratio_high: float
    core_share: float
    at_least: float | None = None
    bandwidth_share: float | None = None
    peak_memory_mb: float | None = None
    peak_share: float | None = None

    @classmethod
    def of(
        cls,
        section: str,
        what: str,
        replicas: int,
        against: str,
        pairs: Sequence[tuple[Rate, Rate]],
        at_least: float | None = None,
    ) -> "Speed":
        """From windows of (`against`, `what`) that took turns."""
        ratios = [
            rate.replica_steps_per_second / reference.replica_steps_per_second for reference, rate in pairs
        ]
        rates = [rate for _, rate in pairs]
        peak = max(rate.peak_memory for rate in rates)
        return cls(
            section,
            what,
            replicas,
            statistics.median(rate.steps_per_second for rate in rates),
            statistics.median(rate.replica_steps_per_second for rate in rates),
            against,
            statistics.median(ratios),
            min(ratios),
            max(ratios),
            core_share=statistics.median(min(a.core_share, b.core_share) for a, b in pairs),
            at_least=at_least,
            peak_memory_mb=peak / 2**20 if peak else None,
        )

    @property
    def met(self) -> bool | None:
        """Whether the ratio reaches its target; None without one."""
        return None if self.at_least is None else self.ratio >= self.at_least

    def cells(self) -> dict[str, str]:
        """The row's cells, by the heads of their columns."""
        found = {
            "what": self.what,
            "replicas": str(self.replicas),
            "steps/s": _number(self.steps_per_second),
            "replica-steps/s": _number(self.replica_steps_per_second),
            "ratio": f"{self.ratio:.2f}",
            "low to high": f"{self.ratio_low:.2f} to {self.ratio_high:.2f}",
            "to": self.against,
            "target": _target(">=", self.at_least, self.met),
        }
        if self.peak_share is not None:
            found["of peak"] = f"{self.peak_share:.0%}"
        if self.bandwidth_share is not None:
            found["of bandwidth"] = f"{self.bandwidth_share:.0%}"
        if self.peak_memory_mb is not None:
            found["peak MB"] = _number(self.peak_memory_mb)
        return found


@dataclass(frozen=True)
class Amount:
    """A time or a size, and what it should be at most."""

    section: str
    what: str
    value: float
    unit: str
    at_most: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the value is within its target; None without one."""
        return None if self.at_most is None else self.value <= self.at_most

    def cells(self) -> dict[str, str]:
        """The row's cells, by the heads of their columns."""
        return {
            "what": self.what,
            "value": _number(self.value),
            "unit": self.unit,
            "target": _target("<=", self.at_most, self.met),
        }


Row: TypeAlias = Speed | Amount


@dataclass(frozen=True)
class Report:
    """All rows with what they were measured on: names and values such as the CPU's model."""

    machine: dict[str, str]
    titles: dict[str, str]
    rows: list[Row]

    def json(self) -> str:
        """Everything, for programs."""
        rows: list[dict[str, Any]] = [{**dataclasses.asdict(row), "met": row.met} for row in self.rows]
        return json.dumps({"machine": self.machine, "rows": rows}, indent=2) + "\n"

    def csv(self) -> str:
        """The speeds, for tables in the documentation."""
        text = io.StringIO()
        writer = csv.DictWriter(text, _IN_CSV, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for row in self.rows:
            if isinstance(row, Speed):
                cells = dataclasses.asdict(row)
                writer.writerow({n: round(v, 3) if isinstance(v, float) else v for n, v in cells.items()})
        return text.getvalue()

    def markdown(self) -> str:
        """Tables for a README, one for each section."""
        lines = [*(f"- {name}: {value}" for name, value in self.machine.items()), *self._notes()]
        for title, heads, body in self._tables():
            lines += ["", f"### {title}", "", _line(heads), _line(_rule(head) for head in heads)]
            lines += [_line(cells) for cells in body]
        return "\n".join(lines) + "\n"

    def terminal(self) -> Group:
        """The same to print."""
        tables = []
        for title, heads, body in self._tables():
            table = Table(title=title, title_justify="left")
            for head in heads:
                table.add_column(head, justify="left" if head in _TEXT else "right")
            for cells in body:
                table.add_row(*cells)
            tables.append(table)
        return Group(*(f"{name}: {value}" for name, value in self.machine.items()), *self._notes(), *tables)

    def _notes(self) -> list[str]:
        disturbed = [row for row in self.rows if isinstance(row, Speed) and row.core_share < _UNDISTURBED]
        if not disturbed:
            return []
        worst = min(row.core_share for row in disturbed)
        return [
            f"- other programs were running: in {len(disturbed)} rows a process had less than "
            f"{_UNDISTURBED:.0%} of its core, at worst {worst:.0%}"
        ]

    def _tables(self) -> list[tuple[str, list[str], list[list[str]]]]:
        """Title, heads and cells of each section that has rows."""
        found = []
        for section, title in self.titles.items():
            rows = [row.cells() for row in self.rows if row.section == section]
            heads = list(dict.fromkeys(head for row in rows for head in row))
            if rows:
                found.append((title, heads, [[row.get(head, "") for head in heads] for row in rows]))
        return found


_TEXT = ("what", "to", "unit", "target")


def _rule(head: str) -> str:
    return "---" if head in _TEXT else "---:"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _target(sign: str, target: float | None, met: bool | None) -> str:
    return "" if target is None else f"{sign} {target:g} {'met' if met else 'missed'}"
