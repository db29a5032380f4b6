from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs

from services.camera.settings import CameraSettings
from services.cli import COMMANDS, main
from services.commands.settings import WatchSettings
from services.detector.settings import DetectorSettings
from services.errors import CannotListen, Exit, SettingsError
from services.settings import DEFAULT_PORT, expanded, expanded_path
from services.study.settings import StudySettings


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


def test_a_source_may_have_a_name_that_is_not_utf8():
    name = os.fsdecode(b"caf\xe9.mp4")
    assert CameraSettings.load({"source": name}).source == name
    assert CameraSettings.load({"source": f"~/{name}"}).source == f"{Path.home()}/{name}"


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
    with pytest.raises(SettingsError, match=r"bad\.toml: prot in \[detector\]: is not a setting"):
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
    with pytest.raises(SettingsError, match="cannot name another one"):
        DetectorSettings.load({"config": path})


@pytest.mark.parametrize("link", ["tcp://10.96.0.1:8765", "tcp://[fd00::1]:8765", "udp://10.96.0.1:8765"])
def test_a_service_link_is_ignored_and_told(link, monkeypatch):
    """Kubernetes sets these in every pod beside a Service named splitcast, or splitcast-metrics."""
    monkeypatch.setenv("SPLITCAST_PORT", link)
    monkeypatch.setenv("SPLITCAST_METRICS_PORT", link)
    monkeypatch.setenv("SPLITCAST_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("SPLITCAST_SERVICE_PORT", "8765")
    monkeypatch.setenv("SPLITCAST_PORT_8765_TCP", link)
    monkeypatch.setenv("SPLITCAST_PORT_8765_TCP_ADDR", "10.96.0.1")
    with capture_logs() as logs:
        assert DetectorSettings.load({}).port == DEFAULT_PORT
        assert CameraSettings.load({"source": "0"}).metrics_port == 8766
    assert [entry["variable"] for entry in logs] == ["SPLITCAST_PORT", "SPLITCAST_METRICS_PORT"]
    assert {entry["log_level"] for entry in logs} == {"warning"}


def test_an_empty_variable_is_none(toml, monkeypatch):
    for name in ("PORT", "CONFIG", "LOG_LEVEL", "ALLOW_ORIGIN", "PREVIEW", "PROFILE", "THREADS"):
        monkeypatch.setenv(f"SPLITCAST_{name}", "")
    assert DetectorSettings.load({"config": toml}).port == 7000


def test_an_error_names_the_setting_as_it_was_given(toml, monkeypatch):
    monkeypatch.setenv("SPLITCAST_PORT", "tcp:8765")
    monkeypatch.setenv("splitcast_threads", "none")
    toml.write_text("[detector]\nwindow = 0\nport = 1\n")
    with pytest.raises(SettingsError) as refused:
        DetectorSettings.load({"config": toml, "max_side": "0"})
    lines = {line.partition(": ")[0] for line in str(refused.value).splitlines()}
    assert lines == {"--max-side", "SPLITCAST_PORT", str(toml), "splitcast_threads"}
    assert f"{toml}: window in [detector]: " in str(refused.value)


def test_an_error_of_several_settings_names_the_first_as_it_was_given(monkeypatch):
    monkeypatch.setenv("SPLITCAST_TARGET_KBPS", "400")
    with pytest.raises(SettingsError, match=r"^SPLITCAST_TARGET_KBPS: rle.* has no quantizer step"):
        CameraSettings.load({"source": "0", "codec": "rle"})


def test_an_error_after_the_start_names_the_setting_as_it_was_given(monkeypatch):
    monkeypatch.setenv("SPLITCAST_DEVICE", "toaster")
    config = DetectorSettings.load({"port": "1"})
    assert config.as_given("--device: no 'toaster' here") == "SPLITCAST_DEVICE: no 'toaster' here"
    assert config.as_given("--port: taken") == "--port: taken"
    assert config.as_given("--threads: many") == "--threads: many"
    assert config.as_given("no flag: at all") == "no flag: at all"


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_a_path_may_begin_with_the_home_folder_wherever_it_is_given(home, monkeypatch):
    (home / "own.toml").write_text('[camera]\nmodel = "~/own.pt"\ncache = "~/weights"\n')
    monkeypatch.setenv("SPLITCAST_PROFILE", "~/own.profile")
    config = CameraSettings.load({"config": "~/own.toml", "source": "~/clip.mp4"})
    assert (config.model, config.source) == (f"{home}/own.pt", f"{home}/clip.mp4")
    assert (config.cache, config.profile) == (home / "weights", home / "own.profile")
    monkeypatch.setenv("SPLITCAST_CONFIG", "~/own.toml")
    assert CameraSettings.load({"source": "rtsp://a/~b"}).source == "rtsp://a/~b"


def test_every_setting_that_may_be_a_path_begins_with_the_home_folder(home):
    """By its type, so that none is forgotten."""
    checked = set()
    for name, command in COMMANDS.items():
        module, _, settings = command.settings.partition(":")
        for field, info in getattr(import_module(module), settings).model_fields.items():
            if "Path" in str(info.annotation) or field in {"source", "model", "profile"}:
                assert any(
                    getattr(validator, "func", None) in (expanded, expanded_path)
                    for validator in (*info.metadata, *nested_metadata(info.annotation))
                ) or (name, field) == ("study", "model"), f"{name} --{field}"
                checked.add(field)
    assert checked >= {"config", "cache", "clip", "data", "html", "out", "output", "summary", "images"}


def test_the_file_of_a_network_of_the_study_too(home):
    settings = StudySettings.load(
        {"name": "all", "out": "a", "model": ("vgg16=~/a.pth", "~/b.pt", "resnet50@8")}
    )
    assert settings.model == (f"vgg16={home}/a.pth", f"{home}/b.pt", "resnet50@8")


def nested_metadata(annotation: object) -> Iterator[object]:
    for part in get_args(annotation):
        yield from getattr(part, "__metadata__", ())
        yield from nested_metadata(part)


def test_an_empty_name_of_a_file_is_no_file_that_is_left_out():
    with pytest.raises(SettingsError, match="cannot read"):
        DetectorSettings.parse(["--config", ""], "splitcast detector", "")


# --- who comes in, and over what ---


@pytest.mark.parametrize("text", ["", " ", "\n"])
def test_a_detector_is_not_open_by_mistake(text):
    """As by --tokens "$TOKENS" where the variable is not set."""
    with pytest.raises(SettingsError, match=r"^--tokens: names no file, and nobody would be asked"):
        DetectorSettings.load({"tokens": text, "insecure": True})


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "10.0.0.5", "detector.example", "localhost.example", "127.0.0.1.example"]
)
def test_a_detector_for_other_machines_needs_tokens_and_tls(host):
    with pytest.raises(SettingsError, match=r"^--host: .*--tokens FILE .*--insecure"):
        DetectorSettings.load({"host": host})
    with pytest.raises(SettingsError, match=r"^--host: .*--tokens FILE"):
        DetectorSettings.load({"host": host, "tls_cert": "cert.pem"})
    with pytest.raises(SettingsError, match=r"^--tokens: .*--tls-cert and --tls-key, or say --insecure"):
        DetectorSettings.load({"host": host, "tokens": "tokens.toml"})
    DetectorSettings.load({"host": host, "tokens": "tokens.toml", "tls_cert": "cert.pem"})
    DetectorSettings.load({"host": host, "insecure": True})
    DetectorSettings.load({"host": host, "insecure": True, "tokens": "tokens.toml"})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "[::1]", "localhost", "LOCALHOST."])
