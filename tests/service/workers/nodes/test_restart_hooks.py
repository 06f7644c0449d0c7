"""The hook that restarts a node: a real command, and a receiver that believes only what is signed."""

import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkCancelledError, WorkError
from shared.refreshes import RestartKind
from shared.settings import Settings
from shared.webhooks.signing import new_secret
from tests.concurrency import TIMEOUT_SECONDS
from tests.processes import has_ended
from tests.service.webhook_receiver import webhook_receiver
from workers.nodes import restart_hooks
from workers.nodes.node_pool import RestartHook
from workers.nodes.restart_hooks import restart_hook

JOB = "0a5c1f3e-7d0c-4a43-9a52-3a9f7f9d2b11"

pytestmark = pytest.mark.usefixtures("sqlite_installation")


def hook(
    monkeypatch: pytest.MonkeyPatch, kind: RestartKind | None = None, stop: CancelToken | None = None, **variables: str
) -> RestartHook | None:
    for name, value in variables.items():
        monkeypatch.setenv(f"LONGSHORE_NODE_RESTART_{name.upper()}", value)
    return restart_hook(kind, JOB, Settings(), stop or CancelToken())


def python(script: Path, source: str) -> str:
    script.write_text(source)
    return f"{sys.executable} -I {script} {{node}}"


def test_the_command_gets_the_name_as_one_word_and_no_shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    command = python(
        tmp_path / "restart.py", f"import sys; open({str(tmp_path / 'said')!r}, 'w').write(str(sys.argv[1:]))"
    )
    restart = hook(monkeypatch, command=f"{command} '--why=$(id) {{node}}'")
    assert restart is not None
    restart("node-1")
    assert (tmp_path / "said").read_text() == "['node-1', '--why=$(id) node-1']"


def test_the_command_sees_none_of_our_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = f"import os; open({str(tmp_path / 'said')!r}, 'w').write(' '.join(os.environ))"
    restart = hook(monkeypatch, command=python(tmp_path / "restart.py", source))
    assert restart is not None
    restart("node-1")
    said = (tmp_path / "said").read_text()
    assert "PATH" in said
    assert "LONGSHORE_" not in said


def test_a_command_that_fails_is_told_with_its_last_lines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = "import sys; [print('line', n) for n in range(5000)]; sys.stdout.flush(); sys.exit('no such machine')"
    restart = hook(monkeypatch, command=python(tmp_path / "restart.py", source))
    assert restart is not None
    with pytest.raises(WorkError) as failed:
        restart("node-1")
    assert failed.value.error_class == ErrorClass.INVALID
    assert "ended with status 1" in failed.value.message
    assert failed.value.message.endswith("line 4998 / line 4999 / no such machine.")
    assert "line 4995" not in failed.value.message


def test_a_command_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    restart = hook(monkeypatch, command=f"{tmp_path}/missing {{node}}")
    assert restart is not None
    with pytest.raises(WorkError, match="cannot be run: No such file"):
        restart("node-1")


HANGS = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(sys.argv[2], "w").write(str(child.pid))
os.rename(sys.argv[2], sys.argv[3])
time.sleep(600)
"""


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_stop_kills_the_command_and_its_children(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stop, started = CancelToken(), tmp_path / "pid"
    command = f"{python(tmp_path / 'restart.py', HANGS)} {tmp_path}/part {started}"
    restart = hook(monkeypatch, stop=stop, command=command)
    assert restart is not None
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(restart, "node-1")
        until(started.exists)
        stop.cancel("it was cancelled")
        with pytest.raises(WorkCancelledError):
            running.result(TIMEOUT_SECONDS)
    until(lambda: has_ended(int(started.read_text())))


def test_a_command_has_limited_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(restart_hooks, "COMMAND_TIMEOUT_SECONDS", 0.5)
    command = f"{python(tmp_path / 'restart.py', HANGS)} {tmp_path}/part {tmp_path}/pid"
    restart = hook(monkeypatch, command=command)
    assert restart is not None
    with pytest.raises(WorkError, match="did not end within"):
        restart("node-1")


def test_whoever_answers_at_the_url_is_told_in_a_signed_way_the_same_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = new_secret()
    with webhook_receiver() as receiver:
        restart = hook(monkeypatch, url=f"{receiver.url}?token=open-sesame", secret=secret)
        assert restart is not None
        restart("node-1")
        restart("node-1")
        restart("node-2")
    first, again, other = receiver.received
    assert first.verified(secret) == {"node": "node-1", "job_id": JOB}
    assert other.verified(secret)["node"] == "node-2"
    ids = [one.headers["webhook-id"] for one in (first, again, other)]
    assert (ids[0] == ids[1], ids[0] == ids[2]) == (True, False)


@pytest.mark.parametrize(("status", "error_class"), [(404, ErrorClass.INVALID), (503, ErrorClass.TRANSIENT)])
def test_another_answer_than_2xx_is_an_error_that_tells_no_token(
    monkeypatch: pytest.MonkeyPatch, status: int, error_class: ErrorClass
) -> None:
    with webhook_receiver() as receiver:
        receiver.status = status
        restart = hook(monkeypatch, url=f"{receiver.url}?token=open-sesame")
        assert restart is not None
        with pytest.raises(
            WorkError, match=f"responded with status {status} to the request to restart the node node-1"
        ) as failed:
            restart("node-1")
    assert failed.value.error_class == error_class
    assert "sesame" not in failed.value.message


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        (
            {"url": "https://169.254.169.254/latest"},
            "LONGSHORE_NODE_RESTART_URL: 169.254.169.254 is a link-local address",
        ),
        ({"url": "http://restarts.example.com/"}, "LONGSHORE_NODE_RESTART_URL: .*begins with https"),
        ({"url": "http://127.0.0.1:1/", "secret": "sesame"}, "LONGSHORE_NODE_RESTART_SECRET: .*whsec_"),
    ],
)
def test_an_address_or_secret_that_cannot_be_used_is_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, Any], sentence: str
) -> None:
    restart = hook(monkeypatch, **variables)
    assert restart is not None
    with pytest.raises(WorkError, match=sentence):
        restart("node-1")


def test_the_way_is_what_was_ordered_else_what_the_settings_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hook(monkeypatch) is None
    assert hook(monkeypatch, RestartKind.NONE, command="restart {node}") is None
    for kind, variable in ((RestartKind.COMMAND, "COMMAND"), (RestartKind.WEBHOOK, "URL")):
        monkeypatch.delenv(f"LONGSHORE_NODE_RESTART_{variable}", raising=False)
        with pytest.raises(WorkError, match=f"LONGSHORE_NODE_RESTART_{variable} is not set"):
            hook(monkeypatch, kind)
    assert hook(monkeypatch, url="https://restarts.example.com/") is not None


@pytest.mark.parametrize("value", ["restart it", "restart '{node}"])
def test_a_command_without_the_node_or_a_closing_quote_is_refused_at_start(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    with pytest.raises(ValueError, match="node_restart_command"):
        hook(monkeypatch, command=value)
