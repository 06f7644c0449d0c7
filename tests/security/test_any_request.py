"""Whatever a caller sends, to any route, with or without a key: never an internal error."""

import json
from typing import Any
from urllib.parse import urlencode

import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.routing import Rule

from tests.rows import HASH
from tests.service.api.invocation import Api, owner_api
from tests.service.api.test_any_json import bodies, values
from tests.service.api.test_bad_input import Setup

PARTS = [
    "acme", "Hello", HASH, HASH[:7], "%00", "%ff", "%ed%a0%80", "%0d%0aX:%20y", "%e2%80%ae", "%F0%9F%92%A9", ".", "..",
    "%2e%2e", "*", "latest", "1.0.0", "9" * 400, "-1", "²", "a" * 300, "{{7*7}}", "'", "%25s", "%5c", ";", "~",
    "00000000-0000-4000-8000-000000000000", "00000000-0000-4000-8000-00000000000G", "1.9999999999999999999999.0",
]  # fmt: skip
QUERY_NAMES = [
    "limit", "marker", "kind", "state", "status", "algorithm", "registry", "missing", "published", "callable",
    "partial", "force", "refresh", "actor", "action", "target", "owner", "since", "until", "output", "timeout",
    "stdout", "x",
]  # fmt: skip
QUERY_VALUES = [
    "", "1", "100", "101", "²", "7fffffffffffffff", "0000000000000000", "push", "queued", "true", "yes", "acme/Hello",
    "a.", "%", "_", "\0", "\ud800", "\u202e", "2026-01-31T12:00:00Z", "9999-12-31T23:59:60-23:59", "void", "raw",
    "0001-01-01T00:00:00+23:59", "2026-02-30T00:00:00Z", "NaN", "1e400", "-0", "9" * 400, "x" * 3000,
]  # fmt: skip
HEADER_VALUES = [
    "", " ", "\xff", "²", "0", "-1", "9" * 400, "0:0:0", "1,2", ";", "=", ",,,", "x" * 3000, "gzip", "chunked", "*/*",
    "application/json", "application/json; charset=no-such", "text/plain; charset=utf-16", "a/b; c*=x''%ff", "\x7f",
    "multipart/form-data", "bytes=0-0", "bytes=9-0", "respond-async", "wait=", "[", "[::1", "a:b:c", "evil@h",
    "h:99999", "Basic", "Basic \xff", "Bearer", "Simple ", "Mon, 99 Foo 9999 99:99:99 GMT", 'W/"x"',
    "Digest username=x", "é",
]  # fmt: skip
HEADER_NAMES = [
    "Authorization", "Content-Type", "Idempotency-Key", "Prefer", "Last-Event-ID", "X-Request-Id", "Host", "Accept",
    "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded", "Range", "If-Match", "If-None-Match",
    "If-Modified-Since", "Content-Encoding", "Expect", "Cookie", "Accept-Language", "Origin", "Referer", "Content-MD5",
]  # fmt: skip
EXTRA_BODIES: list[Any] = [b"", b"\xff", b"{", b"null", b"[" * 3000, b'{"a":' * 3000, b"\x00" * 100, b"9" * 5000]

raw_bodies = st.sampled_from(EXTRA_BODIES) | bodies | values
queries = st.dictionaries(st.sampled_from(QUERY_NAMES), st.sampled_from(QUERY_VALUES), max_size=3)
headers = st.dictionaries(st.sampled_from(HEADER_NAMES), st.sampled_from(HEADER_VALUES), max_size=3)


@pytest.fixture
def callers(app: Flask, admin: Api, acme: Api, rival: Api) -> list[Api]:
    Setup(admin, acme, rival)
    return [admin, acme, rival, owner_api(app, admin, "acme", algo_acl=["acme/Other"]), Api(app, None)]


def test_no_request_is_an_internal_error(app: Flask, callers: list[Api]) -> None:
    routes = [
        (rule, method)
        for rule in app.url_map.iter_rules()
        for method in sorted(rule.methods or ())
        if rule.rule != "/readyz"  # 503: there is no Redis here
    ]

    @settings(max_examples=150, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(
        st.sampled_from(callers),
        st.sampled_from(routes),
        st.lists(st.sampled_from(PARTS), min_size=4, max_size=4),
        queries,
        headers,
        raw_bodies,
    )
    def throw(
        caller: Api,
        route: tuple[Rule, str],
        parts: list[str],
        query: dict[str, str],
        sent: dict[str, str],
        body: object,
    ) -> None:
        rule, method = route
        path = _fill(rule, parts)
        if caller.key is not None:
            sent = {"Authorization": f"Simple {caller.key}", **sent}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = app.test_client().open(
            f"{path}?{urlencode(query, errors='surrogatepass')}", method=method, data=data, headers=sent
        )
        assert answer.status_code < 500, f"{method} {path} {answer.get_data(as_text=True)}"
        answer.close()

    throw()


def _fill(rule: Rule, parts: list[str]) -> str:
    path = rule.rule
    for argument, part in zip(sorted(rule.arguments), parts, strict=False):
        start = path.index("<", 0)
        path = path[:start] + (argument and part) + path[path.index(">", start) + 1 :]
    return path
