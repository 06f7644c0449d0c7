"""Calling algorithms: which version, who may, what goes in and comes out, and what becomes of what breaks."""

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import select

from shared.db.engine import database
from shared.db.models import Algorithm, Instance, InstanceState, Version
from shared.db.models.algorithms import PublishState
from tests.rows import DIGEST, HASH, OTHER_HASH, build_commit, change, fresh, make_registry, one_row
from tests.service.api.invocation import Api, owner_api
from tests.service.api.serving import ECHO, directory_of, live_instance, pending_instance, pushed_version, ready, runner
from tests.unit.workers.runner.running import PROTOCOL, Runner
from workers.serving.reconcile import why_outdated

pytestmark = pytest.mark.usefixtures("short_serving_dir")

PUBLISHED = PublishState.PUBLISHED
CALL = "/v1/algo/acme/Hello"
THIRD_HASH = "f" * 40


@pytest.fixture
def served(
    short_serving_dir: None,  # noqa: ARG001 - it must run first
    algorithm: Algorithm,
    version: Version,
) -> Iterator[Runner]:
    instance = pending_instance(algorithm, version)
    with runner(instance) as running:
        ready(instance)
        yield running


@pytest.mark.usefixtures("served")
def test_json_text_and_bytes_are_handed_on_as_they_are(acme: Api) -> None:
    answered = acme.post(CALL, {"a": [1]})
    assert answered["result"] == {"content_type": "json", "data": {"a": [1]}}
    assert answered["metadata"]["content_type"] == "json"
    assert answered["metadata"]["duration"] >= 0
    assert acme.post(CALL, b"hi", Content_Type="text/plain")["result"] == {"content_type": "text", "data": "hi"}
    given = {"content_type": "binary", "data": "AP8="}
    assert acme.post(CALL, b"\0\xff", Content_Type="application/octet-stream")["result"] == given
    assert len(acme.post(CALL, ["x" * 3_000_000])["result"]["data"][0]) == 3_000_000


@pytest.mark.usefixtures("served")
def test_text_has_the_name_that_the_generated_client_gives_it(acme: Api) -> None:
    for content_type in ("application/text", "Application/Text; charset=utf-8", "text/plain; charset=UTF-8"):
        answered = acme.post(CALL, "größe".encode(), Content_Type=content_type)
        assert answered["result"] == {"content_type": "text", "data": "größe"}
    answered = acme.post(CALL, "größe".encode("latin-1"), Content_Type="application/text; charset=latin-1")
    assert answered["result"]["data"] == "größe"
    acme.expect_refusal(400, 2013, "POST", CALL, b"\xff", Content_Type="application/text")
    for parameter in ("charset*=utf-8''%0d%0aX-Header:%20x", "charset*=utf-8''%ff%00", 'charset="ö"'):
        for content_type in ("application/text", "text/plain"):  # and no error of ours
            response = acme.call("POST", CALL, b"x", Content_Type=f"{content_type}; {parameter}")
            assert response.status_code in (200, 400, 415), parameter


@pytest.mark.usefixtures("served")
def test_an_algorithm_is_named_as_the_users_of_the_client_for_node_name_it(acme: Api) -> None:
    for path in ("algo://acme/Hello", "algo://acme/Hello/1.0.0", "/acme/Hello", "algo:/acme/Hello/"):
        assert acme.post(f"/v1/algo/{path}", 1)["result"]["data"] == 1


@pytest.mark.usefixtures("served")
def test_what_algorithms_do_not_take_is_refused(acme: Api) -> None:
    acme.expect_refusal(415, 2015, "POST", CALL, b"<a/>", Content_Type="application/xml")
    acme.expect_refusal(400, 2013, "POST", CALL, b"{")
    acme.expect_refusal(413, 2015, "POST", CALL, b"1" * (10 * 1024 * 1024 + 1))
    for query in ("timeout=0", "timeout=nan", "timeout=3001", "timeout=x", "output=all", "stdout=maybe"):
        assert acme.expect_refusal(400, 2015, "POST", f"{CALL}?{query}", 1)
    assert acme.post(f"{CALL}?unknown=1&stdout=False&timeout=20", 1)["result"]["data"] == 1


@pytest.mark.usefixtures("served")
def test_raw_output_is_the_bare_result(acme: Api) -> None:
    answered = acme.call("POST", f"{CALL}?output=raw", [1])
    assert answered.get_json() == {"content_type": "json", "data": [1]}


@pytest.mark.usefixtures("served")
def test_only_owner_and_admin_may_see_what_is_printed(acme: Api, rival: Api) -> None:
    assert "stdout" in acme.post(f"{CALL}?stdout=TRUE", 1)["metadata"]
    rival.expect_refusal(403, 2001, "POST", f"{CALL}?stdout=true", 1)


