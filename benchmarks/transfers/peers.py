"""The tools to compare with: docker and skopeo, and crane if it is installed."""

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.transfers.installation import Algorithm, Installation
from dev.services.registry import PrivateRegistry


def timed(command: Sequence[str], environment: Mapping[str, str] | None = None) -> float:
    """Return the seconds of a program, which must succeed."""
    begin = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **(environment or {})})
    return time.perf_counter() - begin


def timed_together(commands: Sequence[Sequence[str]]) -> float:
    """Return the seconds of these programs, which run at the same time and must succeed."""
    begin = time.perf_counter()
    running = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for command in commands]
    if any(process.wait() != 0 for process in running):
        raise RuntimeError("a peer failed")
    return time.perf_counter() - begin


def docker_environment(installation: Installation, *registries: PrivateRegistry) -> dict[str, str]:
    """Return the variables with which docker and crane find the engine and the registries' passwords."""
    directory = installation.directory / "docker-config"
    directory.mkdir(exist_ok=True)
    auths = {
        registry.host: {"auth": base64.b64encode(credentials(registry).encode()).decode()} for registry in registries
    }
    (directory / "config.json").write_text(json.dumps({"auths": auths}))
    return {"DOCKER_CONFIG": str(directory), "DOCKER_HOST": installation.docker_host, "DOCKER_BUILDKIT": "0"}


def credentials(registry: PrivateRegistry) -> str:
    """Return USER:PASSWORD, for skopeo."""
    ((name, password),) = registry.users.items()
    return f"{name}:{password}"


def docker_build_and_push(installation: Installation, algorithm: Algorithm, registry: PrivateRegistry) -> float:
    """Time `docker build` and `docker push` of a Dockerfile that installs the same and copies the same."""
    context = installation.directory / "context"
    shutil.rmtree(context, ignore_errors=True)
    shutil.copytree(algorithm.tree, context, ignore=shutil.ignore_patterns(".git"))
    index = installation.build_variables.get("LONGSHORE_BUILD_INDEX_URL")
    bundle = installation.build_variables.get("LONGSHORE_BUILD_CA_BUNDLE")
    if bundle:
        shutil.copy(bundle, context / "ca.pem")
    (context / "Dockerfile").write_text(
        f"FROM {installation.base_image}\n"
        "COPY requirements.txt /tmp/requirements.txt\n"
        + ("COPY ca.pem /tmp/ca.pem\nENV PIP_CERT=/tmp/ca.pem\n" if bundle else "")
        + "RUN python3 -m venv /opt/env && /opt/env/bin/pip install --no-cache-dir"
        f"{f' --index-url {index}' if index else ''} -r /tmp/requirements.txt 'algorithmia>=2,<3'\n"
        "COPY src /opt/algorithm/src\n"
        'ENTRYPOINT ["/opt/env/bin/python"]\n'
    )
    image = f"{registry.host}/peer/build:{time.time_ns()}"
    environment = docker_environment(installation, registry)
    network = installation.build_variables.get("LONGSHORE_BUILD_NETWORK", "default")
    build = ["docker", "build", "--no-cache", "--network", network, "--tag", image, str(context)]
    return timed(build, environment) + timed(["docker", "push", image], environment)


def docker_push(installation: Installation, image: str, source: PrivateRegistry, target: PrivateRegistry) -> float:
    """Time `docker push` of an image that the engine has, to an empty registry."""
    environment = docker_environment(installation, source, target)
    name = f"{target.host}/peer/push:1"
    timed(["docker", "pull", image], environment)
    timed(["docker", "tag", image, name], environment)
    return timed(["docker", "push", name], environment)


def registry_copy(installation: Installation, image: str, source: PrivateRegistry, target: PrivateRegistry) -> float:
    """Time `crane copy` from registry to registry, or `skopeo copy` if crane is not installed."""
    name = f"{target.host}/peer/copy:1"
    if copy_tool() == "crane":
        environment = docker_environment(installation, source, target)
        return timed(["crane", "copy", "--insecure", image, name], environment)
    return timed(
        [
            "skopeo", "copy", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false",
            "--src-creds", credentials(source), "--dest-creds", credentials(target),
            f"docker://{image}", f"docker://{name}",
        ]
    )  # fmt: skip


def copy_tool() -> str:
    """Return the tool that copies between registries."""
    return "crane" if shutil.which("crane") else "skopeo"


def layer_sizes(image: str, registry: PrivateRegistry) -> list[int]:
    """Return the size of each layer of an image in bytes, the lowest first, from the registry's manifest."""
    shown = subprocess.run(
        ["skopeo", "inspect", "--raw", "--tls-verify=false", "--creds", credentials(registry), f"docker://{image}"],
        check=True,
        capture_output=True,
    )
    return [layer["size"] for layer in json.loads(shown.stdout)["layers"]]


def layout_of(installation: Installation, image: str, source: PrivateRegistry) -> Path:
    """Copy the image to an OCI layout, for `skopeo copy` from it."""
    layout = installation.directory / "layout"
    shutil.rmtree(layout, ignore_errors=True)
    timed(
        [
            "skopeo", "copy", "--quiet", "--src-tls-verify=false", "--src-creds", credentials(source),
            f"docker://{image}", f"oci:{layout}:1",
        ]
    )  # fmt: skip
    return layout


def layout_copies(layout: Path, targets: Sequence[PrivateRegistry]) -> float:
    """Time one `skopeo copy` from a layout to each registry, all at the same time."""
    return timed_together(
        [
            [
                "skopeo", "copy", "--quiet", "--dest-tls-verify=false", "--dest-creds", credentials(target),
                f"oci:{layout}:1", f"docker://{target.host}/peer/five:1",
            ]
            for target in targets
        ]
    )  # fmt: skip
