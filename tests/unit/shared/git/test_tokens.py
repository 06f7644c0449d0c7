from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.git.hosted import git_token, is_git_token, verify_git_token
from tests.environment import longshore_environment

HERE = "8f6f3a54-6d0c-4a58-bb0f-1c2cb1a4f001"
THERE = "8f6f3a54-6d0c-4a58-bb0f-1c2cb1a4f002"


@pytest.fixture(autouse=True)
def environment(tmp_path: Path) -> Iterator[None]:
    with longshore_environment(tmp_path, tables=False):
        yield


def test_a_token_is_good_for_one_scope_and_one_algorithm() -> None:
    token = git_token("fetch", HERE, 60)
    assert is_git_token(token)
    assert verify_git_token(token, "fetch", HERE)
    assert not verify_git_token(token, "admin", HERE)
    assert not verify_git_token(token, "fetch", THERE)


def test_a_token_ends() -> None:
    assert not verify_git_token(git_token("fetch", HERE, -1), "fetch", HERE)


def test_a_changed_token_is_no_token() -> None:
    token = git_token("fetch", HERE, 60)
    prefix, scope, algorithm_id, ends, digest = token.split(".", 4)
    for changed in (
        f"{prefix}.admin.{algorithm_id}.{ends}.{digest}",
        f"{prefix}.{scope}.{algorithm_id}.{int(ends) + 1000}.{digest}",
        f"{prefix}.{scope}.{algorithm_id}.{ends}.{digest[:-1]}",
        f"{prefix}.{scope}.{algorithm_id}.{ends}.{digest[:-1]}é",
        f"{prefix}.{scope}.{algorithm_id}",
        "",
        "lsgit....",
    ):
        assert not verify_git_token(changed, "fetch", HERE)
        assert not verify_git_token(changed, "admin", HERE)


def test_another_installations_token_is_no_token(tmp_path: Path) -> None:
    token = git_token("fetch", HERE, 60)
    with longshore_environment(tmp_path, tables=False):
        assert not verify_git_token(token, "fetch", HERE)
