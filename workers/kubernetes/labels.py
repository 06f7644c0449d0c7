"""What Longshore's objects are called and marked with, so that they are found again and told from others'."""

import re
from typing import Protocol

from kubernetes.client import V1ObjectMeta

from shared.db.models import Instance
from workers.serving.backend import Start

MANAGED_BY = "app.kubernetes.io/managed-by"
COMPONENT = "app.kubernetes.io/component"
OWNER = "longshore.io/owner"
ALGORITHM = "longshore.io/algorithm"
VERSION = "longshore.io/version"
SERVING = "longshore.io/serving"
REGISTRY = "longshore.io/registry"
NETWORK = "longshore.io/network"
STARTED = "longshore.io/started"
"""Annotation: seconds since 1970 at which this was last wanted, and by which start; `SECONDS/ID`."""
PATH = "longshore.io/path"
"""Annotation: OWNER/NAME in full, where a label holds as much of a name as labels can."""
HASH = "longshore.io/git-hash"
RESTARTED = "kubectl.kubernetes.io/restartedAt"
"""Annotation of a pod template: another value is another pod, as `kubectl rollout restart` has it."""

OURS = f"{MANAGED_BY}=longshore"
RUNNERS = f"{OURS},{COMPONENT}=runner"
MAX_VALUE = 63


def version_name(version_id: str) -> str:
    """What the Deployment and the Service of a version are called: a DNS label (RFC 1123)."""
    return f"longshore-{version_id}"


def pull_secret_name(registry_id: str) -> str:
    """What the Secret with a registry's credentials is called."""
    return f"longshore-pull-{registry_id}"


def label_value(text: str) -> str:
    """As much of a text as the value of a label can hold: 63 letters, digits, `-`, `_` and `.`."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", text)[:MAX_VALUE].strip("-_.")


def common_labels(component: str) -> dict[str, str]:
    """The labels of everything that Longshore makes."""
    return {MANAGED_BY: "longshore", COMPONENT: component}


def version_labels(instance: Instance) -> dict[str, str]:
    """The labels that stay the same for all images of a version: what a Deployment selects its pods by."""
    return {**common_labels("runner"), VERSION: instance.version_id}


def instance_labels(start: Start) -> dict[str, str]:
    """The labels of one serving: what runs, whose it is, and where it was pulled from."""
    instance = start.instance
    registry = {REGISTRY: instance.registry_id} if instance.registry_id else {}
    return {
        **version_labels(instance),
        OWNER: label_value(instance.owner),
        ALGORITHM: label_value(start.algorithm.partition("/")[2]),
        SERVING: instance.id,
        NETWORK: instance.network,
        **registry,
    }


class Marked(Protocol):
    """An object of the API."""

    metadata: V1ObjectMeta | None


def meta_of(marked: Marked) -> V1ObjectMeta:
    """What an object is called and marked with; the API leaves that out of none."""
    if marked.metadata is None:
        raise ValueError("an object without metadata")
    return marked.metadata


def name_of(marked: Marked) -> str:
    """What an object is called."""
    return str(meta_of(marked).name)


def label_of(marked: Marked, name: str) -> str:
    """The value of a label; empty where there is none."""
    return str((meta_of(marked).labels or {}).get(name, ""))


def annotation_of(marked: Marked, name: str) -> str:
    """The value of an annotation; empty where there is none."""
    return str((meta_of(marked).annotations or {}).get(name, ""))
