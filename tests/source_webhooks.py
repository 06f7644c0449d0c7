"""Webhooks as GitHub, GitLab, Bitbucket (Cloud and Data Center) and Gitea send them: their headers and payloads.

Names and forms of headers and fields are those of the services' documents: GitHub "Webhook events and payloads", GitLab
"Webhook events", Atlassian "Event payloads" and "Event payload", Gitea "Webhooks". Values are of an invented project.
"""

import hmac
import json
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from werkzeug.test import TestResponse

from tests.service.api.invocation import Api

BEFORE = "6113728f27ae82c7b1a177c8d03f9e96e0adf246"
AFTER = "0d1a26e67d8f5eaf1f6ba5c57fc3c7d91ac0fd1c"
ZEROS = "0" * 40
FORM = "application/x-www-form-urlencoded"


def github(ref: str = "refs/heads/main", after: str = AFTER, default: str = "main") -> dict[str, Any]:
    url = "https://github.com/team/hello"
    return {
        "ref": ref,
        "before": BEFORE,
        "after": after,
        "repository": {
            "id": 186853002,
            "node_id": "MDEwOlJlcG9zaXRvcnkxODY4NTMwMDI=",
            "name": "hello",
            "full_name": "team/hello",
            "private": False,
            "owner": {"name": "team", "email": "team@example.com", "login": "team", "id": 21031067, "type": "User"},
            "html_url": url,
            "description": None,
            "fork": False,
            "url": url,
            "created_at": 1557933565,
            "updated_at": "2019-05-15T15:20:41Z",
            "pushed_at": 1557933657,
            "git_url": "git://github.com/team/hello.git",
            "ssh_url": "git@github.com:team/hello.git",
            "clone_url": f"{url}.git",
            "default_branch": default,
            "master_branch": default,
        },
        "pusher": {"name": "ada", "email": "ada@example.com"},
        "sender": {"login": "ada", "id": 21031067, "type": "User", "site_admin": False},
        "created": False,
        "deleted": not after.strip("0"),
        "forced": False,
        "base_ref": None,
        "compare": f"{url}/compare/{BEFORE[:12]}...{after[:12]}",
        "commits": [],
        "head_commit": None,
    }


def gitlab(ref: str = "refs/heads/main", after: str = AFTER, default: str = "main") -> dict[str, Any]:
    return {
        "object_kind": "push",
        "event_name": "push",
        "before": BEFORE,
        "after": after,
        "ref": ref,
        "ref_protected": True,
        "checkout_sha": after if after.strip("0") else None,
        "user_id": 4,
        "user_name": "Ada",
        "user_username": "ada",
        "user_email": "ada@example.com",
        "project_id": 15,
        "project": {
            "id": 15,
            "name": "Hello",
            "description": "",
            "web_url": "https://gitlab.com/team/hello",
            "avatar_url": None,
            "git_ssh_url": "git@gitlab.com:team/hello.git",
            "git_http_url": "https://gitlab.com/team/hello.git",
            "namespace": "Team",
            "visibility_level": 0,
            "path_with_namespace": "team/hello",
            "default_branch": default,
            "homepage": "https://gitlab.com/team/hello",
            "url": "git@gitlab.com:team/hello.git",
            "ssh_url": "git@gitlab.com:team/hello.git",
            "http_url": "https://gitlab.com/team/hello.git",
        },
        "repository": {
            "name": "Hello",
            "url": "git@gitlab.com:team/hello.git",
            "description": "",
            "homepage": "https://gitlab.com/team/hello",
            "git_http_url": "https://gitlab.com/team/hello.git",
            "git_ssh_url": "git@gitlab.com:team/hello.git",
            "visibility_level": 0,
        },
        "commits": [],
        "total_commits_count": 0,
    }


def gitea(ref: str = "refs/heads/main", after: str = AFTER, default: str = "main") -> dict[str, Any]:
    return {
        "ref": ref,
        "before": BEFORE,
        "after": after,
        "compare_url": f"https://gitea.example.com/team/hello/compare/{BEFORE}...{after}",
        "commits": [],
        "total_commits": 0,
        "head_commit": None,
        "repository": {
            "id": 140,
            "owner": {"id": 1, "login": "team", "full_name": "Team", "email": "team@example.com", "username": "team"},
            "name": "hello",
            "full_name": "team/hello",
            "description": "",
            "private": False,
            "fork": False,
            "html_url": "https://gitea.example.com/team/hello",
            "ssh_url": "ssh://git@gitea.example.com:2222/team/hello.git",
            "clone_url": "https://gitea.example.com/team/hello.git",
            "website": "",
            "default_branch": default,
            "created_at": "2017-02-26T04:29:06-05:00",
            "updated_at": "2017-03-13T13:51:58-04:00",
        },
        "pusher": {"id": 1, "login": "ada", "full_name": "Ada", "email": "ada@example.com", "username": "ada"},
        "sender": {"id": 1, "login": "ada", "full_name": "Ada", "email": "ada@example.com", "username": "ada"},
    }


