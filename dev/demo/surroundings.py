"""What this machine needs so that builds work on it: a base image, a network, certificates, a package index."""

import os
import ssl
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import docker
import requests
from docker.errors import DockerException

from dev.services.base_image import DEFAULT_NAME, ensure_python_base
from dev.services.processes import say
from shared.settings import Settings

_PULL_SECONDS = 20
"""How long the engine may take to say that it can pull at all."""


def environment_of_builds(docker_host: str) -> dict[str, str]:
    """The LONGSHORE_* variables with which builds work on this engine, saying what was found.

    Those that the user has set already stay as they are.

    Raises:
        PartFailedError: there is no base image and none can be made.
    """
    found = {"LONGSHORE_BASE_IMAGE": _base_image(docker_host)}
    if not _has_bridge(docker_host):
        say("this engine has no bridge network: builds use the host's (LONGSHORE_BUILD_NETWORK=host)")
        found["LONGSHORE_BUILD_NETWORK"] = "host"
    if bundle := _certificates():
        found["LONGSHORE_BUILD_CA_BUNDLE"] = bundle
    if index := _package_index():
        say("builds use the package index of this machine's pip")
        found["LONGSHORE_BUILD_INDEX_URL"] = index
    return {**found, **{name: os.environ[name] for name in found if os.environ.get(name)}}


def _base_image(docker_host: str) -> str:
    if os.environ.get("LONGSHORE_BASE_IMAGE"):
        return ensure_python_base(docker_host)
    usual = str(Settings.model_fields["base_image"].default)
    with closing(docker.DockerClient(base_url=docker_host, timeout=_PULL_SECONDS)) as client:
        if client.images.list(name=DEFAULT_NAME):
            return DEFAULT_NAME
        if client.images.list(name=usual) or _pulled(client, usual):
            return usual
    say(f"{usual} cannot be pulled here")
    return ensure_python_base(docker_host)


def _pulled(client: docker.DockerClient, name: str) -> bool:
    repository, _, tag = name.rpartition(":")
    try:
        messages = list(client.api.pull(repository, tag=tag, stream=True, decode=True))
    except (DockerException, requests.RequestException):
        return False
    return not any("error" in message for message in messages)


def _has_bridge(docker_host: str) -> bool:
    with closing(docker.DockerClient(base_url=docker_host, timeout=30)) as client:
        return any(network.name == "bridge" for network in client.networks.list())


def _certificates() -> str | None:
    """The bundle that this machine trusts. Builds trust it too: it may hold a company's own authority."""
    named = [os.environ.get(name, "") for name in ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")]
    usual = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"]
    candidates = [*named, *usual, ssl.get_default_verify_paths().cafile or ""]
    return next((path for path in candidates if path and Path(path).is_file()), None)


def _package_index() -> str | None:
    """What pip on this machine is told to install from, by its settings or variables; None for its usual place."""
    asked = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.index-url"], capture_output=True, text=True, check=False
    )
    return os.environ.get("PIP_INDEX_URL") or asked.stdout.strip() or None
