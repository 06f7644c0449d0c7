"""The demo's directory: one demo at a time; only the logs of a failure are left behind."""

import os
import stat
from pathlib import Path

import pytest

from dev.demo.workdir import locked_workdir, running_demo
from dev.services.processes import ServiceFailedError


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "demo"


def test_a_second_demo_is_refused_and_the_first_is_known(directory: Path) -> None:
    with locked_workdir(directory):
        assert running_demo(directory) == os.getpid()
        with pytest.raises(ServiceFailedError), locked_workdir(directory):
            pass
        assert running_demo(directory) == os.getpid()
    assert running_demo(directory) is None


def test_nothing_is_left(directory: Path) -> None:
    with locked_workdir(directory) as workdir:
        (workdir.directory / "registry").mkdir()
        (workdir.directory / "registry" / "registry.log").touch()
        workdir.write_variables({"KEY": "it's"})
    assert not directory.exists()


def fail_in(directory: Path) -> None:
    with locked_workdir(directory) as workdir:
        (workdir.directory / "registry").mkdir()
        (workdir.directory / "registry" / "registry.log").touch()
        (workdir.directory / "longshore.log").touch()
        workdir.write_variables({"KEY": "s3cret"})
        raise RuntimeError


def test_a_failure_leaves_the_logs_and_nothing_else(directory: Path) -> None:
    with pytest.raises(RuntimeError):
        fail_in(directory)
    assert sorted(path.name for path in directory.iterdir()) == ["longshore.log", "registry.log"]


def test_what_a_crash_left_is_gone_at_the_next_start(directory: Path) -> None:
    (directory / "longshore").mkdir(parents=True)
    (directory / "env").touch()
    with locked_workdir(directory) as workdir:
        assert [path.name for path in workdir.directory.iterdir()] == ["lock"]


def test_variables_are_for_the_owner_and_a_shell(directory: Path) -> None:
    with locked_workdir(directory) as workdir:
        workdir.write_variables({"KEY": "it's"})
        assert stat.S_IMODE(workdir.variables_file.stat().st_mode) == 0o600
        assert workdir.variables_file.read_text() == "export KEY='it'\"'\"'s'\n"
