"""Children of `longshore up`: shown, started again, ended with all that they started."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.data_directory import locked, open_data_directory
from cli.embedded_redis import MAX_SOCKET_PATH, socket_directory, socket_in
from cli.ports import PRIVATE_PORTS, require_free_port
from cli.processes import Child, Output
from shared.settings import SettingsError
from tests.processes import has_ended

SECONDS = 20


def child(script: str, *, once: bool = False, as_json: bool = False) -> Child:
    return Child("part", [sys.executable, "-c", script], os.environ, Output(as_json=as_json, width=6), once=once)


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def test_lines_carry_the_name_of_who_said_them(capsys: pytest.CaptureFixture[str]) -> None:
    async def scenario() -> int:
        talking = child("import sys; print('one'); print('two', file=sys.stderr); sys.exit(3)", once=True)
        talking.start()
        return await talking.finished()

    assert asyncio.run(scenario()) == 3
    assert sorted(capsys.readouterr().out.splitlines()) == ["part   | one", "part   | two"]


def test_json_stays_json(capsys: pytest.CaptureFixture[str]) -> None:
    async def scenario() -> None:
        talking = child("""print('{"event": "built", "process": "worker"}'); print('plain')""", once=True, as_json=True)
        talking.start()
        await talking.finished()

    asyncio.run(scenario())
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["event"], line["process"]) for line in said] == [("built", "part"), ("plain", "part")]


def test_a_line_without_end_does_not_fill_the_memory(capsys: pytest.CaptureFixture[str]) -> None:
    async def scenario() -> None:
        talking = child("print('x' * 3_000_000)", once=True)
        talking.start()
        await talking.finished()

    asyncio.run(scenario())
    shown = capsys.readouterr().out
    assert shown.count("x") == 3_000_000
    assert shown.count("part   | ") > 1


def test_a_child_that_ends_is_started_again_and_said_so(capsys: pytest.CaptureFixture[str]) -> None:
    async def scenario() -> None:
        failing = child("raise SystemExit(7)")
        failing.start()
        await until(lambda: failing.unexpected_ends == 2)
        await failing.stop(seconds=SECONDS)

    asyncio.run(scenario())
    assert "ended (status 7) and is started again in 1 s" in capsys.readouterr().out


def test_what_a_dead_child_leaves_behind_is_ended_too(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    script = (
        "import subprocess, sys, os, signal\n"
        "left = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(note)!r}, 'w').write(str(left.pid))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )

    async def scenario() -> int:
        leaving = child(script, once=True)
        leaving.start()
        status = await leaving.finished()
        await until(lambda: has_ended(int(note.read_text())))
        return status

    assert asyncio.run(scenario()) == -signal.SIGKILL


def test_a_child_that_does_not_end_is_killed(capsys: pytest.CaptureFixture[str]) -> None:
    async def scenario() -> int:
        deaf = child(
            "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
        )
        deaf.start()
        shown = ""
        while "1" not in shown:
            await asyncio.sleep(0.02)
            shown += capsys.readouterr().out
        await deaf.stop(seconds=0.2)
        return await deaf.finished()

    assert asyncio.run(scenario()) == -signal.SIGKILL
    assert "is killed" in capsys.readouterr().out


def test_a_data_directory_is_private_and_for_one(tmp_path: Path) -> None:
    directory = open_data_directory(tmp_path / "new" / "data")
    assert directory.stat().st_mode & 0o777 == 0o700
    with (
        locked(directory),
        pytest.raises(SettingsError, match=rf"already \(process {os.getpid()}\)"),
        locked(directory),
    ):
        pass
    with locked(directory):
        pass


def test_a_data_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="cannot be used"):
        open_data_directory(tmp_path / "file" / "data")


def test_the_socket_of_redis_has_a_short_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("d" * 120)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    with socket_directory(tmp_path / "note") as directory:
        assert len(bytes(socket_in(directory))) < MAX_SOCKET_PATH
        assert directory.stat().st_mode & 0o777 == 0o700
    assert not directory.exists()


def test_what_a_crash_left_is_removed_at_the_next_start(tmp_path: Path) -> None:
    note = tmp_path / "note"
    crashed = socket_directory(note)
    abandoned = crashed.__enter__()
    with socket_directory(note) as fresh:
        assert not abandoned.exists()
        assert fresh.exists()
    crashed.__exit__(None, None, None)


def test_a_taken_port_is_said() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=rf"cannot listen on 127.0.0.1:{port}.*--port"):
            require_free_port("127.0.0.1", port)
    assert require_free_port("127.0.0.1", port) == port
    assert require_free_port("127.0.0.1", 0) in PRIVATE_PORTS
