"""Sources whose requirements need an older or newer Python, each in the environments that it is for (`sources/`)."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.system import System, longshore_up
from tests.acceptance.test_sources import ALL, check_source

VERSIONS = {"python38": "3.8", "python39": "3.9", "python3": "3.11", "python313": "3.13"}
CASES = [
    (name, environment)
    for name, expected in ALL.items()
    for environment in (*expected.get("environments", ()), *expected.get("fails_in", ()))
]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, docker_host: str, base_image: str) -> Iterator[System]:
    """A system with an environment for each of these versions of Python, and no registry."""
    with longshore_up(
        tmp_path_factory.mktemp("old"),
        DOCKER_HOST=docker_host,
        LONGSHORE_BASE_IMAGE=base_image,
        LONGSHORE_PYTHON_IMAGE="longshore-base:python{version}",
        LONGSHORE_SERVING_NETWORK="host",  # the private engine has no other
    ) as running_system:
        yield running_system


@pytest.mark.parametrize(("name", "environment"), CASES)
def test_a_source_in_its_environment(
    name: str, environment: str, system: System, python_base: Callable[[str], str], tmp_path: Path
) -> None:
    if environment != "python3":
        python_base(VERSIONS[environment])
    check_source(system, name, system.owner_key(environment), tmp_path / "clone", environment)
