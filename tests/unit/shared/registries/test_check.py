import threading

import pytest

from shared.cancellation import CancelToken
from shared.errors import WorkCancelledError
from shared.registries.access import RegistryCheck, check_registry
from shared.registry.address import RegistryAddress
from shared.registry.client import RegistryClient
from shared.registry.credentials import Credentials
from tests.unit.shared.registry.fake_registry import VERSION, Reply, Request, Respond, fake_registry

CREDENTIALS = Credentials("pusher", "hunter2")
CHALLENGE = Reply(401, b"", {"WWW-Authenticate": 'Basic realm="x"', **VERSION})


def open_registry(request: Request) -> Reply:
    if request.path == "/v2/":
        return Reply(200, b"{}", VERSION)
    return Reply(202 if request.method == "POST" else 404)


def closed_registry(request: Request) -> Reply:
    return open_registry(request) if request.authorization == CREDENTIALS.basic else CHALLENGE


def open_to_readers(request: Request) -> Reply:
    return closed_registry(request) if request.method == "POST" else open_registry(request)


def failing_after_login(request: Request) -> Reply:
    return closed_registry(request) if request.path == "/v2/" else Reply(500)


def look(respond: Respond, credentials: Credentials | None = CREDENTIALS) -> RegistryCheck:
    with fake_registry(respond) as server, RegistryClient(RegistryAddress.parse(server.url), credentials) as client:
        check = check_registry(client, "a/b")
    assert server.host in check.message
    assert "hunter2" not in check.message
    return check


@pytest.mark.parametrize(
    ("respond", "credentials", "expected"),
    [
        (closed_registry, CREDENTIALS, (True, True, True, True)),
        (closed_registry, Credentials("pusher", "wrong"), (True, False, False, False)),
        (closed_registry, None, (True, False, False, False)),
        (open_registry, None, (True, False, True, True)),
        (open_registry, CREDENTIALS, (True, False, True, True)),
        (open_to_readers, CREDENTIALS, (True, True, True, True)),
        (open_to_readers, Credentials("pusher", "wrong"), (True, False, False, True)),
        (failing_after_login, CREDENTIALS, (True, True, False, False)),
        (Reply(404), CREDENTIALS, (False, False, False, False)),
        (Reply(500), CREDENTIALS, (False, False, False, False)),
        (Reply(429), CREDENTIALS, (True, False, False, False)),
    ],
)
def test_the_result_of_a_check(
    respond: Respond, credentials: Credentials | None, expected: tuple[bool, bool, bool, bool]
) -> None:
    check = look(respond, credentials)
    assert (check.reachable, check.authenticated, check.can_push, check.can_pull) == expected


def test_the_message_says_what_is_wrong_and_what_to_do() -> None:
    assert look(closed_registry).message.endswith("accepts the credentials and allows pushing and pulling with them.")
    assert "Check the username and the password" in look(closed_registry, Credentials("a", "wrong")).message
    assert "never asked for the credentials" in look(open_registry).message
    assert "500" in look(failing_after_login).message


def test_a_check_that_times_out_reports_what_it_knows() -> None:
    release = threading.Event()

    def slow_to_push(request: Request) -> Reply:
        if request.method == "POST":
            release.wait(30)
        return closed_registry(request)

    with fake_registry(slow_to_push) as server:
        with RegistryClient(RegistryAddress.parse(server.url), CREDENTIALS) as client:
            check = check_registry(client, "a/b", seconds=0.5)
        release.set()
    assert (check.reachable, check.can_push) == (True, False)
    assert "within 0.5 seconds" in check.message


def test_a_cancellation_is_not_a_result() -> None:
    stop = CancelToken()
    stop.cancel("shutdown")
    with (
        RegistryClient(RegistryAddress.parse("localhost:1"), cancel_token=stop) as client,
        pytest.raises(WorkCancelledError),
    ):
        check_registry(client, "a/b")