def bitbucket_cloud(ref: str = "refs/heads/main", after: str = AFTER, default: str = "main") -> dict[str, Any]:
    """The payload does not name the default branch."""
    del default
    _, kind, name = ref.split("/", 2)
    kind = {"heads": "branch", "tags": "tag"}[kind]
    present = {
        "type": kind,
        "name": name,
        "target": {
            "type": "commit",
            "hash": after,
            "author": {"type": "author", "raw": "Ada <ada@example.com>"},
            "message": "new commit message\n",
            "date": "2015-06-09T03:34:49+00:00",
            "parents": [{"type": "commit", "hash": BEFORE, "links": {}}],
        },
        "links": {"html": {"href": f"https://bitbucket.org/team/hello/branch/{name}"}},
    }
    return {
        "actor": {"type": "user", "nickname": "ada", "display_name": "Ada", "uuid": "{d301aafa-d676-4ee0-88be}"},
        "repository": {
            "type": "repository",
            "name": "hello",
            "full_name": "team/hello",
            "uuid": "{673a6070-3421-46c9-9d48-90745f7bfe8e}",
            "links": {
                "self": {"href": "https://api.bitbucket.org/2.0/repositories/team/hello"},
                "html": {"href": "https://bitbucket.org/team/hello"},
            },
            "workspace": {"type": "workspace", "slug": "team", "name": "Team"},
            "owner": {"type": "team", "username": "team", "display_name": "Team"},
            "website": "",
            "scm": "git",
            "is_private": True,
        },
        "push": {
            "changes": [
                {
                    "new": present if after.strip("0") else None,
                    "old": {"type": kind, "name": name, "target": {"type": "commit", "hash": BEFORE}},
                    "links": {"html": {"href": "https://bitbucket.org/team/hello/branches/compare/a..b"}},
                    "created": False,
                    "forced": False,
                    "closed": not after.strip("0"),
                    "commits": [],
                    "truncated": False,
                }
            ]
        },
    }


def bitbucket_server(ref: str = "refs/heads/main", after: str = AFTER, default: str = "main") -> dict[str, Any]:
    """The payload does not name the default branch."""
    del default
    _, kind, name = ref.split("/", 2)
    return {
        "eventKey": "repo:refs_changed",
        "date": "2017-09-19T09:45:32+1000",
        "actor": {
            "name": "ada",
            "emailAddress": "ada@example.com",
            "id": 1,
            "displayName": "Ada",
            "active": True,
            "slug": "ada",
            "type": "NORMAL",
        },
        "repository": {
            "slug": "hello",
            "id": 84,
            "name": "hello",
            "scmId": "git",
            "state": "AVAILABLE",
            "statusMessage": "Available",
            "forkable": True,
            "project": {"key": "TEAM", "id": 84, "name": "team", "public": False, "type": "NORMAL"},
            "public": False,
            "links": {
                "clone": [
                    {"href": "ssh://git@bitbucket.example.com:7999/team/hello.git", "name": "ssh"},
                    {"href": "https://bitbucket.example.com/scm/team/hello.git", "name": "http"},
                ],
                "self": [{"href": "https://bitbucket.example.com/projects/TEAM/repos/hello/browse"}],
            },
        },
        "changes": [
            {
                "ref": {"id": ref, "displayId": name, "type": {"heads": "BRANCH", "tags": "TAG"}[kind]},
                "refId": ref,
                "fromHash": BEFORE,
                "toHash": after,
                "type": "UPDATE" if after.strip("0") else "DELETE",
            }
        ],
    }


