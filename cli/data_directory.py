"""Create and check the data directory of `longshore up`, which only its own account may access."""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import click

from cli.supervisor import ADMIN_KEY_FILE
from shared.encryption import KEY_FILE
from shared.file_lock import try_lock_file
from shared.settings import SettingsError
from shared.settings.definitions import DATABASE_FILE

LOCK_FILE = "lock"
_OWN_NAMES = frozenset((LOCK_FILE, ADMIN_KEY_FILE, KEY_FILE, DATABASE_FILE))
"""A directory with one of these is a data directory."""
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def open_data_directory(directory: Path) -> Path:
    """Create the directory if it does not exist, close it to other accounts, and return its absolute path.

    Raises:
        SettingsError: it cannot be used, or another account could replace it or what is in it.
    """
    directory = directory.absolute()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.lstat()
        if not stat.S_ISDIR(found.st_mode):
            raise _refusal(directory, "it is a link: name the directory that it leads to")
        if found.st_uid != os.geteuid():
            raise _refusal(directory, "it belongs to another account: choose a directory of this account")
        _check_parents(directory)
        if found.st_mode & _OTHERS:
            _close(directory, found)
        if not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise _refusal(directory, error.strerror or str(error)) from None
    return directory


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the lock of the directory while the block runs. The kernel releases it when the process ends.

    Raises:
        SettingsError: another `longshore up` holds it.
    """
    with (directory / LOCK_FILE).open("a+") as file:
        if not try_lock_file(file):
            file.seek(0)
            raise SettingsError(
                f"Longshore runs in {directory} already (process {file.read().strip() or 'unknown'}); "
                "stop it, or choose another --data-dir."
            )
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _check_parents(directory: Path) -> None:
    """Refuse a directory that another account could replace.

    In a sticky directory such as /tmp nobody can rename files of others. The account's own group does not count as
    another account. Root may use directories that belong to others, as in containers.
    """
    for link in directory.parents:
        found = link.lstat()
        if stat.S_ISLNK(found.st_mode) and found.st_uid not in (0, os.geteuid()):
            raise _refusal(directory, f"{link} is a link of another account: name the directory that it leads to")
    for parent in directory.resolve().parents:
        found = parent.stat()
        is_of_others = os.geteuid() != 0 and found.st_uid not in (0, os.geteuid())
        if is_of_others or (_other_writers(found) and not found.st_mode & stat.S_ISVTX):
            raise _refusal(
                directory, f"another account can write to {parent}: change that, or choose another directory"
            )


def _other_writers(found: os.stat_result) -> int:
    has_own_group = os.geteuid() == 0 or found.st_gid in (0, os.getegid())
    return found.st_mode & (stat.S_IWOTH if has_own_group else stat.S_IWOTH | stat.S_IWGRP)


def _close(directory: Path, found: os.stat_result) -> None:
    mode = stat.S_IMODE(found.st_mode)
    names = {entry.name for entry in directory.iterdir()}
    if names and _other_writers(found):
        raise _refusal(directory, f"other accounts could write to it (mode {mode:04o}): choose a new directory")
    if names and names.isdisjoint(_OWN_NAMES):
        raise _refusal(
            directory,
            f"other accounts can read it (mode {mode:04o}) and it is no data directory, so it is not "
            "closed to them: choose an empty directory",
        )
    directory.chmod(0o700)
    for entry in directory.iterdir():
        of_entry = entry.lstat()
        if stat.S_ISREG(of_entry.st_mode) and of_entry.st_uid == os.geteuid() and of_entry.st_mode & _OTHERS:
            entry.chmod(stat.S_IMODE(of_entry.st_mode) & ~_OTHERS)
    click.echo(
        f"WARNING: {directory} was open to other accounts of this machine (mode {mode:04o}) and is closed to "
        "them now; if there are any, rotate the keys in it.",
        err=True,
    )


def _refusal(directory: Path, reason: str) -> SettingsError:
    return SettingsError(f"LONGSHORE_DATA_DIR: {directory} cannot be used: {reason}.")
