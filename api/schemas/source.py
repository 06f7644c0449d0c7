"""Response bodies about the repository of an algorithm and its webhook."""

from typing import Literal

from api.schemas.base import ResponseModel

ConnectionStatus = Literal["active", "deploy_key_error", "provider_internal_error"]


class ScmStatusResponse(ResponseModel):
    """Whether an algorithm's repository can be read, and what its server needs to know.

    `repository_webhook_secret` is there only in the response that makes it. `message` says what is wrong.
    """

    omitted_if_null = frozenset(
        {"repository_public_deploy_key", "repository_webhook_secret", "repository_webhook_url", "message"}
    )

    scm_connection_status: ConnectionStatus
    repository_public_deploy_key: str | None = None
    repository_webhook_secret: str | None = None
    repository_webhook_url: str | None = None
    message: str | None = None


class WebhookSecretResponse(ResponseModel):
    """The address and the new secret of an algorithm's webhook. No other response contains this secret."""

    repository_webhook_url: str
    repository_webhook_secret: str


class IgnoredWebhookResponse(ResponseModel):
    """Why a webhook starts nothing."""

    reason: str
