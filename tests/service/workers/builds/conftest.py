"""Fixtures for builds on a real engine: a package index, a store of images, build requests."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.directory_store import DirectoryStore
from tests.service.workers.builds.package_index import PackageIndex
from tests.unit.workers.builds.sources import archive_of
from workers.builds.context import BuildLimits
from workers.builds.image import BuildRequest
from workers.docker.connection import engine

MEBIBYTE = 1024 * 1024


@pytest.fixture(autouse=True)
def _engine_address(docker_host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", docker_host)


@pytest.fixture
def owner() -> str:
    """An owner whom no other test has, so that no other test's environments are found."""
    return f"owner-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="session")
def package_index() -> Iterator[PackageIndex]:
    """A package index that wants a password, and holds back the answer for the package `held`."""
    with PackageIndex(user="indexer", password="index-password-in-nothing") as index:
        index.add("Algorithmia", "2.0.5", {"Algorithmia/__init__.py": "KIT = True\n"})
        index.add("small", "1.0", {"small.py": "VALUE = 41\n"})
        yield index


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> DirectoryStore:
    """A store that all tests of a file share, so that the base image is brought into it once."""
    return DirectoryStore(tmp_path_factory.mktemp("store"))


@pytest.fixture
def request_for(
    base_image: str, owner: str, package_index: PackageIndex, tmp_path: Path
) -> Callable[..., BuildRequest]:
    """Makes a build request for an algorithm with these files, of requirements that our own index serves."""

    def make(
        files: dict[str, bytes], *, seconds: float = 120, index_url: str | None = package_index.url, **changes: object
    ) -> BuildRequest:
        source = tmp_path / f"{uuid.uuid4().hex}.tar"
        source.write_bytes(archive_of({"src/Small.py": b"def apply(input): return input\n", **files}))
        values: dict[str, object] = {
            "owner": owner,
            "name": "Small",
            "commit": uuid.uuid4().hex + "0" * 8,
            "source": source,
            "base_image": base_image,
            "kit_requirement": "",
            "index_url": index_url,
            "ca_bundle": None,
            "network": "host",
            "limits": BuildLimits(1024 * MEBIBYTE, 2.0, 256, seconds, MEBIBYTE),
            "lock_directory": tmp_path / "locks",
        }
        return BuildRequest(**{**values, **changes})  # type: ignore[arg-type]

    return make


@pytest.fixture
def build_containers(owner: str) -> Callable[[], list[str]]:
    """Gives the names of this test's own build containers; an engine may have other builds, which are none of ours."""

    def names() -> list[str]:
        found = engine().containers(all=True, filters={"label": f"longshore.owner={owner}"})
        return [container["Names"][0] for container in found]

    return names
