"""The peers of a transfer: the same bytes brought to a registry by docker, skopeo and crane, where they are installed."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

from benchmarks.transfers.installation import Algorithm, Installation
from parts.registry import PrivateRegistry


def timed(*command: str, environment: dict[str, str] | None = None, directory: Path | None = None) -> float:
    """Run a program to its good end; seconds."""
    begin = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, cwd=directory, env={**os.environ, **(environment or {})})
    return time.perf_counter() - begin


def login(installation: Installation, registry: PrivateRegistry) -> dict[str, str]:
    """Variables under which docker and crane find the registry's password, and the engine."""
    import base64

    ((name, password),) = registry.users.items()
    directory = installation.directory / f"docker-config-{registry.host.replace(':', '-')}"
    directory.mkdir(exist_ok=True)
    auth = base64.b64encode(f"{name}:{password}".encode()).decode()
    (directory / "config.json").write_text(json.dumps({"auths": {registry.host: {"auth": auth}}}))
    return {"DOCKER_CONFIG": str(directory), "DOCKER_HOST": installation.docker_host, "DOCKER_BUILDKIT": "0"}


def credentials(registry: PrivateRegistry) -> str:
    """As skopeo takes them."""
    ((name, password),) = registry.users.items()
    return f"{name}:{password}"


def docker_build_and_push(installation: Installation, algorithm: Algorithm, registry: PrivateRegistry) -> float:
    """`docker build` and `docker push` of a Dockerfile that installs the same and copies the same."""
    context = installation.directory / "context"
    shutil.rmtree(context, ignore_errors=True)
    shutil.copytree(algorithm.tree, context, ignore=shutil.ignore_patterns(".git"))
    index = installation.build_variables.get("LONGSHORE_BUILD_INDEX_URL")
    (context / "Dockerfile").write_text(
        f"FROM {installation.base_image}\n"
        "COPY requirements.txt /tmp/requirements.txt\n"
        "RUN python3 -m venv /opt/env && /opt/env/bin/pip install --no-cache-dir"
        f"{f' --index-url {index}' if index else ''} -r /tmp/requirements.txt 'algorithmia>=2,<3'\n"
        "COPY src /opt/algorithm/src\n"
        'ENTRYPOINT ["/opt/env/bin/python"]\n'
    )
    image = f"{registry.host}/peer/build:{time.time_ns()}"
    environment = login(installation, registry)
    network = installation.build_variables.get("LONGSHORE_BUILD_NETWORK", "default")
    built = timed("docker", "build", "--no-cache", "--network", network, "-t", image, str(context),
                  environment=environment)  # fmt: skip
    return built + timed("docker", "push", image, environment=environment)
