"""Write the installed distributions to the file `argv[1]`, as constraints for the next installation."""

from __future__ import annotations

import sys
from importlib.metadata import distributions

versions: dict[str, str] = {}
for distribution in distributions():  # those of the environment come before those of the base image, which they hide
    versions.setdefault(distribution.metadata["Name"].lower().replace("_", "-"), distribution.version)
with open(sys.argv[1], "w") as constraints:
    constraints.writelines(f"{name}=={version}\n" for name, version in versions.items())
