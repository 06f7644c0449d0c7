"""Find the settings that builds need on this machine: base image, network, certificates, package index."""

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

_PULL_TIMEOUT_SECONDS = 20
"""Seconds until the engine must have begun a pull."""


def build_variables(docker_host: str) -> dict[str, str]:
    """Return the LONGSHORE_* variables with which builds work on this engine; those that are set already win.

    Raises:
        ServiceFailedError: there is no base image and none can be made.
    """
    variables = {"LONGSHORE_BASE_IMAGE": _base_image(docker_host)}
    if not _has_bridge(docker_host):
        say("this engine has no bridge network: builds and algorithms use the host's (LONGSHORE_BUILD_NETWORK=host)")
        variables |= {"LONGSHORE_BUILD_NETWORK": "host", "LONGSHORE_SERVING_NETWORK": "host"}
    if bundle := _certificates():
        variables["LONGSHORE_BUILD_CA_BUNDLE"] = bundle
    if index := _package_index():
        say("builds use the package index of this machine's pip")
        variables["LONGSHORE_BUILD_INDEX_URL"] = index
    return {**variables, **{name: os.environ[name] for name in variables if os.environ.get(name)}}


def _base_image(docker_host: str) -> str:
    if os.environ.get("LONGSHORE_BASE_IMAGE"):
        return ensure_python_base(docker_host)
    default = str(Settings.model_fields["base_image"].default)
    with closing(docker.DockerClient(base_url=docker_host, timeout=_PULL_TIMEOUT_SECONDS)) as client:
        if client.images.list(name=DEFAULT_NAME):
            return DEFAULT_NAME
        if client.images.list(name=default) or _can_pull(client, default):
            return default
    say(f"{default} cannot be pulled here")
    return ensure_python_base(docker_host)


def _can_pull(client: docker.DockerClient, name: str) -> bool:
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
    """Return the bundle that this machine trusts, for builds too: it may have a company's own authority."""
    configured = [os.environ.get(name, "") for name in ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")]
    system = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"]
    candidates = [*configured, *system, ssl.get_default_verify_paths().cafile or ""]
    return next((path for path in candidates if path and Path(path).is_file()), None)


def _package_index() -> str | None:
    """Return the index that pip is configured to use on this machine; None for its default."""
    result = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.index-url"], capture_output=True, text=True, check=False
    )
    return os.environ.get("PIP_INDEX_URL") or result.stdout.strip() or None
