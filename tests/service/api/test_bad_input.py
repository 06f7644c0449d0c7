"""A table of invalid input with its status and code; none causes an internal error."""

import json

import pytest

from shared.db.models import Algorithm
from tests.rows import HASH, build_commit, one_row
from tests.service.api.invocation import Api

REGISTRY = "/v1/registries"
CREATE = "/v1/algorithms/acme"
COMPILE = "/v1/algorithms/acme/Hello/compile"
PUBLISH = "/v1/algorithms/acme/Hello/versions"
PUSH = f"/v1/algorithms/acme/Hello/versions/{HASH}/registry"
KEYS = "/v1/users/acme/keys"
NODES = "/v1/nodes/refresh"
BODIES = [
    ("POST", REGISTRY),
    ("PUT", f"{REGISTRY}/{{registry}}"),
    ("POST", f"{REGISTRY}/{{registry}}/check"),
    ("POST", CREATE),
    ("PUT", "/v1/algorithms/acme/Hello"),
    ("POST", COMPILE),
    ("POST", PUBLISH),
    ("POST", PUSH),
    ("POST", KEYS),
    ("POST", NODES),
]
"""Every call that reads a body."""


class Setup:
    """An algorithm of acme with a succeeded build, a registry, and clients with keys."""

    def __init__(self, admin: Api, acme: Api, rival: Api) -> None:
        self.admin, self.acme, self.rival = admin, acme, rival
        acme.make_algorithm("acme")
        build_commit(one_row(Algorithm, owner="acme"))
        self.registry = admin.make_registry("localhost:1")

    def send(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, int, str]:
        """Return status, code and message of an error; 0 and the body of a success."""
        response = self.admin.call(method, path.format(registry=self.registry), body, **headers)
        if response.status_code < 400:
            return response.status_code, 0, response.get_data(as_text=True)
        error = response.get_json()["error"]
        return response.status_code, error["code"], error["message"]


@pytest.fixture
def setup(admin: Api, acme: Api, rival: Api) -> Setup:
    return Setup(admin, acme, rival)


WELL_FORMED_NO_OBJECTS = [[], "text", 5, True, [{}]]
NO_JSON = [b"{", b"{'a': 1}", b'{"a": NaN}', b'{"a": 1}}', b"\xff\xfe", b'{"a": "\xe9"}', b"\x00", b"[" * 100_000]
NO_JSON += [b'{"a":' * 50_000, b'{"a": ' + b"9" * 5_000 + b"}", b'{"a": "\x01"}', b"\xed\xa0\x80"]


def test_no_call_takes_what_is_no_json_object(setup: Setup) -> None:
    for method, path in BODIES:
        for body in NO_JSON:
            assert setup.send(method, path, body)[:2] == (400, 2013), (method, path, body[:20])
        for given in WELL_FORMED_NO_OBJECTS:
            assert setup.send(method, path, given)[:2] == (400, 2015), (method, path, given)


def test_no_call_takes_another_content_type(setup: Setup) -> None:
    for method, path in BODIES:
        for kind in ("application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x"):
            status, code, message = setup.send(method, path, b"a=b", Content_Type=kind)
            assert (status, code, "application/json" in message) == (415, 2015, True), (method, path, kind)


def test_no_call_takes_a_body_that_is_too_large(setup: Setup) -> None:
    for method, path in BODIES:
        assert setup.send(method, path, b'{"a": "' + b"x" * 2 * 1024 * 1024 + b'"}')[:2] == (413, 2015), path


def test_json_is_taken_however_its_type_is_written(setup: Setup) -> None:
    body = json.dumps({"registry_url": "registry.example.com"}).encode()
    for kind in ("application/json; charset=utf-8", "application/vnd.longshore+json", ""):
        assert setup.admin.call("POST", REGISTRY, body, Content_Type=kind).status_code == 200
    bom = b"\xef\xbb\xbf" + body
    assert setup.admin.call("POST", REGISTRY, bom).status_code == 200


