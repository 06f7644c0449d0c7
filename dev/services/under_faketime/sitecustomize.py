"""Read by a Python that runs under libfaketime, whose version of `clock_nanosleep` breaks `time.sleep` (EINVAL)."""

import select
import time
from typing import SupportsIndex


def _sleep(seconds: float | SupportsIndex) -> None:
    select.select((), (), (), float(seconds))


time.sleep = _sleep
