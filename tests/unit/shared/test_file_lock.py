"""Locks on files: exclusive, shared, with a check while waiting, and released with their process."""

import multiprocessing
import os
from pathlib import Path

import pytest

from shared.file_lock import file_lock, lock_file, poll_file_lock, try_file_lock, try_lock_file


def test_an_exclusive_lock_excludes_all_others(tmp_path: Path) -> None:
    with file_lock(tmp_path / "lock"), try_file_lock(tmp_path / "lock") as acquired:
        assert not acquired
    with try_file_lock(tmp_path / "lock") as acquired:
        assert acquired


def test_shared_locks_exclude_an_exclusive_one_only(tmp_path: Path) -> None:
    with (
        file_lock(tmp_path / "lock", shared=True),
        file_lock(tmp_path / "lock", shared=True),
        try_file_lock(tmp_path / "lock") as acquired,
    ):
        assert not acquired


def test_an_open_directory_can_be_locked(tmp_path: Path) -> None:
    first, second = os.open(tmp_path, os.O_RDONLY), os.open(tmp_path, os.O_RDONLY)
    lock_file(first)
    assert not try_lock_file(second)
    os.close(first)
    assert try_lock_file(second)
    os.close(second)


def test_a_file_that_must_exist_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), file_lock(tmp_path / "lock", create=False):
        pass
    assert not (tmp_path / "lock").exists()


def test_the_first_free_file_is_locked(tmp_path: Path) -> None:
    slots = [tmp_path / "locks" / name for name in ("one", "two")]
    with poll_file_lock(slots, pytest.fail), poll_file_lock(slots, pytest.fail):
        for slot in slots:
            with try_file_lock(slot) as acquired:
                assert not acquired


def test_a_wait_calls_the_check_which_can_end_it(tmp_path: Path) -> None:
    waits: list[str] = []

    def check() -> None:
        if waits.count("check") == 2:
            raise TimeoutError
        waits.append("check")

    with (
        file_lock(tmp_path / "lock"),
        pytest.raises(TimeoutError),
        poll_file_lock([tmp_path / "lock"], check, on_wait=lambda: waits.append("wait")),
    ):
        pytest.fail("the lock was acquired twice")
    assert waits == ["wait", "check", "check"]


def _lock_and_die(path: Path) -> None:
    file_lock(path).__enter__()
    os._exit(0)


def test_a_process_that_dies_releases_its_lock(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_lock_and_die, args=(tmp_path / "lock",))
    process.start()
    process.join(60)
    assert (tmp_path / "lock").exists()
    with try_file_lock(tmp_path / "lock") as acquired:
        assert acquired
