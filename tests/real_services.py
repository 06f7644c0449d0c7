"""Keep the real services of a test run: one set for all test processes, each started at its first use."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from dev.services import manager
from shared.file_lock import file_lock

# Not LONGSHORE_*, which tests remove. Set by the run's first process and inherited by its test processes.
_DIRECTORY = "TEST_SERVICES_DIRECTORY"
_RUN_PID = "TEST_SERVICES_RUN_PID"

_MANAGER_START_TIMEOUT_SECONDS = 30
_SERVICE_START_TIMEOUT_SECONDS = 300
_STOP_TIMEOUT_SECONDS = 120


class RealServices:
    """A client of the run's service manager, which it starts with the first request."""

    def __init__(self, directory: Path, run_pid: int) -> None:
        self._directory = directory
        self._run_pid = run_pid
        self._address = directory / manager.ADDRESS
        self._environment = dict(os.environ)  # a copy, because tests change it

    def get(self, name: str) -> dict[str, Any]:
        """Return the address of a service, started if it is not running.

        Raises:
            RuntimeError: it cannot be started; the message has the cause.
        """
        with file_lock(self._directory / manager.LOCK):
            if not self._address.exists():
                self._start_manager()
        return manager.request_service(self._address, name, seconds=_SERVICE_START_TIMEOUT_SECONDS)

    def stop(self) -> None:
        manager.stop(self._address, seconds=_STOP_TIMEOUT_SECONDS)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _start_manager(self) -> None:
        log = self._directory / manager.LOG
        # In a session of its own, so that Ctrl-C does not reach it, and not a child of this test process: it ends with
        # the run's first process.
        with log.open("ab") as output:
            subprocess.run(
                [
                    "setsid",
                    "--fork",
                    sys.executable,
                    "-m",
                    "dev.services.manager",
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
        deadline = time.monotonic() + _MANAGER_START_TIMEOUT_SECONDS
        while not self._address.exists():
            if time.monotonic() > deadline:
                raise RuntimeError(f"the service manager does not start:\n{log.read_text()}")
            time.sleep(0.05)


SERVICES = pytest.StashKey[RealServices]()


def begin(config: pytest.Config) -> None:
    """Choose the directory of the service manager. Nothing is started yet."""
    if _is_first_process(config):
        os.environ[_DIRECTORY] = tempfile.mkdtemp(prefix="longshore-test-")
        os.environ[_RUN_PID] = str(os.getpid())
    config.stash[SERVICES] = RealServices(Path(os.environ[_DIRECTORY]), int(os.environ[_RUN_PID]))


def end(config: pytest.Config) -> None:
    """Stop all services, in the run's first process."""
    if _is_first_process(config) and SERVICES in config.stash:
        config.stash[SERVICES].stop()


def process_number(config: pytest.Config) -> int:
    """Return the number of this test process in the run, from 0."""
    return 0 if _is_first_process(config) else int(config.workerinput["workerid"].removeprefix("gw"))  # type: ignore[attr-defined]


def _is_first_process(config: pytest.Config) -> bool:
    return not hasattr(config, "workerinput")  # set by pytest-xdist in its test processes
