"""Loaded by a Python under libfaketime, whose `clock_nanosleep` breaks `time.sleep` (EINVAL): replaces that."""

import select
import time
from typing import SupportsIndex


def _sleep(seconds: float | SupportsIndex) -> None:
    select.select((), (), (), float(seconds))


time.sleep = _sleep
