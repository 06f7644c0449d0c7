"""The load check: a real engine imports algorithms in their images; the verdict is in the build's row."""

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shared.cancellation import CancelToken
from shared.db.clock import now_ms
from shared.db.engine import database
from shared.db.models import Build
from shared.db.models.algorithms import LoadCheckState
from shared.errors import ErrorClass, WorkError
from shared.settings import settings
from tests.git_service import make_algorithm
from tests.rows import build_commit, change, compile_commit, fresh, make_claim, one_row
from tests.unit.workers.builds.test_image import BASE
from workers.builds.build import BuildWork
from workers.builds.image import BuildRequest, BuiltImage, build_image
from workers.builds.load_check import (
    MAX_TRACEBACK_LENGTH,
    NAME_PREFIX,
    _verdict,
    check_build,
    check_image,
    skip_overdue,
)
from workers.docker.connection import engine
from workers.docker.images import has_image
from workers.images.engine_transfer import load_image
from workers.images.factory import image_store
from workers.images.image import add_image, read_image
from workers.images.image_store import held_image
from workers.jobs.heartbeat import Heartbeat

HOUR_MS = 60 * 60 * 1000
CONFINED = b"""
import os, socket
assert __name__ == "src.Small"
assert os.listdir("/sys/class/net") == ["lo"], "it has a network"
assert os.getuid() == 65532
assert not os.access("/opt/algorithm", os.W_OK)
open("/tmp/writable", "w").close()
print("printed at import")

def load():
    raise RuntimeError("load is not called")

def apply(input, state):
    return input
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image store of all tests of this file: the base image is brought into it once."""
    return tmp_path_factory.mktemp("images")


@pytest.fixture(autouse=True)
def _installed(sqlite_installation: str, tmp_path: Path, images: Path) -> None:  # noqa: ARG001
    (tmp_path / "images").symlink_to(images)


Checked = Callable[..., Build]


@pytest.fixture
def built(request_for: Callable[..., BuildRequest]) -> Callable[[bytes], Build]:
    """Makes the image of a source; gives its build, which has succeeded and is not checked."""

    def make(source: bytes) -> Build:
        lines: list[str] = []
        with image_store().use(CancelToken()) as use:
            image = build_image(request_for({"src/Small.py": source}), use, lines.append, CancelToken())
        build = build_commit(make_algorithm())
        change(
            build, manifest_digest=image.manifest_digest, image_id=image.image_id, image_bytes=image.size_bytes, log=""
        )
        return fresh(build)

    return make


@pytest.fixture
def checked(built: Callable[[bytes], Build]) -> Checked:
    """Makes the image of a source and checks it; the engine has neither container nor image of it then."""

    def check(source: bytes) -> Build:
        build = built(source)
        check_build(build.job_id)
        assert not engine().containers(all=True, filters={"name": NAME_PREFIX + build.id})
        assert not has_image(str(build.image_id))
        return fresh(build)

    return check


def log_of(build: Build) -> str:
    with database().reading() as session:
        return str(session.get_one(Build, build.seq).log)


def test_an_algorithm_that_can_be_imported_passes_confined_and_without_load(checked: Checked) -> None:
    build = checked(CONFINED)
    assert (build.load_check, build.load_check_traceback) == (LoadCheckState.PASSED, None), build.load_check_traceback
    assert log_of(build) == "Load check: passed. The algorithm was imported in its image.\n"


