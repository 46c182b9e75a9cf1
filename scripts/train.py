"""Train one run, or a sweep: `python scripts/train.py --help`."""

from continual.cli.entry import program

if __name__ == "__main__":
    program()
