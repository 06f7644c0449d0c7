"""From nothing to an answer, by the lines of the README and of the tour themselves."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.system import System, is_ready

README = Path(__file__).resolve().parents[2] / "README.md"
START = [
    "make setup && export PATH=$PWD/.venv/bin:$PATH LONGSHORE_DATA_DIR=$PWD/data URL=http://127.0.0.1:8080",
    "longshore up --port 8080 &",
    "until curl -sf $URL/readyz; do sleep 1; done",
]
"""The lines that start a system; here it runs already."""
MAX_LINES = 8


@pytest.fixture(scope="module")
def lines() -> list[str]:
    """The commands of the README from nothing to an answer, and the one after it."""
    block = README.read_text().partition("in eight lines:\n\n```console\n")[2].partition("```")[0]
    return [line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ ")]


def test_the_lines_of_the_readme_lead_to_an_answer(lines: list[str], registryless: System, tmp_path: Path) -> None:
    assert lines[: len(START)] == START
    *commands, clone = lines[len(START) :]
    assert len(START) + len(commands) == MAX_LINES
    assert is_ready(registryless)

    commands = [command.replace("wait=60", "wait=300") for command in commands]  # on a busy machine
    script = [*commands, "echo", clone, "cd Hello", "sed -i s/hello/bye/ src/Hello.py", "cat src/Hello.py"]
    script += ["git -c user.name=A -c user.email=a@example.org commit --quiet --all --message Bye", "git push --quiet"]
    script += [commands[-2], commands[-1]]
    script = [line.replace("wait=60", "wait=300") for line in script]  # a busy machine
    done = subprocess.run(
        ["bash", "-c", "set -ex\n" + "\n".join(script)],
        cwd=tmp_path,
        env=registryless.environment
        | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "URL": registryless.url,
            "HOME": str(tmp_path),
            "GIT_TERMINAL_PROMPT": "0",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r'"result": ?"(.*?)"', done.stdout) == ["hello world", "bye world"], done.stdout + done.stderr
