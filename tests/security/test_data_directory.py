"""Attacks by another account of the machine: it cannot read the data directory or replace it."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

from cli.data_directory import open_data_directory
from shared.settings import SettingsError
from tests.service.cli.running import LONGSHORE


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A data directory as an older version may have left it: open to everybody who can log in."""
    directory = tmp_path / "data"
    directory.mkdir()
    for name in ("longshore.db", "longshore.db-wal", "secret-keys", "admin-key"):
        (directory / name).touch()
        (directory / name).chmod(0o644)
    (directory / "repositories").mkdir(mode=0o755)
    directory.chmod(0o755)
    return directory


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_another_account_does_not_read_the_database_of_an_existing_directory(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert open_data_directory(directory) == directory
    assert _mode(directory) == 0o700
    assert {_mode(path) for path in directory.iterdir() if path.is_file()} == {0o600}
    assert "rotate the keys" in capsys.readouterr().err
    open_data_directory(directory)
    assert capsys.readouterr().err == ""


def test_an_empty_directory_is_closed(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    assert _mode(open_data_directory(tmp_path)) == 0o700


def test_a_directory_that_holds_something_else_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    tmp_path.chmod(0o755)
    with pytest.raises(SettingsError, match="is no data directory"):
        open_data_directory(tmp_path)
    assert _mode(tmp_path) == 0o755


def test_a_directory_that_other_accounts_can_write_to_is_refused(directory: Path) -> None:
    directory.chmod(0o777)
    with pytest.raises(SettingsError, match="other accounts could write to it"):
        open_data_directory(directory)


def test_a_link_as_data_directory_is_refused(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(directory)
    with pytest.raises(SettingsError, match="it is a link"):
        open_data_directory(tmp_path / "link")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(SettingsError, match="cannot be used"):
        open_data_directory(tmp_path / "dangling")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a link away")
def test_a_link_of_another_account_on_the_way_is_not_followed(directory: Path, tmp_path: Path) -> None:
    """Its owner could lead the processes elsewhere at any time after the check."""
    (tmp_path / "link").symlink_to(tmp_path)
    open_data_directory(tmp_path / "link" / directory.name)
    os.lchown(tmp_path / "link", 65534, 65534)
    with pytest.raises(SettingsError, match="is a link of another account"):
        open_data_directory(tmp_path / "link" / directory.name)


def test_a_directory_that_another_account_could_replace_is_refused(directory: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(SettingsError, match="another account can write to"):
        open_data_directory(directory)
    tmp_path.chmod(0o1777)  # sticky, as /tmp is
    open_data_directory(directory)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_account_is_refused(directory: Path) -> None:
    os.chown(directory, 65534, 65534)
    with pytest.raises(SettingsError, match="it belongs to another account"):
        open_data_directory(directory)


def test_every_process_creates_files_for_its_account_alone(tmp_path: Path) -> None:
    command = ["/bin/sh", "-c", 'umask 022 && exec "$@"', "sh", *LONGSHORE, "migrate"]
    data = tmp_path / "data"
    environment = {"PATH": os.environ["PATH"], "LONGSHORE_DATA_DIR": str(data)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert _mode(data / "longshore.db") == 0o600
    assert _mode(data) == 0o700
