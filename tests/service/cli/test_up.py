"""`longshore up`: starts, answers, mends itself, stops and leaves nothing running."""

import signal
import stat
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.services.processes import free_port
from shared.jobs.queues import Queues
from tests.service.cli.running import LONGSHORE, Up, answers, kill, longshore_up, processes_of, until

REGISTRY = {"registry_url": "registry.example.com:5000", "name": "kept"}


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with longshore_up(tmp_path_factory.mktemp("up")) as running:
        yield running


def longshore(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    command = ["env", *(f"{name}={value}" for name, value in variables.items()), *LONGSHORE, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_first_admin_key_is_private_and_works(up: Up) -> None:
    assert stat.S_IMODE((up.data_dir / "admin-key").stat().st_mode) == 0o600
    assert stat.S_IMODE(up.data_dir.stat().st_mode) == 0o700
    assert up.call("GET", "/v1/registries") == (200, [])


def test_it_says_where_it_answers_and_where_the_key_is(up: Up) -> None:
    said = up.child.log.read_text()
    assert f"Longshore is ready at {up.url}" in said
    assert f"admin key: {up.data_dir / 'admin-key'}" in said
    assert up.admin_key not in said


def test_there_is_a_consumer_of_every_queue(up: Up) -> None:
    consumed = {word for command in up.processes().values() for argument in command for word in argument.split(",")}
    assert set(Queues.ALL) <= consumed


def test_what_runs_is_refreshed_and_nodes_are_not_where_there_are_none(up: Up) -> None:
    at = ("--data-dir", str(up.data_dir))
    done = longshore("nodes", "refresh", "--what", "runners", *at)
    assert (done.returncode, "There was nothing to do." in done.stderr) == (0, True), done.stderr
    failed = longshore("nodes", "refresh", *at)
    assert (failed.returncode, "refresh with what=runners" in failed.stderr) == (1, True), failed.stderr
    _status, jobs = up.call("GET", "/v1/jobs?kind=refresh")
    assert [job["state"] for job in jobs["results"]] == ["failed", "succeeded"]


def test_a_second_one_in_the_same_directory_is_refused(up: Up) -> None:
    second = longshore("up", "--data-dir", str(up.data_dir), "--port", "0")
    assert second.returncode == 2
    assert f"longshore: Longshore runs in {up.data_dir} already (process " in second.stderr


def test_a_taken_port_is_refused(up: Up, tmp_path: Path) -> None:
    second = longshore("up", "--data-dir", str(tmp_path), "--port", up.url.rpartition(":")[2])
    assert second.returncode == 2
    assert "choose another port with --port" in second.stderr
    assert "Traceback" not in second.stderr


@pytest.mark.parametrize("part", ["main\0api", "main\0calls", "main\0gate", "--queues\0builds", "redis-server"])
def test_a_part_that_is_killed_is_started_again(up: Up, part: str) -> None:
    said = up.child.log.read_text().count("is started again in")
    killed = oldest(up, part)
    kill(killed)
    until(lambda: up.child.log.read_text().count("is started again in") == said + 1, "it is missed")
    until(lambda: oldest(up, part) not in (0, killed), "it is there again")
    until(lambda: answers(f"{up.url}/readyz"), "everything answers again")
    assert oldest(up, part) != killed


def oldest(up: Up, part: str) -> int:
    """The first process of a part; 0 while there is none."""
    return min((pid for pid, command in up.processes().items() if part in "\0".join(command)), default=0)


def test_a_body_that_is_too_large_is_refused_though_it_is_still_coming(up: Up) -> None:
    request = urllib.request.Request(
        f"{up.url}/v1/registries",
        method="POST",
        data=b"[" + b" " * 20_000_000,
        headers={"Authorization": f"Simple {up.admin_key}", "Content-Type": "application/json"},
    )
    with pytest.raises(urllib.error.HTTPError) as refused, urllib.request.urlopen(request, timeout=30):
        pass
    with refused.value:
        assert refused.value.code == 413


def test_git_through_the_gateway(up: Up, tmp_path: Path) -> None:
    """A repository of 100 MB goes in and out, and neither gateway nor git service holds it in memory."""
    up.call("POST", "/v1/admin/users/ada/keys", {"key_label": "ada", "key_type": "AlgorithmKey"})
    made = {"name": "Big", "details": {"label": "Big"}, "settings": {"language": "python3"}}
    assert up.call("POST", "/v1/algorithms/ada", made)[0] == 201
    remote = f"{up.url.replace('://', f'://x:{up.admin_key}@')}/git/ada/Big.git"
    source, clone = tmp_path / "source", tmp_path / "clone"
    git("init", "--quiet", "--initial-branch=main", str(source))
    with (source / "weights.bin").open("wb") as file, Path("/dev/urandom").open("rb") as random:
        for _ in range(100):
            file.write(random.read(1_000_000))
    git("-C", str(source), "add", ".")
    git("-C", str(source), "-c", "user.name=A", "-c", "user.email=a@example.org", "commit", "--quiet", "-m", "big")

    git("-C", str(source), "push", "--quiet", "--push-option=nocompile", remote, "main")
    git("clone", "--quiet", remote, str(clone))

    assert (clone / "weights.bin").read_bytes() == (source / "weights.bin").read_bytes()
    for part in ("gateway", "git"):
        for pid in [pid for pid, command in up.processes().items() if command[-1] == part]:
            peak = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "VmHWM" in line)
            assert int(peak.split()[1]) < 160_000, f"{part}: {peak}"  # kB; more than the half of it is Python


def test_events_of_a_job_come_through_the_gateway_as_they_happen(up: Up) -> None:
    up.call("POST", "/v1/admin/users/eve/keys", {"key_label": "eve", "key_type": "AlgorithmKey"})
    source = {"repository_https_url": "https://localhost:1/eve/Waits.git"}
    up.call("POST", "/v1/algorithms/eve", {"name": "Waits", "details": {"label": "Waits"}, "source": source})
    assert up.call("POST", "/v1/algorithms/eve/Waits/compile", {"commitSha": "a" * 40})[0] == 200
    (job,) = up.call("GET", "/v1/jobs?algorithm=eve/Waits")[1]["results"]
    request = urllib.request.Request(
        f"{up.url}/v1/jobs/{job['id']}/events", headers={"Authorization": f"Simple {up.admin_key}"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.readline().startswith(b"id: ")  # though the job waits for an engine, and its stream goes on
        assert up.call("DELETE", f"/v1/jobs/{job['id']}")[0] == 204
        rest = answer.read().decode()
    assert '"state": "cancelled"' in rest.rpartition("data: ")[2]


def git(*arguments: str) -> None:
    done = subprocess.run(
        ["git", *arguments],
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_GLOBAL": "/dev/null"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_it_stops_and_goes_on_where_it_was(tmp_path: Path) -> None:
    with longshore_up(tmp_path) as first:
        key = first.admin_key
        assert first.call("POST", "/v1/registries", REGISTRY)[0] == 200
        first.child.stop(signal.SIGTERM, grace=60)
        assert first.child.exit_status == 0
        assert first.child.last_lines(1).endswith('"process": "longshore"}')
        assert '"stopped"' in first.child.last_lines(1)
        assert first.processes() == {}
    with longshore_up(tmp_path) as second:
        assert second.admin_key == key
        assert [one["name"] for one in second.call("GET", "/v1/registries")[1]] == ["kept"]
        kill(second.child.pid)
        until(lambda: not second.processes(), "nothing is left when it is killed")
    with longshore_up(tmp_path) as third:
        assert third.call("GET", "/v1/registries")[0] == 200


def test_a_named_redis_is_used(tmp_path: Path, redis_url: str) -> None:
    with longshore_up(tmp_path, LONGSHORE_REDIS_URL=redis_url) as up:
        assert not [command for command in up.processes().values() if "redis-server" in command[0]]
        assert up.call("GET", "/v1/registries") == (200, [])


def test_building_on_the_network_of_the_host_is_warned_of(tmp_path: Path) -> None:
    warned = longshore(
        "up",
        *("--data-dir", str(tmp_path), "--port", str(free_port())),
        LONGSHORE_BUILD_NETWORK="host",
        LONGSHORE_DATABASE_URL="postgresql+psycopg://longshore@127.0.0.1:1/none",
    )
    assert warned.returncode != 0
    assert "WARNING: LONGSHORE_BUILD_NETWORK=host" in warned.stderr
    assert processes_of(tmp_path) == {}


def test_no_redis_to_be_found_says_what_to_install(tmp_path: Path) -> None:
    import sys

    command = ["env", "PATH=/nonexistent", sys.executable, "-c", WITHOUT_REDIS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "install redis-server" in done.stderr


WITHOUT_REDIS = """
import shutil, sys
shutil.which = lambda *_arguments, **_options: None  # as on a machine that has none, wherever one looks
from cli.main import group
group(["up", "--data-dir", sys.argv[1], "--port", "0"], prog_name="longshore")
"""