@pytest.mark.parametrize(
    ("source", "traceback"),
    [
        (b"import nothing_like_it\n", "ModuleNotFoundError: No module named 'nothing_like_it'"),
        (b"def apply(input:\n", "SyntaxError: '(' was never closed"),
        (b"value = 1\n", "The module src.Small has no function apply and does not start the development kit."),
        (b"import sys\nsys.exit()\n", "ended its process while it was imported"),
        (b"import os\nos.kill(os.getpid(), 9)\n", "was ended by signal SIGKILL while it was loading"),
        (b"import socket\nsocket.create_connection(('192.0.2.1', 80))\n", "OSError"),
    ],
)
def test_an_algorithm_that_cannot_be_imported_fails_with_the_reason(
    checked: Checked, source: bytes, traceback: str
) -> None:
    build = checked(source)
    assert build.load_check == LoadCheckState.FAILED
    assert traceback in str(build.load_check_traceback)
    log = log_of(build)
    assert log.startswith("Load check: failed. ")
    assert traceback in log


def test_what_the_algorithm_says_of_itself_is_plain_and_bounded(checked: Checked) -> None:
    build = checked(b"raise RuntimeError('\\x1b[31mred' + 'x' * 1_000_000 + '\\x07 the end')\n")
    traceback = str(build.load_check_traceback)
    assert traceback.isprintable() or set(traceback) & {"\x1b", "\x07"} == set()
    assert traceback.endswith("the end")
    assert len(traceback) <= MAX_TRACEBACK_LENGTH


@pytest.mark.parametrize("output", [b"", b"nonsense", b"[]", b"1", b"[" * 100_000, b"\xff", b'{"state": 1}', b'{"st'])
def test_output_in_place_of_the_verdict_is_a_failure(output: bytes) -> None:
    verdict = _verdict(b"printed\n" + output, {"ExitCode": 137, "OOMKilled": True})
    assert verdict.state == LoadCheckState.FAILED
    assert verdict.text.endswith("It used more memory than an instance has: 1024 MiB.")


