"""A wrong clock for a single process, by the library libfaketime."""

from pathlib import Path

from dev.services.packages import clock_library
from dev.services.processes import PartFailedError

_MENDED = Path(__file__).with_name("under_faketime")


def wrong_clock(seconds: int) -> dict[str, str]:
    """The variables with which a process, if it is a Python, has a clock that is so many seconds ahead.

    Waiting is not affected: that goes by the monotonic clock, which stays.

    Raises:
        PartFailedError: libfaketime is not installed.
    """
    library = clock_library()
    if library is None:
        raise PartFailedError("libfaketime is not installed: `python3 -m dev.services.packages test` installs it")
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME": f"{seconds:+d}s",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
        "PYTHONPATH": str(_MENDED),
    }