URLS = {
    "empty": "",
    "credentials": "https://user:open-sesame@registry.example.com",
    "a user": "user@registry.example.com",
    "a query": "registry.example.com/team?token=open-sesame",
    "a fragment": "registry.example.com/team#x",
    "a space": "registry.example.com /team",
    "a space at its end": "registry.example.com ",
    "a control character": "registry.example.com/\x07team",
    "a line break": "registry.example.com\r\nHost: thief",
    "dots": "registry.example.com/../team",
    "a dot": "registry.example.com/./team",
    "an empty part": "registry.example.com//team",
    "a backslash": "registry.example.com\\team",
    "a percent escape": "registry.example.com/%2e%2e",
    "no dot in its host": "registry/team",
    "a host only, without a dot": "registry",
    "another scheme": "ftp://registry.example.com",
    "a file": "file:///etc/passwd",
    "no host": "https:///team",
    "a port of letters": "registry.example.com:port",
    "a port that is none": "registry.example.com:70000",
    "upper case in its path": "registry.example.com/Team",
    "letters beyond ASCII": "régistre.example.com",
    "too many characters": "registry.example.com/" + "a" * 120,
    "an address that is none": "999.1.1.1",
}


def test_the_table_of_registry_urls(setup: Setup) -> None:
    for what, url in URLS.items():
        for method, path in (("POST", REGISTRY), ("PUT", f"{REGISTRY}/{{registry}}")):
            status, code, message = setup.send(method, path, {"registry_url": url})
            assert (status, code, "sesame" in message) == (400, 2015, False), what


PAIR = {"registry_username": "u", "registry_password": "p"}
HALVES: list[dict[str, object]] = [
    {"registry_username": "u"},
    {"registry_password": "p"},
    {"registry_username": "u", "registry_password": None},
    {"registry_username": "", "registry_password": "p"},
    {"registry_username": "u", "registry_password": ""},
    {"registry_username": "u" * 257, "registry_password": "p"},
    {"registry_username": "u", "registry_password": "p" * 8193},
    {"registry_username": "a:b", "registry_password": "p"},
    {"registry_username": "u", "registry_password": "line\nbreak"},
    {"registry_username": 5, "registry_password": "p"},
    {"registry_username": ["u"], "registry_password": {"p": 1}},
    {**PAIR, "registry_auth": "dTpw"},
    {"registry_auth": "not base64"},
    {"registry_auth": "bm8gY29sb24="},
    {"registry_auth": "{"},
    {"registry_auth": "{}"},
    {"registry_auth": '{"auths": []}'},
    {"registry_auth": '{"auths": {"a.example.com": {}, "b.example.com": {}}}'},
    {"registry_auth": '{"auths": {"a.example.com": {"auth": 5}}}'},
    {"registry_auth": '{"auths": {"a.example.com": {"username": "\\ud800", "password": "p"}}}'},
    {"registry_auth": "[" * 4000},
    {"registry_auth": "{" * 4000},
    {"registry_auth": "x" * 4097},
    {"registry_auth": 5},
]


def test_the_table_of_credentials(setup: Setup) -> None:
    url, registry_id = {"registry_url": "r.example.com"}, {"registry_id": setup.registry}
    for given in HALVES:
        for method, path, body in (
            ("POST", REGISTRY, {**url, **given}),
            ("PUT", f"{REGISTRY}/{{registry}}", {**url, **given}),
            ("POST", f"{REGISTRY}/{{registry}}/check", given),
            ("POST", PUSH, {**registry_id, **given}),
            ("POST", COMPILE, {"registry_push_credentials": {**registry_id, **given}}),
            ("POST", PUBLISH, {"registry_push_credentials": [{**registry_id, **given}]}),
        ):
            assert setup.send(method, path, body)[:2] == (400, 2015), (method, path, str(given)[:80])


