"""Reads versions with the Python client, with its filters and paging."""

import json
import os
from typing import Any

import Algorithmia

client = Algorithmia.client(os.environ["API_KEY"], os.environ["API_ADDRESS"])
algorithm = client.algo(os.environ["ALGORITHM"])


def hashes(page: Any) -> list[Any]:
    return [version["version_info"]["git_hash"] for version in page["results"]]


first = algorithm.versions(limit=2)
second = algorithm.versions(limit=2, marker=first["marker"])
newest = hashes(first)[0]
print(
    json.dumps(
        {
            "pages": [hashes(first), hashes(second)],
            "published": hashes(algorithm.versions(published=True)),
            "callable": hashes(algorithm.versions(callable=True)),
            "info": hashes(algorithm.info()),
            "info_of_one": algorithm.info(newest)["version_info"]["git_hash"],
        }
    )
)
