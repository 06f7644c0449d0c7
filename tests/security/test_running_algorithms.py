"""Attacks of a running algorithm on the disk of its machine."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dev.services.registry import PrivateRegistry
from shared.db.models import InstanceState
from shared.instances.endpoints import connect
from shared.settings import settings
from tests.service.workers.serving.conftest import Served, entry_point, evaluated
from workers.docker.connection import engine
from workers.serving.docker.container import container_name, socket_directory
from workers.serving.docker.memory_disk import MAX_BYTES, MAX_ENTRIES
from workers.serving.reconcile import reconcile

CAP_SYS_ADMIN = 21
PR_CAPBSET_DROP = 24
WRITES_ON_AFTER_SEALING = """
import os, signal, socket
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
files = []
try:
    while len(files) < 200:
        files.append(os.open("/run/longshore", os.O_RDWR | os.O_TMPFILE))
except OSError:
    os.close(files.pop())
listener = socket.socket(socket.AF_UNIX)
listener.bind("/run/longshore/socket")
listener.listen()
written, refused = 0, ""
while True:
    connection, _ = listener.accept()
    if not os.access("/run/longshore", os.W_OK) and not refused:
        for file in files:
            try:
                while written < 256 << 20:
                    written += os.write(file, b"0" * 65536)
            except OSError as error:
                refused = os.strerror(error.errno)
    connection.recv(4096)
    body = b'{"calls": 0, "idle_seconds": 0.0, "held": %d, "written": %d, "refused": "%s"}' % (
        len(files), written, refused.encode())
    connection.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\n" + body)
    connection.close()
"""
MAKE_DIRECTORY = """
from shared.errors import WorkError
from workers.serving.docker.container import make_directory
try:
    make_directory("instance")
except WorkError as error:
    print(error.error_class, error.message)
"""

engine_test = pytest.mark.engine
pytestmark = pytest.mark.usefixtures("sqlite_installation", "broker")


def response_of(endpoint: str) -> dict[str, object]:
    with connect(endpoint, settings().resolved_serving_dir, seconds=30) as connection:
        connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        answer = b""
        while received := connection.recv(65536):
            answer += received
    return dict(json.loads(answer.partition(b"\r\n\r\n")[2]))


@engine_test
def test_files_that_were_opened_before_the_sealing_fill_no_disk(
    served: Served, registry: PrivateRegistry, of: Callable[..., str]
) -> None:
    of(entry_point(WRITES_ON_AFTER_SEALING))
    served.pushed_to(registry)
    instance = served.started()
    assert instance.state == InstanceState.READY
    response = response_of(instance.endpoint or "")
    assert 0 < int(str(response["held"])) < MAX_ENTRIES
    assert response["refused"] == "No space left on device"
    assert 0 < int(str(response["written"])) <= MAX_BYTES
    space = os.statvfs(socket_directory(instance.id))
    assert (space.f_blocks * space.f_frsize, space.f_files) == (MAX_BYTES, MAX_ENTRIES), "a file system of its own"


@engine_test
def test_the_mount_of_an_ended_instance_is_removed(
    served: Served, registry: PrivateRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.pushed_to(registry)
    instance = served.started()
    engine().remove_container(container_name(instance.id), force=True)
    left = socket_directory("of-a-worker-that-was-killed")
    left.mkdir()
    monkeypatch.setattr("workers.serving.docker.backend.ORPHAN_GRACE_SECONDS", -60)
    reconcile()
    assert os.listdir(settings().resolved_serving_dir) == []
    assert str(settings().resolved_serving_dir) not in Path("/proc/self/mounts").read_text()


def in_another_process(*program: str, **options: object) -> str:
    """Return what another process prints that makes the directory of an instance."""
    done = subprocess.run(  # type: ignore[call-overload]
        [*program, sys.executable, "-c", MAKE_DIRECTORY], capture_output=True, text=True, check=True, **options
    )
    return str(done.stdout)


def drop_the_right_to_mount() -> None:
    import ctypes

    ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_SYS_ADMIN, 0, 0, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_without_the_right_to_mount_nothing_starts_on_the_disk() -> None:
    printed = in_another_process(preexec_fn=drop_the_right_to_mount)
    assert printed.startswith("unavailable")
    assert "LONGSHORE_SERVING_SOCKETS=disk" in printed
    assert not socket_directory("instance").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_an_engine_that_does_not_see_the_mount_gives_no_writable_directory() -> None:
    assert in_another_process("unshare", "--mount", "--propagation", "private") == ""
    try:
        assert stat.S_IMODE(socket_directory("instance").stat().st_mode) == 0o700
    finally:
        socket_directory("instance").rmdir()


@engine_test
def test_nothing_that_an_algorithm_can_write_to_is_on_the_disk(served: Served, registry: PrivateRegistry) -> None:
    served.isolated()
    served.pushed_to(registry)
    instance = served.started()
    mounts = [line.split() for line in evaluated(instance, "open('/proc/self/mounts').read()")["result"].splitlines()]
    writable = {kind for _, _, kind, options, *_ in mounts if "rw" in options.split(",")}
    assert writable <= {"tmpfs", "proc", "mqueue", "devpts", "shm"}
    on_disk = {point for source, point, kind, *_ in mounts if kind == "overlay" or source.startswith("/dev/")}
    assert {"/", "/etc/hosts"} <= on_disk


@engine_test
def test_shared_memory_counts_as_memory(served: Served, registry: PrivateRegistry) -> None:
    served.isolated()
    served.pushed_to(registry)
    instance = served.started()
    before = os.statvfs("/var").f_bavail
    response = evaluated(instance, "open('/dev/shm/full', 'wb').write(b'0' * (96 << 20))")
    assert "error" in response, "neither more than its 64 MB nor a process without memory"
    assert before - os.statvfs("/var").f_bavail < 2**30 / os.statvfs("/var").f_frsize


@engine_test
def test_a_crash_writes_no_core_dump_and_no_queue_is_made(served: Served, registry: PrivateRegistry) -> None:
    served.isolated()
    served.pushed_to(registry)
    instance = served.started()
    limits = evaluated(instance, "open('/proc/self/limits').read()")["result"].splitlines()
    values = {line[:26].strip(): line[26:].split()[:2] for line in limits}
    assert values["Max core file size"] == values["Max msgqueue size"] == ["0", "0"]
    assert "error" in evaluated(instance, "open('/dev/mqueue/full', 'w').close()")


@engine_test
def test_endless_output_is_a_log_of_two_megabytes(served: Served, registry: PrivateRegistry) -> None:
    served.isolated()
    served.pushed_to(registry)
    instance = served.started()
    # The runner's own standard error is the container's.
    evaluated(instance, "[open('/proc/1/fd/2', 'w').write('x' * 1000 + chr(10)) for _ in range(8000)] and None")
    log = Path(engine().inspect_container(container_name(instance.id))["LogPath"])
    assert 2**20 < sum(file.stat().st_size for file in log.parent.glob(f"{log.name}*")) < 3 * 2**20
