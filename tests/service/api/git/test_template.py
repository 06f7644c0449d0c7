"""A new repository's first commit: fetches see it until a branch is pushed, pushes see an empty repository."""

import os
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import select

from api.git.post_receive import catch_up
from api.git.repositories import Repository
from shared.db.engine import database
from shared.db.models import Algorithm, Build
from shared.environments import find_environment
from shared.errors import InvalidInputError
from shared.git import hosted
from shared.template import template_files
from tests.git_service import GitService, WorkTree, make_algorithm, make_key, url_with_key


@pytest.fixture
def algorithm(service: GitService) -> Algorithm:  # noqa: ARG001 - it comes first
    return make_algorithm(settings={"language": "python3"})


@pytest.fixture
def url(service: GitService, algorithm: Algorithm) -> str:
    return url_with_key(service, algorithm, make_key(algorithm.owner))


def clone(url: str, directory: Path, *options: str) -> WorkTree:
    """Clone a repository as its users do."""
    return WorkTree(directory, clone_of=url, options=options)


def files_of(tree: WorkTree) -> dict[str, bytes]:
    return {name: (tree.path / name).read_bytes() for name in tree.git("ls-files").stdout.splitlines()}


def refs(tree: WorkTree, url: str) -> list[str]:
    """The names that a client sees, HEAD with its target."""
    listed = (line.split("\t")[::-1] for line in tree.git("ls-remote", "--symref", url).stdout.splitlines())
    return sorted(name if not value.startswith("ref: ") else f"{name} -> {value[5:]}" for name, value in listed)


def builds(algorithm: Algorithm) -> list[str]:
    with database().reading() as session:
        query = select(Build.commit_sha).where(Build.algorithm_id == algorithm.id).order_by(Build.seq)
        return list(session.scalars(query))


@pytest.mark.parametrize("version", ["0", "1", "2"])
def test_a_clone_of_a_new_repository_has_the_template(
    algorithm: Algorithm, url: str, tmp_path: Path, version: str
) -> None:
    tree = clone(url, tmp_path / "clone", "-c", f"protocol.version={version}")
    assert files_of(tree) == template_files("Hello", algorithm.owner, "python3")
    assert tree.git("branch", "--show-current").stdout.strip() == "main"
    assert tree.git("rev-list", "--count", "--all").stdout.strip() == "1"
    assert refs(tree, url) == ["HEAD", "HEAD -> refs/heads/main", "refs/heads/main"]


def test_an_algorithm_has_the_same_first_commit_always(algorithm: Algorithm, url: str, tmp_path: Path) -> None:
    first = clone(url, tmp_path / "first").head
    shutil.rmtree(Repository(algorithm.id).path)
    assert clone(url, tmp_path / "second").head == first
    assert hosted.resolve(algorithm.id, None) == first


def test_a_clone_then_push_continues_the_template(algorithm: Algorithm, url: str, tmp_path: Path) -> None:
    tree = clone(url, tmp_path / "clone")
    template = tree.head
    tree.write("src/Hello.py", "changed\n")
    changed = tree.commit()
    pushed = tree.git("push", "--quiet")
    assert pushed.stderr == ""
    assert builds(algorithm) == [changed]
    again = clone(url, tmp_path / "again")
    assert again.git("rev-list", "HEAD").stdout.split() == [changed, template]
    tree.write("src/Hello.py", "changed again\n")
    tree.commit()
    tree.git("push", "--quiet")
    assert again.git("pull", "--quiet").returncode == 0
    assert again.head == tree.head


@pytest.mark.parametrize(
    "options",
    [("-c", "push.negotiate=true"), ("-c", "protocol.version=0"), ("-c", "push.useForceIfIncludes=true")],
    ids=["negotiated", "old-protocol", "if-included"],
)
def test_every_way_of_pushing_a_clone_works(url: str, tmp_path: Path, options: tuple[str, str]) -> None:
    tree = clone(url, tmp_path / "clone")
    tree.write("more")
    tree.commit()
    tree.git(*options, "push", "--quiet", "origin", "HEAD:main")
    assert files_of(clone(url, tmp_path / "again")) == files_of(tree)


