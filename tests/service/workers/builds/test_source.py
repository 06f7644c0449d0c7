"""A commit is fetched from hosted repositories and from other servers."""

import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import gettempdir

import pytest

from shared.cancellation import CancelToken
from shared.db.models import Algorithm
from shared.errors import ErrorClass, WorkCancelledError, WorkError
from shared.git.access import GitCredentials
from tests.environment import longshore_environment
from tests.git_service import GitService, WorkTree, git_service, make_algorithm, make_key, url_with_key
from tests.plain_git_server import plain_git_server
from workers.builds.source import fetch_source

LIMIT = 1024 * 1024


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitService]:
    # The limit of the service for pushes is above the limit of the workers for sources.
    with git_service(tmp_path_factory.mktemp("service"), source_max_bytes=8 * LIMIT, source_allow_http=True) as running:
        yield running


@pytest.fixture
def tree(tmp_path: Path) -> WorkTree:
    tree = WorkTree(tmp_path / "tree")
    tree.write("src/Hello.py", "def apply(x): return x\n")
    return tree


@contextmanager
def worker(service: GitService, **variables: bool) -> Iterator[None]:
    """Set the settings of a worker that uses the service."""
    database_url = f"sqlite:///{service.directory / 'data' / 'longshore.db'}"
    keys = os.environ["LONGSHORE_SECRET_KEYS"]
    settings = {"source_max_bytes": LIMIT, "source_allow_http": True, "secret_keys": keys} | variables
    with longshore_environment(
        service.directory, tables=False, git_url=service.url, database_url=database_url, **settings
    ):
        yield


def pushed(service: GitService, tree: WorkTree, *refs: str) -> Algorithm:
    algorithm = make_algorithm()
    answer = tree.push(url_with_key(service, algorithm, make_key(algorithm.owner)), *refs)
    assert answer.returncode == 0, answer.stderr
    return algorithm


def elsewhere(url: str) -> Algorithm:
    return Algorithm(id="8f6f3a54-6d0c-4a58-bb0f-1c2cb1a4f001", owner="o", name="n", repository_url=url)


