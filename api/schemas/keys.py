"""Request and response bodies of API keys."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, WithJsonSchema, model_validator
from pydantic.json_schema import JsonSchemaValue

from api.schemas.base import ABSENT, EMPTY_OBJECT, RequestModel, ResponseModel, Storable, Text, Timestamp, Uuid
from api.schemas.patterns import LISTED_ALGORITHM
from shared.db.models import ApiKey, KeyKind
from shared.keys import check_carried_over

ListedAlgorithm = Annotated[
    Text, StringConstraints(max_length=200), Field(json_schema_extra={"pattern": LISTED_ALGORITHM})
]
UNRESTRICTED: JsonSchemaValue = {
    "type": "object",
    "properties": {
        "allow_algo": {"anyOf": [{"const": True}, EMPTY_OBJECT]},
        "allow_algo_management": {"anyOf": [{"const": True}, EMPTY_OBJECT]},
        "algo_acl": {"anyOf": [{"type": "array", "contains": {"enum": ["*", "algo://*"]}}, EMPTY_OBJECT]},
    },
}


class PermissionsRequest(RequestModel):
    """The permissions of a key. A permission that cannot be enforced is rejected."""

    model_config = ConfigDict(extra="forbid", strict=True)

    allow_algo: bool = True
    allow_algo_management: bool = True
    algo_acl: list[ListedAlgorithm] = ["algo://*"]
    allow_data: bool = False
    allow_data_write: bool = False
    allow_web_algo: bool = False
    referer_host: Annotated[Storable, WithJsonSchema({"type": "string", "maxLength": 0})] | None = None


class KeyRequest(RequestModel):
    """A key to create, or with `api_key` an existing key of the platform to record (administrators)."""

    further_properties = frozenset({"api_key"})
    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"properties": {"key_type": {"const": "AlgorithmKey"}}},
                {"properties": {"permissions": {"anyOf": [*ABSENT["anyOf"], UNRESTRICTED]}}},
            ]
        }
    )

    key_label: Annotated[Text, StringConstraints(max_length=100)] = ""
    key_type: Literal["PlatformAdminKey", "ManagementKey", "AlgorithmKey"]
    permissions: PermissionsRequest | None = None
    api_key: Annotated[str, AfterValidator(check_carried_over)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _default_type_of_existing_key(cls, data: Any) -> Any:
        """Let an existing key be given alone."""
        if isinstance(data, dict) and data.get("api_key") and not data.get("key_type"):
            return {**data, "key_type": KeyKind.ALGORITHM.value}
        return data


class KeyResponse(ResponseModel):
    """A key. `api_key` is the secret in the response that created it, and the mask in all others."""

    id: Uuid
    username: str
    owner_name: str
    key_label: str
    key_type: KeyKind
    created_at: Timestamp
    api_key: str
    api_key_mask: str
    permissions: dict[str, Any]


def present_key(key: ApiKey, secret: str | None = None) -> KeyResponse:
    return KeyResponse(
        id=key.id,
        username=key.owner,
        owner_name=key.owner,
        key_label=key.label,
        key_type=key.kind,
        created_at=key.created_at,
        api_key=secret or key.mask,
        api_key_mask=key.mask,
        permissions={
            **PermissionsRequest().model_dump(exclude={"algo_acl"}),
            **(key.permissions or {}),
            "algo_acl": [f"algo://{name}" for name in (key.permissions or {}).get("algo_acl", ["*"])],
        },
    )
