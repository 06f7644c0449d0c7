"""Import the algorithm without loading or serving it, and write the verdict as JSON."""

from __future__ import annotations

import json
import os
from typing import Mapping  # noqa: UP035 - Python 3.8 cannot subscript collections.abc

from .algorithm import AlgorithmRunner

MAX_TRACEBACK = 16 * 1024
"""Characters of a traceback that are kept: its end."""


def check_import(module: str, directory: str, environment: Mapping[str, str], seconds: float) -> None:
    """Write `{"state": "passed"}` or `{"state": "failed", "traceback": …}` to standard output.

    What the algorithm writes is dropped: the verdict is all that comes out.
    """
    output = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    algorithm = AlgorithmRunner(module, directory, environment, "check")
    algorithm.start()
    in_time = algorithm.wait_until_loaded(seconds)
    failure = algorithm.load_failure()
    algorithm.stop()
    algorithm.end()
    verdict = {"state": "passed"}
    if not in_time:
        verdict = {"state": "failed", "traceback": f"The import took longer than {seconds:g} seconds."}
    elif failure is not None:
        stacktrace = failure.stacktrace.strip()
        above, _, last = stacktrace.rpartition("\n")
        # The message may be the last line with a hint behind it.
        text = above if failure.message.startswith(last.rstrip(".")) else stacktrace
        text = stacktrace if failure.message in stacktrace else f"{text}\n{failure.message}"
        verdict = {"state": "failed", "traceback": text.strip()[-MAX_TRACEBACK:]}
    with open(output, "w", encoding="ascii") as stream:
        stream.write("\n" + json.dumps(verdict))  # on a line of its own, should the algorithm have found the stream
