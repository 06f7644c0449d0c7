"""Records a registry and creates an algorithm with the generated client."""

import base64
import json
import os
from typing import Any

import algorithmia_api_client as generated


def api(key: str) -> Any:
    configuration = generated.Configuration(host=os.environ["API_ADDRESS"])
    configuration.api_key["Authorization"] = key
    configuration.api_key_prefix["Authorization"] = "Simple"
    return generated.ApiClient(configuration)


auth = base64.b64encode(f"pusher:{os.environ['PASSWORD']}".encode()).decode()
registry = generated.RegistriesApi(api(os.environ["ADMIN_KEY"])).create_registry(
    generated.Registry(registry_url=os.environ["REGISTRY_URL"], registry_auth=auth, name="generated")
)
created = generated.AlgorithmsApi(api(os.environ["API_KEY"])).create_algorithm(
    os.environ["OWNER"],
    generated.CreateRequest(
        name="Generated",
        details=generated.Details(label="Generated"),
        settings=generated.SettingsMandatory(
            source_visibility="closed",
            license="apl",
            network_access="full",
            pipeline_enabled=True,
            language="python3-1",
        ),
    ),
)
print(json.dumps({"registry_id": registry.id, "registry_url": registry.registry_url, "name": created.name}))