DETAILS = {"details": {"label": "l"}}
TABLE: list[tuple[int, int, str, str, object]] = [
    (400, 2015, "POST", REGISTRY, {}),
    (400, 2015, "POST", REGISTRY, None),
    (400, 2015, "POST", REGISTRY, {"registry_url": None}),
    (400, 2015, "POST", REGISTRY, {"registry_url": 5}),
    (400, 2015, "POST", REGISTRY, {"registry_url": "r.example.com", "name": "n" * 33}),
    (400, 2015, "POST", REGISTRY, {"registry_url": "r.example.com", "verify_tls": "false"}),
    (400, 2015, "POST", REGISTRY, {"registry_url": "r.example.com", "verify_tls": 0}),
    (400, 2015, "POST", REGISTRY, {"registry_url": "r.example.com", "plain_http": True}),
    (400, 2015, "POST", REGISTRY, {"registry_url": "r.example.com", "transport": "pigeon"}),
    (400, 2015, "POST", REGISTRY, {"registry_url": "r.example.com", "proxy_url": "proxy.example.com:3128"}),
    (
        400,
        2015,
        "POST",
        REGISTRY,
        {"registry_url": "r.example.com", "proxy_url": "http://user:pass@proxy.example.com:1"},
    ),
    (400, 2015, "POST", REGISTRY, {"registry_url": "r.example.com", "proxy_url": "http://169.254.169.254:80"}),
    (400, 2015, "POST", REGISTRY, {"registry_url": "https://localhost:5000", "plain_http": True}),
    (400, 2015, "POST", REGISTRY, {"registry_url": "r.example.com", "ca_certificate": "no certificate"}),
    (400, 2015, "POST", REGISTRY, {"registry_url": "r.example.com", "ca_certificate": "c" * 65_537}),
    (404, 5004, "PUT", f"{REGISTRY}/unknown", {"registry_url": "r.example.com"}),
    (404, 5004, "POST", f"{REGISTRY}/unknown/check", {}),
    (400, 2015, "POST", KEYS, {}),
    (400, 2015, "POST", KEYS, {"key_type": "SuperKey"}),
    (400, 2015, "POST", KEYS, {"key_type": "AlgorithmKey", "key_label": "l" * 101}),
    (400, 2015, "POST", KEYS, {"key_type": "AlgorithmKey", "permissions": []}),
    (400, 2015, "POST", "/v1/users/no-name/keys", {"key_type": "AlgorithmKey"}),
    (400, 2015, "POST", "/v1/users/1st/keys", {"key_type": "AlgorithmKey"}),
    (400, 2015, "POST", f"/v1/users/{'o' * 31}/keys", {"key_type": "AlgorithmKey"}),
    (400, 2015, "POST", CREATE, {}),
    (400, 2015, "POST", CREATE, {"name": "New"}),
    (400, 2015, "POST", CREATE, DETAILS),
    (400, 2015, "POST", CREATE, {"name": "New", "details": {}}),
    (400, 2015, "POST", CREATE, {"name": "New", "details": {"label": ""}}),
    (400, 2015, "POST", CREATE, {"name": "New", "details": {"label": "l" * 257}}),
    (400, 2015, "POST", CREATE, {"name": "New", "details": {"label": "l", "summary": "s" * 65_537}}),
    (400, 2015, "POST", CREATE, {"name": "", **DETAILS}),
    (400, 2015, "POST", CREATE, {"name": "1st", **DETAILS}),
    (400, 2015, "POST", CREATE, {"name": "a-b", **DETAILS}),
    (400, 2015, "POST", CREATE, {"name": "New\n", **DETAILS}),
    (400, 2015, "POST", CREATE, {"name": "../up", **DETAILS}),
    (400, 2015, "POST", CREATE, {"name": "é", **DETAILS}),
    (400, 2015, "POST", CREATE, {"name": "n" * 64, **DETAILS}),
    (409, 1002, "POST", CREATE, {"name": "hello", **DETAILS}),
    (400, 4001, "POST", CREATE, {"name": "New", **DETAILS, "settings": {"language": "cobol"}}),
    (400, 2015, "POST", CREATE, {"name": "New", **DETAILS, "settings": {"language": 3}}),
    (400, 2015, "POST", CREATE, {"name": "New", **DETAILS, "settings": {"license": "none"}}),
    (400, 2015, "POST", CREATE, {"name": "New", **DETAILS, "settings": {"royalty_microcredits": -1}}),
    (400, 2015, "POST", CREATE, {"name": "New", **DETAILS, "settings": {"royalty_microcredits": 2**63}}),
    (400, 2015, "POST", CREATE, {"name": "New", **DETAILS, "settings": {"royalty_microcredits": 1.5}}),
    (400, 2015, "POST", CREATE, {"name": "New", **DETAILS, "settings": None}),
    (400, 2015, "PUT", "/v1/algorithms/acme/Hello", {"details": {"label": 5}}),
    (400, 2015, "PUT", "/v1/algorithms/acme/Hello", {"settings": "cpu"}),
    (404, 1001, "PUT", "/v1/algorithms/acme/Nothing", {}),
    (400, 2015, "POST", COMPILE, {"commitSha": "main"}),
    (400, 2015, "POST", COMPILE, {"commitSha": "--help"}),
    (400, 2015, "POST", COMPILE, {"commitSha": "a" * 6}),
    (400, 2015, "POST", COMPILE, {"commitSha": "a" * 65}),
    (400, 2015, "POST", COMPILE, {"commitSha": "a" * 40 + "\n"}),
    (400, 2015, "POST", COMPILE, {"commitSha": 1234567}),
    (400, 2015, "POST", COMPILE, {"registry_push_credentials": "registry"}),
    (400, 2015, "POST", COMPILE, {"registry_push_credentials": [[]]}),
    (400, 2015, "POST", COMPILE, {"registry_push_credentials": {"registry_username": "u"}}),
    (400, 2015, "POST", COMPILE, {"registry_push_credentials": {"registry_id": ""}}),
    (400, 2015, "POST", COMPILE, {"registry_push_credentials": {"registry_id": "r" * 65}}),
    (400, 2015, "POST", COMPILE, {"registry_push_credentials": [{"registry_id": "r"}] * 2}),
    (400, 2015, "POST", COMPILE, {"registry_push_credentials": [{"registry_id": str(n)} for n in range(21)]}),
    (404, 5004, "POST", COMPILE, {"registry_push_credentials": {"registry_id": "unknown"}, "commitSha": HASH}),
    (400, 2015, "POST", f"{COMPILE}?force=maybe", {"commitSha": HASH}),
    (400, 2015, "POST", f"{COMPILE}?refresh=maybe", {"commitSha": HASH}),
    (404, 1001, "POST", "/v1/algorithms/acme/Nothing/compile", {}),
    (404, 1009, "POST", "/v1/algorithms/00000000-0000-4000-8000-000000000000/compile", {}),
    (400, 2015, "POST", PUBLISH, {"version_info": {"version_type": "huge"}}),
    (400, 2015, "POST", PUBLISH, {"version_info": {"version_type": 1}}),
    (400, 2015, "POST", PUBLISH, {"version_info": {"release_notes": "n" * 65_537}}),
    (400, 2015, "POST", PUBLISH, {"settings": {"algorithm_callability": "everybody"}}),
    (400, 2015, "POST", PUBLISH, {"details": {"label": ""}}),
    (400, 2015, "POST", PUBLISH, {"commitSha": "f" * 40}),
    (404, 5004, "POST", PUBLISH, {"registry_push_credentials": {"registry_id": "unknown"}}),
    (400, 2015, "POST", PUSH, {}),
    (400, 2015, "POST", PUSH, None),
    (400, 2015, "POST", PUSH, {"registry_push_credentials": {}}),
    (400, 2015, "POST", PUSH, {"registry_push_credentials": {"registry_id": 5}}),
    (404, 5004, "POST", PUSH, {"registry_id": "unknown"}),
    (404, 5004, "POST", PUSH.replace(HASH, "f" * 40), {"registry_id": "unknown"}),
    (400, 2015, "POST", NODES, {"what": "clusters"}),
    (400, 2015, "POST", NODES, {"nodes": []}),
    (400, 2015, "POST", NODES, {"nodes": ["Upper"]}),
    (400, 2015, "POST", NODES, {"nodes": ["n" * 254]}),
    (400, 2015, "POST", NODES, {"nodes": ["--all\n"]}),
    (400, 2015, "POST", NODES, {"nodes": "node-1"}),
    (400, 2015, "POST", NODES, {"restart": "reboot"}),
    (400, 2015, "POST", NODES, {"dry_run": "yes"}),
    (400, 2015, "POST", NODES, {"registry_id": "unknown"}),
    (400, 2015, "POST", NODES, {"algorithm": "acme/Hello", "git_hash": HASH}),
    (400, 2015, "POST", NODES, {"what": "runners", "nodes": ["node-1"]}),
    (400, 2015, "POST", NODES, {"what": "runners", "restart": "none"}),
    (400, 2015, "POST", NODES, {"what": "runners", "algorithm": "acme/Hello"}),
    (400, 2015, "POST", NODES, {"what": "runners", "git_hash": HASH}),
    (400, 2015, "POST", NODES, {"what": "runners", "algorithm": "acme/Hello", "git_hash": "main"}),
    (404, 5004, "POST", NODES, {"what": "runners", "registry_id": "unknown"}),
    (404, 5004, "POST", NODES, {"what": "runners", "algorithm": "acme/Hello", "git_hash": "f" * 40}),
    (404, 1001, "POST", NODES, {"what": "runners", "algorithm": "acme/Nothing", "git_hash": HASH}),
    (400, 5003, "GET", "/v1/jobs?limit=0", None),
    (400, 5003, "GET", "/v1/jobs?limit=000", None),
    (400, 5003, "GET", "/v1/jobs?limit=-1", None),
    (400, 5003, "GET", "/v1/jobs?limit=ten", None),
    (400, 5003, "GET", "/v1/jobs?limit=%D9%A5", None),
    (400, 5003, "GET", "/v1/jobs?limit=1.5", None),
    (400, 5002, "GET", "/v1/jobs?marker=nothing", None),
    (400, 5002, "GET", "/v1/jobs?marker=%C3%A9", None),
    (400, 5002, "GET", "/v1/jobs?marker=YWZ0ZXI6", None),
    (400, 5002, "GET", "/v1/jobs?marker=YWZ0ZXI6LTE", None),
    (400, 5002, "GET", "/v1/jobs?marker=YWZ0ZXI6OTk5OTk5OTk5OTk5OTk5OTk5OTk", None),
    (400, 5002, "GET", "/v1/jobs?marker=YWZ0ZXI6MDAwMDAwMDAwMDAwMDAwMDAwMDA5OTk5OTk5OTk5OTk5OTk5OTk5OQ", None),
    (400, 5002, "GET", "/v1/pushes?marker=x", None),
    (400, 5002, "GET", f"{PUBLISH}?marker=x", None),
    (400, 5003, "GET", "/v1/algorithms/acme/Hello/builds?limit=x", None),
]


