"""Asking a server elsewhere for its newest commit."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.errors import ErrorClass, WorkError
from shared.git.repository_url import RepositoryUrl
from shared.git.sources import newest_commit
from tests.environment import longshore_environment
from tests.git_service import WorkTree
from tests.plain_git_server import plain_git_server


@pytest.fixture(autouse=True)
def environment(tmp_path: Path) -> Iterator[None]:
    with longshore_environment(tmp_path / "data", tables=False):
        yield


@pytest.fixture
def tree(tmp_path: Path) -> WorkTree:
    tree = WorkTree(tmp_path / "tree", branch="trunk")
    tree.commit()
    return tree


def repository(tree: WorkTree, tmp_path: Path) -> Path:
    path = tmp_path / "root" / "r.git"
    tree.git("clone", "--quiet", "--bare", ".", str(path))
    return path


def newest(url: str, **arguments: Any) -> str:
    return newest_commit(RepositoryUrl.parse(url, allow_http=True), **arguments)


def failure(url: str, **arguments: float) -> WorkError:
    with pytest.raises(WorkError) as failed:
        newest(url, **arguments)
    return failed.value


def test_the_newest_commit_of_the_default_branch(tree: WorkTree, tmp_path: Path) -> None:
    repository(tree, tmp_path)
    with plain_git_server(tmp_path / "root") as url:
        assert newest(f"{url}/r.git") == tree.head


def test_a_default_branch_with_a_hostile_name(tree: WorkTree, tmp_path: Path) -> None:
    path = repository(tree, tmp_path)
    name = "refs/heads/--upload-pack=x"
    tree.git("--git-dir", str(path), "update-ref", name, tree.head)
    tree.git("--git-dir", str(path), "symbolic-ref", "HEAD", name)
    with plain_git_server(tmp_path / "root") as url:
        assert newest(f"{url}/r.git") == tree.head


def test_empty_deleted_and_missing_are_told_apart(tree: WorkTree, tmp_path: Path) -> None:
    path = repository(tree, tmp_path)
    tree.git("--git-dir", str(path), "symbolic-ref", "HEAD", "refs/heads/gone")
    tree.git("init", "--quiet", "--bare", str(tmp_path / "root" / "empty.git"))
    with plain_git_server(tmp_path / "root") as url:
        deleted, empty, missing = (failure(f"{url}/{name}.git") for name in ("r", "empty", "nothing"))
    assert (deleted.error_class, "was deleted" in deleted.message) == (ErrorClass.INVALID, True)
    assert (empty.error_class, "is empty" in empty.message) == (ErrorClass.INVALID, True)
    assert missing.error_class == ErrorClass.NOT_FOUND


@pytest.mark.usefixtures("tmp_path")
def test_a_server_that_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        failed = failure(f"http://127.0.0.1:{silent.getsockname()[1]}/r", timeout=0.5)
    assert (failed.error_class, "in time" in failed.message) == (ErrorClass.TRANSIENT, True)


def test_a_certificate_that_nobody_vouches_for(tmp_path: Path) -> None:
    with plain_git_server(tmp_path, tls=True) as url:
        assert failure(f"{url}/r").error_class == ErrorClass.INVALID
