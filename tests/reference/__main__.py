"""Prints the table of reference runs as this version gives it: `python -m tests.reference [FOLDER]`."""

import sys
import tempfile
from pathlib import Path

from tests import reference


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else temporary)
        for number, row in enumerate(reference.table()):
            finished = reference.train(row["overrides"], folder / str(number))
            score, loss = reference.of(finished)
            print(f"- {{overrides: {row['overrides']}, score: {score:.6f}, loss: {loss:.4f}}}", flush=True)


if __name__ == "__main__":
    main()
