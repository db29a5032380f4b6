"""What is made of pip-audit's report."""

from __future__ import annotations

import json

import pytest

from tests.deploy import audit

SOUND = {"name": "numpy", "version": "2.0", "vulns": []}
UNKNOWN = {"name": "ours", "skip_reason": "Dependency not found on PyPI and could not be audited: ours (1.0)"}
BROKEN = {
    "name": "example",
    "version": "1.0",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"], "aliases": [], "description": "it runs code"}],
}


def report(*packages: object) -> str:
    return json.dumps({"dependencies": packages, "fixes": []})


@pytest.mark.parametrize(
    ("found", "code", "said"),
    [
        (report(SOUND, UNKNOWN), 0, "1 packages looked up, 1 not known to the index, 0 findings"),
        (report(SOUND, BROKEN), 1, "example 1.0: PYSEC-1; mended in: 1.1"),
        (None, 0, "nothing is known"),
    ],
    ids=["sound", "vulnerable", "no network"],
)
def test_only_a_finding_fails(found, code, said, monkeypatch, capsys):
    monkeypatch.setattr(audit, "audit", lambda: found)
    assert audit.main() == code
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("text", [None, ""], ids=["no report", "an empty one"])
def test_a_program_that_writes_nothing_could_ask_nobody(text, monkeypatch):
    def fake(command, **_options):
        if text is not None:
            command[command.index("--output") + 1].write_text(text)
        return audit.subprocess.CompletedProcess(command, 1, "", "ConnectionError")

    monkeypatch.setattr(audit.subprocess, "run", fake)
    assert audit.audit() is None
