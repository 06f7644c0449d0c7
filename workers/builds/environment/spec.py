"""Specify an environment, and compute the keys by which equal environments are found."""

import hashlib
import json
from dataclasses import dataclass, field

from shared.net.address_rules import AllowedNetworks, index_networks
from workers.builds.base_image import BaseImage
from workers.builds.context import BuildLimits, without_credentials
from workers.builds.environment.requirements import Requirements

BUILDER_VERSION = 3
"""To be raised when environments are made in another way, so that old ones are not reused."""


@dataclass(frozen=True, kw_only=True)
class BuildSettings:
    """The owner, commit, settings and limits of one build.

    `index_url` may have credentials; they are in no key, log, container or image. `index_networks` are the networks of
    files that the index links to on other hosts. `ca_bundle` is PEM. `refresh` resolves the requirements again, even if
    the store has an environment for them. `made_with` is the key of the environment that an earlier image of the commit
    had, to be reused.
    """

    base_image: str
    owner: str
    kit_requirement: str
    index_url: str | None
    ca_bundle: bytes | None
    network: str
    limits: BuildLimits
    commit: str = ""
    refresh: bool = False
    made_with: str | None = None
    index_networks: AllowedNetworks = field(default_factory=index_networks)


@dataclass(frozen=True, kw_only=True)
class EnvironmentSpec(BuildSettings):
    """The inputs of an environment. The commit, of the build that makes it, is not part of the keys."""

    requirements: Requirements

    @property
    def owner_of_key(self) -> str | None:
        """The only owner who may use the environment; None if all owners may.

        pip runs code of what it installs (`setup.py`, plug-ins of builds, `.pth` files of wheels), and a hash says
        which code, not whose. So owners share only what is installed without any requirements file: then nothing in the
        container is a caller's.
        """
        return self.owner if self.requirements.files else None


def requirements_key(spec: EnvironmentSpec, base: BaseImage) -> str | None:
    """Return the hexadecimal SHA-256 of all inputs of resolving; None if the source itself is one of them."""
    if not spec.requirements.shareable:
        return None
    return _digest({**_common(spec, base), "asked": _requested(spec)})


def environment_key(spec: EnvironmentSpec, base: BaseImage, lock: str) -> str:
    """Return the hexadecimal SHA-256 of what an owner has installed and of its base, whichever requirements led to it.

    A line without a hash does not identify what was installed: the requirements are then part of the key too.
    """
    return _digest(
        {
            **_common(spec, base),
            "lock": lock,
            "asked": None if all(" --hash=" in line for line in lock.splitlines()) else _requested(spec),
        }
    )


def shared_environment_key(spec: EnvironmentSpec, base: BaseImage, diff_id: str) -> str:
    """Return the key of an environment for all owners, from its inputs and its layer.

    The lock is no part of it, because it was printed inside a container.
    """
    return _digest({**_common(spec, base), "layer": diff_id, "asked": _requested(spec)})


def _common(spec: EnvironmentSpec, base: BaseImage) -> dict[str, object]:
    return {
        "builder": BUILDER_VERSION,
        "base": base.image_id,
        "platform": base.image.platform,
        "owner": spec.owner_of_key,
    }


def _requested(spec: EnvironmentSpec) -> dict[str, object]:
    return {
        "requirements": spec.requirements.fingerprint(),
        "kit": spec.kit_requirement,
        "index": without_credentials(spec.index_url) if spec.index_url else None,
    }


def _digest(inputs: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
