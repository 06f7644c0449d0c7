"""`python -m benchmarks [CASE …]`: compare with other tools in the same run, and report which targets are met.

Exits with status 0 if all targets are met, 1 if one is missed, 2 if a case could not run. Also: `make bench`.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from benchmarks import calls, reads, requests, strangers
from benchmarks.environment import Environment, unset_settings
from benchmarks.results import Result, table, write_json
from benchmarks.transfers import images, memory, repushes
from dev.services.processes import ServiceFailedError, ending_on_sigterm, say
from dev.services.workdir import services_directory

CASES: dict[str, Callable[[Environment], Iterator[Result]]] = {
    "reads": reads.run,
    "requests": requests.run,
    "calls": calls.run,
    "strangers": strangers.run,
    "images": images.run,
    "memory": memory.run,
    "repushes": repushes.run,
}
"""One module for each case, which yields its results."""

WIDTH = 140
"""Width of the table in characters, also in a file."""


def main(arguments: Sequence[str]) -> int:
    """Measure the cases of the command line, and print the results."""
    asked = _arguments(arguments)
    unset_settings()
    try:
        with ending_on_sigterm():
            results = _measure(asked.cases or list(CASES))
    except ServiceFailedError as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    Console(width=WIDTH).print(table(results))
    if asked.json:
        write_json(results, asked.json)
    return 0 if all(result.kept for result in results) else 1


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("cases", nargs="*", choices=[*CASES, []], metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--json", type=Path, help="a file for the results")
    return parser.parse_args(arguments)


def _measure(cases: Sequence[str]) -> list[Result]:
    results: list[Result] = []
    with ExitStack() as stack:
        directory = stack.enter_context(services_directory())
        console = Console(stderr=True, width=WIDTH)
        progress = stack.enter_context(Progress(console=console))
        environment = Environment(directory, stack, progress)
        for case in cases:
            for result in CASES[case](environment):
                console.print(table([result]))
                results.append(result)
    return results


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
