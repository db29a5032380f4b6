"""Whether a known vulnerability is in what an installation brings: `make audit`.

pip-audit asks the package index and tells a missing network from a finding only by what it writes, so that is read:
where nobody could be asked, nothing is known, and nothing fails.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.paths import ROOT

LIMIT_S = 300.0


def findings(report: str) -> tuple[list[str], int, int]:
    """Of a report of pip-audit's: a line for each finding, and how many packages were looked up, and how many not."""
    found, known, unknown = [], 0, 0
    for package in json.loads(report)["dependencies"]:
        if "skip_reason" in package:
            unknown += 1
            continue
        known += 1
        for each in package["vulns"]:
            better = " or ".join(each["fix_versions"]) or "none yet"
            found.append(f"{package['name']} {package['version']}: {each['id']}; mended in: {better}")
    return found, known, unknown


def audit() -> str | None:
    """pip-audit's report of what pyproject.toml brings; None where it could not ask anybody."""
    with TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip_audit", "--progress-spinner", "off", "--format", "json"]
        try:
            done = subprocess.run(
                [*command, "--output", report, ROOT],
                capture_output=True,
                text=True,
                timeout=LIMIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return None
        if not report.is_file() or not (text := report.read_text()).strip():
            print(done.stderr[-500:], file=sys.stderr)
            return None
        return text


def main() -> int:
    report = audit()
    if report is None:
        print("pip-audit: nobody could be asked, nothing is known")
        return 0
    found, known, unknown = findings(report)
    print(*found, sep="\n", end="\n" if found else "")
    print(f"pip-audit: {known} packages looked up, {unknown} not known to the index, {len(found)} findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
