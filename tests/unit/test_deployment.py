"""Check the files that start Longshore: every queue has a consumer, and docker-compose accepts its file."""

import shutil
import subprocess
from pathlib import Path

import pytest

from cli.main import COMMANDS
from shared.jobs.queues import Queues

ROOT = Path(__file__).resolve().parent.parent.parent


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