def test_versions_by_number_pattern_hash_and_name(acme: Api, rival: Api, admin: Api, algorithm: Algorithm) -> None:
    """Each names its image's owner by what is missing: nothing runs, so what is found waits in vain."""
    numbers = [("1.9.0", "public", HASH), ("1.10.0", "public", OTHER_HASH), ("2.0.0", "private", THIRD_HASH)]
    numbers.append(("0.2.0", "public", "d" * 40))
    made = {
        number: pushed_version(
            algorithm, git_hash=git_hash, semantic_version=number, publish_state=PUBLISHED, callability=callability
        )
        for number, callability, git_hash in numbers
    }
    unpublished = pushed_version(algorithm, git_hash="e" * 40)
    meant = {
        "": ("2.0.0", "1.10.0"),
        "/latest": ("1.10.0", "1.10.0"),
        "/latestPrivate": ("2.0.0", None),
        "/1.*": ("1.10.0", "1.10.0"),
        "/1.9.*": ("1.9.0", "1.9.0"),
        "/2.*": ("2.0.0", None),
        "/2.0.0": ("2.0.0", None),
        f"/{HASH}": ("1.9.0", "1.9.0"),
        f"/{HASH[:7].upper()}": ("1.9.0", "1.9.0"),
        f"/{THIRD_HASH[:7]}": ("2.0.0", None),
        "/eeeeeee": ("unpublished", None),
        "/": ("2.0.0", "1.10.0"),
        "//": ("2.0.0", "1.10.0"),
        "/1": ("1.10.0", "1.10.0"),
        "/1.x": ("1.10.0", "1.10.0"),
        "/1.*.*": ("1.10.0", "1.10.0"),
        "/1.9": ("1.9.0", "1.9.0"),
        "/1.9.x": ("1.9.0", "1.9.0"),
        "/1.9.X/": ("1.9.0", "1.9.0"),
        "/1.9.0/": ("1.9.0", "1.9.0"),
        "/2": ("2.0.0", None),
        "/0": ("0.2.0", "0.2.0"),
        "/0.2": ("0.2.0", "0.2.0"),
        "/0.x": ("0.2.0", "0.2.0"),
        "/3.*": (None, None),
        "/3": (None, None),
        "/1.2": (None, None),
        "/1.1": (None, None),  # not the start of 1.10
        "/1.9.00": (None, None),
        "/1.": (None, None),
        "/x": (None, None),
        "/1.9.0.0": (None, None),
        "/algo": (None, None),
    }
    of_number = {**{number: version.id for number, version in made.items()}, "unpublished": unpublished.id}
    for asked, (by_owner, by_others) in meant.items():
        for path in (CALL, f"/v1/algo/{algorithm.id}"):
            for api, number in ((acme, by_owner), (admin, by_owner), (rival, by_others)):
                assert called(api, f"{path}{asked}") == (None if number is None else of_number[number]), asked


def called(api: Api, path: str) -> str | None:
    """The version that a call wants to run; None where there is none for this caller."""
    answered = api.call("POST", f"{path}?timeout=0.01", 1)
    if answered.status_code == 404:
        return None
    assert answered.status_code == 503, answered.get_data(as_text=True)
    assert answered.headers["Retry-After"]
    instance = one_row(Instance, state=InstanceState.PENDING)
    change(instance, state=InstanceState.STOPPED)
    return instance.version_id


@pytest.mark.usefixtures("served")
def test_what_a_key_is_not_for_it_may_not_call(app: Any, admin: Api, acme: Api) -> None:
    assert owner_api(app, admin, "lists", algo_acl=["acme/Hello"]).post(CALL, 1)
    owner_api(app, admin, "other", algo_acl=["acme/Else"]).expect_refusal(403, 2001, "POST", CALL, 1)
    owner_api(app, admin, "never", allow_algo=False).expect_refusal(403, 2001, "POST", CALL, 1)
    assert "No such algorithm" in acme.expect_refusal(404, 1001, "POST", "/v1/algo/acme/None", 1)


def test_nothing_runs_that_no_registry_has(acme: Api, algorithm: Algorithm) -> None:
    build_commit(algorithm)
    make_registry()
    assert "never pushed" in acme.expect_refusal(409, 2015, "POST", f"{CALL}/{HASH}", 1)


def test_what_runs_from_the_store_takes_no_call_once_a_registry_is_recorded(
    acme: Api, admin: Api, algorithm: Algorithm
) -> None:
    change(build_commit(algorithm), manifest_digest=DIGEST)
    instance = pending_instance(algorithm, one_row(Version, algorithm_id=algorithm.id))
    with runner(instance):
        ready(instance)
        assert acme.post(f"{CALL}/{HASH}", 1)["result"]["data"] == 1
        admin.make_registry()
        assert "never pushed" in acme.expect_refusal(409, 2015, "POST", f"{CALL}/{HASH}", 1)
        with database().reading() as session:
            outdated = why_outdated(session, instance)
    assert outdated is not None
    assert "may not run any more" in outdated


