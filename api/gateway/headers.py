"""Headers that the gateway forwards, removes and adds."""

from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy

from api.proxy_headers import is_in

HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection")
) | {"te", "trailer", "transfer-encoding", "upgrade"}
REMOVED_HEADERS = frozenset(("expect", "forwarded", "x-real-ip"))
"""Headers that callers may not send to the services behind the gateway, besides every X-Forwarded-… header."""


def forwarded_headers(request: web.BaseRequest, trusted: tuple[str, ...] = ()) -> CIMultiDict[str]:
    """Return the caller's end-to-end headers, with the caller's address in those that only the gateway may set.

    The X-Forwarded-For of a peer in a `trusted` network is kept in front.
    """
    headers = end_to_end(request.headers)
    for name in [
        name for name in headers if name.lower() in REMOVED_HEADERS or name.lower().startswith("x-forwarded-")
    ]:
        headers.popall(name, None)
    peer = request.remote or "unknown"
    hops = request.headers.getall("X-Forwarded-For", []) if is_in(peer, trusted) else []
    headers["X-Forwarded-For"] = ", ".join([*hops, peer])
    headers["X-Forwarded-Proto"] = "http"
    if host := request.headers.get("Host"):
        headers["X-Forwarded-Host"] = host
    return headers


def end_to_end(headers: CIMultiDictProxy[str] | CIMultiDict[str]) -> CIMultiDict[str]:
    """Return the headers without those for one connection only (RFC 9110, section 7.6.1)."""
    listed = {part.strip().lower() for value in headers.getall("Connection", []) for part in value.split(",")}
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in HOP_BY_HOP | listed)
