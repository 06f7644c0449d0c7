"""Run functions concurrently, in threads that begin at the same moment."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

TIMEOUT_SECONDS = 30


def run_concurrently(*functions: Callable[[], Any]) -> list[Any]:
    """Return what each function returned, in the order given; the first of their exceptions is raised."""
    barrier = threading.Barrier(len(functions))

    def begin(function: Callable[[], Any]) -> Any:
        barrier.wait(TIMEOUT_SECONDS)
        return function()

    with ThreadPoolExecutor(len(functions)) as pool:
        futures = [pool.submit(begin, function) for function in functions]
        return [future.result(TIMEOUT_SECONDS) for future in futures]
