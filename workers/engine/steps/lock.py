"""Print what is installed, a requirement for each line, with the hashes that pip's reports at `argv[1:]` tell.

A report that is not there is none: pip writes them from 22.2 on (pip documentation, "Installation Report").
"""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import distributions
from pathlib import Path


def canonical(name: str) -> str:
    """The one spelling of a project's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


hashes = {}
for report in filter(Path.exists, map(Path, sys.argv[1:])):
    for item in json.loads(report.read_text("utf-8"))["install"]:
        said = (item["download_info"].get("archive_info") or {}).get("hash") or ""
        if said.startswith("sha256="):
            hashes[canonical(item["metadata"]["name"])] = said.replace("=", ":", 1)
for found in distributions():
    name = canonical(found.metadata["Name"])
    known = f" --hash={hashes[name]}" if name in hashes else ""
    print(f"{name}=={found.version}{known}")
