"""The environments that algorithms can be built in: a name, a stable id, and a base image each."""

import re
import uuid
from dataclasses import dataclass
from typing import Any

from shared.errors import InvalidInputError, NotFoundError
from shared.settings import settings
from shared.settings.builds import DEFAULT_ENVIRONMENT, DEFAULT_ENVIRONMENT_ALIAS

SETTINGS_FIELDS = ("algorithm_environment", "package_set", "language")
"""The fields of an algorithm's settings that name its environment; the first one that is given counts."""
LANGUAGES = (DEFAULT_ENVIRONMENT, DEFAULT_ENVIRONMENT_ALIAS)
"""The languages of the platform that Longshore builds. Each has all environments."""
_NAMESPACE = uuid.UUID("b2f4a6d0-6c1e-4f0e-9b57-3d1c8a5e7f21")
"""Never to be changed: algorithms and scripts keep ids that follow from it."""
_PYTHON = re.compile(r"python(\d)\.?(\d{1,2})")


class UnknownEnvironmentError(InvalidInputError):
    """Raised for the name of an environment that is not configured. The message lists those that are."""


@dataclass(frozen=True)
class Environment:
    """An environment. Its ids follow from its name, so they are the same in every installation and after a restart."""

    name: str
    base_image: str

    @property
    def id(self) -> str:
        return str(uuid.uuid5(_NAMESPACE, f"environment/{self.name}"))

    @property
    def specification_id(self) -> str:
        return str(uuid.uuid5(_NAMESPACE, f"specification/{self.name}"))

    @property
    def display_name(self) -> str:
        version = _PYTHON.fullmatch(self.name)
        if version is not None:
            return f"Python {version[1]}.{version[2]}"
        return "Python 3.x" if self.name in LANGUAGES else self.name


def environments() -> list[Environment]:
    """Return the environments of this installation, the default first. An alias of another one is not among them."""
    default = settings().base_images[DEFAULT_ENVIRONMENT]
    return [one for one in _all() if one.name != DEFAULT_ENVIRONMENT_ALIAS or one.base_image != default]


def find_environment(name: str) -> Environment:
    """Return the environment with this name or id.

    Raises:
        UnknownEnvironmentError: there is none.
    """
    known = _all()
    found = next((one for one in known if name == one.name or name.lower() == one.id), None)
    if found is None:
        names = ", ".join(one.name for one in known)
        raise UnknownEnvironmentError(f"{name[:100]!r} is not configured here; there are {names}.")
    return found


def find_specification(name: str) -> Environment:
    """Return the environment with this id of its specification, or with this name or id.

    Raises:
        NotFoundError: there is none.
    """
    try:
        return next((one for one in _all() if one.specification_id == name.lower()), None) or find_environment(name)
    except UnknownEnvironmentError as error:
        raise NotFoundError(f"No environment has this specification: {error.message}") from None


def language_names() -> list[str]:
    """Return the values of `settings.language`: the languages, then each environment."""
    return list(dict.fromkeys((*LANGUAGES, *(one.name for one in _all()))))


def chosen_environment(algorithm_settings: dict[str, Any]) -> Environment:
    """Return the environment of an algorithm with these settings.

    Raises:
        UnknownEnvironmentError: it is not configured (any more).
    """
    for field in SETTINGS_FIELDS:
        if name := algorithm_settings.get(field):
            try:
                return find_environment(str(name))
            except UnknownEnvironmentError as error:
                raise UnknownEnvironmentError(f"settings.{field}: {error.message}") from None
    return find_environment(DEFAULT_ENVIRONMENT)


def accepted_names() -> list[str]:
    """Return what settings of algorithms can name environments by: names and ids, and an empty text for none."""
    return ["", *sorted(text for environment in _all() for text in (environment.name, environment.id))]


def _all() -> list[Environment]:
    return [Environment(name, image) for name, image in settings().base_images.items()]
