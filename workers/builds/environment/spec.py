"""What an environment is made from, and when two are one."""

import hashlib
import json
from dataclasses import dataclass

from workers.builds.base_image import BaseImage
from workers.builds.environment.requirements import Requirements
from workers.builds.limits import BuildLimits
from workers.builds.log import without_credentials

BUILDER_VERSION = 2
"""Raised whenever environments are made in another way, so that no old one is taken for a new one."""


@dataclass(frozen=True)
class EnvironmentSpec:
    """What an environment is made from. `index_url` may hold credentials; they are in no key, log or image."""

    base_image: str
    requirements: Requirements
    owner: str
    kit_requirement: str
    index_url: str | None
    ca_bundle: bytes | None
    network: str
    limits: BuildLimits
    commit: str = ""
    """The commit that it is made for first; it takes no part in the keys."""
    refresh: bool = False
    """Resolve the requirements again, even where that was done before."""
    made_with: str | None = None
    """The key of the environment that the same image had before, to be made again as it was."""


def requirements_key(spec: EnvironmentSpec, base: BaseImage) -> str | None:
    """The hexadecimal SHA-256 of all that decides what is resolved; None where the source itself takes part.

    Unless every requirement is pinned by hash the owner takes part: what one owner's build found on the index then
    is no other owner's business.
    """
    if not spec.requirements.shareable:
        return None
    return _digest({**_common(spec, base), "asked": _asked(spec)})


def environment_key(spec: EnvironmentSpec, base: BaseImage, lock: str) -> str:
    """The hexadecimal SHA-256 of what is installed, and on what: however differently it was asked for.

    A lock with a line that has no hash does not say what was installed: then what was asked for takes part as well.
    """
    is_whole = all(" --hash=" in line for line in lock.splitlines())
    return _digest({**_common(spec, base), "lock": lock, "asked": None if is_whole else _asked(spec)})


def _common(spec: EnvironmentSpec, base: BaseImage) -> dict[str, object]:
    return {
        "builder": BUILDER_VERSION,
        "base": base.image_id,
        "platform": base.image.platform,
        "owner": None if spec.requirements.pinned_by_hash else spec.owner,
    }


def _asked(spec: EnvironmentSpec) -> dict[str, object]:
    return {
        "requirements": spec.requirements.fingerprint(),
        "kit": spec.kit_requirement,
        "index": without_credentials(spec.index_url) if spec.index_url else None,
    }


def _digest(parts: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
