"""Translate git's error messages into the class of an error and a sentence for the caller."""

import re

from shared.errors import ErrorClass, WorkError
from shared.git.repository_url import RepositoryUrl
from shared.plain_text import plain_line

_MEANINGS: tuple[tuple[str, ErrorClass, str], ...] = (
    (
        r"No space left on device|Disk quota exceeded",
        ErrorClass.UNAVAILABLE,
        "There is no disk space left for the source; the job waits until there is.",
    ),
    (
        r"Host key verification failed",
        ErrorClass.INVALID,
        "The host key of {host} is not in the file that LONGSHORE_SOURCE_SSH_KNOWN_HOSTS names; ask an administrator.",
    ),
    (
        r"could not read (Username|Password)|Authentication failed|Permission denied|returned error: 40[137]",
        ErrorClass.AUTH,
        "The repository {url} refused the credentials, or needs some: set source.credentials of the algorithm.",
    ),
    (
        r"returned error: 429",
        ErrorClass.THROTTLED,
        "The repository's server {host} limits the rate of requests.",
    ),
    (
        r"returned error: 30[12378]|unable to update url base from redirection",
        ErrorClass.INVALID,
        "The repository {url} has moved: redirects are not followed, set its new URL.",
    ),
    (
        r"SSL certificate problem|certificate verif|gnutls_handshake|SSL: no alternative certificate|"
        r"SSL: certificate subject name",
        ErrorClass.INVALID,
        "The certificate of {host} is not trusted here; ask an administrator to add its authority.",
    ),
    (
        r"[Rr]epository .*not found|returned error: 404|does not appear to be a git repository|Repository not found",
        ErrorClass.NOT_FOUND,
        "There is no repository {url}, or its credentials may not see it.",
    ),
    (
        r"dumb http transport does not support|not valid: (could not determine|is this a git)|"
        r"protocol error|transport '.*' not allowed",
        ErrorClass.INVALID,
        "The server at {url} does not speak git's smart protocol.",
    ),
    (
        r"fsck error|index-pack failed|bad object|invalid index-pack|unpack-objects error|[Oo]ut of memory",
        ErrorClass.INVALID,
        "What the repository {url} sent is damaged or refused by git's own checks ({detail}).",
    ),
    (
        r"Could not resolve|Connection refused|Failed to connect|[Tt]imed out|No route to host|unreachable|"
        r"returned error: 5\d\d|early EOF|hung up|reset by peer|RPC failed|Empty reply",
        ErrorClass.TRANSIENT,
        "The repository {url} cannot be reached at the moment ({detail}).",
    ),
)


def git_error(errors: str, url: RepositoryUrl) -> WorkError:
    """Return the error that git's stderr describes, of a command that connects to `url`. Unknown ones are transient."""
    # Text from the server ("remote:") is not trusted: it decides nothing and is not shown.
    lines = [line for line in errors.splitlines() if line.strip() and not line.startswith("remote:")]
    for pattern, error_class, sentence in _MEANINGS:
        for line in lines:
            if re.search(pattern, line):
                return WorkError(error_class, sentence.format(url=url, host=url.host, detail=_printable(line)))
    return WorkError(
        ErrorClass.TRANSIENT,
        f"Git could not read the repository {url} ({_printable(lines[-1]) if lines else 'it gave no reason'}).",
    )


def _printable(line: str) -> str:
    return plain_line(line).removeprefix("fatal: ").removeprefix("error: ").strip()[:200]
