"""Algorithms that call algorithms: by the rights of their owner, within the call that they work on."""

import json
import os
import select
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs

import pytest

from api.owner_slots import call_slots
from dev.services.processes import free_port
from shared.db.models import Algorithm, Version
from shared.settings import settings
from tests.service.api.invocation import Api
from tests.service.api.nested import (
    ASK_ALL,
    ASK_AT_ONCE,
    CALLER,
    OK,
    answering,
    called,
    calls,
    make_version,
    request_bytes,
    result_bytes,
    serving,
    treating,
    wait_for_no_calls,
)
from tests.service.api.runners import read_request, says, treated, unix_listener
from tests.service.api.serving import directory_of, pending_instance, ready, runner

pytestmark = pytest.mark.usefixtures("short_serving_dir")

HELLO = "acme/Hello"
CALL = "/v1/algo/acme/Hello"
OTHER = "/v1/algo/acme/Other"


@pytest.fixture
def installation(sqlite_installation: str) -> str:
    """Which database it is makes no difference here."""
    return sqlite_installation


@pytest.fixture
def other(acme: Api, short_serving_dir: None) -> tuple[Algorithm, Version]:  # noqa: ARG001 - it must run first
    """The private algorithm `acme/Other`."""
    return make_version(acme, "acme", "Other")


def limited(monkeypatch: pytest.MonkeyPatch, **values: object) -> None:
    """Change settings."""
    for name, value in values.items():
        monkeypatch.setenv(f"LONGSHORE_{name.upper()}", str(value))
    settings.cache_clear()
    call_slots.cache_clear()


@pytest.mark.parametrize("port", [None, free_port()], ids=["docker", "kubernetes"])
def test_an_algorithm_calls_a_private_one_of_its_owner(
    acme: Api, rival: Api, algorithm: Algorithm, version: Version, other: tuple[Algorithm, Version], port: int | None
) -> None:
    with serving(algorithm, version, ASK_ALL, port), answering(*other) as requests:
        for api in (acme, rival):
            answers = called(
                api, HELLO, [OTHER, {"a": 1}], [f"{OTHER}/1.0.0?output=raw", 2], [f"{OTHER}/latestPrivate"]
            )
            assert [status for status, _ in answers] == [200, 200, 200]
            assert answers[0][1]["result"] == "answered"
            assert answers[1][1] == "answered"
        assert b'{"a": 1}' in requests[0]


def test_an_isolated_call_of_a_pipeline_keeps_the_connection_for_the_next_call(
    acme: Api, algorithm: Algorithm, version: Version, other: tuple[Algorithm, Version]
) -> None:
    with serving(algorithm, version, ASK_ALL), answering(*other):
        for number in range(5):
            assert called(acme, HELLO) == []
            answers = called(acme, HELLO, *[[OTHER, number]] * 5 * number)
            assert [status for status, _ in answers] == [200] * 5 * number, "more than may be in progress at once"


