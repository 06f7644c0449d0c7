"""The internal calls, through the client that the API uses."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import urllib3
from sqlalchemy import select

from api.git.repositories import Repository
from shared.db.engine import database
from shared.db.models import Algorithm, KeyKind
from shared.errors import InvalidInputError, UnavailableError
from shared.git import hosted
from shared.git.hosted import git_token
from tests.environment import longshore_environment
from tests.git_service import GitService, WorkTree, make_algorithm, make_key, url_with_key


@pytest.fixture
def pushed(service: GitService, tree: WorkTree) -> tuple[Algorithm, str]:
    """An algorithm whose main is what `tree` has."""
    algorithm = make_algorithm()
    url = url_with_key(service, algorithm, make_key(algorithm.owner))
    assert tree.push(url).returncode == 0
    return algorithm, url


def refusal(algorithm_id: str, commit: Any) -> InvalidInputError:
    with pytest.raises(InvalidInputError) as refused:
        hosted.resolve(algorithm_id, commit)
    return refused.value


def test_a_commit_is_found_by_hash_by_prefix_and_as_the_newest(pushed: tuple[Algorithm, str], tree: WorkTree) -> None:
    algorithm, _ = pushed
    first = tree.head
    assert hosted.resolve(algorithm.id, None) == first
    assert hosted.resolve(algorithm.id, first) == first
    assert hosted.resolve(algorithm.id, first[:7].upper()) == first


@pytest.mark.usefixtures("pushed", "tree", "tmp_path")
def test_a_commit_that_was_named_is_kept_when_its_branch_goes(pushed: tuple[Algorithm, str], tree: WorkTree) -> None:
    algorithm, url = pushed
    first = tree.head
    tree.git("commit", "--amend", "--quiet", "--message", "other")
    assert tree.push(url, "+main").returncode == 0
    tree.git("--git-dir", str(Repository(algorithm.id).path), "gc", "--quiet", "--prune=now")
    assert hosted.resolve(algorithm.id, first) == first
    assert hosted.resolve(algorithm.id, None) == tree.head
    assert "longshore" not in tree.git("ls-remote", url).stdout
    refused = tree.push(url, "main:refs/longshore/commits/mine")
    assert refused.returncode != 0
    assert "hidden ref" in refused.stderr


@pytest.mark.parametrize("commit", ["0" * 40, "0000000"])
def test_a_commit_that_does_not_exist(pushed: tuple[Algorithm, str], commit: str) -> None:
    refused = refusal(pushed[0].id, commit)
    assert "no commit" in refused.message


@pytest.mark.parametrize(
    "commit", ["", "main", "HEAD", "abc", "--all", "@{u}", "0" * 65, "^" + "0" * 40, "0000000\n", 7, []]
)
def test_what_is_no_hash_is_refused(pushed: tuple[Algorithm, str], commit: Any) -> None:
    assert refusal(pushed[0].id, commit).message


def test_a_branch_called_like_a_hash_is_not_taken_for_one(pushed: tuple[Algorithm, str], tree: WorkTree) -> None:
    algorithm, url = pushed
    assert tree.push(url, "main:refs/heads/deadbee", "main:refs/heads/" + "d" * 39).returncode == 0
    assert "no commit" in refusal(algorithm.id, "deadbee").message


def test_a_tree_is_no_commit(pushed: tuple[Algorithm, str], tree: WorkTree) -> None:
    assert "no commit" in refusal(pushed[0].id, tree.git("rev-parse", "HEAD^{tree}").stdout.strip()).message


def test_an_ambiguous_prefix_is_refused(pushed: tuple[Algorithm, str], tree: WorkTree) -> None:
    algorithm, _ = pushed
    parent = tree.head
    tree_hash = tree.git("rev-parse", "HEAD^{tree}").stdout.strip()
    seen = {}
    # Some 2^14 commits until two of them begin with the same seven digits.
    for number in range(60_000):
        content = f"tree {tree_hash}\nparent {parent}\nauthor A <a@b> {number} +0000\ncommitter A <a@b> 0 +0000\n\nx\n"
        name = hashlib.sha1(b"commit %d\0" % len(content) + content.encode(), usedforsecurity=False).hexdigest()
        if name[:7] in seen:
            break
        seen[name[:7]] = content
    for body in (content, seen[name[:7]]):
        (tree.path / "body").write_text(body)
        tree.git("--git-dir", str(Repository(algorithm.id).path), "hash-object", "-t", "commit", "-w", "body")
    assert "ambiguous" in refusal(algorithm.id, name[:7]).message
    assert hosted.resolve(algorithm.id, name) == name


def test_a_deleted_branch(service: GitService, tree: WorkTree) -> None:
    algorithm = make_algorithm()
    url = url_with_key(service, algorithm, make_key(algorithm.owner))
    assert tree.push(url, "main", "main:other").returncode == 0
    assert tree.push(url, ":main").returncode == 0
    assert "default branch was deleted" in refusal(algorithm.id, None).message
    assert hosted.resolve(algorithm.id, tree.head) == tree.head
    assert tree.push(url).returncode == 0
    assert hosted.resolve(algorithm.id, None) == tree.head


@pytest.mark.parametrize(
    ("branches", "default"),
    [
        (["master"], "master"),
        (["trunk"], "trunk"),
        (["zeta", "main"], "main"),
        (["-x"], "-x"),
        (["a", "master"], "master"),
    ],
)
def test_the_first_push_decides_the_default_branch(
    service: GitService, tmp_path: Path, branches: list[str], default: str
) -> None:
    algorithm = make_algorithm()
    url = url_with_key(service, algorithm, make_key(algorithm.owner))
    tree = WorkTree(tmp_path / "w")
    commits = {}
    for branch in branches:
        tree.write("branch", branch)
        commits[branch] = tree.commit()
    pushed = tree.push(url, *(f"{commit}:refs/heads/{branch}" for branch, commit in commits.items()))
    assert pushed.returncode == 0, pushed.stderr
    assert hosted.resolve(algorithm.id, None) == commits[default]
    assert f"ref: refs/heads/{default}\tHEAD" in tree.git("ls-remote", "--symref", url, "HEAD").stdout


def test_main_takes_the_place_of_a_master_that_was_deleted(service: GitService, tree: WorkTree) -> None:
    algorithm = make_algorithm()
    url = url_with_key(service, algorithm, make_key(algorithm.owner))
    assert tree.push(url, "main:master").returncode == 0
    assert tree.push(url, "main", ":master").returncode == 0
    assert hosted.resolve(algorithm.id, None) == tree.head


@pytest.mark.usefixtures("service")
def test_a_deleted_repository_is_gone(pushed: tuple[Algorithm, str]) -> None:
    algorithm, _ = pushed
    with database().writing() as session:
        session.scalars(select(Algorithm).where(Algorithm.id == algorithm.id)).one().deleted_at = 1
    hosted.delete(algorithm.id)
    hosted.delete(algorithm.id)
    assert "empty" in refusal(algorithm.id, None).message
    assert not Repository(algorithm.id).exists


def test_only_the_algorithms_own_admin_token_opens_the_internal_calls(service: GitService) -> None:
    algorithm, other = make_algorithm(), make_algorithm()
    bad = [
        None,
        make_key("root", KeyKind.ADMIN),
        git_token("admin", other.id, 60),
        git_token("fetch", algorithm.id, 60),
        git_token("admin", algorithm.id, -1),
    ]
    for secret in bad:
        for method, suffix in (("DELETE", ""), ("POST", "/resolve")):
            headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
            url = f"{service.url}/internal/repositories/{algorithm.id}{suffix}"
            with urllib3.PoolManager(retries=False) as pool:
                assert pool.request(method, url, headers=headers, json={}).status == 401
    assert not Repository(algorithm.id).exists


def test_a_service_that_is_away_is_try_later(tmp_path: Path) -> None:
    with (
        longshore_environment(tmp_path, tables=False, git_url="http://127.0.0.1:1"),
        pytest.raises(UnavailableError) as refused,
    ):
        hosted.resolve("8f6f3a54-6d0c-4a58-bb0f-1c2cb1a4f001", None)
    assert refused.value.retry_after
