import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from shared.file_lock import file_lock
from tests.unit.workers.runner.running import PROTOCOL, Runner, runner_python


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A source tree whose algorithm is `src/Hello.py`, still to be written."""
    (tmp_path / "source" / "src").mkdir(parents=True)
    return tmp_path / "source"


@pytest.fixture
def algorithm(source: Path) -> Callable[[str], Path]:
    """Writes `src/Hello.py`; it may use `serve` and `wait_at`."""

    def write(text: str) -> Path:
        (source / "src" / "protocol.py").write_text(PROTOCOL)
        script = source / "src" / "Hello.py"
        script.write_text("from .protocol import *\n" + text)
        return script

    return write


@pytest.fixture
def one_runner() -> Iterator[Path]:
    """One runner at a time, for the kit's named pipe has one path for the whole machine; gives a directory to use."""
    with (
        tempfile.TemporaryDirectory(prefix="runner-") as here,
        file_lock(Path(tempfile.gettempdir()) / "longshore-algoout"),
    ):
        yield Path(here)


@pytest.fixture
def start(source: Path, one_runner: Path) -> Iterator[Callable[..., Runner]]:
    """Starts the runner on the source; at the end it must still stop cleanly, if it is not over."""
    with ExitStack() as stack:

        def run(python: Path | str | None = None, **environment: str) -> Runner:
            runner = Runner(source, one_runner, python or runner_python(), environment)
            stack.callback(stop, runner)
            return runner

        def stop(runner: Runner) -> None:
            try:
                if runner.process.poll() is None:
                    assert runner.stop() == 0, runner.err
            finally:
                runner.process.kill()
                runner.process.wait()

        yield run