def test_an_error_of_the_called_algorithm_is_answered_as_to_any_caller(
    acme: Api, algorithm: Algorithm, version: Version, other: tuple[Algorithm, Version]
) -> None:
    error = {"error": {"message": "no model", "stacktrace": "", "error_type": "ValueError"}}
    body = json.dumps(error).encode()
    failing = says(OK + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
    with serving(algorithm, version, ASK_ALL), treating(*other, failing):
        failed, unreadable = called(acme, HELLO, [OTHER], [f"{OTHER}?timeout=never"])
    assert failed == [200, error]
    assert (unreadable[0], unreadable[1]["error"]["code"]) == (400, 2015)
    assert set(unreadable[1]["error"]) == {"id", "code", "message"}


def test_calls_of_several_threads_are_made_at_the_same_time(
    acme: Api, algorithm: Algorithm, version: Version, other: tuple[Algorithm, Version]
) -> None:
    together = threading.Barrier(5)  # all of them are in progress before the first one is answered
    with serving(algorithm, version, ASK_AT_ONCE), unix_listener(pending_instance(*other)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                number = read_request(connection).rpartition(b"\r\n\r\n")[2]
                together.wait(60)
                connection.sendall(result_bytes(int(number)))

        with ThreadPoolExecutor(5) as answering_threads:
            for _ in range(5):
                answering_threads.submit(answer)
            answers = called(acme, HELLO, *[[OTHER, number] for number in range(5)])
    assert [answer["result"] for _, answer in answers] == [0, 1, 2, 3, 4]


def test_more_calls_at_once_than_are_allowed_are_refused_at_once(
    acme: Api,
    algorithm: Algorithm,
    version: Version,
    other: tuple[Algorithm, Version],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limited(monkeypatch, pipeline_max_parallel=1)
    source = f"""{CALLER}
def two(asked):
    answers = []
    first = threading.Thread(target=lambda: answers.append(ask("{OTHER}", 1)))
    first.start()
    wait_at("gate")
    answers.append(ask("{OTHER}", 2))
    open("refused", "w").close()
    first.join()
    return answers
serve(two)
"""
    instance = pending_instance(algorithm, version)
    directory = directory_of(instance) / "source"

    def answer(connection: socket.socket) -> None:
        with (directory / "gate").open("w"):
            pass
        while not (directory / "refused").exists():
            time.sleep(0.01)
        connection.sendall(result_bytes(1))

    with treating(*other, answer) as requests, runner(instance, source):
        os.mkfifo(directory / "gate")
        ready(instance)
        refused, answered = called(acme, HELLO)
    assert (refused[0], answered[0]) == (429, 200)
    assert len(requests) == 1


def test_a_caller_without_a_free_place_is_refused_at_once_and_not_named(
    rival: Api,
    algorithm: Algorithm,
    version: Version,
    other: tuple[Algorithm, Version],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limited(monkeypatch, calls_per_owner=1)
    with serving(algorithm, version, ASK_ALL), answering(*other) as requests:
        waiting, void = called(rival, HELLO, [OTHER], [f"{OTHER}?output=void"])
        assert [waiting[0], void[0]] == [429, 429]
        assert "rival" not in waiting[1]["error"]["message"]
        assert requests == []


def test_the_timeout_of_a_call_below_is_what_the_call_above_has_left(
    acme: Api, algorithm: Algorithm, version: Version, other: tuple[Algorithm, Version]
) -> None:
    both = calls(f"{OTHER}?timeout=3000", f"{OTHER}?timeout=1.5")
    with treating(algorithm, version, both), answering(*other) as requests:
        assert [answer[0] for answer in acme.post(f"{CALL}?timeout=100")["result"]] == [200, 200]
    timeouts = [float(parse_qs(request.split()[1].decode())["/?timeout"][0]) for request in requests]
    assert 1.5 < timeouts[0] <= 100
    assert timeouts[1] <= 1.5


def test_calls_end_at_their_depth(
    acme: Api, algorithm: Algorithm, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(monkeypatch, pipeline_max_depth=2)
    second, third, last = (make_version(acme, "acme", name) for name in ("Second", "Third", "Last"))
    with (
        treating(algorithm, version, calls("/v1/algo/acme/Second")),
        treating(*second, calls("/v1/algo/acme/Third")),
        treating(*third, calls("/v1/algo/acme/Last", "/v1/algo/acme/Last?output=void")),
        answering(*last) as requests,
    ):
        ((_, below),) = acme.post(CALL)["result"]
        ((_, deepest),) = below["result"]
        for status, body in deepest["result"]:
            assert status == 400
            assert "LONGSHORE_PIPELINE_MAX_DEPTH" in body["error"]["message"]
        assert requests == []


def test_an_algorithm_that_calls_itself_is_refused_at_once(acme: Api, algorithm: Algorithm, version: Version) -> None:
    """Its one instance works on one call at a time: the call would wait for itself until its timeout."""
    second = make_version(acme, "acme", "Second")
    with treating(algorithm, version, calls("/v1/algo/acme/Second", CALL)), treating(*second, calls(CALL)):
        (_, below), (status, itself) = acme.post(CALL)["result"]
    assert status == 503
    assert "waits for this very call" in itself["error"]["message"]
    ((status, in_a_circle),) = below["result"]
    assert status == 503
    assert "acme/Hello waits for this very call" in in_a_circle["error"]["message"]


def test_a_call_that_could_not_start_before_its_own_end_is_refused_at_once(
    acme: Api, algorithm: Algorithm, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_version(acme, "acme", "Other")
    with treating(algorithm, version, calls(f"{OTHER}?timeout=0.1")):
        for name in ("serving_max_instances", "serving_max_instances_per_owner"):
            for maximum, reason in ((1, "all of them wait for this call"), (2, "within its timeout")):
                limited(monkeypatch, **{name: maximum})
                ((status, refused),) = acme.post(CALL)["result"]
                assert status == 503
                assert reason in refused["error"]["message"]


def test_a_call_that_nobody_waits_for_is_the_owners(
    acme: Api, rival: Api, algorithm: Algorithm, version: Version, other: tuple[Algorithm, Version]
) -> None:
    with treating(algorithm, version, calls(f"{OTHER}?output=void")), answering(*other):
        ((status, accepted),) = rival.post(CALL)["result"]
        assert status == 200
        request = f"/v1/requests/{accepted['request_id']}"
        while acme.get(request)["state"] == "running":
            time.sleep(0.01)
        assert acme.get(request)["state"] == "succeeded"
        rival.expect_refusal(404, 5004, "GET", request)


def test_an_algorithm_without_pipelines_is_told_so(
    acme: Api, algorithm: Algorithm, version: Version, other: tuple[Algorithm, Version]
) -> None:
    acme.put(f"/v1/algorithms/{HELLO}", {"settings": {"pipeline_enabled": False}})
    with serving(algorithm, version, ASK_ALL), answering(*other) as requests:
        ((status, refused),) = called(acme, HELLO, [OTHER])
        assert (status, refused["error"]["code"]) == (403, 2001)
        assert "pipeline_enabled" in refused["error"]["message"]
        acme.put(f"/v1/algorithms/{HELLO}", {"settings": {"pipeline_enabled": True}})
        assert called(acme, HELLO, [OTHER])[0][0] == 200
        assert len(requests) == 1


def test_a_call_whose_call_above_has_ended_does_not_begin(
    acme: Api, algorithm: Algorithm, version: Version, other: tuple[Algorithm, Version]
) -> None:
    pending = pending_instance(*other)

    def leave(connection: socket.socket) -> None:
        connection.sendall(request_bytes(1, OTHER) + result_bytes("gone"))

    with treating(algorithm, version, leave):
        assert acme.post(CALL)["result"] == "gone"
        with unix_listener(pending) as listener, treated(listener, says(result_bytes(1))) as requests:
            wait_for_no_calls("acme")
            assert requests == []


def test_a_call_that_waits_for_its_instance_ends_with_the_call_above(
    acme: Api, algorithm: Algorithm, version: Version, other: tuple[Algorithm, Version]
) -> None:
    pending_instance(*other)  # and never ready
    with treating(algorithm, version, says(request_bytes(1, OTHER) + result_bytes("gone"))):
        assert acme.post(CALL)["result"] == "gone"
        wait_for_no_calls("acme")


def test_a_call_that_outlives_the_call_above_ends_by_itself(
    acme: Api, algorithm: Algorithm, version: Version, other: tuple[Algorithm, Version]
) -> None:
    is_begun, is_over = threading.Event(), threading.Event()
    held = list[int]()

    def leave(connection: socket.socket) -> None:
        connection.sendall(request_bytes(1, OTHER))
        is_begun.wait(60)
        connection.sendall(result_bytes("gone"))

    def answer(connection: socket.socket) -> None:
        held.append(call_slots()._taken["acme"])
        is_begun.set()
        is_over.wait(60)
        connection.sendall(result_bytes(1))

    with treating(algorithm, version, leave), treating(*other, answer):
        assert acme.post(CALL)["result"] == "gone"
        assert held == [2], "each call has a slot"
        assert call_slots()._taken["acme"] == 1
        is_over.set()
        wait_for_no_calls("acme")


def test_a_call_is_not_repeated_if_its_runner_ends_after_it_made_calls(
    acme: Api, algorithm: Algorithm, version: Version, other: tuple[Algorithm, Version]
) -> None:
    """A unix socket with unread bytes is reset by its end, as one that never took the call."""

    def die(connection: socket.socket) -> None:
        connection.sendall(request_bytes(1, OTHER))
        select.select([connection], [], [])

    with treating(algorithm, version, die) as deaths, answering(*other) as requests:
        assert "ended during the call" in acme.post(CALL)["error"]["message"]
        assert len(deaths) == len(requests) == 1
