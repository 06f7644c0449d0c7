"""Parts of the platform's API that Longshore does not have, and what to do instead (docs/compatibility.md).

Published clients have methods for them. Without these sentences their users would read that a path does not exist.
"""

import re
from dataclasses import dataclass

ERROR_MESSAGE_HEADER = "X-Error-Message"
"""Where the platform's clients look for the message of a response without a body (HEAD)."""

_ELSEWHERE = "docs/compatibility.md lists what is there."


@dataclass(frozen=True)
class AbsentPart:
    """The paths of a part, and how requests to them are answered."""

    paths: re.Pattern[str]
    message: str
    status: int = 404


ABSENT_PARTS = (
    AbsentPart(
        re.compile(r"/v1/(data|connector)/."),
        "Hosted data and data connectors (data://, s3:// and others) are not supported yet. Keep the file in the "
        "algorithm's repository, or download it in `load` from where it is.",
        status=400,
    ),
    AbsentPart(
        re.compile(r"/v1/(algorithms/.+/secrets(/|$)|secret-provider|admin/(plugins/)?secret-provider)"),
        f"There is no secret store for algorithms. {_ELSEWHERE}",
    ),
    AbsentPart(
        re.compile(r"/v1/(organization/types|organizations)(/|$)"),
        "There are no organizations. An owner is created with its first key (POST /v1/admin/users/OWNER/keys), and a "
        "team can share the keys of one owner.",
    ),
    AbsentPart(
        re.compile(r"/v1/users(/[^/]+)?/?$"),
        "Users have no records of their own. An owner is created with its first key (POST /v1/admin/users/OWNER/keys).",
    ),
    AbsentPart(
        re.compile(r"/v1/users/[^/]+/(event-listeners|notifications|connectors)(/|$)"),
        "There are no event listeners, notifications and connectors of a user. Administrators can record webhooks "
        "(POST /v1/webhooks).",
    ),
    AbsentPart(
        re.compile(r"/v1/admin/usage"),
        "There are no usage reports. GET /v1/jobs and GET /v1/pushes list what was done, GET /metrics counts it.",
    ),
    AbsentPart(
        re.compile(r"/v1/(admin/scms|scms/[^/]+/(oauth|token))(/|$)"),
        "Source code management systems are recorded by the setting LONGSHORE_SCMS. What they want for a private "
        "repository is given with the algorithm (`scmsCredentials`, or `credentials` in `source`).",
    ),
    AbsentPart(
        re.compile(r"/v1/algorithms/[^/]+/[^/]+/log$"),
        "There is no log of commits here: clone the repository, and read it with git.",
    ),
    AbsentPart(
        re.compile(
            r"/v1/(config|admin/(features|insights-connection|invites|reservations|legacy-algorithms"
            r"|organization_host_information))(/|$)"
        ),
        f"This part of the platform is not there. {_ELSEWHERE}",
    ),
)


def find_absent_part(path: str) -> AbsentPart | None:
    """Return the absent part that a path belongs to."""
    return next((part for part in ABSENT_PARTS if part.paths.match(path)), None)
