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
        archive = item["download_info"].get("archive_info") or {}
        # pip before 23.1 tells one hash, in the older words of PEP 610.
        sha256 = archive.get("hashes", {}).get("sha256") or archive.get("hash", "").partition("sha256=")[2]
        if sha256:
            hashes[canonical(item["metadata"]["name"])] = f"sha256:{sha256}"
for found in distributions():
    name = canonical(found.metadata["Name"])
    known = f" --hash={hashes[name]}" if name in hashes else ""
    print(f"{name}=={found.version}{known}")
