"""Specify an environment, and compute the keys by which equal environments are found."""

import hashlib
import json
from dataclasses import dataclass

from workers.builds.base_image import BaseImage
from workers.builds.context import BuildLimits, without_credentials
from workers.builds.environment.requirements import Requirements

BUILDER_VERSION = 2
"""To be raised when environments are made in another way, so that old ones are not reused."""


@dataclass(frozen=True, kw_only=True)
class BuildSettings:
    """The owner, commit, settings and limits of one build.

    `index_url` may have credentials; they are in no key, log or image. `ca_bundle` is PEM. `refresh` resolves the
    requirements again, even if the store has an environment for them. `made_with` is the key of the environment that an
    earlier image of the commit had, to be reused.
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


@dataclass(frozen=True, kw_only=True)
class EnvironmentSpec(BuildSettings):
    """The inputs of an environment. The commit, of the build that makes it, is not part of the keys."""

    requirements: Requirements


def requirements_key(spec: EnvironmentSpec, base: BaseImage) -> str | None:
    """Return the hexadecimal SHA-256 of all inputs of resolving; None if the source itself is one of them.

    Unless every requirement is pinned by hash, the owner is one of them: an owner's environment must not depend on
    what the index returned to another owner's build.
    """
    if not spec.requirements.shareable:
        return None
    return _digest({**_common(spec, base), "asked": _requested(spec)})


def environment_key(spec: EnvironmentSpec, base: BaseImage, lock: str) -> str:
    """Return the hexadecimal SHA-256 of what is installed and of its base, whichever requirements led to it.

    A line without a hash does not identify what was installed: the requirements are then part of the key too.
    """
    return _digest(
        {
            **_common(spec, base),
            "lock": lock,
            "asked": None if all(" --hash=" in line for line in lock.splitlines()) else _requested(spec),
        }
    )


def _common(spec: EnvironmentSpec, base: BaseImage) -> dict[str, object]:
    return {
        "builder": BUILDER_VERSION,
        "base": base.image_id,
        "platform": base.image.platform,
        "owner": None if spec.requirements.pinned_by_hash else spec.owner,
    }


def _requested(spec: EnvironmentSpec) -> dict[str, object]:
    return {
        "requirements": spec.requirements.fingerprint(),
        "kit": spec.kit_requirement,
        "index": without_credentials(spec.index_url) if spec.index_url else None,
    }


def _digest(inputs: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
