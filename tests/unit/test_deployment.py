"""Check the files that start Longshore: every queue has a consumer, and nobody has more rights than they need."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.main import COMMANDS
from shared.jobs.queues import Queues

ROOT = Path(__file__).resolve().parent.parent.parent
ENGINE_SOCKET = "/var/run/docker.sock"
FOR_DEVELOPERS = {"pytest", "mypy", "ruff", "schemathesis", "hypothesis", "import-linter", "setuptools", "types-docker"}


def commands() -> dict[str, list[str]]:
    """Return the words of each command in the Procfile."""
    lines = (ROOT / "Procfile").read_text().splitlines()
    return {name: command.split() for name, command in (line.split(": ", 1) for line in lines)}


def test_the_procfile_starts_every_process_and_a_consumer_of_every_queue() -> None:
    started = commands()
    assert {"gateway", "api", "calls", "git", "beat"} <= set(started)
    consumed = {words[words.index("--queues") + 1] for words in started.values() if "--queues" in words}
    assert set(",".join(consumed).split(",")) == set(Queues.ALL)


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_command_of_the_procfile_exists(name: str) -> None:
    program, command, *_ = commands()[name]
    assert program == "longshore"
    assert command in COMMANDS


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="docker-compose is not installed")
def test_docker_compose_accepts_its_file() -> None:
    done = subprocess.run(
        ["docker-compose", "--file", ROOT / "docker-compose.yml", "config", "--services"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert {"api", "calls", "builds", "pushes", "serving", "beat", "redis", "postgres", "registry"} <= set(
        done.stdout.split()
    )


def services() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"])


def test_only_what_uses_the_engine_gets_its_socket() -> None:
    given = {name for name, service in services().items() if ENGINE_SOCKET in str(service.get("volumes", []))}
    assert given == {"builds", "serving", "firewall"}


def test_pushes_find_in_the_store_what_was_built() -> None:
    stores = {
        name: volume
        for name, service in services().items()
        for volume in service.get("volumes", [])
        if str(volume).endswith(":/var/lib/longshore") and name != "git"
    }
    assert set(stores) == {"builds", "pushes", "serving"}
    assert len(set(stores.values())) == 1


def test_no_service_has_more_capabilities_than_it_needs() -> None:
    given = {name: service["cap_add"] for name, service in services().items() if "cap_add" in service}
    assert given == {"serving": ["SYS_ADMIN"], "firewall": ["NET_ADMIN", "NET_RAW"]}
    assert services()["firewall"]["cap_drop"] == ["ALL"]
    assert not any(service.get("privileged") for service in services().values())
    for option in ("--reuid=10001", "--ambient-caps=+sys_admin"):
        assert option in services()["serving"]["entrypoint"], "not as root, which has the engine's machine"


def test_workers_in_containers_leave_the_firewall_to_the_one_that_can_write_it() -> None:
    firewall = services()["firewall"]
    assert (firewall["command"], firewall["network_mode"]) == ("firewall", "host")
    for name in ("builds", "serving"):
        assert services()[name]["environment"]["LONGSHORE_EGRESS_RULES"] == "elsewhere"


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")
def test_redis_does_not_start_without_a_password() -> None:
    shell, option, script = services()["redis"]["command"]
    script = script.replace("$$", "$")  # as docker-compose does
    done = subprocess.run([shell, option, script], env={}, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "REDIS_PASSWORD must be set\n")
    assert "requirepass" not in script.split("exec", 1)[1], "everybody on the machine can read arguments"
    assert "${REDIS_PASSWORD:-}@redis" in services()["api"]["environment"]["LONGSHORE_REDIS_URL"]


def locked(name: str) -> dict[str, set[str]]:
    """Return the hashes of each pinned requirement in a lock."""
    hashes: dict[str, set[str]] = {}
    for line in (ROOT / name).read_text().splitlines():
        if re.match(r"[a-z0-9]", line):
            hashes[requirement := line.removesuffix(" \\")] = set()
        elif found := re.search(r"--hash=(sha256:[0-9a-f]{64})", line):
            hashes[requirement].add(found[1])
    return hashes


def test_the_lock_for_running_is_the_development_lock_without_tools() -> None:
    running, developing = locked("requirements.lock"), locked("requirements-dev.lock")
    assert running.items() <= developing.items()
    assert all(running.values())
    named = {requirement.partition("==")[0] for requirement in running}
    assert {"flask", "celery", "kubernetes"} <= named
    assert not named & FOR_DEVELOPERS
    assert {requirement.partition("==")[0] for requirement in developing} >= FOR_DEVELOPERS


def test_the_image_has_the_lock_for_running() -> None:
    instructions = (ROOT / "Dockerfile").read_text()
    assert "--requirement requirements.lock" in instructions
    assert "--requirement requirements-dev.lock" not in instructions
    assert "pip uninstall --yes setuptools" in instructions
