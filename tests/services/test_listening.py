"""A process's own limits, in processes of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from services.errors import CannotListen
from services.listening import LEAST_CONNECTIONS, OWN_FILES, check_address, naming_address
from tests.services.waiting import LIVENESS_S

PROGRAM = """
import resource, sys
import structlog
from services.errors import SettingsError
from services.listening import permitted_connections

soft, hard, wanted = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
with structlog.testing.capture_logs() as logs:
    try:
        print(permitted_connections(wanted), resource.getrlimit(resource.RLIMIT_NOFILE)[0], len(logs))
    except SettingsError as error:
        print(error)
"""


def permitted(soft: int, hard: int, wanted: int) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(soft), str(hard), str(wanted)],
        capture_output=True,
        text=True,
        check=True,
        timeout=LIVENESS_S,
    )
    return done.stdout


def test_a_limit_that_is_enough_stays():
    assert permitted(1000, 2000, 500) == "500 1000 0\n"


def test_the_process_raises_its_limit_as_far_as_it_needs():
    connections, soft, warnings = map(int, permitted(64, 2000, 500).split())
    assert (connections, warnings) == (500, 0)
    assert 500 + OWN_FILES <= soft < 600


def test_fewer_connections_where_the_limit_is_low():
    connections, soft, warnings = map(int, permitted(48, 64, 500).split())
    assert (soft, warnings) == (64, 1)
    assert LEAST_CONNECTIONS <= connections <= 64 - OWN_FILES


def test_hardly_any_is_an_error():
    assert "may open 20 files" in permitted(20, 20, 500)
    assert "ulimit -n" in permitted(20, 20, 500)


def test_an_address_that_is_free_passes():
    check_address("127.0.0.1", 0)


def test_an_address_is_named_by_its_flags():
    words = r"^--metrics-port: cannot listen on here:1: full$"
    with pytest.raises(CannotListen, match=words), naming_address("here", 1, "--metrics-"):
        raise OSError(1, "full")
