"""A proxy to a registry that forwards pushes and then responds with other content than was pushed."""

from collections.abc import Iterator
from contextlib import contextmanager

from dev.services.relay import Reply, relay

OTHER = b'{"schemaVersion": 2}'
OTHER_DIGEST = "sha256:" + "0" * 64
OTHER_TYPE = "application/vnd.docker.distribution.manifest.v2+json"


class LyingProxy:
    """Responds to requests for manifests with the truth, with 404 (`gone`), or with another manifest (`other`).

    It lies about paths that end with `about`. With `slow down` it responds to every request with 429.
    """

    def __init__(self) -> None:
        self.says = "truth"
        self.about = ""
        self.host = ""
        self.requests: list[str] = []
        """`METHOD address` of each request."""

    def answer(self, method: str, path: str, _body: bytes) -> Reply | None:
        """Return its own response, or None to forward the request."""
        self.requests.append(f"{method} {path}")
        if self.says == "slow down":
            return Reply(429, [("Retry-After", "1")], b"{}")
        is_manifest = method in ("GET", "HEAD") and "/manifests/" in path
        if self.says == "truth" or not is_manifest or not path.endswith(self.about):
            return None
        if self.says == "gone":
            return Reply(404, [("Content-Type", "application/json")], b'{"errors": []}')
        return Reply(200, [("Content-Type", OTHER_TYPE), ("Docker-Content-Digest", OTHER_DIGEST)], OTHER)


@contextmanager
def lying_proxy(target: str) -> Iterator[LyingProxy]:
    """Run a proxy to the registry at `target` (host:port)."""
    proxy = LyingProxy()
    with relay(target, proxy.answer) as proxy.host:
        yield proxy
