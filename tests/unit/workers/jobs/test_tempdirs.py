"""Temporary directories are removed with the work, or by the next process after a kill."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from workers.jobs.tempdirs import GRACE_SECONDS, HIDDEN_PREFIX, remove_abandoned_directories, temporary_directory

KILLED = (
    "import os, signal, sys\n"
    "from workers.jobs.tempdirs import temporary_directory\n"
    "with temporary_directory() as directory:\n"
    "    (directory / 'file').write_text('left')\n"
    "    print(directory, flush=True)\n"
    "    sys.stdin.read()\n"
    "    os.kill(os.getpid(), signal.SIGKILL)\n"
)


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_it_is_gone_with_the_work(temporary: Path) -> None:
    with temporary_directory() as directory:
        (directory / "file").write_text("x")
        assert directory.parent == temporary
    assert list(temporary.iterdir()) == []


def test_what_a_kill_left_behind_goes_with_the_next_work_and_what_is_in_use_stays(temporary: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KILLED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as user:
        assert user.stdin is not None
        assert user.stdout is not None
        directory = temporary / user.stdout.readline().strip()
        with temporary_directory():
            assert (directory / "file").exists()
        user.stdin.close()
        user.wait()
    assert directory.exists()
    with temporary_directory():
        assert not directory.exists()


def test_what_is_not_locked_yet_is_left_alone_while_it_is_young(temporary: Path) -> None:
    hidden = temporary / f"{HIDDEN_PREFIX}made-at-this-moment"
    hidden.mkdir()
    remove_abandoned_directories()
    assert hidden.exists()
    old = hidden.stat().st_mtime - 2 * GRACE_SECONDS
    os.utime(hidden, (old, old))
    remove_abandoned_directories()
    assert not hidden.exists()
