"""The command, run in this process on a data directory of the test's own."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.main import group
from tests.environment import longshore_environment
from tests.logs import restored_logs

Longshore = Callable[..., Result]


@pytest.fixture
def longshore(tmp_path: Path) -> Iterator[Longshore]:
    """Runs `longshore ARGUMENTS`; its data directory is `tmp_path`, its database not yet made."""
    with restored_logs(), longshore_environment(tmp_path, tables=False):
        yield lambda *arguments, **options: CliRunner().invoke(group, arguments, prog_name="longshore", **options)