def test_errors_of_the_algorithm_and_of_its_load_are_answers(acme: Api, algorithm: Algorithm, version: Version) -> None:
    instance = pending_instance(algorithm, version)
    with runner(instance, "raise ValueError('no model')"):
        ready(instance)
        assert acme.post(CALL, 1)["error"]["message"] == "ValueError: no model"
        assert acme.call("POST", f"{CALL}?output=raw", 1).get_json()["error"]["error_type"] == "LoadingError"


def test_a_call_ends_at_its_timeout(acme: Api, algorithm: Algorithm, version: Version) -> None:
    instance = pending_instance(algorithm, version)
    with runner(instance, f"{PROTOCOL}\nserve(lambda asked: __import__('time').sleep(1000))"):
        ready(instance)
        assert acme.post(f"{CALL}?timeout=0.5", 1)["error"]["error_type"] == "TimeoutError"


@pytest.mark.usefixtures("served")
def test_fifty_callers_at_once_lose_no_call(acme: Api) -> None:
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda each=number: answers.append(acme.post(CALL, each)["result"]["data"]))
        for number in range(50)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == list(range(50))


@pytest.mark.parametrize("placed", ["nothing", "a file", "a link", "a dead socket"])
def test_what_is_no_live_socket_leads_to_a_new_start(
    acme: Api, algorithm: Algorithm, version: Version, placed: str
) -> None:
    instance = pending_instance(algorithm, version)
    place, elsewhere = directory_of(instance) / "socket", directory_of(instance) / "elsewhere"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(elsewhere))
        other.listen()
        if placed == "a file":
            place.write_text("x")
        elif placed == "a link":
            place.symlink_to(elsewhere)
        elif placed == "a dead socket":
            with socket.socket(socket.AF_UNIX) as dead:
                dead.bind(str(place))
        ready(instance)
        with ThreadPoolExecutor(1) as callers:
            refusal = callers.submit(acme.expect_refusal, 503, 2015, "POST", f"{CALL}?timeout=30", 1)
            while (successor := successor_of(instance)) is None:
                assert not refusal.done(), refusal.result()
                time.sleep(0.01)
            change(successor, state=InstanceState.FAILED, message="No room.")
            assert "could not be started: No room." in refusal.result(30)
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.accept()
    assert fresh(instance).state == InstanceState.STOPPED


def successor_of(instance: Instance) -> Instance | None:
    with database().reading() as session:
        others = select(Instance).where(Instance.version_id == instance.version_id, Instance.id != instance.id)
        return session.scalar(others)


def test_a_runner_that_is_killed_in_a_call_is_an_error_and_the_next_call_goes_on(
    acme: Api, algorithm: Algorithm, version: Version
) -> None:
    instance = pending_instance(algorithm, version)
    kills = f"{PROTOCOL}\nserve(lambda asked: os.kill(int(os.environ['VICTIM']), 9))"
    source = kills.replace("os.environ['VICTIM']", "open('pid').read()")
    with runner(instance, source) as running:
        (directory_of(instance) / "source" / "pid").write_text(str(running.process.pid))
        ready(instance)
        assert "ended during the call" in acme.post(CALL, 1)["error"]["message"]
        acme.expect_refusal(503, 2015, "POST", f"{CALL}?timeout=2", 1)
    assert fresh(instance).state == InstanceState.STOPPED
    again = live_instance(version)
    with runner(again, ECHO):
        ready(again)
        assert acme.post(CALL, 2)["result"]["data"] == 2


def test_a_call_waits_for_a_cold_start(acme: Api, algorithm: Algorithm, version: Version) -> None:
    instance = pending_instance(algorithm, version)
    answers: list[Any] = []
    waiting = threading.Thread(target=lambda: answers.append(acme.post(CALL, 7)))
    waiting.start()
    with runner(instance):
        ready(instance)
        waiting.join()
    assert answers[0]["result"]["data"] == 7


@pytest.mark.usefixtures("served")
def test_a_call_without_a_wait_tells_how_it_ended(acme: Api, rival: Api) -> None:
    from api.invocation.async_calls import async_calls

    begun = acme.post(f"{CALL}?output=void", 1)
    assert begun["async"] == "void"
    assert async_calls.wait_until_idle(20) == []
    told = acme.get(f"/v1/requests/{begun['request_id']}")
    assert (told["state"], told["algorithm"], told["git_hash"]) == ("succeeded", "acme/Hello", HASH)
    assert told["duration"] >= 0
    rival.expect_refusal(404, 5004, "GET", f"/v1/requests/{begun['request_id']}")
    acme.expect_refusal(404, 5004, "GET", "/v1/requests/none")
