"""`output=raw`: the result alone, as what it is."""

import base64
import json

from api.calling.call import read_object
from api.calling.exchange import RUNNER_FAILED, RunnerResponse, stand_in

JSON = "application/json"
TEXT = "text/plain"
BINARY = "application/octet-stream"


def raw_result(answered: RunnerResponse) -> tuple[bytes, str]:
    """The bare result and its content type; an error stays the JSON that it is."""
    said = read_object(answered.body)
    if "error" in said:
        return answered.body, JSON
    if "result" not in said:
        return stand_in(RUNNER_FAILED).body, JSON
    metadata = said.get("metadata")
    return _bare(said["result"], metadata.get("content_type") if isinstance(metadata, dict) else None)


def _bare(result: object, kind: object) -> tuple[bytes, str]:
    if kind == "void":
        return b"", TEXT
    if kind == "text" and isinstance(result, str):
        return result.encode("utf-8", "replace"), TEXT
    if kind != "binary" or not isinstance(result, str):
        return json.dumps(result).encode(), JSON
    try:
        return base64.b64decode(result, validate=True), BINARY
    except ValueError:
        return stand_in("The algorithm's result says that it is binary, but is no base64.").body, JSON
