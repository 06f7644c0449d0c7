"""Print what was installed, a requirement for each line, with the hashes that pip's reports at `argv[1:]` tell.

pip writes reports from 22.2 on (pip documentation, "Installation Report"). Where there is one, what the virtual
environment had from the beginning is left out: that is the base image's. Without any, all that is there is told, and no
hash.
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


reports = [report for report in map(Path, sys.argv[1:]) if report.exists()]
hashes: dict[str, str] = {}
for report in reports:
    for item in json.loads(report.read_text("utf-8"))["install"]:
        archive = item["download_info"].get("archive_info") or {}
        # pip before 23.1 tells one hash, in the older words of PEP 610.
        sha256 = archive.get("hashes", {}).get("sha256") or archive.get("hash", "").partition("sha256=")[2]
        hashes[canonical(item["metadata"]["name"])] = f" --hash=sha256:{sha256}" if sha256 else ""
for found in distributions():
    name = canonical(found.metadata["Name"])
    if name in hashes or not reports:
        print(f"{name}=={found.version}{hashes.get(name, '')}")
