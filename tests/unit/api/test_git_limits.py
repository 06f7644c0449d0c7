"""What is counted and bounded of git clients, without a server."""

import pytest
from pydantic import ValidationError

from api.errors import ApiError
from api.git.concurrency import MAX_DISCARDS_PER_ADDRESS, ConcurrencyLimits, Kind
from api.git.request_body import PushCommands, PushLimitError
from shared.settings import Settings
from tests.security.git_client import FLUSH, ZERO_HASH, packet

COMMIT = "1" * 40


def refusal(limits: ConcurrencyLimits, kind: Kind, owner: str, key_id: str) -> ApiError:
    with pytest.raises(ApiError) as refused, limits.request(kind, owner=owner, key_id=key_id):
        pass
    return refused.value


def test_requests_are_limited_per_key_per_owner_and_in_total(monkeypatch: pytest.MonkeyPatch) -> None:
    limited = Settings(git_pushes_per_key=1, git_fetches_per_owner=2, git_pushes_per_owner=2, git_threads=8)
    monkeypatch.setattr("api.git.concurrency.settings", lambda: limited)
    limits = ConcurrencyLimits()
    with limits.request("pushes", owner="a", key_id="1"):
        assert refusal(limits, "pushes", "a", "1").message == "This key has 1 pushes in progress already; retry in 5 s."
        with limits.request("pushes", owner="a", key_id="2"):
            assert refusal(limits, "pushes", "a", "3").message.startswith("a has 2 pushes in progress already")
            with limits.request("fetches", owner="a", key_id="1"), limits.request("fetches", owner="b", key_id="4"):
                with limits.request("fetches", owner="b", key_id="4"), limits.request("pushes", owner="b", key_id="4"):
                    busy = refusal(limits, "fetches", "c", "5")
                    assert (busy.status, busy.headers["Retry-After"]) == (503, "5")
                with limits.request("fetches", owner="c", key_id="5"):
                    pass
    with limits.request("pushes", owner="a", key_id="1"):
        pass


def test_an_ipv6_network_counts_as_one_address() -> None:
    limits = ConcurrencyLimits()
    held = [limits.discard(f"2001:db8::{number}") for number in range(MAX_DISCARDS_PER_ADDRESS + 1)]
    allowed = [one.__enter__() for one in held]
    assert allowed == [True] * MAX_DISCARDS_PER_ADDRESS + [False]
    with limits.discard("2001:db8:0:1::1") as is_allowed:
        assert is_allowed
    held[0].__exit__(None, None, None)
    with limits.discard("2001:db8::1") as is_allowed:
        assert is_allowed


def test_limits_that_leave_no_thread_to_others_are_refused() -> None:
    with pytest.raises(ValidationError, match="must be at most 4: with LONGSHORE_GIT_FETCHES_PER_OWNER, which is 12"):
        Settings(git_threads=32, git_pushes_per_owner=5)


def command(name: str, old: str = ZERO_HASH) -> bytes:
    return packet(f"{old} {COMMIT} {name}\n")


def test_new_references_are_counted_and_others_are_not() -> None:
    commands = PushCommands(max_new=1)
    commands.check(command("refs/heads/a") + command("refs/heads/b", old=COMMIT))
    with pytest.raises(PushLimitError, match="too many branches and tags; delete some"):
        commands.check(command("refs/heads/c"))


def test_a_pack_that_looks_like_commands_is_not_read_as_such() -> None:
    commands = PushCommands(max_new=1)
    commands.check(command("refs/heads/a") + FLUSH + b"PACK" + command("refs/heads/b") * 10)
    commands.check(command("refs/heads/b") * 10)


@pytest.mark.parametrize("size", [1, 3, 50])
def test_commands_are_found_however_they_are_cut(size: int) -> None:
    content = command("refs/heads/a") + command("refs/heads/" + "a" * 250)
    commands = PushCommands(max_new=9)

    def check_all() -> None:
        for start in range(0, len(content), size):
            commands.check(content[start : start + size])

    with pytest.raises(PushLimitError, match="name of a branch or tag is too long"):
        check_all()