@dataclass(frozen=True)
class Sender:
    """One of the services: its headers and its payload of a push."""

    payload: Callable[..., dict[str, Any]]
    event: str
    event_header: str
    id_header: str
    signature_header: str
    """With `{hex}` or `{secret}` for what it contains."""
    signature: str
    more: dict[str, str] = field(default_factory=dict)

    def headers(self, body: bytes, secret: str, *, delivery: str = "", event: str = "") -> dict[str, str]:
        """Return the headers of a delivery that is signed with this secret."""
        digest = {name: hmac.new(secret.encode(), body, name).hexdigest() for name in ("sha1", "sha256")}
        values = {"hex": digest["sha256"], "sha1": digest["sha1"], "secret": secret}
        values |= {"event": event or self.event, "id": delivery or str(uuid.uuid4())}
        sent = {self.event_header: "{event}", self.id_header: "{id}", self.signature_header: self.signature}
        return {name: text.format_map(values) for name, text in {**self.more, **sent}.items()}


SENDERS = {
    "github": Sender(
        github,
        "push",
        "X-GitHub-Event",
        "X-GitHub-Delivery",
        "X-Hub-Signature-256",
        "sha256={hex}",
        {
            "User-Agent": "GitHub-Hookshot/044aadd",
            "X-GitHub-Hook-ID": "292430182",
            "X-GitHub-Hook-Installation-Target-ID": "79929171",
            "X-GitHub-Hook-Installation-Target-Type": "repository",
            "X-Hub-Signature": "sha1={sha1}",
        },
    ),
    "gitlab": Sender(
        gitlab,
        "Push Hook",
        "X-Gitlab-Event",
        "Idempotency-Key",
        "X-Gitlab-Token",
        "{secret}",
        {
            "User-Agent": "GitLab/17.5.0",
            "X-Gitlab-Instance": "https://gitlab.com",
            "X-Gitlab-Webhook-UUID": "02affd2d-2cba-4033-917d-ec22d5dc4b38",
            "X-Gitlab-Event-UUID": "13792a34-cac6-4fda-95a8-c58e00a3954e",
        },
    ),
    "gitea": Sender(
        gitea,
        "push",
        "X-Gitea-Event",
        "X-Gitea-Delivery",
        "X-Gitea-Signature",
        "{hex}",
        {
            "X-Gitea-Event-Type": "{event}",
            "X-Gogs-Delivery": "{id}",
            "X-Gogs-Event": "{event}",
            "X-Gogs-Event-Type": "{event}",
            "X-Gogs-Signature": "{hex}",
            "X-GitHub-Delivery": "{id}",
            "X-GitHub-Event": "{event}",
            "X-GitHub-Event-Type": "{event}",
            "X-Hub-Signature": "sha1={sha1}",
            "X-Hub-Signature-256": "sha256={hex}",
        },
    ),
    "bitbucket cloud": Sender(
        bitbucket_cloud,
        "repo:push",
        "X-Event-Key",
        "X-Request-UUID",
        "X-Hub-Signature",
        "sha256={hex}",
        {"User-Agent": "Bitbucket-Webhooks/2.0", "X-Hook-UUID": "{{f3a2b1}}", "X-Attempt-Number": "1"},
    ),
    "bitbucket server": Sender(
        bitbucket_server, "repo:refs_changed", "X-Event-Key", "X-Request-Id", "X-Hub-Signature", "sha256={hex}"
    ),
}


def to_form(payload: object) -> bytes:
    """Return a payload as the field of a form."""
    return urlencode({"payload": json.dumps(payload)}).encode()


@dataclass
class Webhook:
    """The webhook of an algorithm, whose deliveries come without a key."""

    api: Api
    path: str
    """Of the algorithm."""
    secret: str

    def deliver(
        self,
        service: str = "github",
        payload: object = None,
        *,
        secret: str | None = None,
        content_type: str = "application/json",
        delivery: str = "",
        event: str = "",
        without: Collection[str] = (),
        **headers: str,
    ) -> TestResponse:
        """Send one delivery: of a push to `main`, unless a payload is given. The headers in `without` are left out."""
        sender = SENDERS[service]
        payload = sender.payload() if payload is None else payload
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        signed = sender.headers(body, self.secret if secret is None else secret, delivery=delivery, event=event)
        signed |= {"Content-Type": content_type}
        signed = {name: value for name, value in signed.items() if name not in without}
        signed |= {name.replace("_", "-"): value for name, value in headers.items()}
        return self.api.call("POST", f"{self.path}/scm/webhook", body, **signed)


def make_webhook(manager: Api, path: str) -> Webhook:
    """Make the secret of an algorithm's webhook."""
    made = manager.post(f"{path}/scm/webhook/secret")
    return Webhook(Api(manager.app, None), path, made["repository_webhook_secret"])