def test_the_table(setup: Setup) -> None:
    for status, code, method, path, body in TABLE:
        answered = setup.send(method, path, body)
        assert answered[:2] == (status, code), (method, path, str(body)[:80], answered)


STRINGS: dict[tuple[str, str], list[dict[str, object]]] = {
    ("POST", REGISTRY): [
        {"registry_url": "?"},
        {"registry_url": "r.example.com", "name": "?"},
        {"registry_url": "r.example.com", "ca_certificate": "?"},
        {"registry_url": "r.example.com", "registry_auth": "?"},
        {"registry_url": "r.example.com", "registry_username": "?", "registry_password": "p"},
        {"registry_url": "r.example.com", "registry_username": "u", "registry_password": "?"},
    ],
    ("POST", KEYS): [
        {"key_type": "AlgorithmKey", "key_label": "?"},
        {"key_type": "?"},
        {"key_type": "AlgorithmKey", "permissions": {"algo_acl": ["?"]}},
        {"key_type": "AlgorithmKey", "permissions": {"referer_host": "?"}},
    ],
    ("POST", CREATE): [
        {"name": "?", **DETAILS},
        {"name": "New", "details": {"label": "?"}},
        {"name": "New", "details": {"label": "l", "summary": "?"}},
        {"name": "New", "details": {"label": "l", "tagline": "?"}},
        {"name": "New", **DETAILS, "version_info": {"sample_input": "?"}},
        {"name": "New", **DETAILS, "settings": {"package_set": "?"}},
        {"name": "New", **DETAILS, "source": {"repository_https_url": "https://git.example.com/?"}},
        {
            "name": "New",
            **DETAILS,
            "source": {
                "repository_https_url": "https://git.example.com/a",
                "credentials": {"username": "?", "password": "p"},
            },
        },
        {
            "name": "New",
            **DETAILS,
            "source": {
                "repository_https_url": "https://git.example.com/a",
                "credentials": {"username": "u", "password": "?"},
            },
        },
    ],
    ("POST", COMPILE): [{"commitSha": "?"}, {"registry_push_credentials": {"registry_id": "?"}}],
    ("POST", PUBLISH): [
        {"commitSha": "?"},
        {"version_info": {"release_notes": "?"}},
        {"version_info": {"sample_input": "?"}},
        {"version_info": {"sample_output": "?"}},
        {"version_info": {"version_type": "?"}},
        {"settings": {"algorithm_callability": "?"}},
        {"details": {"summary": "?"}},
    ],
    ("POST", PUSH): [{"registry_id": "?"}],
}
UNSTORABLE = {"NUL": "a\0b", "half a surrogate pair": "a\ud800b", "the other half": "\udfff", "an escape": "\x1b[31m"}


