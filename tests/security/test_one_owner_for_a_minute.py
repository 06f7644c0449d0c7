"""One owner attacks for a minute: no process grows, and none is left. Part of `make test-long`."""

import time
from pathlib import Path

from tests.security.one_owner import VARIABLES, Force, full_force, growth, make_owners
from tests.service.cli.running import longshore_up

ATTACK_SECONDS = 60.0
MAX_GROWTH_BYTES = 30 * 1024 * 1024
PROCESS_SECONDS = 15.0


def test_a_minute_of_one_owner_fills_no_process_and_leaves_none(tmp_path: Path) -> None:
    with longshore_up(tmp_path, **VARIABLES) as up:
        installation = make_owners(up, tmp_path / "clone")
        before, ends = installation.memory(), time.monotonic() + ATTACK_SECONDS
        with full_force(installation, Force()):
            while time.monotonic() < ends:
                installation.get()
                installation.ls_remote()
            grown = growth(before, installation.memory())
        assert grown
        assert {command: size for command, size in grown.items() if size > MAX_GROWTH_BYTES} == {}
        assert installation.wait_for_no_git(PROCESS_SECONDS) == {}
