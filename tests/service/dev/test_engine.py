"""A private engine runs containers and leaves nothing behind; the base image can create a virtual environment."""

import os
import signal
from contextlib import closing
from pathlib import Path

import docker
import pytest

from dev.services.base_image import ensure_python_base
from dev.services.engine import engine_answers, engine_processes, private_engine, running_engine
from dev.services.mounts import mounts_below
from dev.services.processes import ServiceFailedError
from dev.services.workdir import services_directory
from tests.processes import has_ended
from tests.service.dev.helpers import eventually, processes_naming

pytestmark = pytest.mark.engine


def test_the_base_image_makes_a_virtual_environment_with_pip(docker_host: str, base_image: str) -> None:
    with closing(docker.DockerClient(base_url=docker_host)) as client:
        said = client.containers.run(
            base_image, ["sh", "-c", "python3 -m venv /v && /v/bin/pip --version"], network_mode="none", remove=True
        )
    assert said.startswith(b"pip ")


def test_an_engine_that_does_not_respond_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody")
    with pytest.raises(ServiceFailedError, match="does not respond"):
        running_engine()


@pytest.mark.parametrize("crashes", [False, True])
@pytest.mark.usefixtures("base_image")
def test_a_private_engine_takes_its_containers_along(docker_host: str, crashes: bool) -> None:
    with services_directory() as directory:
        with private_engine(directory / "engine") as address:
            assert address != docker_host
            with closing(docker.DockerClient(base_url=address)) as client:
                name = ensure_python_base(address)
                container = client.containers.run(name, ["sleep", "600"], network_mode="none", detach=True)
                container.reload()
                sleeper = container.attrs["State"]["Pid"]
            run = Path(address.removeprefix("unix://")).parent
            assert len(engine_processes(run)) >= 3, "the engine, its containerd, a shim"
            assert not has_ended(sleeper)
            assert mounts_below(directory)
            if crashes:
                os.kill(int((run / "pid").read_text()), signal.SIGKILL)
        assert eventually(lambda: has_ended(sleeper))
        assert eventually(lambda: engine_processes(run) == [])
        assert not engine_answers(address)
        assert mounts_below(directory) == mounts_below(run) == []
        assert not run.exists()
    assert not directory.exists()
    assert eventually(lambda: processes_naming(str(run)) == [])
