"""`make sbom` lists what an installation holds, in CycloneDX."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path

from tests.paths import ROOT
from tests.services.waiting import LIVENESS_S


def test_the_list_is_of_what_is_installed(tmp_path):
    """In an environment of its own that stands in for the plain installation, which takes minutes to make."""
    plain, written = tmp_path / "plain", tmp_path / "made" / "sbom.json"
    venv.create(plain, with_pip=False)
    (packages,) = plain.glob("lib/python*/site-packages")
    (packages / "example-1.5.dist-info").mkdir()
    (packages / "example-1.5.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: example\nVersion: 1.5\nLicense-Expression: MIT\n"
    )
    (plain / ".base").touch()
    command = ["make", "-o", f"{sys.prefix}/.all", "sbom", f"VENV={sys.prefix}"]
    done = subprocess.run(
        [*command, f"SBOM_VENV={plain}", f"SBOM={written}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LIVENESS_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    made = json.loads(written.read_text())
    assert made["bomFormat"] == "CycloneDX"
    assert made["metadata"]["component"]["name"] == "splitcast"
    assert [(each["name"], each["version"], each["purl"]) for each in made["components"]] == [
        ("example", "1.5", "pkg:pypi/example@1.5")
    ]


def test_it_is_no_file_of_the_repository():
    default = subprocess.run(
        ["make", "--print-data-base", "--question"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout
    (line,) = (line for line in default.splitlines() if line.startswith(("SBOM ?=", "SBOM =")))
    file = Path(line.partition("=")[2].strip())
    assert (
        subprocess.run(
            ["git", "check-ignore", "--quiet", "--no-index", file], cwd=ROOT, check=False
        ).returncode
        == 0
    )
