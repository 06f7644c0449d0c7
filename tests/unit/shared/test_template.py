"""The source of a new algorithm, as users have it on their own machines, without Longshore."""

import ast
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from shared.template import DEFAULT_NAME, template_archive, template_files
from tests.environment import longshore_environment

STAND_IN_KIT = """\
class ADK:
    def __init__(self, apply_func, load_func=None):
        self.apply = apply_func

    def init(self, local_payload):
        print(self.apply(local_payload))
"""


@pytest.fixture(autouse=True)
def _settings(tmp_path: Path) -> Iterator[None]:
    with longshore_environment(tmp_path / "data", tables=False):
        yield


def written(files: Mapping[str, bytes], directory: Path) -> Path:
    for path, content in files.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(content)
    return directory


def python(directory: Path, *arguments: str) -> str:
    """Run Python in the directory, beside a stand-in for the kit, as a user would; return what it printed."""
    kit = directory.parent / "kit" / "Algorithmia"
    kit.mkdir(parents=True, exist_ok=True)
    (kit / "__init__.py").write_text(STAND_IN_KIT)
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(kit.parent),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # those of this project take most of the time
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_files_are_those_that_published_scripts_expect() -> None:
    files = template_files("Hello", "alice", "python3")
    assert sorted(files) == [
        "README.md",
        "algorithmia.conf",
        "requirements.txt",
        "src/Hello.py",
        "src/Hello_test.py",
        "src/__init__.py",
    ]
    assert json.loads(files["algorithmia.conf"]) == {"username": "alice", "algoname": "Hello", "language": "python3"}
    assert files["requirements.txt"].splitlines()[-1] == b"algorithmia>=2,<3"


@pytest.mark.parametrize("name", ["Hello", "class", "test"])
def test_it_runs_and_its_test_passes_on_the_users_machine(name: str, tmp_path: Path) -> None:
    directory = written(template_files(name, "alice", "python3"), tmp_path / "clone")
    assert (
        python(directory, "-m", "pytest", "-q", "-p", "no:cacheprovider", "src").splitlines()[-1].startswith("1 passed")
    )
    assert python(directory, f"src/{name}.py") == "hello Algorithmia\n"


def test_its_entry_is_valid_for_every_python_that_can_be_an_environment() -> None:
    for path, content in template_files("Hello", "alice", "python38").items():
        if path.endswith(".py"):
            assert isinstance(ast.parse(content, path, feature_version=(3, 8)), ast.Module)


def test_equal_arguments_give_equal_bytes() -> None:
    first, second = (template_files("Hello", "alice", "python3") for _ in range(2))
    assert first == second
    assert template_archive(first) == template_archive(dict(reversed(list(second.items()))))
    assert template_files("Hello", "alice", "python38") != first


def test_a_kit_that_the_operator_does_not_want_is_not_required(tmp_path: Path) -> None:
    with longshore_environment(tmp_path, tables=False, kit_requirement=""):
        requirements = template_files("Hello", "alice", "python3")["requirements.txt"]
    assert [line for line in requirements.splitlines() if not line.startswith(b"#")] == []


def test_the_archive_unpacks_to_the_files() -> None:
    files = template_files(DEFAULT_NAME, "alice", "python3")
    with tarfile.open(fileobj=io.BytesIO(template_archive(files)), mode="r:gz") as archive:
        assert {member.mode for member in archive.getmembers()} == {0o644}
        for path, content in files.items():
            assert (member := archive.extractfile(path)) is not None
            assert member.read() == content
        assert archive.getnames() == sorted(files)
