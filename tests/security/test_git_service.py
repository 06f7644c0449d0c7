"""Attacks of git clients that disconnect, stall, or send too much or false data, on `longshore git` with real git."""

import gzip
import os
import signal
import subprocess
import time
import urllib.request
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from api.git.repositories import Repository, hooks_dir, remove_leftovers
from api.git.request_body import MAX_PUSH_LINES
from shared.db.models import Algorithm
from shared.file_lock import try_file_lock
from shared.settings import settings
from tests.git_service import GitService, WorkTree, longshore_git, make_algorithm, make_key, url_with_key
from tests.security.git_client import (
    FLUSH,
    broken_chunked_push,
    broken_push,
    delta_bomb,
    endless_push,
    huge_packets,
    pack,
    pack_entry,
    pack_header,
    pack_object,
    packet,
    post,
    push_head,
    ref_update,
    slow_fetch,
    slow_push,
    want,
)
from tests.security.slow_network import SlowClient, connect, request_head, slow_network
from tests.service.api.git.test_limits import gateway_before
from tests.service.cli.running import until

THREADS = 12
PER_OWNER = 3
MEBIBYTE = 1024 * 1024
SECONDS = 60


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[GitService]:
    limits = {f"git_{kind}_per_owner": PER_OWNER for kind in ("fetches", "pushes")}
    with longshore_git(
        tmp_path_factory.mktemp("git"),
        redis_url=redis_url,
        build_on_push=False,
        git_threads=THREADS,
        client_grace_seconds=5,
        client_min_bytes_per_second=32 * 1024,
        git_owner_max_bytes=32 * MEBIBYTE,
        source_max_bytes=16 * MEBIBYTE,
        rate_limit_git=0,
        **limits,
    ) as running:
        yield running


@pytest.fixture(params=["direct", "gateway"])
def reached(service: GitService, request: pytest.FixtureRequest) -> Iterator[GitService]:
    """The service, directly and through the gateway."""
    if request.param == "direct":
        yield service
        return
    with gateway_before(service) as through:
        yield through


@pytest.fixture
def algorithm(service: GitService) -> Algorithm:  # noqa: ARG001 - it comes first
    return make_algorithm()


@pytest.fixture
def key(algorithm: Algorithm) -> str:
    return make_key(algorithm.owner)


@pytest.fixture
def tree(tmp_path: Path) -> WorkTree:
    tree = WorkTree(tmp_path / "tree")
    tree.write("src/Hello.py")
    tree.commit()
    return tree


@pytest.fixture
def other_url(service: GitService, tree: WorkTree) -> str:
    """The clone URL of another owner, whose repository has a commit."""
    other = make_algorithm()
    url = url_with_key(service, other, make_key(other.owner))
    pushed = tree.push(url)
    assert pushed.returncode == 0, pushed.stderr
    return url


def assert_no_git_is_left(service: GitService) -> None:
    until(lambda: not service.processes(), "no process works in the repositories any more")


def assert_nothing_is_held(service: GitService, algorithm: Algorithm) -> None:
    """No process, no push lock, no file of a push that was not completed."""
    assert_no_git_is_left(service)
    repository = Repository(algorithm.id)
    if not repository.exists:
        return
    until(lambda: is_free(repository.push_lock), "no thread holds the push lock any more")
    until(lambda: not list((repository.path / "objects").glob("tmp_objdir-*")), "no half of a push is left on disk")


