"""Things that happen at once, in threads that begin together."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

SECONDS = 30


def together(*works: Callable[[], Any]) -> list[Any]:
    """What each returned, in the order given; the first exception among them is raised."""
    gate = threading.Barrier(len(works))

    def begin(work: Callable[[], Any]) -> Any:
        gate.wait(SECONDS)
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        begun = [pool.submit(begin, work) for work in works]
        return [future.result(SECONDS) for future in begun]
