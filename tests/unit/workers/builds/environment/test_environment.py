"""Environments are shared if equal inputs make them, and never otherwise."""

import dataclasses
import io
import threading
from pathlib import Path
from typing import Any

import pytest

from shared.cancellation import CancelToken, Deadline
from shared.errors import WorkCancelledError
from shared.file_lock import file_lock
from tests.unit.workers.builds.sources import archive_of
from workers.builds.base_image import BaseImage
from workers.builds.context import BuildContext, BuildLimits, BuildLog
from workers.builds.environment.requirements import NO_REQUIREMENTS, Requirements, read_requirements
from workers.builds.environment.spec import EnvironmentSpec, environment_key, requirements_key, shared_environment_key
from workers.builds.source_tree import open_source_tree
from workers.images.image import Image
from workers.images.oci import OCI_CONFIG, Descriptor, Manifest


def base(digit: str = "1", architecture: str = "amd64") -> BaseImage:
    manifest = Manifest(Descriptor(OCI_CONFIG, "sha256:" + digit * 64, 2), ())
    return BaseImage("base:1", Image(manifest, {"os": "linux", "architecture": architecture}))


BASE = base()
LOCK = "a==1 --hash=sha256:" + "3" * 64 + "\n"
HASHED = "a==1 --hash=sha256:" + "0" * 64


def requirements_of(text: str) -> Requirements:
    with open_source_tree(io.BytesIO(archive_of({"requirements.txt": text.encode()}))) as tree:
        return read_requirements(tree)


def spec(text: str = "a==1\n", **changes: Any) -> EnvironmentSpec:
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
def test_what_does_not_change_what_is_installed_does_not_change_the_key(equal: EnvironmentSpec) -> None:
    assert requirements_key(equal, BASE) == requirements_key(spec(), BASE)


@pytest.mark.parametrize(
    ("other", "on"),
    [
        (spec("a==2\n"), BASE),
        (spec("--pre\na==1\n"), BASE),
        (spec(owner="two"), BASE),
        (spec(kit_requirement="algorithmia==2.0.5"), BASE),
        (spec(index_url="https://elsewhere.example.com/simple"), BASE),
        (spec(index_url=None), BASE),
        (spec(), base("2")),
        (spec(), base(architecture="arm64")),
    ],
)
def test_what_changes_what_is_installed_changes_the_key(other: EnvironmentSpec, on: BaseImage) -> None:
    assert requirements_key(other, on) != requirements_key(spec(), BASE)


@pytest.mark.parametrize("text", ["a==1\n", HASHED, "--pre\n", 'a==1 --config-settings="x=--hash"'])
def test_owners_share_nothing_that_a_requirements_file_led_to(text: str) -> None:
    one, two = spec(text), spec(text, owner="two")
    assert requirements_key(one, BASE) != requirements_key(two, BASE)
    assert environment_key(one, BASE, LOCK) != environment_key(two, BASE, LOCK)


def test_owners_share_what_is_installed_without_a_requirements_file() -> None:
    none = spec(requirements=NO_REQUIREMENTS)
    assert requirements_key(none, BASE) == requirements_key(dataclasses.replace(none, owner="two"), BASE)
    key = shared_environment_key(none, BASE, "sha256:" + "4" * 64)
    assert key == shared_environment_key(dataclasses.replace(none, owner="two"), BASE, "sha256:" + "4" * 64)
    assert key != shared_environment_key(none, BASE, "sha256:" + "5" * 64)


@pytest.mark.parametrize("text", [".", "-e ./pkg", "git+https://example.com/a.git"])
def test_what_is_built_with_the_source_has_no_key(text: str) -> None:
    assert requirements_key(spec(text), BASE) is None


def test_an_environment_is_known_by_what_is_installed_not_by_how_that_was_asked_for() -> None:
    key = environment_key(spec("a==1\n"), BASE, LOCK)
    assert environment_key(spec("a>=1\n", index_url=None), BASE, LOCK) == key
    for other in (
        environment_key(spec(), BASE, LOCK.replace("3", "4")),
        environment_key(spec(), base("2"), LOCK),
        environment_key(spec(owner="two"), BASE, LOCK),
    ):
        assert other != key


def test_a_lock_without_hashes_does_not_tell_what_is_installed() -> None:
    hashless = LOCK + "b==1\n"
    key = environment_key(spec(HASHED), BASE, hashless)
    assert environment_key(spec(HASHED), BASE, hashless) == key
    assert environment_key(spec(HASHED.replace("0", "5")), BASE, hashless) != key
    assert environment_key(spec(HASHED, index_url=None), BASE, hashless) != key


def test_a_stop_ends_the_wait_for_another_build(tmp_path: Path) -> None:
    stop, waiting = CancelToken(), threading.Event()

    def log(line: str) -> None:
        assert line == "Another build is making the same: waiting for it"
        waiting.set()
        stop.cancel("cancelled")

    context = BuildContext(BuildLog(log, 1000), stop, Deadline(60), tmp_path)
    with (
        file_lock(tmp_path / "k.lock"),
        pytest.raises(WorkCancelledError, match="cancelled"),
        context.locked("k"),
    ):
        pytest.fail("the lock was taken although another holds it")
    assert waiting.is_set()
