"""Calls an algorithm with any version of the Python client, in every form of input, output and version."""

import json
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import Algorithmia
import requests
from Algorithmia.algorithm import OutputType

client = Algorithmia.client(os.environ["API_KEY"], os.environ["API_ADDRESS"])
name = os.environ["ALGORITHM"]
algorithm = client.algo(name)


def result_of(call: Callable[[], Any]) -> Any:
    """Return what a call answers, or the class and message of its error."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - clients raise whatever they like
        return f"{type(error).__name__}: {error}"


def call(versioned: str) -> Any:
    return client.algo(versioned).pipe("x").result


output: dict[str, Any] = {
    "results": [str(algorithm.pipe(given).result) for given in ({"a": [1, None]}, "text", bytearray(b"\x00\xff"))],
    "types": [algorithm.pipe(given).metadata.content_type for given in (None, "text", b"\x00")],
    "raised": result_of(lambda: algorithm.pipe("raise").result),
    "unknown": result_of(partial(call, f"{name}Nowhere")),
    "versions": {
        version: result_of(partial(call, f"{name}/{version}")) for version in os.environ["VERSIONS"].split(",")
    },
    "shown": result_of(lambda: str(algorithm.pipe("x"))),
    "prefixed": call(f"algo://{name}"),
    "printed": algorithm.set_options(timeout=60, stdout=True).pipe("x").metadata.stdout,
    "raw": algorithm.set_options(output=OutputType.raw).pipe("bare"),
}
begun = algorithm.set_options(output=OutputType.void).pipe("later")
request = f"{os.environ['API_ADDRESS']}/v1/requests/{begun.request_id}"
deadline = time.monotonic() + 60
while True:
    later = requests.get(request, headers={"Authorization": os.environ["API_KEY"]}, timeout=30).json()
    if later["state"] != "running" or time.monotonic() > deadline:
        break
    time.sleep(0.1)
output["later"] = later["state"]
print(json.dumps(output))