def members(
    algorithm: Algorithm,
    commit: str,
    credentials: GitCredentials | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> dict[str, bytes | str]:
    """Return every member of the tar with its content or link; check that the directory is removed afterwards."""
    with (
        fetch_source(algorithm, commit, credentials, log=log, stop=CancelToken()) as source,
        tarfile.open(source) as archive,
    ):
        found: dict[str, bytes | str] = {}
        for member in archive:
            content = archive.extractfile(member) if member.isreg() else None
            if not member.isdir():
                found[member.name] = content.read() if content else member.linkname
    assert not source.parent.exists()
    return found


def failure(algorithm: Algorithm, commit: str, credentials: GitCredentials | None = None) -> WorkError:
    before = set(Path(gettempdir()).glob("longshore-source-*"))
    with (
        pytest.raises(WorkError) as failed,
        fetch_source(algorithm, commit, credentials, log=lambda _: None, stop=CancelToken()),
    ):
        pytest.fail("there is no such source")
    assert set(Path(gettempdir()).glob("longshore-source-*")) <= before
    return failed.value


def test_the_files_of_the_one_commit(service: GitService, tree: WorkTree) -> None:
    first = tree.commit()
    tree.write("later")
    tree.commit()
    algorithm = pushed(service, tree)
    with worker(service):
        assert members(algorithm, first) == {"src/Hello.py": b"def apply(x): return x\n"}
        assert set(members(algorithm, tree.head)) == {"src/Hello.py", "later"}


def test_attributes_drop_and_rewrite_nothing(service: GitService, tree: WorkTree) -> None:
    content = b"$Format:%H$ $Id$\r\nline\n"
    tree.write("file.txt", content)
    tree.write("src/kept", content)
    tree.commit()
    # Committed by hand: git's own add would convert the files by these attributes.
    attributes = "* export-ignore export-subst ident filter=x text eol=crlf working-tree-encoding=UTF-16\n"
    tree.write("attributes", attributes)
    blob = tree.git("hash-object", "-w", "--no-filters", "attributes").stdout.strip()
    tree.git("update-index", "--add", "--cacheinfo", f"100644,{blob},.gitattributes")
    tree.git("commit", "--quiet", "--message", "attributes")
    commit = tree.head
    algorithm = pushed(service, tree)
    with worker(service):
        found = members(algorithm, commit)
    assert found["file.txt"] == found["src/kept"] == content
    assert found[".gitattributes"] == attributes.encode()


def test_links_stay_links_and_names_stay_names(service: GitService, tree: WorkTree) -> None:
    (tree.path / "passwd").symlink_to("/etc/passwd")
    (tree.path / "up").symlink_to("../../..")
    for name in ("-rf", "--upload-pack=x", "$(id)", "a\nb", "ü"):
        tree.write(name, "x\n")
    tree.commit()
    algorithm = pushed(service, tree)
    with worker(service):
        found = members(algorithm, tree.head)
    assert found["passwd"] == "/etc/passwd"
    assert found["up"] == "../../.."
    assert {"-rf", "--upload-pack=x", "$(id)", "a\nb", "ü"} <= set(found)


def test_submodules_are_named_and_not_followed(service: GitService, tree: WorkTree, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    tree.commit()
    tree.write(".gitmodules", f'[submodule "s"]\n\tpath = s\n\turl = ext::sh -c "touch {marker}"\n')
    tree.git("update-index", "--add", "--cacheinfo", f"160000,{tree.head},s")
    tree.git("add", ".gitmodules")
    tree.git("commit", "-qm", "submodule")
    algorithm = pushed(service, tree)
    lines: list[str] = []
    with worker(service):
        found = members(algorithm, tree.head, log=lines.append)
    assert set(found) == {"src/Hello.py", ".gitmodules"}
    assert not marker.exists()
    assert "1 submodule(s)" in lines[0]


def test_a_source_that_unpacks_beyond_the_limit_is_refused_with_both_sizes(service: GitService, tree: WorkTree) -> None:
    tree.write("zeros", bytes(64 * LIMIT))
    commit = tree.commit()
    algorithm = pushed(service, tree)
    with worker(service):
        failed = failure(algorithm, commit)
    assert failed.error_class == ErrorClass.INVALID
    assert f"{64 * LIMIT + 23:,} bytes unpacked" in failed.message
    assert "bytes packed" in failed.message
    assert f"the limit is {LIMIT:,} bytes" in failed.message


def test_a_source_that_is_packed_beyond_the_limit_is_refused(service: GitService, tree: WorkTree) -> None:
    tree.write("noise", os.urandom(2 * LIMIT))
    commit = tree.commit()
    algorithm = pushed(service, tree)
    with worker(service):
        failed = failure(algorithm, commit)
    assert failed.error_class == ErrorClass.INVALID
    assert f"the limit is {LIMIT:,} bytes" in failed.message


def test_a_commit_that_does_not_exist(service: GitService, tree: WorkTree) -> None:
    tree.commit()
    algorithm = pushed(service, tree)
    with worker(service):
        for commit in ("0" * 40, "ab" * 20):
            failed = failure(algorithm, commit)
            assert (failed.error_class, commit in failed.message) == (ErrorClass.NOT_FOUND, True)


def test_a_hash_of_something_else_is_refused(service: GitService, tree: WorkTree) -> None:
    tree.commit()
    algorithm = pushed(service, tree)
    with worker(service):
        for what in ("HEAD^{tree}", "HEAD:src/Hello.py"):
            failed = failure(algorithm, tree.git("rev-parse", what).stdout.strip())
            assert (failed.error_class, "not a commit" in failed.message) == (ErrorClass.INVALID, True)


@pytest.mark.parametrize(
    "commit", ["HEAD", "main", "--upload-pack=touch x", "0" * 39, "-x", "refs/heads/main:refs/x", ""]
)
def test_only_a_full_hash_is_fetched(service: GitService, commit: str) -> None:
    with worker(service):
        assert failure(make_algorithm(), commit).error_class == ErrorClass.INVALID


def test_a_private_repository_elsewhere(service: GitService, tree: WorkTree) -> None:
    tree.commit()
    hosted = pushed(service, tree)
    private = elsewhere(f"{service.url}/git/{hosted.path}.git")
    key = make_key(hosted.owner)
    with worker(service):
        assert members(private, tree.head, GitCredentials("u", key))
        for credentials in (None, GitCredentials("u", "wrong")):
            failed = failure(private, tree.head, credentials)
            assert failed.error_class == ErrorClass.AUTH
            assert "source.credentials" in failed.message
        gone = elsewhere(f"{service.url}/git/{hosted.owner}/Nothing.git")
        assert failure(gone, tree.head, GitCredentials("u", key)).error_class == ErrorClass.NOT_FOUND


def test_a_url_is_checked_again_when_it_is_used(service: GitService) -> None:
    with worker(service, source_allow_http=False):
        for url in ("http://127.0.0.1:1/r", "ext::sh -c id", "file:///etc", "--upload-pack=x"):
            assert failure(elsewhere(url), "0" * 40).error_class == ErrorClass.INVALID


def test_ssh_needs_known_hosts(service: GitService) -> None:
    with worker(service):
        failed = failure(elsewhere("ssh://git@127.0.0.1:1/r"), "0" * 40)
    assert (failed.error_class, "KNOWN_HOSTS" in failed.message) == (ErrorClass.INVALID, True)


def test_a_server_that_gives_no_commit_by_its_hash(service: GitService, tree: WorkTree, tmp_path: Path) -> None:
    first = tree.commit()
    tree.write("later")
    tree.commit()
    tree.git("clone", "--quiet", "--bare", ".", str(tmp_path / "root" / "r.git"))
    lines: list[str] = []
    with worker(service), plain_git_server(tmp_path / "root") as url:
        assert set(members(elsewhere(f"{url}/r.git"), first, log=lines.append)) == {"src/Hello.py"}
        assert failure(elsewhere(f"{url}/r.git"), "ab" * 20).error_class == ErrorClass.NOT_FOUND
    assert "branches and tags" in lines[0]


@pytest.mark.parametrize(
    ("status", "error_class"),
    [
        (302, ErrorClass.INVALID),
        (401, ErrorClass.AUTH),
        (403, ErrorClass.AUTH),
        (404, ErrorClass.NOT_FOUND),
        (429, ErrorClass.THROTTLED),
        (500, ErrorClass.TRANSIENT),
        (503, ErrorClass.TRANSIENT),
        (200, ErrorClass.INVALID),
    ],
)
def test_the_error_class_follows_the_servers_status(
    service: GitService, tmp_path: Path, status: int, error_class: ErrorClass
) -> None:
    with worker(service), plain_git_server(tmp_path, status=status) as url:
        failed = failure(elsewhere(f"{url}/r"), "0" * 40, GitCredentials("u", "geheim"))
    assert failed.error_class == error_class
    assert "geheim" not in failed.message


def test_an_unreachable_server_is_a_transient_error(service: GitService) -> None:
    with worker(service):
        assert failure(elsewhere("http://127.0.0.1:1/r"), "0" * 40).error_class == ErrorClass.TRANSIENT


def test_a_stop_ends_the_fetch(service: GitService) -> None:
    stop = CancelToken()
    stop.cancel("cancelled")
    with (
        worker(service),
        pytest.raises(WorkCancelledError),
        fetch_source(elsewhere("http://127.0.0.1:1/r"), "0" * 40, log=lambda _: None, stop=stop),
    ):
        pytest.fail("it was stopped before")
