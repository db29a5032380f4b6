"""A doctor takes what its service takes, from the same places."""

from __future__ import annotations

import pkgutil

import pytest

from services.cli import COMMANDS, parse
from services.errors import SettingsError


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("SPLITCAST_STREAM", "door")
    file = tmp_path / "splitcast.toml"
    file.write_text('[camera]\nsource = "demo"\nwindow = 5\n[detector]\nmax_streams = 9\n')
    return file


@pytest.mark.parametrize("service", ["camera", "detector"])
def test_every_setting_of_the_service_is_one_of_the_doctors(service):
    own, doctors = (pkgutil.resolve_name(COMMANDS[name].settings) for name in (service, f"doctor {service}"))
    assert issubclass(doctors, own)
    assert doctors.table == service


def test_the_services_flags_variables_and_file(config):
    _, camera = parse(["doctor", "camera", "--config", str(config), "--fps", "25", "--size", "320"])
    assert (camera.source, camera.stream, camera.window) == ("demo", "door", 5)
    assert (camera.size, camera.fps, camera.as_json) == ("320", 25.0, False)
    _, detector = parse(["doctor", "detector", "--config", str(config), "--json"])
    assert (detector.max_streams, detector.fps, detector.as_json) == (9, None, True)


def test_what_the_service_would_refuse_is_refused(config):
    with pytest.raises(SettingsError, match="--tls-key: is of no use without --tls-cert"):
        parse(["doctor", "detector", "--tls-key", "key.pem"])
    with pytest.raises(SettingsError, match="--source: is needed"):
        parse(["doctor", "camera"])


@pytest.mark.parametrize("own", ["fps = 25", "seconds = 3", "json = true"])
def test_a_file_that_the_service_would_refuse_is_refused(config, own):
    config.write_text(config.read_text().replace("window = 5", own))
    with pytest.raises(SettingsError, match=r"in \[camera\]: is not a setting of the service"):
        parse(["doctor", "camera", "--config", str(config)])


def test_variables_speak_to_the_service_alone(config, monkeypatch):
    for name in ("FPS", "SECONDS", "JSON", "AS_JSON"):
        monkeypatch.setenv(f"SPLITCAST_{name}", "7")
    _, camera = parse(["doctor", "camera", "--source", "demo"])
    assert (camera.fps, camera.as_json) == (None, False)


def test_nothing_stops_a_doctor_before_it_looks(config):
    _, camera = parse(
        ["doctor", "camera", "--config", str(config), "--token-file", str(config), "--tls-ca", str(config)]
    )
    camera.check_machine()
