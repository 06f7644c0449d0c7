"""What a push sets off."""

import base64
import hashlib
import os
import socket
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update
from werkzeug.test import Client

from api.git.app import create_app
from api.git.post_receive import catch_up
from api.git.repositories import Repository
from shared.db.engine import database
from shared.db.models import Algorithm, AuditEvent, Build, ImagePush, Job, Registry, Version
from shared.file_lock import file_lock
from shared.settings import settings
from tests.environment import longshore_environment
from tests.git_service import GitService, WorkTree, make_algorithm, make_key, url_with_key
from tests.rows import make_registry


@pytest.fixture
def algorithm(service: GitService) -> Algorithm:  # noqa: ARG001 - it comes first
    return make_algorithm()


@pytest.fixture
def url(service: GitService, algorithm: Algorithm) -> str:
    return url_with_key(service, algorithm, make_key(algorithm.owner))


def builds(algorithm: Algorithm) -> list[str]:
    with database().reading() as session:
        query = select(Build.commit_sha).where(Build.algorithm_id == algorithm.id).order_by(Build.seq)
        return list(session.scalars(query))


def seen_head(algorithm: Algorithm) -> str | None:
    with database().reading() as session:
        return session.scalar(select(Algorithm.compiled_head).where(Algorithm.id == algorithm.id))


def test_a_push_to_the_default_branch_compiles_its_commit_once(algorithm: Algorithm, url: str, tree: WorkTree) -> None:
    assert tree.push(url).returncode == 0
    assert builds(algorithm) == [tree.head]
    assert tree.push(url).returncode == 0
    first = tree.head
    tree.write("more")
    second = tree.commit()
    assert tree.push(url).returncode == 0
    assert builds(algorithm) == [first, second]
    assert seen_head(algorithm) == second


def test_what_a_git_push_compiles_is_pushed_to_the_default_registry(url: str, tree: WorkTree) -> None:
    registry = make_registry(is_default=True)
    assert tree.push(url).returncode == 0
    with database().reading() as session:
        pushed = session.scalars(
            select(ImagePush.registry_id)
            .join(Version, Version.id == ImagePush.version_id)
            .where(Version.git_hash == tree.head)
        ).all()
        said = session.scalars(select(AuditEvent.detail).order_by(AuditEvent.seq.desc()).limit(1)).one()
    assert pushed == said["to"] == [registry.id]
    with database().writing() as session:  # the tests of this file share a database
        session.execute(update(Registry).values(is_default=False))


def test_a_push_to_another_branch_compiles_nothing(algorithm: Algorithm, url: str, tree: WorkTree) -> None:
    assert tree.push(url).returncode == 0
    first = tree.head
    tree.write("more")
    tree.commit()
    assert tree.push(url, "main:feature").returncode == 0
    assert builds(algorithm) == [first]


def test_nocompile_is_remembered_as_seen(algorithm: Algorithm, url: str, tree: WorkTree) -> None:
    pushed = tree.push(url, options=("ci.skip", "nocompile"))
    assert pushed.returncode == 0, pushed.stderr
    assert builds(algorithm) == []
    assert seen_head(algorithm) == tree.head
    catch_up()
    assert builds(algorithm) == []


def test_push_options_are_data(algorithm: Algorithm, url: str, tree: WorkTree, tmp_path: Path) -> None:
    bad = tmp_path / "made"
    options = (f"$(touch {bad})", f"`touch {bad}`", f"; touch {bad}", "-n", "nocompile ", "%s%n")
    assert tree.push(url, options=options).returncode == 0
    assert not bad.exists()
    assert builds(algorithm) == [tree.head]


def test_a_push_from_before_a_crash_is_found_again(algorithm: Algorithm, url: str, tree: WorkTree) -> None:
    assert tree.push(url).returncode == 0
    tree.write("more")
    tree.commit()
    # What a crash leaves: the commit is in the repository, and nobody was told.
    tree.git("push", "--quiet", str(Repository(algorithm.id).path), "main")
    first = builds(algorithm)
    catch_up()
    catch_up()
    assert builds(algorithm) == [*first, tree.head]
    assert seen_head(algorithm) == tree.head


def test_a_push_in_progress_is_left_to_the_request_that_received_it(algorithm: Algorithm, tree: WorkTree) -> None:
    repository = Repository(algorithm.id)
    repository.ensure()
    with file_lock(repository.push_lock, shared=True):
        tree.git("push", "--quiet", str(repository.path), "main")
        catch_up()
        assert seen_head(algorithm) is None
    catch_up()
    assert seen_head(algorithm) == tree.head


def test_the_service_looks_for_such_pushes_when_it_starts(algorithm: Algorithm, tree: WorkTree) -> None:
    repository = Repository(algorithm.id)
    repository.ensure()
    tree.git("push", "--quiet", str(repository.path), "main")
    create_app()
    assert within_seconds(20, lambda: builds(algorithm) == [tree.head])


