"""Train one run, or a sweep: `python scripts/train.py --help`."""

from continual.sweep.entry import program

if __name__ == "__main__":
    program()