def test_broken_pushes_hold_no_thread_and_leave_no_process(
    service: GitService, reached: GitService, algorithm: Algorithm, key: str, tree: WorkTree, other_url: str
) -> None:
    for number in range(32):
        sent = (FLUSH, ref_update(tree.head) + pack_header(7))[number // 2 % 2]
        leave = broken_chunked_push if number % 2 else broken_push
        leave(reached.url, algorithm.path, key, sent=sent, reset=number % 8 > 3)
    assert tree.head in tree.git("ls-remote", other_url).stdout
    assert_nothing_is_held(service, algorithm)
    pushed = tree.push(url_with_key(reached, algorithm, key))
    assert pushed.returncode == 0, pushed.stderr


def half(url: str, path: str, key: str) -> list[SlowClient]:
    """Two pushes and a fetch that go no further, after more than the gateway reads before it asks the service."""
    blob = pack_header(1) + pack_entry(3, os.urandom(200_000))[:150_000]
    push, fetch = ref_update("1" * 40) + blob, packet(f"want {'1' * 40} side-band-64k\n") * 2000
    return [
        slow_push(url, path, key, length=MEBIBYTE, sent=push, interval=SECONDS),
        endless_push(url, path, key, sent=push, interval=SECONDS),
        slow_fetch(url, path, key, length=MEBIBYTE, sent=fetch, interval=SECONDS),
    ]


def test_a_client_that_leaves_in_the_middle_of_its_body_ends_git(
    service: GitService, reached: GitService, algorithm: Algorithm, key: str
) -> None:
    with slow_network(reached.url, half(reached.url, algorithm.path, key)):
        until(lambda: commands(service).count("http-backend") >= 3, "all have begun")
    assert_nothing_is_held(service, algorithm)


@pytest.mark.usefixtures("_slow_hook")
def test_a_client_that_leaves_while_git_works_ends_its_whole_group(
    service: GitService, algorithm: Algorithm, key: str, tree: WorkTree
) -> None:
    with pushing(tree, url_with_key(service, algorithm, key)):
        until(lambda: "sleep" in commands(service), "the hook runs")
    assert_nothing_is_held(service, algorithm)
    assert tree.head in tree.git("ls-remote", url_with_key(service, algorithm, key)).stdout, "the push itself was done"


def test_a_client_that_leaves_in_the_middle_of_a_fetch_ends_git(
    service: GitService, reached: GitService, algorithm: Algorithm, key: str, tree: WorkTree
) -> None:
    push_large(service, algorithm, key, tree)
    head = fetch_head(reached, algorithm, key, want(tree.head))
    with connect(reached.url, receive_buffer=2048) as client:
        client.sendall(head)
        assert client.recv(16)
        assert service.processes(), "there is more than the buffers take"
    assert_no_git_is_left(service)


def test_a_request_whose_client_left_while_it_waited_for_a_thread_is_not_started(
    service: GitService, reached: GitService, algorithm: Algorithm, key: str, other_url: str, tree: WorkTree
) -> None:
    began = service.log.count("client_left")
    worker = worker_of(service)
    whole = fetch_head(reached, algorithm, key, want(tree.head))
    clients = [SlowClient(whole, b""), *half(reached.url, algorithm.path, key)]
    os.kill(worker, signal.SIGSTOP)
    try:
        with slow_network(reached.url, clients):
            until(lambda: open_connections(service) == len(clients), "all of them wait")
        until(lambda: not open_connections(service), "all have left")
    finally:
        os.kill(worker, signal.SIGCONT)
    assert tree.head in tree.git("ls-remote", other_url).stdout
    until(lambda: service.log.count("client_left") - began == len(clients), "the requests are dropped")
    assert not Repository(algorithm.id).exists, "not one was begun"


def test_slow_pushes_and_fetches_of_an_owner_are_refused_beyond_his_share_and_end(
    service: GitService, algorithm: Algorithm, key: str, tree: WorkTree, other_url: str
) -> None:
    keys = [key, make_key(algorithm.owner)]
    clients = [
        (slow_push, endless_push, slow_fetch)[number % 3](service.url, algorithm.path, keys[number % 2], interval=1)
        for number in range(24)
    ]
    with slow_network(service.url, clients) as network:
        until(lambda: network.statuses.count(429) >= 24 - 2 * PER_OWNER, "all but his share are refused")
        assert set(network.statuses) <= {429, 408}
        assert tree.head in tree.git("ls-remote", other_url).stdout
        tree.write("more")
        tree.commit()
        assert tree.push(other_url).returncode == 0
        assert network.wait_until_released(SECONDS)
        until(
            lambda: all(one.received.endswith((b".\n", b".\n\r\n0\r\n\r\n")) for one in network.connections), "all end"
        )
        refused = [bytes(one.received) for one in network.connections if one.status == 429]
        ended = [bytes(one.received) for one in network.connections if one.status == 408]
    assert all(b"retry-after: 5" in answer.lower() and b"text/plain" in answer for answer in refused)
    assert any(f"{algorithm.owner} has 3 pushes in progress already; retry in 5 s.".encode() in a for a in refused)
    assert ended
    assert all(b"arrived too slowly" in answer for answer in ended)
    assert_nothing_is_held(service, algorithm)


def test_git_shows_its_user_that_an_owner_does_too_much_at_a_time(
    service: GitService, algorithm: Algorithm, key: str, tree: WorkTree
) -> None:
    clients = [slow_fetch(service.url, algorithm.path, key, interval=1) for _ in range(PER_OWNER)]
    with slow_network(service.url, clients):
        until(lambda: len(service.processes()) >= PER_OWNER, "all of them are in progress")
        refused = tree.git("ls-remote", url_with_key(service, algorithm, key), check=False)
    assert f"{algorithm.owner} has 3 fetches in progress already; retry in 5 s." in refused.stderr


def test_a_client_that_does_not_read_a_fetch_is_cut_off(
    service: GitService, algorithm: Algorithm, key: str, tree: WorkTree
) -> None:
    push_large(service, algorithm, key, tree)
    head = fetch_head(service, algorithm, key, want(tree.head))
    with slow_network(service.url, [SlowClient(head, b"", reads=False) for _ in range(PER_OWNER)]):
        until(service.processes, "git works for them")
        assert_no_git_is_left(service)
        assert tree.head in tree.git("ls-remote", url_with_key(service, algorithm, key)).stdout


def test_without_a_key_git_is_not_started_and_slow_bodies_hold_few_threads(
    service: GitService, tree: WorkTree, other_url: str
) -> None:
    paths = ("nobody/Nothing", "x")
    clients = [slow_push(service.url, paths[number % 2], "wrong", interval=1) for number in range(3 * THREADS)]
    heads = [
        SlowClient(request_head(method, service.url, path, headers={"Content-Length": 1000}), b"x", 1)
        for method, path in (("GET", "/healthz"), ("POST", f"/internal/repositories/{uuid.uuid4()}/resolve"))
        for _ in range(THREADS)
    ]
    with slow_network(service.url, clients + heads) as network:
        assert tree.head in tree.git("ls-remote", other_url).stdout
        assert network.wait_until_released(SECONDS)
        assert set(network.statuses) <= {200, 401, 404, 429}
    assert not service.processes()


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_does_not_wait_for_the_bodies_of_other_requests_for_it(service: GitService, path: str) -> None:
    head = request_head("GET", service.url, path, headers={"Content-Length": 1000})
    with slow_network(service.url, [SlowClient(head, b"x", 1) for _ in range(THREADS)]):
        began = time.monotonic()
        with urllib.request.urlopen(service.url + path, timeout=SECONDS) as response:
            assert response.status == 200
    assert time.monotonic() - began < THREADS  # each of the others would have 5 seconds


@pytest.mark.parametrize("kind", ["git-upload-pack", "git-receive-pack"])
def test_a_gzip_bomb_is_not_unpacked(service: GitService, algorithm: Algorithm, key: str, kind: str) -> None:
    worker = worker_of(service)
    before = resident_bytes(worker)
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(FLUSH * (MEBIBYTE // 4)) for _ in range(256)) + packer.flush()
    status, answer = post(service.url, algorithm.path, key, bomb, service=kind, headers={"Content-Encoding": "gzip"})
    if kind == "git-upload-pack":
        assert (status, answer) == (400, b"The request of this fetch is larger than 8 MiB.\n")
    assert status in (200, 400)
    assert resident_bytes(worker) - before < 64 * MEBIBYTE
    assert_nothing_is_held(service, algorithm)


def test_a_compressed_request_is_accepted(service: GitService, algorithm: Algorithm, key: str, tree: WorkTree) -> None:
    """JGit compresses pushes as well."""
    assert tree.push(url_with_key(service, algorithm, key)).returncode == 0
    compressed = {"Content-Encoding": "gzip"}
    push = ref_update(tree.head, "refs/heads/other") + pack([])
    status, answer = post(service.url, algorithm.path, key, gzip.compress(push), headers=compressed)
    assert (status, b"ok refs/heads/other" in answer) == (200, True)
    fetch = gzip.compress(want(tree.head))
    status, answer = post(service.url, algorithm.path, key, fetch, service="git-upload-pack", headers=compressed)
    assert (status, b"PACK" in answer) == (200, True)
    for body, encoding, reason in (
        (fetch[:-9], "gzip", b"no end"),
        (b"x" * 100, "gzip", b"not valid gzip"),
        (b"0000", "br", b"not understood"),
    ):
        status, answer = post(
            service.url, algorithm.path, key, body, service="git-upload-pack", headers={"Content-Encoding": encoding}
        )
        assert (status, reason in answer) == (400, True)


def test_a_push_of_very_many_or_very_long_names_is_refused_with_a_sentence(
    service: GitService, algorithm: Algorithm, key: str, tree: WorkTree
) -> None:
    url = url_with_key(service, algorithm, key)
    assert tree.push(url).returncode == 0
    tree.git("tag", "many/" * 19 + "parts")
    lines = [f"{tree.head} refs/heads/b{number:04}\n" for number in range(MAX_PUSH_LINES)]
    (tree.path / ".git" / "packed-refs").write_text("".join(lines))
    refused = tree.git("push", url, "--all", check=False)
    assert refused.returncode != 0
    assert "This push updates too many references: push at most 2000 branches" in refused.stderr
    refused = tree.git("push", url, "--tags", check=False)
    assert "The name of a branch or tag is too long: at most 250 bytes and 20 parts" in refused.stderr
    assert len(tree.git("ls-remote", url).stdout.splitlines()) == 2, "HEAD and main"
    assert post(service.url, algorithm.path, key, huge_packets(3))[0] == 200
    assert_nothing_is_held(service, algorithm)


def test_a_delta_that_unpacks_to_gigabytes_does_not_get_the_memory(
    service: GitService, algorithm: Algorithm, key: str
) -> None:
    status, answer = post(service.url, algorithm.path, key, delta_bomb(2048 * MEBIBYTE))
    assert status == 200
    assert b"unpack index-pack" in answer
    assert "Out of memory, malloc failed (tried to allocate 2147483649 bytes)" in service.log
    assert_nothing_is_held(service, algorithm)


@pytest.mark.parametrize(
    ("name", "mode", "content", "reason"),
    [
        (".gitmodules", "100644", b'[submodule "a"]\n\tpath = a\n\turl = -u./run\n', "gitmodulesUrl"),
        (".gitmodules", "100644", b'[submodule "../../hooks"]\n\tpath = a\n\turl = https://x\n', "gitmodulesName"),
        (".gitmodules", "120000", b"/etc/passwd", "gitmodulesSymlink"),
        (".GIT", "100644", b"x", "hasDotgit"),
    ],
)
def test_a_tree_that_is_dangerous_to_check_out_is_refused(
    service: GitService,
    algorithm: Algorithm,
    key: str,
    name: str,
    mode: str,
    content: bytes,
    reason: str,
) -> None:
    blob = pack_object("blob", content)
    root = pack_object("tree", f"{mode} {name}\0".encode() + bytes.fromhex(blob.name))
    person = "A <a@example.org> 1700000000 +0000"
    commit = pack_object("commit", f"tree {root.name}\nauthor {person}\ncommitter {person}\n\nx\n".encode())
    push = ref_update(commit.name) + pack([blob.entry, root.entry, commit.entry])
    status, answer = post(service.url, algorithm.path, key, push)
    assert (status, b"unpack index-pack" in answer) == (200, True)
    assert reason in service.log


def test_a_push_does_not_change_hidden_references(
    service: GitService, algorithm: Algorithm, key: str, tree: WorkTree
) -> None:
    url = url_with_key(service, algorithm, key)
    assert tree.push(url).returncode == 0
    hidden = f"refs/longshore/commits/{tree.head}"
    for refspec in (f":{hidden}", f"main:{hidden}"):
        refused = tree.git("push", url, refspec, check=False)
        assert refused.returncode != 0
        assert "ing a hidden ref" in refused.stderr
    assert tree.git("fetch", url, hidden, check=False).returncode != 0


def test_an_owner_does_not_fill_the_disk(
    service: GitService, algorithm: Algorithm, key: str, tree: WorkTree, other_url: str
) -> None:
    second = make_algorithm(algorithm.owner, "Second")
    url, second_url = url_with_key(service, algorithm, key), url_with_key(service, second, key)
    for number in range(4):
        tree.write("noise", os.urandom(11 * MEBIBYTE))
        tree.git("checkout", "--quiet", "--orphan", f"one-{number}")
        tree.commit()
        pushed = tree.push((url, second_url)[number % 2], f"+{tree.head}:refs/heads/main")
        assert (pushed.returncode == 0) == (number < 3), pushed.stderr
    assert f"The repositories of {algorithm.owner} take 3" in pushed.stderr
    assert "MiB of 32 MiB (LONGSHORE_GIT_OWNER_MAX_BYTES)" in pushed.stderr
    assert tree.git("ls-remote", url).stdout, "what is there can be fetched"
    other = WorkTree(tree.path.parent / "other")
    other.commit()
    assert other.push(other_url, "main:refs/heads/more").returncode == 0


def test_files_of_killed_pushes_are_removed(
    service: GitService, algorithm: Algorithm, key: str, tree: WorkTree
) -> None:
    url = url_with_key(service, algorithm, key)
    assert tree.push(url).returncode == 0
    objects = Repository(algorithm.id).path / "objects"
    left = objects / "tmp_objdir-incoming-abcdef"
    left.mkdir()
    (left / "pack").write_bytes(b"x")
    (objects / "pack" / "tmp_pack_abcdef").write_bytes(b"x")
    tree.write("more")
    tree.commit()
    assert tree.push(url).returncode == 0
    until(lambda: not left.exists() and not list((objects / "pack").glob("tmp_*")), "the files are gone")


@pytest.mark.usefixtures("service")
def test_files_that_a_killed_service_left_beside_repositories_are_removed() -> None:
    for name, age in ((".deleted-old", 7200), (".push-old", 7200), (".push-new", 0)):
        left = settings().repositories_dir / name
        if "deleted" in name:
            (left / "repository").mkdir(parents=True)
        else:
            left.touch()
        os.utime(left, (time.time() - age,) * 2)
    remove_leftovers()
    assert not {".deleted-old", ".push-old"} & set(os.listdir(settings().repositories_dir))
    (settings().repositories_dir / ".push-new").unlink()


def test_packs_of_many_small_pushes_are_joined(
    service: GitService, algorithm: Algorithm, key: str, tree: WorkTree
) -> None:
    url, packs = url_with_key(service, algorithm, key), Repository(algorithm.id).path / "objects" / "pack"
    assert tree.push(url).returncode == 0
    (pack_file,) = packs.glob("*.pack")
    for number in range(60):
        for suffix in (".pack", ".idx"):
            (packs / f"pack-{number:040x}{suffix}").write_bytes(pack_file.with_suffix(suffix).read_bytes())
    tree.write("more")
    tree.commit()
    assert tree.push(url).returncode == 0
    until(lambda: len(list(packs.glob("*.pack"))) < 10, "the packs are joined")
    assert tree.head in tree.git("ls-remote", url).stdout


@pytest.fixture
def _slow_hook() -> Iterator[None]:
    """The hook of the service sleeps, in a process of its own."""
    hook = hooks_dir() / "post-receive"
    original = hook.read_bytes()
    hook.write_bytes(b"#!/bin/sh\nsleep 600\n")
    yield
    hook.write_bytes(original)


@contextmanager
def pushing(tree: WorkTree, url: str) -> Iterator[None]:
    """A `git push` that is killed at the end of the block."""
    with subprocess.Popen(["git", "push", "--quiet", url, "main"], cwd=tree.path, start_new_session=True) as client:
        try:
            yield
        finally:
            os.killpg(client.pid, signal.SIGKILL)


def is_free(lock: Path) -> bool:
    with try_file_lock(lock) as is_locked:
        return is_locked


def push_large(service: GitService, algorithm: Algorithm, key: str, tree: WorkTree) -> None:
    """Push more than the buffers of a connection take."""
    tree.write("noise", os.urandom(14 * MEBIBYTE))
    tree.commit()
    pushed = tree.push(url_with_key(service, algorithm, key))
    assert pushed.returncode == 0, pushed.stderr


def fetch_head(service: GitService, algorithm: Algorithm, key: str, body: bytes) -> bytes:
    """Return a whole request of a fetch."""
    length = {"Content-Length": len(body)}
    return push_head(service.url, algorithm.path, key, service="git-upload-pack", headers=length) + body


def commands(service: GitService) -> str:
    """Return the command lines of the processes that work in the repositories."""
    found = []
    for process in service.processes():
        with suppress(OSError):
            found.append((process / "cmdline").read_text())
    return "\n".join(found)


def open_connections(service: GitService) -> int:
    """Return the number of connections to the service that their clients have not closed (proc_pid_net(5))."""
    port = f":{urlsplit(service.url).port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return sum(remote.endswith(port) and state == "01" for _, _, remote, state, *_ in rows)


def worker_of(service: GitService) -> int:
    """Return the process that serves the requests."""
    (worker,) = Path(f"/proc/{service.pid}/task/{service.pid}/children").read_text().split()
    return int(worker)


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
