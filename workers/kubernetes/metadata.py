"""Read names, labels and annotations of the API's objects."""

from typing import Protocol

from kubernetes.client import V1ObjectMeta


class KubernetesObject(Protocol):
    """An object of the API."""

    metadata: V1ObjectMeta | None


def metadata_of(resource: KubernetesObject) -> V1ObjectMeta:
    """Return the metadata, which every object that the API returns has."""
    if resource.metadata is None:
        raise ValueError("an object without metadata")
    return resource.metadata


def name_of(resource: KubernetesObject) -> str:
    return str(metadata_of(resource).name)


def label_of(resource: KubernetesObject, key: str) -> str:
    """Return the value of a label; empty if the object does not have it."""
    return str((metadata_of(resource).labels or {}).get(key, ""))


def annotation_of(resource: KubernetesObject, key: str) -> str:
    """Return the value of an annotation; empty if the object does not have it."""
    return str((metadata_of(resource).annotations or {}).get(key, ""))


def is_terminating(resource: KubernetesObject) -> bool:
    """Return whether the object is being deleted; a pod then has its grace period left."""
    return metadata_of(resource).deletion_timestamp is not None
