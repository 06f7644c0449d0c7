"""Calls of the v1 interface under a key, and the shape that every error has."""

import json
from typing import Any

from flask import Flask
from werkzeug.test import TestResponse

from tests.git_service import make_key

ELSEWHERE = {"repository_https_url": "https://localhost:1/team/hello.git"}
"""A repository where nobody answers."""


class Api:
    """The interface as one caller sees it."""

    def __init__(self, app: Flask, key: str | None) -> None:
        self.app = app
        self.key = key

    def call(self, method: str, path: str, body: object = None, **headers: str) -> TestResponse:
        """One request; a body that is no bytes is sent as JSON. No answer is ever a failure of ours."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.key is not None:
            given.setdefault("Authorization", f"Simple {self.key}")
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None:
            given.setdefault("Content-Type", "application/json")
        answer = self.app.test_client().open(path, method=method, data=body, headers=given)
        assert answer.status_code not in (422, 500), answer.get_data(as_text=True)
        if not 200 <= answer.status_code < 300:
            assert_error_shape(answer)
        return answer

    def get(self, path: str, **headers: str) -> Any:
        """What a GET answers when it goes well."""
        return self.fine("GET", path, None, **headers)

    def post(self, path: str, body: object = None, **headers: str) -> Any:
        """What a POST answers when it goes well."""
        return self.fine("POST", path, body, **headers)

    def put(self, path: str, body: object = None, **headers: str) -> Any:
        """What a PUT answers when it goes well."""
        return self.fine("PUT", path, body, **headers)

    def delete(self, path: str) -> Any:
        """What a DELETE answers when it goes well."""
        return self.fine("DELETE", path)

    def fine(self, method: str, path: str, body: object = None, **headers: str) -> Any:
        """The JSON of a good answer, None of an empty one."""
        answer = self.call(method, path, body, **headers)
        assert 200 <= answer.status_code < 300, answer.get_data(as_text=True)
        return answer.get_json() if answer.data else None

    def expect_refusal(
        self, status: int, code: int, method: str, path: str, body: object = None, **headers: str
    ) -> str:
        """The message of a call that is refused with this status and code."""
        answer = self.call(method, path, body, **headers)
        error = answer.get_json()["error"] if answer.status_code >= 400 else {"code": None, "message": answer.data}
        assert (answer.status_code, error["code"]) == (status, code), error
        return str(error["message"])

    def make_algorithm(self, owner: str, name: str = "Hello", **fields: object) -> str:
        """Create an algorithm with a repository elsewhere; its path in the interface."""
        self.post(
            f"/v1/algorithms/{owner}",
            {"name": name, "details": {"label": name}, "settings": {}, "source": ELSEWHERE, **fields},
        )
        return f"/v1/algorithms/{owner}/{name}"

    def make_registry(self, url: str = "registry.example.com", **fields: object) -> str:
        """Record a registry; its id."""
        return str(self.post("/v1/registries", {"registry_url": url, **fields})["id"])


def owner_api(app: Flask, admin: Api, owner: str, **permissions: Any) -> Api:
    """The interface under a key of an owner, who is made if new."""
    admin.post(f"/v1/users/{owner}/keys", {"key_type": "AlgorithmKey"})
    return Api(app, make_key(owner, **permissions))


def assert_error_shape(answer: TestResponse) -> None:
    """What the contract says of every answer that is no success."""
    assert answer.mimetype == "application/json"
    error = answer.get_json()["error"]
    assert set(error) == {"id", "code", "message"}
    assert error["id"] == answer.headers["X-Request-Id"]
    assert isinstance(error["code"], int)
    assert error["message"]
    assert "Traceback" not in error["message"]
