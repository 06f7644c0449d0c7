"""One owner attacks with everything at the same time, and another one is not delayed."""

from collections.abc import Iterator

import pytest

from tests.security.one_owner import VARIABLES, Force, Installation, full_force, make_owners, measure
from tests.service.cli.running import longshore_up

ROUNDS = 15
SECONDS = 2.0
"""Ten times the 200 ms that `make bench BENCH=strangers` shows: here, other tests use the same processors meanwhile.
Without the bounds that are tested, these requests waited for their whole timeout."""
PROCESS_SECONDS = 60
"""Four times the 15 s of the same benchmark."""


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    directory = tmp_path_factory.mktemp("installation")
    with longshore_up(directory, **VARIABLES) as up:
        yield make_owners(up, directory / "clone")


def test_one_owner_at_full_force_delays_nobody_and_leaves_no_process(installation: Installation) -> None:
    with full_force(installation, Force()):
        delays = measure(installation, ROUNDS)
        assert max(delays.median) < SECONDS, delays
        assert installation.compile() == 200
    assert installation.wait_for_no_git(PROCESS_SECONDS) == {}
