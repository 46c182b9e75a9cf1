"""What a run is compared by. Costs no import."""

from typing import NamedTuple


class Score(NamedTuple):
    """The column of tasks.csv whose mean is a run's score, and whether more of it is better."""

    column: str
    higher_is_better: bool

    @property
    def name(self) -> str:
        """What the score is called in summary.json."""
        return f"total_average_{self.column}"

    @property
    def is_online(self) -> bool:
        """Whether it is a mean over steps, and not over tasks."""
        return self.column.startswith("online_")