@pytest.mark.timeout(60)
def test_a_push_whose_git_cannot_start_keeps_neither_lock_nor_file(algorithm: Algorithm) -> None:
    repository = Repository(algorithm.id)
    repository.ensure()
    sent = Client(create_app()).post(
        f"/git/{algorithm.path}.git/git-receive-pack",
        auth=("x", make_key(algorithm.owner)),
        content_type="application/x-git-receive-pack-request",
        headers={"Git-Protocol": "version=2" + ":a" * 70_000},  # too long for a variable of a process (execve(2))
    )
    assert sent.status_code == 500
    assert list(settings().repositories_dir.glob(".push-*")) == []
    with file_lock(repository.push_lock):  # waits for upkeep, which holds it for a moment; for ever if it was kept
        pass


def test_a_deletion_from_before_a_crash_is_found_again(algorithm: Algorithm, url: str, tree: WorkTree) -> None:
    assert tree.push(url).returncode == 0
    with database().writing() as session:
        session.scalars(select(Algorithm).where(Algorithm.id == algorithm.id)).one().deleted_at = 1
    catch_up()
    assert not Repository(algorithm.id).exists


def test_a_setting_turns_compiling_off(service: GitService, algorithm: Algorithm, tree: WorkTree) -> None:
    repository = Repository(algorithm.id)
    repository.ensure()
    tree.git("push", "--quiet", str(repository.path), "main")
    here = {"git_url": service.url, "database_url": f"sqlite:///{service.directory / 'data' / 'longshore.db'}"}
    with longshore_environment(service.directory / "data", tables=False, build_on_push=False, **here):
        catch_up()
    assert builds(algorithm) == []
    assert seen_head(algorithm) == tree.head


def test_deleting_the_default_branch_compiles_nothing(algorithm: Algorithm, url: str, tree: WorkTree) -> None:
    assert tree.push(url).returncode == 0
    assert tree.push(url, ":main").returncode == 0
    assert len(builds(algorithm)) == 1


def test_the_jobs_of_a_push_belong_to_the_owner(algorithm: Algorithm, url: str, tree: WorkTree) -> None:
    assert tree.push(url).returncode == 0
    with database().reading() as session:
        job = session.scalars(select(Job).where(Job.algorithm_id == algorithm.id)).one()
    assert (job.owner, job.git_hash) == (algorithm.owner, tree.head)
    assert job.request_id


def test_a_push_over_the_limit_is_refused_with_a_sentence(algorithm: Algorithm, url: str, tree: WorkTree) -> None:
    first = tree.push(url)
    assert first.returncode == 0
    known = builds(algorithm)
    tree.write("noise", os.urandom(6 * 1024 * 1024))
    tree.commit()
    refused = tree.push(url)
    assert refused.returncode != 0
    assert "exceeds maximum allowed size (2.00 MiB)" in refused.stderr
    assert builds(algorithm) == known


def test_a_lock_that_a_crash_left_refuses_no_push(algorithm: Algorithm, url: str, tree: WorkTree) -> None:
    assert tree.push(url).returncode == 0
    lock = Repository(algorithm.id).path / "refs" / "heads" / "main.lock"
    lock.touch()
    tree.write("more")
    tree.commit()
    assert "Unable to create" in tree.push(url).stderr
    os.utime(lock, (0, 0))
    assert tree.push(url).returncode == 0


@pytest.mark.usefixtures("algorithm")
def test_damaged_objects_and_dangerous_names_are_refused(url: str, tmp_path: Path) -> None:
    tree = WorkTree(tmp_path / "w")
    tree.write("file")
    tree.commit()
    blob = tree.git("rev-parse", "HEAD:file").stdout.strip()
    entry = b"100644 ..\0" + bytes.fromhex(blob)
    content = b"tree %d\0" % len(entry) + entry
    name = hashlib.sha1(content, usedforsecurity=False).hexdigest()
    path = tree.path / ".git" / "objects" / name[:2]
    path.mkdir(exist_ok=True)
    (path / name[2:]).write_bytes(zlib.compress(content))
    commit = tree.git("commit-tree", "-m", "x", name).stdout.strip()
    refused = tree.push(url, f"{commit}:refs/heads/main")
    assert refused.returncode != 0
    assert "hasDotdot" in refused.stderr


def within_seconds(seconds: int, condition: Callable[..., Any]) -> bool:
    """Whether the condition came true in that time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_a_client_that_goes_away_leaves_no_process_behind(
    service: GitService, algorithm: Algorithm, url: str, tree: WorkTree
) -> None:
    key = url.split(":")[2].split("@", maxsplit=1)[0]
    host, port = service.url.removeprefix("http://").split(":")
    head = [
        f"POST /git/{algorithm.path}.git/git-receive-pack HTTP/1.1",
        "Host: x",
        "Authorization: Basic " + base64.b64encode(f"x:{key}".encode()).decode(),
        "Content-Type: application/x-git-receive-pack-request",
        "Transfer-Encoding: chunked",
    ]
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall("\r\n".join([*head, "", "4", "00"]).encode())
        assert within_seconds(20, service.processes)
    assert within_seconds(20, lambda: not service.processes())
    assert tree.push(url).returncode == 0
    assert builds(algorithm) == [tree.head]
