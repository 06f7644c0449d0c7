"""Errors as callers read them."""

from api.schemas.base import ResponseModel


class ErrorDetail(ResponseModel):
    """What went wrong, and what to do."""

    id: str
    code: int
    message: str


class ErrorResponse(ResponseModel):
    """The body of every answer that is no success."""

    error: ErrorDetail