def test_no_string_holds_what_no_database_does(setup: Setup) -> None:
    for (method, path), bodies in STRINGS.items():
        for body in bodies:
            for what, unstorable in UNSTORABLE.items():
                text = json.dumps(body).replace("?", json.dumps(unstorable)[1:-1])
                assert setup.send(method, path, text.encode())[0] == 400, (method, path, text, what)


def test_nothing_else_stands_for_a_string(setup: Setup) -> None:
    for (method, path), bodies in STRINGS.items():
        for body in bodies:
            if '"?"' not in json.dumps(body):
                continue
            for value in (10**30, -(10**4000), 1e308, True, [[["?"]]]):
                text = json.dumps(body).replace('"?"', json.dumps(value))
                assert setup.send(method, path, text.encode())[0] == 400, (method, path, text[:80])


def test_null_and_an_empty_object_stand_for_nothing_or_are_refused(setup: Setup) -> None:
    for (method, path), bodies in STRINGS.items():
        for body in bodies:
            for value in ("null", "{}"):
                text = json.dumps(body).replace('"?"', value)
                status = setup.send(method, path, text.encode())[0]
                # 409: without a commit, a compile asks the repository, which does not respond.
                assert status in (200, 201, 400, 409), (method, path, text)


def test_an_error_repeats_nothing_that_may_be_a_password(setup: Setup) -> None:
    body = {
        "registry_url": "r.example.com",
        "registry_password": ["open sesame"],
        "registry_push_credentials": {"registry_id": "x", "registry_password": {"open sesame": 1}},
        "source": {"credentials": "open sesame"},
        "name": ["open sesame"],
        "settings": "open sesame",
        "permissions": "open sesame",
    }
    for method, path in BODIES:
        assert "sesame" not in setup.send(method, path, body)[2], (method, path)


