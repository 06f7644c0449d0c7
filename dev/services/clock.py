"""Give a single process a wrong clock, with the library libfaketime."""

from pathlib import Path

from dev.services.packages import clock_library
from dev.services.processes import ServiceFailedError

_SITE_DIRECTORY = Path(__file__).with_name("under_faketime")


def wrong_clock(seconds: int) -> dict[str, str]:
    """Return the variables with which a Python process has a clock that is so many seconds ahead.

    Waiting is not affected: it uses the monotonic clock, which stays right.

    Raises:
        ServiceFailedError: libfaketime is not installed.
    """
    library = clock_library()
    if library is None:
        raise ServiceFailedError("libfaketime is not installed: `python3 -m dev.services.packages test` installs it")
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME": f"{seconds:+d}s",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
        "PYTHONPATH": str(_SITE_DIRECTORY),
    }
