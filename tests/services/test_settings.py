from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from pydantic import ValidationError

from services.camera.settings import CameraSettings
from services.detector.settings import DetectorSettings
from services.errors import SettingsError
from services.settings import DEFAULT_PORT


@pytest.fixture
def toml(tmp_path):
    path = tmp_path / "splitcast.toml"
    path.write_text('[camera]\nsource = "file.mp4"\nwindow = 5\nstream = "toml"\n\n[detector]\nport = 7000\n')
    return path


def test_flags_win_over_environment_over_file(toml, monkeypatch):
    monkeypatch.setenv("SPLITCAST_WINDOW", "6")
    monkeypatch.setenv("SPLITCAST_STREAM", "env")
    config = CameraSettings.load({"stream": "flag", "config": toml})
    assert (config.source, config.window, config.stream) == ("file.mp4", 6, "flag")


def test_a_webcam_may_be_a_number(tmp_path):
    path = tmp_path / "webcam.toml"
    path.write_text("[camera]\nsource = 0\n")
    assert CameraSettings.load({"config": path}).source == "0"


def test_each_service_reads_its_own_table(toml):
    assert DetectorSettings.load({"config": toml}).port == 7000


def test_is_frozen_and_travels_between_processes(toml):
    config = DetectorSettings.load({"config": toml})
    with pytest.raises(ValidationError):
        config.port = 1
    assert pickle.loads(pickle.dumps(config)) == config  # noqa: S301 - our own bytes


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({}, "--source: is needed"),
        ({"source": "0", "codec": "av1"}, "--codec: no codec 'av1'"),
        ({"source": "0", "size": "500"}, "--size: .*multiples of 32"),
        ({"source": "0", "detector": "http://x"}, "--detector: must be an address"),
        ({"source": "0", "stream": "a/b"}, "--stream: "),
        ({"source": "0", "window": "0"}, "--window: .*greater than or equal to 1"),
        ({"source": "0", "silence_s": "nan"}, "--silence-s: "),
        ({"source": "0", "log_format": "xml"}, "--log-format: "),
    ],
)
def test_names_the_setting_at_fault(flags, words):
    with pytest.raises(SettingsError, match=words):
        CameraSettings.load(flags)


@pytest.mark.parametrize("setting", ["target_kbps", "max_latency_ms"])
def test_rate_control_needs_a_codec_with_a_step(setting):
    feature = CameraSettings.load({"source": "0", "codec": "feature", setting: "400"})
    assert getattr(feature, setting) == 400
    with pytest.raises(SettingsError, match=f"^--{setting.replace('_', '-')}: rle.* has no quantizer step"):
        CameraSettings.load({"source": "0", "codec": "rle", setting: "400"})
    for value in ("0", "-1", "nan", "inf", "many"):
        with pytest.raises(SettingsError, match=f"--{setting.replace('_', '-')}: "):
            CameraSettings.load({"source": "0", "codec": "feature", setting: value})


def test_effort_is_a_parameter_of_the_codec():
    assert CameraSettings.load({"source": "0", "effort": "3"}).parsed_codec.effort == 3
    assert CameraSettings.load({"source": "0", "codec": "feature:effort=1"}).parsed_codec.effort == 1
    both = CameraSettings.load(
        {"source": "0", "codec": "feature:quality=4,effort=1", "effort": "0"}
    ).parsed_codec
    assert (both.quality, both.effort) == (4, 0)
    with pytest.raises(SettingsError, match=r"^--effort: rle.* searches for no motion"):
        CameraSettings.load({"source": "0", "codec": "rle", "effort": "0"})
    for value in ("-1", "4", "most"):
        with pytest.raises(SettingsError, match="--effort: "):
            CameraSettings.load({"source": "0", "effort": value})


def test_a_profile_is_for_a_codec_that_takes_one():
    with pytest.raises(SettingsError, match=r"^--profile: rle.* takes no calibration profile"):
        CameraSettings.load({"source": "0", "codec": "rle", "profile": "some.profile"})
    named = CameraSettings.load({"source": "0", "codec": "feature", "profile": "some.profile"})
    assert named.profile == Path("some.profile")


def test_no_pixel_leaves_a_camera_unless_it_is_told_to(monkeypatch, capsys):
    assert not CameraSettings.load({"source": "0"}).preview
    assert CameraSettings.parse(["--source", "0", "--preview"], "splitcast camera", "").preview
    with pytest.raises(SystemExit):
        CameraSettings.parse(["--help"], "splitcast camera", "")
    assert "PIXELS LEAVE THE CAMERA" in capsys.readouterr().out
    assert DetectorSettings.load({}).preview
    monkeypatch.setenv("SPLITCAST_PREVIEW", "false")
    assert not DetectorSettings.load({}).preview


def test_refuses_an_unknown_key(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text("[detector]\nprot = 1\n")
    with pytest.raises(SettingsError, match="--prot: is not a setting"):
        DetectorSettings.load({"config": path})


@pytest.mark.parametrize("content", ["[detector", "detector = 1"])
def test_refuses_a_broken_file(tmp_path, content):
    path = tmp_path / "bad.toml"
    path.write_text(content)
    with pytest.raises(SettingsError, match=r"bad\.toml"):
        DetectorSettings.load({"config": path})
    with pytest.raises(SettingsError, match="cannot read"):
        DetectorSettings.load({"config": tmp_path / "none.toml"})


@pytest.mark.parametrize(
    "origins", ["", "*", "https://dash.example", "HTTPS://a.example/ , http://[::1]:8765,"]
)
def test_takes_origins(origins):
    assert DetectorSettings.load({"allow_origin": origins}).allow_origin == origins


@pytest.mark.parametrize(
    "origins",
    ["dash.example", "ws://dash.example", "https://", "https://a.example/path", "https://a b", "http://["],
)
def test_refuses_what_is_no_origin(origins):
    with pytest.raises(SettingsError, match="--allow-origin: "):
        DetectorSettings.load({"allow_origin": f"https://good.example,{origins}"})


def test_the_file_may_be_named_by_the_environment(toml, monkeypatch):
    monkeypatch.setenv("SPLITCAST_CONFIG", str(toml))
    assert DetectorSettings.load({}).port == 7000


def test_a_file_without_the_table_says_nothing(tmp_path):
    path = tmp_path / "other.toml"
    path.write_text("[camera]\nwindow = 5\n")
    assert DetectorSettings.load({"config": path}).port == DEFAULT_PORT


def test_a_file_names_no_other_file(tmp_path):
    path = tmp_path / "first.toml"
    path.write_text('[detector]\nconfig = "second.toml"\n')
    with pytest.raises(SettingsError, match="--config: "):
        DetectorSettings.load({"config": path})


def test_an_empty_name_of_a_file_is_no_file_that_is_left_out():
    with pytest.raises(SettingsError, match="cannot read"):
        DetectorSettings.parse(["--config", ""], "splitcast detector", "")
