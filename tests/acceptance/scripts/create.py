"""Creates an algorithm with the Python client."""

import json
import os

import Algorithmia

client = Algorithmia.client(os.environ["API_KEY"], os.environ["API_ADDRESS"])
algorithm = client.algo(os.environ["ALGORITHM"])
before = algorithm.exists()
created = algorithm.create(
    details={"label": "Client", "summary": "A test"},
    settings={
        "source_visibility": "closed",
        "license": "apl",
        "network_access": "full",
        "pipeline_enabled": True,
        "language": "python3-1",
    },
)
print(json.dumps({"before": before, "created": created, "after": algorithm.exists()}))
