"""Files that a service may open: the limit is set for a process of its own."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from tests.services.waiting import LIVENESS_S

LOOK = """
from services.doctor.limits import look_at_limit
from services.errors import SettingsError
try:
    print(look_at_limit(400, ", or lower --max-streams").level)
except SettingsError as error:
    print("refused", error)
"""


@pytest.mark.parametrize(
    ("limit", "words"), [(2048, "ok"), (410, "warning"), (128, "warning"), (20, "refused")]
)
def test_a_limit(limit, words):
    looked = subprocess.run(
        [sys.executable, "-c", LOOK],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)),
        capture_output=True,
        text=True,
        timeout=LIVENESS_S,
        check=True,
    )
    assert looked.stdout.splitlines()[-1].startswith(words)
