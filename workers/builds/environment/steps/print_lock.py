"""Print the installed distributions, one requirement a line, with the hashes in pip's reports at `argv[1:]`.

pip writes reports from 22.2 on (pip documentation, "Installation Report"). If there is one, distributions that the
virtual environment had from the beginning are left out: they belong to the base image. Without any, all distributions
are printed, without hashes.
"""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import distributions
from pathlib import Path


def canonical(name: str) -> str:
    """Return the normalized name of a project (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


reports = [report for report in map(Path, sys.argv[1:]) if report.exists()]
hashes: dict[str, str] = {}
for report in reports:
    for item in json.loads(report.read_text("utf-8"))["install"]:
        archive = item["download_info"].get("archive_info") or {}
        # pip before 23.1 has one hash, in the older form of PEP 610.
        sha256 = archive.get("hashes", {}).get("sha256") or archive.get("hash", "").partition("sha256=")[2]
        hashes[canonical(item["metadata"]["name"])] = f" --hash=sha256:{sha256}" if sha256 else ""
seen: set[str] = set()
for distribution in distributions():  # those of the environment come before those of the base image, which they hide
    name = canonical(distribution.metadata["Name"])
    if name not in seen and (name in hashes or not reports):
        seen.add(name)
        print(f"{name}=={distribution.version}{hashes.get(name, '')}")
