"""Errors as callers read them."""

from api.schemas.base import Shown


class ErrorBody(Shown):
    """What went wrong, and what to do."""

    id: str
    code: int
    message: str


class ErrorShown(Shown):
    """The body of every answer that is no success."""

    error: ErrorBody
