"""The commands of the tour, word for word and in its order, against a system in which no registry was recorded."""

import os
import re
import subprocess
import sys
from pathlib import Path

from dev.services.redis import private_redis
from dev.services.registry import PrivateRegistry
from tests.acceptance.system import longshore_up

TOUR = Path(__file__).resolve().parents[2] / "docs" / "tour.md"
VARIABLES = {"/v1/admin/users/": ("KEY", "api_key"), "/v1/algorithms/bob ": ("ALGO_ID", "id")}
VARIABLES["/v1/registries -X POST"] = ("REGISTRY", "id")
"""By words of a command: the variable that the tour sets from its response, and the field."""


def commands() -> list[str]:
    """Return the commands of the tour. A line that is indented, or ends a quoted text, continues the one before."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", TOUR.read_text(), re.DOTALL):
        command = ""
        for line in block.splitlines():
            if line.startswith("$ "):
                command = line.removeprefix("$ ")
            elif is_incomplete(command):
                command += f"\n{line}"
            else:
                continue
            if not is_incomplete(command):
                found.append(command)
    return found


def is_incomplete(command: str) -> bool:
    return command.endswith("\\") or command.count("'") % 2 == 1


def test_the_tour_can_be_followed_word_for_word(
    tmp_path: Path, docker_host: str, base_image: str, registry: PrivateRegistry
) -> None:
    steps = ["set -e"]
    for number, command in enumerate(commands()):
        steps.append(f"{{ {command}\n}} > $OUTPUTS/{number}")
        for words, (variable, field) in VARIABLES.items():
            if words in command:
                steps.append(
                    f'{variable}=$(grep -o \'"{field}":"[^"]*\' $OUTPUTS/{number} | head -1 | cut -d\'"\' -f4)'
                )
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    with (
        private_redis(tmp_path / "redis") as redis,
        longshore_up(
            tmp_path,
            DOCKER_HOST=docker_host,
            LONGSHORE_BASE_IMAGE=base_image,
            LONGSHORE_REDIS_URL=redis.url(),
            LONGSHORE_SERVING_NETWORK="host",  # the private engine has no other
        ) as system,
    ):
        script = "\n".join(steps).replace("127.0.0.1:8080", system.url.removeprefix("http://"))
        script = script.replace("127.0.0.1:5000", registry.host)
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path,
            env=system.environment
            | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}
            | {"GIT_AUTHOR_NAME": "Bob", "GIT_AUTHOR_EMAIL": "bob@example.org", "GIT_TERMINAL_PROMPT": "0"}
            | {"GIT_COMMITTER_NAME": "Bob", "GIT_COMMITTER_EMAIL": "bob@example.org", "OUTPUTS": str(outputs)},
            capture_output=True,
            text=True,
            check=False,
        )
    responses = [path.read_text() for path in sorted(outputs.iterdir(), key=lambda path: int(path.name))]
    assert done.returncode == 0, (done.stderr, responses[-1])
    assert len(responses) == len(commands()) > 20
    assert [text for text in responses if text.startswith('{"error"')] == []
    assert [text[:23] for text in responses if '"result"' in text] == [
        '{"result": "hello world',
        '{"result": "Hello world',
    ]
