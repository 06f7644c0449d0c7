"""Measure what other owners notice while one does everything at once that holds or costs something."""

import time
from collections.abc import Iterator

from benchmarks.environment import Environment
from benchmarks.results import Result
from tests.security.one_owner import VARIABLES, Force, full_force, growth, make_owners, measure
from tests.service.cli.running import longshore_up

ROUNDS = 40
ATTACK_SECONDS = 60.0
MILLISECONDS = 200.0
HEALTH_MILLISECONDS = 1000.0
PROCESS_SECONDS = 15.0
MEBIBYTES = 30.0


def run(environment: Environment) -> Iterator[Result]:
    directory = environment.directory / "strangers"
    directory.mkdir()
    with longshore_up(directory, **VARIABLES) as up:
        installation = make_owners(up, directory / "clone")
        task = environment.progress.add_task("one owner at full force", total=None)
        before, began = installation.memory(), time.monotonic()
        with full_force(installation, Force()):
            delays = measure(installation, ROUNDS)
            yield Result.of("GET of another owner", _milliseconds(delays.get), "ms", MILLISECONDS)
            yield Result.of("GET of another owner, slowest", [max(_milliseconds(delays.get))], "ms", MILLISECONDS)
            yield Result.of("git ls-remote of another owner", _milliseconds(delays.ls_remote), "ms", MILLISECONDS)
            slowest = max(_milliseconds(delays.ls_remote))
            yield Result.of("git ls-remote of another owner, slowest", [slowest], "ms", MILLISECONDS)
            slowest = max(_milliseconds(delays.health))
            yield Result.of("/healthz, slowest", [slowest], "ms", HEALTH_MILLISECONDS)
            accepted = installation.compile() == 200
            yield Result.of(
                "compile of another owner, accepted",
                [float(accepted)],
                "",
                1.0,
                more_is_better=True,
            )
            time.sleep(max(0.0, began + ATTACK_SECONDS - time.monotonic()))
            grown = max(growth(before, installation.memory()).values())
        left = installation.wait_for_no_git(PROCESS_SECONDS)
        yield Result.of("git processes left after 15 s", [float(len(left))], "", 0.0)
        yield Result.of("growth of a process in 60 s, the largest", [grown / 2**20], "MiB", MEBIBYTES)
        environment.progress.update(task, total=1, completed=1)


def _milliseconds(seconds: list[float]) -> list[float]:
    return [1000 * each for each in seconds]