def test_the_wrong_keys(setup: Setup) -> None:
    body = {**DETAILS, "name": "X", "key_type": "AlgorithmKey", "registry_id": "x", "registry_url": "r.example.com"}
    for method, path in BODIES:
        hidden = (404, 1001) if "/Hello" in path else (403, 2001)
        for api, (status, code) in ((setup.rival, hidden), (Api(setup.acme.app, "revoked"), (401, 2002))):
            api.expect_refusal(status, code, method, path.format(registry=setup.registry), body)


@pytest.mark.parametrize("value", ["cosign", True, ["trivy"], {"provider": "ecr"}, 60, ""])
@pytest.mark.parametrize(
    ("method", "path", "body", "fields"),
    [
        ("POST", REGISTRY, {"registry_url": "localhost:2"}, ("auth", "create_repositories", "hold_seconds", "scan")),
        ("PUT", f"{REGISTRY}/{{registry}}", {"registry_url": "localhost:1"}, ("auth", "hold_seconds", "scan")),
        ("POST", COMPILE, {}, ("atomic", "evidence", "quorum")),
        ("POST", PUBLISH, {}, ("atomic", "evidence", "quorum")),
        ("POST", PUSH, {"registry_id": "{registry}"}, ("atomic", "evidence", "quorum")),
    ],
)
def test_what_is_not_built_yet_is_refused_and_not_ignored(
    setup: Setup, method: str, path: str, body: dict[str, object], fields: tuple[str, ...], value: object
) -> None:
    body = {
        name: text.format(registry=setup.registry) if isinstance(text, str) else text for name, text in body.items()
    }
    for field in fields:
        status, code, message = setup.send(method, path, {**body, field: value})
        assert (status, code) == (400, 2015), message
        assert f"{field}: is not supported yet" in message
        status, _, message = setup.send(method, path, {**body, field: None})
        assert "not supported" not in message, message


def test_an_option_beside_the_credentials_of_a_push_is_refused_too(setup: Setup) -> None:
    for body in (
        {"registry_push_credentials": {"registry_id": setup.registry}, "atomic": True},
        {"registry_push_credentials": {"registry_id": setup.registry, "atomic": True}},
    ):
        for path in (COMPILE, PUBLISH, PUSH):
            status, code, message = setup.send("POST", path, body)
            assert (status, code) == (400, 2015)
            assert "atomic: is not supported yet" in message
