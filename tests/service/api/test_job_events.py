"""`GET /v1/jobs/ID/events`: each event of a job is sent once, up to the last one."""

import json
import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from werkzeug.test import TestResponse

from api import sse
from api.owner_slots import wait_slots
from shared.db.engine import database
from shared.db.models import ImagePush, Job, JobKind
from shared.fence import Claim
from tests.rows import HASH, change, end_build, end_push, make_claim, one_row
from tests.service.api.invocation import Api
from workers.builds.build_log import append_log

SECONDS = 30


@pytest.fixture
def hello(acme: Api) -> str:
    return acme.make_algorithm("acme")


@pytest.fixture
def job(acme: Api, admin: Api, hello: str) -> Job:
    """A compile with one push."""
    body = {"commitSha": HASH, "registry_push_credentials": {"registry_id": admin.make_registry()}}
    acme.post(f"{hello}/compile", body)
    return one_row(Job, kind=JobKind.COMPILE)


def ask(api: Api, job: Job, after: str = "") -> TestResponse:
    """Return the response before its stream is read."""
    headers = {"Authorization": f"Simple {api.key}", "Last-Event-ID": after}
    return api.app.test_client().get(f"/v1/jobs/{job.id}/events", headers=headers, buffered=False)


def parsed(chunks: Iterable[str] | Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Return the events of a stream without comments."""
    for chunk in chunks:
        assert isinstance(chunk, bytes)
        lines = chunk.decode().removesuffix("\n\n").split("\n")
        fields = dict(line.split(": ", 1) for line in lines if not line.startswith(":"))
        if fields:
            yield {**fields, "data": json.loads(fields["data"])}


def all_events(api: Api, job: Job, after: str = "") -> list[dict[str, Any]]:
    response = ask(api, job, after)
    assert (response.status_code, response.mimetype) == (200, "text/event-stream")
    with response:
        return list(parsed(response.response))


@contextmanager
def listening(api: Api, job: Job, after: str = "") -> Iterator["queue.Queue[Any]"]:
    """A queue of the events as they arrive, then None."""
    heard: queue.Queue[Any] = queue.Queue()
    response = ask(api, job, after)
    assert response.status_code == 200

    def listen() -> None:
        with response:
            for event in parsed(response.response):
                heard.put(event)
        heard.put(None)

    listener = threading.Thread(target=listen)
    listener.start()
    yield heard
    listener.join(SECONDS)
    assert not listener.is_alive()


def write(claim: Claim, text: str) -> None:
    with database().writing() as session:
        append_log(session, claim, text)


def finish(job: Job) -> None:
    """Finish the build with a log, then the push with progress."""
    claim = make_claim(job)
    write(claim, "Step 1\nStep 2 ✓\n")
    end_build(claim)
    end_push(make_claim(one_row(Job, kind=JobKind.PUSH)))
    change(one_row(ImagePush), done_bytes=7, total_bytes=7)


def test_a_job_that_has_ended_is_told_to_the_end_and_no_more(acme: Api, job: Job) -> None:
    finish(job)
    log, progress, state = all_events(acme, job)
    assert (log["event"], log["data"]) == ("log", {"offset": 0, "text": "Step 1\nStep 2 ✓\n"})
    assert progress["event"] == "progress"
    assert progress["data"]["pushes"][0]["done_bytes"] == 7
    shown = acme.get(f"/v1/jobs/{job.id}")
    for child in shown["children"]:
        del child["progress"]
    assert (state["event"], state["data"]) == ("state", shown)
    assert ask(acme, job, state["id"]).status_code == 204


def test_who_comes_back_misses_nothing_and_hears_nothing_twice(acme: Api, job: Job) -> None:
    finish(job)
    events = all_events(acme, job)
    for told in (1, 2):
        assert all_events(acme, job, events[told - 1]["id"]) == events[told:]


@pytest.mark.parametrize("after", ["nonsense", "1.2", "9" * 40, "9" * 10 + "..", "0.zz.", "\u00e9"])
def test_an_id_that_is_none_of_ours_tells_everything(acme: Api, job: Job, after: str) -> None:
    finish(job)
    assert [event["event"] for event in all_events(acme, job, after)] == ["log", "progress", "state"]


def test_an_id_beyond_the_log_tells_the_rest(acme: Api, job: Job) -> None:
    finish(job)
    assert [event["event"] for event in all_events(acme, job, "999999999..")] == ["progress", "state"]


def test_a_long_log_comes_in_parts_that_fit_together(acme: Api, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_LOG_CHARACTERS", 5)
    finish(job)
    logs = [event["data"] for event in all_events(acme, job) if event["event"] == "log"]
    assert "".join(part["text"] for part in logs) == "Step 1\nStep 2 ✓\n"
    assert [part["offset"] for part in logs] == [0, 5, 10, 15]


def test_what_happens_is_told_while_it_happens(acme: Api, job: Job) -> None:
    with listening(acme, job) as heard:
        assert heard.get(timeout=SECONDS)["event"] == "progress"
        assert heard.get(timeout=SECONDS)["data"]["state"] == "queued"
        claim = make_claim(job)
        assert heard.get(timeout=SECONDS)["data"]["state"] == "running"
        write(claim, "one\n")
        first = heard.get(timeout=SECONDS)
        assert first["data"] == {"offset": 0, "text": "one\n"}
        write(claim, "two\n")
        assert heard.get(timeout=SECONDS)["data"] == {"offset": 4, "text": "two\n"}
        end_build(claim)
        assert heard.get(timeout=SECONDS)["data"]["state"] == "succeeded"
        end_push(make_claim(one_row(Job, kind=JobKind.PUSH)))
        rest = list(iter(lambda: heard.get(timeout=SECONDS), None))
    assert rest[-1]["data"]["children"][0]["state"] == "succeeded"


def test_a_silent_stream_says_that_it_lives(acme: Api, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    from shared.settings import settings

    monkeypatch.setenv("LONGSHORE_KEEPALIVE_SECONDS", "0.01")
    settings.cache_clear()
    with ask(acme, job) as response:
        assert any(str(chunk).startswith("b':") for chunk in response.response)


def test_one_owner_holds_a_quarter_of_the_threads_and_gives_them_back(acme: Api, job: Job) -> None:
    wait_slots.cache_clear()
    streams = []
    try:
        while (response := ask(acme, job)).status_code == 200:
            streams.append(response)
        assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
        assert len(streams) == 4  # of sixteen threads
        streams.pop().close()
        streams.append(ask(acme, job))
        assert streams[-1].status_code == 200
    finally:
        for stream in streams:
            stream.close()
        wait_slots.cache_clear()


def test_events_are_their_owners(acme: Api, rival: Api, job: Job) -> None:
    rival.expect_refusal(404, 5004, "GET", f"/v1/jobs/{job.id}/events")
    acme.expect_refusal(404, 5004, "GET", "/v1/jobs/00000000-0000-4000-8000-000000000000/events")
