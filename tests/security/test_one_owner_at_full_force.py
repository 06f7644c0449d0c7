"""One owner does everything at once that holds or costs something; another one works on."""

from collections.abc import Iterator

import pytest

from tests.security.one_owner import VARIABLES, Force, Town, full_force, measure, settle
from tests.service.cli.running import longshore_up

ROUNDS = 15
SECONDS = 2.0
"""Ten times the 200 ms that `make bench BENCH=strangers` shows: here, other tests use the same processors meanwhile.
Without the bounds that are tested, these requests waited for their whole timeout."""
PROCESS_SECONDS = 60
"""Four times the 15 s of the same benchmark."""


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    directory = tmp_path_factory.mktemp("town")
    with longshore_up(directory, **VARIABLES) as up:
        yield settle(up, directory / "clone")


def test_one_owner_at_full_force_delays_nobody_and_leaves_no_process(town: Town) -> None:
    with full_force(town, Force()):
        delays = measure(town, ROUNDS)
        assert max(delays.median) < SECONDS, delays
        assert town.compile() == 200
    assert town.wait_for_no_git(PROCESS_SECONDS) == {}
