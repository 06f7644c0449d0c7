"""Calls an algorithm with the Python client, in every form that it has for input and output."""

import json
import os
import time

import Algorithmia
import requests
from Algorithmia.algorithm import OutputType

client = Algorithmia.client(os.environ["API_KEY"], os.environ["API_ADDRESS"])
algorithm = client.algo(os.environ["ALGORITHM"])
answers = [algorithm.pipe(given) for given in ({"a": [1, None]}, "text", bytearray(b"\x00\xff"))]
printed = algorithm.set_options(timeout=60, stdout=True).pipe("print")
output = {
    "results": [str(answer.result) for answer in answers],
    "types": [answer.metadata.content_type for answer in answers],
    "duration": answers[0].metadata.duration,
    "printed": printed.metadata.stdout,
    "raw": algorithm.set_options(output=OutputType.raw).pipe("bare"),
}
begun = algorithm.set_options(output=OutputType.void).pipe("later")
address = f"{os.environ['API_ADDRESS']}/v1/requests/{begun.request_id}"
deadline = time.monotonic() + 60
while True:
    output["later"] = requests.get(address, headers={"Authorization": os.environ["API_KEY"]}, timeout=30).json()
    if output["later"]["state"] != "running" or time.monotonic() > deadline:
        break
    time.sleep(0.1)
print(json.dumps(output))
