"""A push reads the engine's stream to its end: the events decide, not the status 200."""

import threading
from pathlib import Path
from typing import Any

import pytest

from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkCancelledError, WorkError
from shared.pushes.progress import Progress
from tests.unit.workers.fake_engine import IMAGE, FakeEngine
from workers.docker.push import push_image

PREPARING = {"id": "aa", "status": "Preparing"}
PUSHED = {"id": "aa", "status": "Pushed"}
DIGEST = {"progressDetail": {}, "aux": {"Tag": "1", "Digest": "sha256:" + "d" * 64, "Size": 5}}
DEADLINE = 10


def pushed(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, stop: CancelToken | None = None) -> str:
    monkeypatch.setenv("DOCKER_HOST", engine.address)
    return push_image(
        IMAGE, "h.example.com/a/b", "1", None, on_progress=list[Progress]().append, stop=stop or CancelToken()
    )


def test_the_digest_is_the_one_of_the_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeEngine(tmp_path, [PREPARING, PUSHED, DIGEST]) as engine:
        assert pushed(engine, monkeypatch) == "sha256:" + "d" * 64


@pytest.mark.parametrize(
    ("events", "ending", "error_class", "words"),
    [
        ([PREPARING, PUSHED], "end", ErrorClass.TRANSIENT, "without naming a digest"),
        ([], "end", ErrorClass.TRANSIENT, "without naming a digest"),
        (
            [PREPARING, {"error": "unauthorized: authentication required", "errorDetail": {}}, DIGEST],
            "end",
            ErrorClass.AUTH,
            "h.example.com: unauthorized",
        ),
        ([{"error": "received unexpected HTTP status: 503 Service Unavailable"}], "end", ErrorClass.TRANSIENT, "503"),
        ([{"error": "write /x: no space left on device"}], "end", ErrorClass.UNAVAILABLE, "disk is full"),
        ([PREPARING], "break", ErrorClass.UNAVAILABLE, "does not answer"),
        ([PREPARING, PUSHED, DIGEST], "break", ErrorClass.UNAVAILABLE, "does not answer"),
    ],
)
def test_what_the_stream_ends_with_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: list[Any], ending: str, error_class: ErrorClass, words: str
) -> None:
    with FakeEngine(tmp_path, events, ending=ending) as engine, pytest.raises(WorkError) as caught:
        pushed(engine, monkeypatch)
    assert caught.value.error_class is error_class
    assert words in caught.value.message


@pytest.mark.parametrize("silent", [True, False], ids=["before the first word", "in the middle"])
def test_a_stop_ends_a_push_that_the_engine_never_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    stop = CancelToken()
    with FakeEngine(tmp_path, [PREPARING], ending="hang", silent=silent) as engine:

        def ask() -> None:
            if engine.reached.wait(DEADLINE):
                stop.cancel("cancelled")

        asking = threading.Thread(target=ask)
        asking.start()
        with pytest.raises(WorkCancelledError, match="cancelled"):
            pushed(engine, monkeypatch, stop)
        asking.join()
        assert not engine.over.is_set()
