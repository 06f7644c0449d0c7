"""The address under which callers know this installation."""

from flask import request

from shared.settings import settings


def public_url() -> str:
    """Where links lead: the setting, else what the request was sent to."""
    return settings().public_url.rstrip("/") or request.host_url.rstrip("/")