def test_a_detector_for_this_machine_needs_neither(host):
    DetectorSettings.load({"host": host})
    DetectorSettings.load({"host": host, "tokens": "tokens.toml"})


def test_what_is_said_of_a_host_names_where_it_was_given(monkeypatch):
    monkeypatch.setenv("SPLITCAST_HOST", "0.0.0.0")
    with pytest.raises(SettingsError, match=r"^SPLITCAST_HOST: whoever reaches 0\.0\.0\.0"):
        DetectorSettings.load({})


@pytest.mark.parametrize(
    ("command", "flags", "words"),
    [
        (DetectorSettings, {"tls_key": "key.pem"}, "--tls-key: is of no use without --tls-cert"),
        (DetectorSettings, {"tls_client_ca": "ca.pem"}, "--tls-client-ca: is of no use without --tls-cert"),
        (CameraSettings, {"tls_key": "key.pem"}, "--tls-key: is of no use without --tls-cert"),
        (WatchSettings, {"tls_key": "key.pem"}, "--tls-key: is of no use without --tls-cert"),
        (
            CameraSettings,
            {"metrics_tls_key": "k"},
            "--metrics-tls-key: is of no use without --metrics-tls-cert",
        ),
        (
            CameraSettings,
            {"fallback_after_s": 3},
            "--fallback-after-s: is of no use without --fallback local",
        ),
        (CameraSettings, {"fallback_iou": 0.5}, "--fallback-iou: is of no use without --fallback local"),
        (CameraSettings, {"fallback": "local", "metrics_host": "0.0.0.0"}, "--fallback: whoever reaches"),
        (CameraSettings, {"metrics_tls_client_ca": "c"}, "--metrics-tls-client-ca: is of no use without"),
    ],
)
def test_a_key_is_of_no_use_without_its_certificate(command, flags, words):
    with pytest.raises(SettingsError, match=f"^{words}"):
        command.load({**({"source": "0"} if command is CameraSettings else {}), **flags})


