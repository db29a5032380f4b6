"""What Ray finds in the environment, and the folder that it has."""

from __future__ import annotations

import os
import stat

import pytest

from services.ray_tail.environment import MAX_FOLDER, make_folder, prepare_ray


@pytest.fixture
def environment(monkeypatch):
    """Without anything of Ray, as it is again afterwards."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    monkeypatch.setattr(os, "environ", kept)
    return kept


def test_an_own_ray_keeps_to_loopback_asks_for_a_token_and_tells_nobody(environment):
    prepare_ray(own=True)
    assert environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
    assert environment["RAY_USAGE_STATS_ENABLED"] == "0"
    assert environment["RAY_worker_niceness"] == "0"
    assert environment["RAY_AUTH_MODE"] == "token"
    first = environment.pop("RAY_AUTH_TOKEN")
    assert len(first) == 64
    prepare_ray(own=True)
    assert environment["RAY_AUTH_TOKEN"] != first


def test_a_cluster_has_a_token_and_an_address_of_its_own(environment):
    prepare_ray(own=False)
    assert not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"} & environment.keys()
    assert environment["RAY_USAGE_STATS_ENABLED"] == "0"


def test_the_users_variables_win(environment):
    given = {"RAY_worker_niceness": "5", "RAY_AUTH_TOKEN_PATH": "/run/token"}
    environment.update(given)
    prepare_ray(own=True)
    assert environment.items() >= given.items()
    assert "RAY_AUTH_TOKEN" not in environment


def test_the_folder_is_short_and_for_one_user(tmp_path, monkeypatch):
    """Paths of sockets in it have to fit, wherever temporary files go."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("long" * 10)))
    folder = make_folder()
    try:
        assert len(str(folder)) <= MAX_FOLDER
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    finally:
        folder.rmdir()