def test_a_shallow_clone_is_pushed(url: str, tmp_path: Path) -> None:
    tree = WorkTree(tmp_path / "shallow")
    tree.git("pull", "--quiet", "--depth=1", url, "main")
    tree.write("more")
    tree.commit()
    assert tree.push(url).returncode == 0
    assert files_of(clone(url, tmp_path / "again")) == files_of(tree)


def test_a_clone_is_pushed_as_it_is(algorithm: Algorithm, url: str, tmp_path: Path) -> None:
    tree = clone(url, tmp_path / "clone")
    tree.git("push", "--quiet")
    assert builds(algorithm) == [tree.head]
    assert not Repository(algorithm.id).is_untouched


@pytest.mark.parametrize("is_cloned_before", [True, False], ids=["after-a-clone", "before-any-clone"])
@pytest.mark.parametrize("branch", ["main", "master", "trunk"])
def test_an_unrelated_first_push_replaces_the_template(
    algorithm: Algorithm, url: str, tree: WorkTree, tmp_path: Path, branch: str, is_cloned_before: bool
) -> None:
    if is_cloned_before:
        clone(url, tmp_path / "before")
    pushed = tree.push(url, f"main:{branch}")
    assert (pushed.returncode, pushed.stderr) == (0, "")
    assert builds(algorithm) == [tree.head]
    after = clone(url, tmp_path / "after")
    assert after.head == tree.head
    assert files_of(after) == files_of(tree)
    assert refs(tree, url) == ["HEAD", f"HEAD -> refs/heads/{branch}", f"refs/heads/{branch}"]
    assert hosted.resolve(algorithm.id, None) == tree.head


def test_a_first_push_by_force_replaces_the_template(url: str, tree: WorkTree, tmp_path: Path) -> None:
    clone(url, tmp_path / "before")
    assert tree.push(url, "+main").returncode == 0
    assert clone(url, tmp_path / "after").head == tree.head


def wait_for_each_other(trees: tuple[WorkTree, WorkTree], directory: Path) -> None:
    """Let two pushes go on only when each has read what the other's repository has."""
    for number, tree in enumerate(trees):
        hook = tree.path / ".git" / "hooks" / "pre-push"
        hook.parent.mkdir(exist_ok=True)
        mine, other = directory / str(number), directory / str(1 - number)
        hook.write_text(f"#!/bin/sh\ntouch '{mine}'\nwhile [ ! -e '{other}' ]; do sleep 0.05; done\n")
        hook.chmod(hook.stat().st_mode | stat.S_IXUSR)


@pytest.mark.parametrize("has_cloned", [True, False], ids=["one-has-cloned", "unrelated"])
def test_of_two_first_pushes_of_a_branch_at_once_one_wins(
    url: str, tree: WorkTree, tmp_path: Path, has_cloned: bool
) -> None:
    other = clone(url, tmp_path / "clone") if has_cloned else WorkTree(tmp_path / "other")
    other.write("other")
    other.commit()
    trees = (tree, other)
    wait_for_each_other(trees, tmp_path)
    with ThreadPoolExecutor() as pool:
        pushes = list(pool.map(lambda each: each.push(url), trees))
    assert sorted(push.returncode == 0 for push in pushes) == [False, True]
    winner, loser = (trees, trees[::-1])[pushes[0].returncode != 0]
    assert "remote rejected" in "".join(push.stderr for push in pushes)
    assert clone(url, tmp_path / "after").head == winner.head
    assert "fetch first" in loser.push(url).stderr


def test_two_first_pushes_of_different_branches_both_land(url: str, tree: WorkTree, tmp_path: Path) -> None:
    other = WorkTree(tmp_path / "other", branch="feature")
    other.write("other")
    other.commit()
    wait_for_each_other((tree, other), tmp_path)
    with ThreadPoolExecutor() as pool:
        pushes = [pool.submit(tree.push, url), pool.submit(other.push, url, "feature")]
    assert [push.result().returncode for push in pushes] == [0, 0]
    listed = refs(tree, url)
    assert listed[0] == "HEAD"
    assert listed[2:] == ["refs/heads/feature", "refs/heads/main"]


