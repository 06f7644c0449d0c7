"""The environment of a build follows from the algorithm's settings, and from nothing else where they name none."""

from pathlib import Path

import pytest

from shared.cancellation import CancelToken
from shared.db.models import Algorithm
from shared.environments import chosen_environment, find_environment
from shared.errors import ErrorClass, WorkError
from tests.directory_store import DirectoryStore
from workers.builds.build import make_image


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "python3"),
        ({"language": "python3-1"}, "python3-1"),
        ({"language": "python3", "package_set": "python39"}, "python39"),
        ({"language": "python3", "package_set": "python39", "algorithm_environment": "python38"}, "python38"),
        ({"language": "python3", "algorithm_environment": find_environment("python312").id}, "python312"),
    ],
)
def test_the_most_specific_setting_decides(settings: dict[str, str], name: str) -> None:
    assert chosen_environment(settings).name == name


def test_an_environment_that_was_removed_fails_the_build_instead_of_building_in_another(
    tmp_path: Path,
) -> None:
    algorithm = Algorithm(owner="acme", name="Hello", settings={"language": "python3", "package_set": "python27"})
    lines: list[str] = []
    with pytest.raises(WorkError, match="python27") as failed:
        make_image(algorithm, "0" * 40, DirectoryStore(tmp_path), log=lines.append, stop=CancelToken())
    assert failed.value.error_class is ErrorClass.INVALID
    assert "there are python3, python3-1, python38" in failed.value.message
    assert lines == [failed.value.message]
