"""What makes two environments one, and what must not."""

import dataclasses
import fcntl
import io
import threading

import pytest

from shared.errors import Stopped
from shared.stopping import StopSignal
from tests.unit.workers.engine.sources import archive_of
from workers.engine.environment import BaseImage, EnvironmentSpec, environment_key
from workers.engine.image import dockerfile
from workers.engine.key_lock import key_lock
from workers.engine.limits import BuildLimits, Deadline
from workers.engine.log import BuildLog
from workers.engine.requirements import Requirements, read_requirements
from workers.engine.source import open_source
from workers.engine.watch import BuildWatch

BASE = BaseImage("sha256:" + "1" * 64, "linux/amd64", "/usr/bin:/bin")
HASHED = "a==1 --hash=sha256:" + "0" * 64


def requirements_of(text: str) -> Requirements:
    with open_source(io.BytesIO(archive_of({"requirements.txt": text.encode()}))) as tree:
        return read_requirements(tree)


def spec(text: str = "a==1\n", **changes: object) -> EnvironmentSpec:
    made = EnvironmentSpec(
        base_image="base:1",
        requirements=requirements_of(text),
        owner="one",
        kit_requirement="algorithmia>=2,<3",
        index_url="https://user:password@index.example.com/simple",
        ca_bundle=None,
        network="bridge",
        limits=BuildLimits(1, 1.0, 1, 1, 1),
    )
    return dataclasses.replace(made, **changes)


@pytest.mark.parametrize(
    "equal",
    [
        spec("# a comment\n\na==1"),
        spec(index_url="https://other:secret@index.example.com/simple"),
        spec(index_url="https://index.example.com/simple"),
        spec(network="none", ca_bundle=b"PEM"),
        spec(base_image="the-same-image-by-another-name"),
    ],
)
def test_what_does_not_change_what_is_installed_does_not_change_the_key(equal):
    assert environment_key(equal, BASE) == environment_key(spec(), BASE)


@pytest.mark.parametrize(
    ("other", "base"),
    [
        (spec("a==2\n"), BASE),
        (spec("--pre\na==1\n"), BASE),
        (spec(owner="two"), BASE),
        (spec(kit_requirement="algorithmia==2.0.5"), BASE),
        (spec(index_url="https://elsewhere.example.com/simple"), BASE),
        (spec(index_url=None), BASE),
        (spec(), dataclasses.replace(BASE, image_id="sha256:" + "2" * 64)),
        (spec(), dataclasses.replace(BASE, platform="linux/arm64")),
    ],
)
def test_what_changes_what_is_installed_changes_the_key(other, base):
    assert environment_key(other, base) != environment_key(spec(), BASE)


def test_owners_share_only_what_is_pinned_by_hash():
    assert environment_key(spec(HASHED), BASE) == environment_key(spec(HASHED, owner="two"), BASE)
    assert environment_key(spec(HASHED + "\nb==1"), BASE) != environment_key(spec(HASHED + "\nb==1", owner="two"), BASE)


@pytest.mark.parametrize("text", [".", "-e ./pkg", "git+https://example.com/a.git"])
def test_what_is_built_with_the_source_has_no_key(text):
    assert environment_key(spec(text), BASE) is None


def test_the_dockerfile_runs_nothing():
    lines = dockerfile("sha256:" + "1" * 64, "Small", {"a.b": 'c "d"'}).splitlines()
    assert lines[1] == 'LABEL a.b="c \\"d\\""'  # first: the image of every later step has it
    assert {line.split()[0] for line in lines} == {
        "FROM", "LABEL", "COPY", "ENV", "WORKDIR", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT",
    }  # fmt: skip
    assert 'ENV LONGSHORE_ALGORITHM_NAME="Small"' in lines
    assert "USER 65532:65532" in lines


def test_a_stop_ends_the_wait_for_another_build(tmp_path):
    stop, waiting = StopSignal(), threading.Event()

    def log(line: str) -> None:
        assert line == "Another build is installing the same requirements: waiting for it"
        waiting.set()
        stop.ask("cancelled")

    with (tmp_path / "k.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with (
            pytest.raises(Stopped, match="cancelled"),
            key_lock(tmp_path, "k", BuildWatch(BuildLog(log, 1000), stop, Deadline(60))),
        ):
            pytest.fail("the lock was taken although another holds it")
    assert waiting.is_set()