def test_a_pushed_tag_stands_beside_the_template(
    algorithm: Algorithm, url: str, tree: WorkTree, tmp_path: Path
) -> None:
    template = clone(url, tmp_path / "before")
    tree.git("tag", "v1")
    tree.git("tag", "--annotate", "--message", "x", "v2")
    assert tree.push(url, "v1", "v2").returncode == 0
    assert builds(algorithm) == []
    expected = ["HEAD", "HEAD -> refs/heads/main", "refs/heads/main", "refs/tags/v1", "refs/tags/v2", "refs/tags/v2^{}"]
    assert refs(tree, url) == expected
    after = clone(url, tmp_path / "after")
    assert after.head == template.head
    assert after.git("rev-parse", "v1", "v2^{commit}").stdout.split() == [tree.head, tree.head]
    assert hosted.resolve(algorithm.id, None) == template.head
    assert tree.push(url, ":v1").returncode == 0
    assert "refs/tags/v1" not in refs(tree, url)
    assert tree.push(url).returncode == 0
    expected = ["HEAD", "HEAD -> refs/heads/main", "refs/heads/main", "refs/tags/v2", "refs/tags/v2^{}"]
    assert refs(tree, url) == expected
    assert clone(url, tmp_path / "replaced").head == tree.head


def test_a_tag_that_was_pushed_before_any_fetch_is_shown(url: str, tree: WorkTree) -> None:
    tree.git("tag", "v1")
    assert tree.push(url, "v1").returncode == 0
    assert refs(tree, url) == ["HEAD", "HEAD -> refs/heads/main", "refs/heads/main", "refs/tags/v1"]


def test_the_branch_of_the_template_cannot_be_deleted(url: str, tmp_path: Path) -> None:
    tree = clone(url, tmp_path / "clone")
    deleted = tree.push(url, ":main")
    assert deleted.returncode != 0
    assert "remote ref does not exist" in deleted.stderr
    assert clone(url, tmp_path / "again").head == tree.head


def test_a_branch_that_was_pushed_and_deleted_does_not_bring_the_template_back(
    algorithm: Algorithm, url: str, tree: WorkTree
) -> None:
    assert tree.push(url).returncode == 0
    assert tree.push(url, ":main").returncode == 0
    assert refs(tree, url) == []
    with pytest.raises(InvalidInputError, match="default branch was deleted"):
        hosted.resolve(algorithm.id, None)


def test_a_push_that_is_refused_leaves_the_template(url: str, tree: WorkTree, tmp_path: Path) -> None:
    before = clone(url, tmp_path / "before")
    tree.write("noise", os.urandom(6 * 1024 * 1024))
    tree.commit()
    assert "exceeds maximum allowed size" in tree.push(url).stderr
    assert clone(url, tmp_path / "after").head == before.head


def test_the_template_is_not_compiled_by_itself(algorithm: Algorithm, url: str, tmp_path: Path) -> None:
    clone(url, tmp_path / "clone")
    catch_up()
    assert builds(algorithm) == []


def test_a_push_from_before_a_crash_replaces_the_template(
    algorithm: Algorithm, url: str, tree: WorkTree, tmp_path: Path
) -> None:
    template = clone(url, tmp_path / "before")
    tree.git("push", "--quiet", str(Repository(algorithm.id).path), "main")  # nobody was told
    assert clone(url, tmp_path / "meanwhile").head == tree.head
    assert hosted.resolve(algorithm.id, None) == tree.head
    catch_up()
    assert builds(algorithm) == [tree.head]
    assert not Repository(algorithm.id).template.exists
    assert template.head not in tree.git("ls-remote", url).stdout


