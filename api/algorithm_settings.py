"""The settings of an algorithm: their defaults, and what a request changes."""

from typing import Any

from api.errors import ApiError, Code
from api.schemas.algorithms import SettingsRequest
from shared.environments import SETTINGS_FIELDS, UnknownEnvironmentError, chosen_environment
from shared.errors import InvalidInputError

DEFAULT_SETTINGS: dict[str, Any] = {
    "algorithm_callability": "private",
    "source_visibility": "closed",
    "language": "python3",
    "environment": "cpu",
    "license": "apl",
    "network_access": "full",
    "pipeline_enabled": True,
    "royalty_microcredits": 0,
}
OF_BUILDS = (*SETTINGS_FIELDS, "environment")
"""The settings that a build uses, so that a publish, which comes after it, cannot change them."""


def merge_settings(present: dict[str, Any], change: SettingsRequest) -> dict[str, Any]:
    """Return the settings after a change. An empty text removes an environment, which has three field names.

    Raises:
        ApiError: the environment is not configured.
    """
    changed = change.model_dump(exclude_none=True)
    try:
        for field in SETTINGS_FIELDS:
            chosen_environment({field: changed.get(field)})
    except UnknownEnvironmentError as error:
        raise ApiError(400, Code.UNKNOWN_LANGUAGE, error.message) from None
    merged = {**present, **changed}
    return {**DEFAULT_SETTINGS, **{field: value for field, value in merged.items() if value != ""}}


def merge_published_settings(present: dict[str, Any], change: SettingsRequest) -> dict[str, Any]:
    """Return the settings after a publish, whose callability is the version's and not the algorithm's.

    Raises:
        ApiError: the environment is not configured.
        InvalidInputError: it is another one than the algorithm's.
    """
    merged = merge_settings(present, change.model_copy(update={"algorithm_callability": None}))
    for field in OF_BUILDS:
        if merged.get(field) != present.get(field):
            raise InvalidInputError(
                f"settings.{field}: a publish cannot change it, because the image is built already. Update the "
                "algorithm (PUT), compile, then publish."
            )
    return merged
