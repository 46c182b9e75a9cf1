"""The end of a process that knows torch: at once."""

import atexit
import contextlib
import multiprocessing.util
import os
import sys
from typing import NoReturn


def leave(exit_code: int) -> NoReturn:
    """End this process after what was registered for its end.

    Python would then take apart, one by one, the many objects that come with torch: a second and more.
    """
    multiprocessing.util._exit_function()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # nobody listens any more
            stream.flush()
    os._exit(exit_code)
