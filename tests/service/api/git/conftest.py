from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.git_service import GitService, WorkTree, git_service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitService]:
    """A git service that takes 2 MiB."""
    with git_service(tmp_path_factory.mktemp("git-service"), source_max_bytes=2 * 1024 * 1024) as running:
        yield running


@pytest.fixture
def tree(tmp_path: Path) -> WorkTree:
    """A user's repository with one commit on main."""
    tree = WorkTree(tmp_path / "tree")
    tree.write("src/Hello.py")
    tree.commit()
    return tree
