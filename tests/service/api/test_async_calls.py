"""Calls with `output=void`: how many a process takes, how they end, and how long their records are kept."""

import socket
import threading
from collections.abc import Iterator

import pytest

from api.invocation.async_calls import async_calls
from shared.db.clock import now_ms
from shared.db.models import Algorithm, CallRequest, CallState, Version
from shared.invocation.async_calls import DAY_MS
from shared.settings import settings
from tests.rows import change, fresh, one_row
from tests.service.api.invocation import Api
from tests.service.api.runners import treated, unix_listener
from tests.service.api.serving import pending_instance
from workers.maintenance.sweep import sweep

pytestmark = pytest.mark.usefixtures("short_serving_dir")

CALL = "/v1/algo/acme/Hello?output=void"
SECONDS = 30


class Algorithms:
    """Stand-ins for instances, which respond when the test lets them."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()
        self.says = b'{"result": 1, "metadata": {"duration": 0.25}}'

    def treat(self, connection: socket.socket) -> None:
        """Answer a call."""
        self.may_answer.wait(SECONDS)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(self.says), self.says))


@pytest.fixture
def algorithms(algorithm: Algorithm, version: Version) -> Iterator[Algorithms]:
    made = Algorithms()
    with unix_listener(pending_instance(algorithm, version)) as listening, treated(listening, made.treat):
        yield made
        made.may_answer.set()
        assert async_calls.wait_until_idle(SECONDS) == []


def ended(api: Api) -> CallRequest:
    """A call that has ended."""
    begun = api.post(CALL, 1)
    assert async_calls.wait_until_idle(SECONDS) == []
    return one_row(CallRequest, id=begun["request_id"])


def test_more_than_a_process_takes_are_refused_until_one_has_ended(
    acme: Api, algorithms: Algorithms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LONGSHORE_CALLS_THREADS", "2")
    settings.cache_clear()
    begun = [acme.post(CALL, number)["request_id"] for number in range(2)]
    refused = acme.call("POST", CALL, 3)
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
    assert "2 calls with output=void are in progress" in refused.get_json()["error"]["message"]
    algorithms.may_answer.set()
    assert async_calls.wait_until_idle(SECONDS) == []
    assert [acme.get(f"/v1/requests/{call_id}")["duration"] for call_id in begun] == [0.25, 0.25]
    assert acme.post(CALL, 3)["request_id"] not in begun


def test_how_an_algorithm_failed_is_told(acme: Api, algorithms: Algorithms) -> None:
    algorithms.may_answer.set()
    algorithms.says = b'{"error": {"message": "no\\u0000 model", "error_type": "LoadingError"}, "metadata": []}'
    told = acme.get(f"/v1/requests/{ended(acme).id}")
    assert (told["state"], told["error"]["error_type"]) == ("failed", "LoadingError")
    assert "model" in told["error"]["message"]
    algorithms.says = b'{"result": 1, "metadata": {"duration": 1e400}}'
    told = acme.get(f"/v1/requests/{ended(acme).id}")
    assert (told["state"], "duration" in told) == ("succeeded", False)


@pytest.mark.usefixtures("broker")
def test_what_nobody_asks_for_is_lost_and_forgotten_too(acme: Api, algorithms: Algorithms) -> None:
    algorithms.may_answer.set()
    call = ended(acme)
    change(call, state=CallState.RUNNING, ended_at=None, deadline_at=now_ms() + 60_000)
    sweep()
    assert fresh(call).state == CallState.RUNNING
    change(call, deadline_at=now_ms() - 1)
    sweep()
    assert fresh(call).state == CallState.LOST
    change(call, deadline_at=now_ms() - DAY_MS + 60_000)
    sweep()
    assert acme.get(f"/v1/requests/{call.id}")["state"] == "lost"
    change(call, deadline_at=now_ms() - DAY_MS - 1)
    sweep()
    assert "not kept any more" in acme.expect_refusal(404, 5004, "GET", f"/v1/requests/{call.id}")
