"""The real parts of a test run: one set for all its processes, started when first asked for, ended with the run."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from dev.services import keeper
from shared.file_lock import file_lock

# Not LONGSHORE_*: tests clear those away. Set by the process that the run begins with, inherited by its test processes.
_DIRECTORY = "TEST_PARTS_DIRECTORY"
_RUN_PID = "TEST_PARTS_RUN_PID"

_KEEPER_SECONDS = 30
_PART_SECONDS = 300
_STOP_SECONDS = 120


class RealParts:
    """Asks the run's keeper for parts, and starts the keeper if this is the first question."""

    def __init__(self, directory: Path, run_pid: int) -> None:
        self._directory = directory
        self._run_pid = run_pid
        self._address = directory / keeper.ADDRESS
        self._environment = dict(os.environ)  # as it is now: tests change theirs

    def part(self, name: str) -> dict[str, Any]:
        """Where a part answers.

        Raises:
            RuntimeError: it cannot be had; the text says why.
        """
        with file_lock(self._directory / keeper.LOCK):
            if not self._address.exists():
                self._start_keeper()
        return keeper.ask(self._address, name, seconds=_PART_SECONDS)

    def stop(self) -> None:
        """End all parts that were started."""
        keeper.stop(self._address, seconds=_STOP_SECONDS)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _start_keeper(self) -> None:
        log = self._directory / keeper.LOG
        # In a session of its own (so that Ctrl-C does not reach it) and nobody's child: it outlives this process and
        # ends with the run's first one.
        with log.open("ab") as output:
            subprocess.run(
                [
                    "setsid",
                    "--fork",
                    sys.executable,
                    "-m",
                    "dev.services.keeper",
                    str(self._directory),
                    str(self._run_pid),
                ],
                cwd=Path(__file__).resolve().parent.parent,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=True,
            )
        deadline = time.monotonic() + _KEEPER_SECONDS
        while not self._address.exists():
            if time.monotonic() > deadline:
                raise RuntimeError(f"the keeper of the real parts does not start:\n{log.read_text()}")
            time.sleep(0.05)


PARTS = pytest.StashKey[RealParts]()


def begin(config: pytest.Config) -> None:
    """Decide where the run's keeper will answer. Nothing is started yet."""
    if _is_first(config):
        os.environ[_DIRECTORY] = tempfile.mkdtemp(prefix="longshore-test-")
        os.environ[_RUN_PID] = str(os.getpid())
    config.stash[PARTS] = RealParts(Path(os.environ[_DIRECTORY]), int(os.environ[_RUN_PID]))


def end(config: pytest.Config) -> None:
    """End what was started, in the process that the run began with."""
    if _is_first(config) and PARTS in config.stash:
        config.stash[PARTS].stop()


def process_number(config: pytest.Config) -> int:
    """Which of the run's test processes this is, from 0."""
    return 0 if _is_first(config) else int(config.workerinput["workerid"].removeprefix("gw"))  # type: ignore[attr-defined]


def _is_first(config: pytest.Config) -> bool:
    return not hasattr(config, "workerinput")  # pytest-xdist's mark of a test process
