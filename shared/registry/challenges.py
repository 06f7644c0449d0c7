"""What a 401 asks for: the `WWW-Authenticate` header (RFC 9110 section 11.6.1, RFC 6750 section 3)."""

import re
from dataclasses import dataclass, field

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110's name for a word
_PART = re.compile(
    rf"[\s,]*(?:(?P<key>{_TOKEN})\s*=\s*(?:\"(?P<quoted>(?:[^\"\\]|\\.)*)\"|(?P<bare>[^\s,\"]*))|(?P<scheme>{_TOKEN}))"
)
_MAX_HEADER = 8192


@dataclass(frozen=True)
class Challenge:
    """One way in which a server lets itself be convinced."""

    scheme: str
    """Lower-cased: `basic`, `bearer`."""
    parameters: dict[str, str] = field(default_factory=dict)
    """By lower-cased name: `realm`, `service`, `scope`."""


def parse_challenges(header: str) -> list[Challenge]:
    """Every challenge in a header's value, in its order; what cannot be read ends the list."""
    challenges: list[Challenge] = []
    position, header = 0, header[:_MAX_HEADER]
    while found := _PART.match(header, position):
        position = found.end()
        if found["scheme"]:
            challenges.append(Challenge(found["scheme"].lower()))
        elif challenges:
            quoted = found["quoted"]
            value = found["bare"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            challenges[-1].parameters.setdefault(found["key"].lower(), value)
    return challenges