def test_a_repository_of_an_older_version_that_was_never_pushed_gets_a_template(
    algorithm: Algorithm, url: str, tmp_path: Path
) -> None:
    Repository(algorithm.id).ensure()  # all that older versions made
    assert files_of(clone(url, tmp_path / "clone")) == template_files("Hello", algorithm.owner, "python3")


def test_a_recreated_algorithm_has_a_template_of_its_own(
    service: GitService, algorithm: Algorithm, url: str, tree: WorkTree, tmp_path: Path
) -> None:
    assert tree.push(url).returncode == 0
    with database().writing() as session:
        session.scalars(select(Algorithm).where(Algorithm.id == algorithm.id)).one().deleted_at = 1
    hosted.delete(algorithm.id)
    with pytest.raises(InvalidInputError, match="empty"):
        hosted.resolve(algorithm.id, None)
    again = make_algorithm(algorithm.owner, settings={"language": "python3"})
    cloned = clone(url_with_key(service, again, url.split(":")[2].partition("@")[0]), tmp_path / "clone")
    assert files_of(cloned) == template_files("Hello", algorithm.owner, "python3")


@pytest.mark.parametrize("named_by", ["name", "id"])
def test_another_environment_changes_the_template_of_an_untouched_repository_alone(
    algorithm: Algorithm, url: str, tmp_path: Path, named_by: str
) -> None:
    before = clone(url, tmp_path / "before")
    with database().writing() as session:
        row = session.scalars(select(Algorithm).where(Algorithm.id == algorithm.id)).one()
        row.settings = {**row.settings, "algorithm_environment": getattr(find_environment("python38"), named_by)}
    after = clone(url, tmp_path / "after")
    assert files_of(after) == template_files("Hello", algorithm.owner, "python38")
    assert after.git("rev-list", "--count", "--all").stdout.strip() == "1"
    before.write("more")
    before.commit()
    before.git("push", "--quiet")  # its history begins with a template that nobody sees any more
    assert clone(url, tmp_path / "pushed").head == before.head


def test_an_algorithm_with_a_repository_elsewhere_has_no_template(
    algorithm: Algorithm, url: str, tmp_path: Path
) -> None:
    with database().writing() as session:
        row = session.scalars(select(Algorithm).where(Algorithm.id == algorithm.id)).one()
        row.repository_url = "https://example.com/hello"
    outside = WorkTree(tmp_path / "outside")
    refused = outside.git("clone", url, "clone", check=False)
    assert refused.returncode != 0
    with pytest.raises(InvalidInputError, match="empty"):
        hosted.resolve(algorithm.id, None)
    assert not Repository(algorithm.id).exists


def test_garbage_collection_keeps_the_template_while_it_is_shown(
    algorithm: Algorithm, url: str, tree: WorkTree, tmp_path: Path
) -> None:
    template = clone(url, tmp_path / "before").head
    path = str(Repository(algorithm.id).path)
    tree.git("--git-dir", path, "gc", "--quiet", "--prune=now")
    assert clone(url, tmp_path / "after").head == template
    assert tree.push(url).returncode == 0
    tree.git("--git-dir", path, "gc", "--quiet", "--prune=now")
    assert tree.git("--git-dir", path, "cat-file", "-e", template, check=False).returncode != 0


def test_a_template_that_was_compiled_stays_when_it_is_replaced(algorithm: Algorithm, url: str, tree: WorkTree) -> None:
    template = hosted.resolve(algorithm.id, None)
    assert tree.push(url).returncode == 0
    tree.git("--git-dir", str(Repository(algorithm.id).path), "gc", "--quiet", "--prune=now")
    assert hosted.resolve(algorithm.id, template) == template


def test_a_template_that_a_crash_left_half_made_is_made_again(algorithm: Algorithm, url: str, tmp_path: Path) -> None:
    first = clone(url, tmp_path / "first")
    path = Repository(algorithm.id).path
    (path / "template" / "longshore-digest").unlink()
    (path / "template" / "HEAD").unlink()
    assert clone(url, tmp_path / "second").head == first.head