@pytest.mark.parametrize(
    "text", ["ab" * 32, ":".join(["AB"] * 32), "sha256 Fingerprint=" + ":".join(["Ab"] * 32)]
)
def test_a_fingerprint_is_taken_as_openssl_prints_it(text):
    assert CameraSettings.load({"source": "0", "tls_fingerprint": text}).tls_fingerprint == "ab" * 32


@pytest.mark.parametrize("text", ["", "ab" * 31, "ab" * 33, "sesame", "xy" * 32])
def test_refuses_what_is_no_fingerprint(text):
    with pytest.raises(SettingsError, match=r"^--tls-fingerprint: must be the 64 hexadecimal digits"):
        CameraSettings.load({"source": "0", "tls_fingerprint": text})


@pytest.mark.parametrize(
    "arguments",
    [
        ["detector", "--tls-cert", "absent.pem", "--port", "0"],
        ["camera", "--source", "demo", "--tls-cert", "absent.pem", "--metrics-port", "0"],
        ["watch", "--tls-cert", "absent.pem"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_certificate_that_cannot_be_read_is_told_at_the_start(arguments, capsys, monkeypatch):
    assert main(arguments) == Exit.USAGE
    assert "--tls-cert: cannot read absent.pem: No such file" in capsys.readouterr().err
    monkeypatch.setenv("SPLITCAST_TLS_CERT", "absent.pem")
    if arguments[0] == "detector":
        assert main(["detector", "--port", "0"]) == Exit.USAGE
        assert "SPLITCAST_TLS_CERT: cannot read absent.pem: No such file" in capsys.readouterr().err


def test_a_detector_looks_at_its_certificate_and_its_address_before_anything_is_loaded():
    with pytest.raises(SettingsError, match=r"--tls-cert: cannot read absent\.pem"):
        DetectorSettings.load({"tls_cert": "absent.pem", "port": 0}).check_machine()
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(CannotListen):
        DetectorSettings.load({"port": taken.getsockname()[1]}).check_machine()


@pytest.mark.parametrize(
    "allowed",
    [
        {},
        {"metrics_host": "::1"},
        {"metrics_host": "0.0.0.0", "insecure": True},
        {"metrics_host": "0.0.0.0", "metrics_tls_cert": "c", "metrics_tls_client_ca": "a"},
        {"metrics_host": "0.0.0.0", "metrics_port": 0},
    ],
)
def test_a_camera_falls_back_where_no_stranger_reads_it(allowed):
    settings = CameraSettings.load({"source": "0", "fallback": "local", "fallback_keep": 7, **allowed})
    assert settings.local_fallback is not None
    assert (settings.local_fallback.after_s, settings.local_fallback.keep) == (5.0, 7)
