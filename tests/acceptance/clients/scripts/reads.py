"""Uses each method of the Python client beside deploying and calling, if this version has it.

It prints what each returned, or the class and message of its error.
"""

import json
import os
from pathlib import Path
from typing import Any

import Algorithmia

client = Algorithmia.client(os.environ["API_KEY"], os.environ["API_ADDRESS"])
name, work = os.environ["ALGORITHM"], Path(os.environ["WORK"])
owner = name.split("/")[0]
organization = {"type_id": "legacy", "org_name": "team"}

ALGORITHM_METHODS: dict[str, tuple[Any, ...]] = {
    "info": (),
    "versions": (1, None, True),
    "update": ({"label": "Updated"}, {"license": "mit"}),
    "create": ({"label": "Again"}, {"language": "python3"}),
    "builds": (),
    "build_logs": (),
    "get_builds": (),
    "get_build": (os.environ["BUILD"],),
    "get_build_logs": (os.environ["BUILD"],),
    "get_scm_status": (),
    "get_algorithm_id": (),
    "get_secrets": (),
    "set_secret": ("short", "key", "value"),
}
CLIENT_METHODS: dict[str, tuple[Any, ...]] = {
    "scms": (),
    "get_supported_languages": (),
    "get_environment": ("python3",),
    "get_algorithm_errors": (os.environ["ALGORITHM_ID"],),
    "get_user_errors": (owner,),
    "get_organization_errors": ("team",),
    "get_secret_providers": (),
    "get_org_types": (),
    "get_org": ("team",),
    "create_org": (organization.copy(),),
    "edit_org": ("team", organization.copy()),
    "invite_to_org": ("team", owner),
    "create_user": ({"username": "someone", "email": "someone@example.org"},),
    "username": (),
}
DIRECTORY_METHODS: dict[str, tuple[Any, ...]] = {"exists": (), "create": ()}
FILE_METHODS: dict[str, tuple[Any, ...]] = {"exists": (), "getString": (), "put": ("text",)}


def plain(answer: Any) -> Any:
    """Return an answer as JSON can have it: the models of older clients become dictionaries."""
    if hasattr(answer, "to_dict"):
        return json.loads(json.dumps(answer.to_dict(), default=str))
    return answer if isinstance(answer, (dict, list, str, bool, type(None))) else repr(answer)


def use(target: Any, methods: dict[str, tuple[Any, ...]]) -> dict[str, Any]:
    """Call the methods that the target has."""
    returned = {}
    for method, arguments in methods.items():
        if hasattr(target, method):
            try:
                returned[method] = plain(getattr(target, method)(*arguments))
            except Exception as error:  # noqa: BLE001 - clients raise whatever they like
                returned[method] = f"{type(error).__name__}: {error}"
    return returned


output: dict[str, Any] = {
    **use(client.algo(name), ALGORITHM_METHODS),
    **use(client, CLIENT_METHODS),
    "directory": use(client.dir("data://some/models"), DIRECTORY_METHODS),
    "file": use(client.file("data://some/models/model.pkl"), FILE_METHODS),
    "listed": [each.path for each in client.dir("data://").list()],
}
if hasattr(client, "get_template"):
    environment = client.get_environment("python3")["environments"][0]
    client.get_template(environment["id"], str(work / "template"))
    files = (path for path in (work / "template").rglob("*") if path.is_file())
    output["template"] = sorted(str(path.relative_to(work / "template")) for path in files)
print(json.dumps(output))