def test_an_import_without_end_is_ended(checked: Checked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGSHORE_LOAD_CHECK_SECONDS", "3")
    settings.cache_clear()
    build = checked(b"while True: pass\n")
    assert (build.load_check, build.load_check_traceback) == (
        LoadCheckState.FAILED,
        "The import took longer than 3 seconds.",
    )


def test_the_verdict_is_written_once(built: Callable[[bytes], Build]) -> None:
    build = built(CONFINED)
    change(build, load_check=LoadCheckState.SKIPPED)
    check_build(build.job_id)
    assert fresh(build).load_check == LoadCheckState.SKIPPED
    assert log_of(build) == ""


def test_what_a_lost_worker_left_of_a_check_is_removed(built: Callable[[bytes], Build]) -> None:
    build = built(CONFINED)
    with image_store().use(CancelToken()) as use:  # the engine gets image and container, as by a check that did not end
        manifest = held_image(use, str(build.manifest_digest))
        assert manifest is not None
        load_image(use, read_image(use, manifest.descriptor), CancelToken())
    engine().create_container(str(build.image_id), name=NAME_PREFIX + build.id)
    check_build(build.job_id)
    assert fresh(build).load_check == LoadCheckState.PASSED
    assert not engine().containers(all=True, filters={"name": NAME_PREFIX + build.id})
    assert not has_image(str(build.image_id))


def test_without_an_engine_the_check_is_skipped_and_the_log_says_why(
    built: Callable[[bytes], Build], monkeypatch: pytest.MonkeyPatch
) -> None:
    build = built(CONFINED)
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    check_build(build.job_id)
    assert (fresh(build).load_check, fresh(build).load_check_traceback) == (LoadCheckState.SKIPPED, None)
    log = log_of(build)
    assert log.startswith("Load check: skipped. The Docker engine at unix:///nowhere/docker.sock does not answer")
    assert "the job waits" not in log


def test_a_large_image_is_not_loaded_for_a_check(
    built: Callable[[bytes], Build], monkeypatch: pytest.MonkeyPatch
) -> None:
    build = built(CONFINED)
    monkeypatch.setenv("LONGSHORE_LOAD_CHECK_MAX_BYTES", "1000")
    settings.cache_clear()
    check_build(build.job_id)
    assert fresh(build).load_check == LoadCheckState.SKIPPED
    assert "more than LONGSHORE_LOAD_CHECK_MAX_BYTES" in log_of(build)


def test_an_owner_does_not_fill_the_queue_with_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.builds.load_check.MAX_WAITING_PER_OWNER", 2)
    other = build_commit(make_algorithm("rival"))
    algorithm = make_algorithm("acme")
    builds = [build_commit(algorithm, digit * 40) for digit in "1234"]
    for build in (other, *builds):
        check_build(build.job_id)
    assert ["More than 2 builds" in log_of(build) for build in builds] == [True, True, False, False]
    assert "More than 2 builds" not in log_of(other)


def test_an_image_that_does_not_start_with_the_runner_is_not_started() -> None:
    with image_store().use(CancelToken()) as use:
        document: dict[str, Any] = {**BASE, "config": {"Entrypoint": ["/bin/anything"]}}
        image = add_image(use, json.dumps(document).encode(), [])
        verdict = check_image(use, image.manifest.descriptor.digest, uuid.uuid4().hex, CancelToken())
    assert verdict.state == LoadCheckState.SKIPPED
    assert "own Dockerfile" in verdict.text


def test_a_check_that_never_ended_is_skipped_after_an_hour() -> None:
    late, early, ancient = (build_commit(make_algorithm()) for _ in range(3))
    change(late, finished_at=now_ms() - 2 * HOUR_MS)
    change(ancient, finished_at=now_ms() - 48 * HOUR_MS)
    with database().writing() as session:
        assert skip_overdue(session) == 1
    assert [fresh(build).load_check for build in (late, early, ancient)] == [LoadCheckState.SKIPPED, None, None]
    assert "not done within an hour" in log_of(late)


@pytest.fixture
def finished(
    request_for: Callable[..., BuildRequest], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, bytes], tuple[BuildWork, Build]]:
    """Does the last step of a build with a kind of check: what follows when its image is made."""

    def do(mode: str, source: bytes) -> tuple[BuildWork, Build]:
        monkeypatch.setenv("LONGSHORE_LOAD_CHECK", mode)
        settings.cache_clear()
        job = compile_commit(make_algorithm()).job
        claim = make_claim(job)
        work = BuildWork(claim)
        heartbeat = Heartbeat(database(), claim, settings(), work.write)
        try:
            with image_store().use(CancelToken()) as use:
                image: BuiltImage = build_image(
                    request_for({"src/Small.py": source}), use, lambda _line: None, CancelToken()
                )
                work._check_load(use, image, heartbeat, work._log.add)
        finally:
            with database().writing() as session:
                work.write(session)
        return work, one_row(Build, job_id=job.id)

    return do


def test_where_it_is_required_a_failure_fails_the_build(
    finished: Callable[[str, bytes], tuple[BuildWork, Build]],
) -> None:
    with pytest.raises(WorkError, match="which LONGSHORE_LOAD_CHECK=require asks for: ModuleNotFoundError") as raised:
        finished("require", b"import nothing_like_it\n")
    assert raised.value.error_class == ErrorClass.INVALID
    build = one_row(Build)
    assert build.load_check == LoadCheckState.FAILED
    assert "nothing_like_it" in str(build.load_check_traceback)
    assert "Load check: failed." in log_of(build)


def test_where_it_is_required_the_verdict_is_there_before_the_build_ends(
    finished: Callable[[str, bytes], tuple[BuildWork, Build]],
) -> None:
    assert finished("require", CONFINED)[1].load_check == LoadCheckState.PASSED


@pytest.mark.parametrize(("mode", "state"), [("off", LoadCheckState.SKIPPED), ("report", None)])
def test_the_build_waits_for_no_check_otherwise(
    finished: Callable[[str, bytes], tuple[BuildWork, Build]], mode: str, state: LoadCheckState | None
) -> None:
    assert finished(mode, b"raise RuntimeError\n")[1].load_check == state
