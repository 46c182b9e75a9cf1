"""From folders of runs to tables and figures.

`continual.report.runs.load` reads run folders into tables, `continual.report.statistics`
averages them over seeds, `tables` and `figures` show the result. None of it is imported here, so
that the command line answers before pandas and Matplotlib are loaded.
"""

from continual.report.cli import main

__all__ = ["main"]
