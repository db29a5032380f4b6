"""The command as a user runs it: real processes, signals, exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from codec.packet_file import read_packets
from services.cli import main
from services.errors import Exit
from tests.ports import free_port
from tests.services.clips import FRAMES, SIZE

pytestmark = pytest.mark.timeout(900)
LIMIT_S = (
    400.0  # whole programs, up to three at a time, each of which imports torch: only a hang takes so long
)
COMMAND = [sys.executable, "-m", "services.cli"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        env=ENVIRONMENT | environment,
        check=False,
    )


@contextmanager
def started(*arguments: str | Path):
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def next_event(process: subprocess.Popen[str], event: str) -> dict:
    """The next log line of that event; the log is JSON lines as it is no terminal."""
    assert process.stderr
    seen = []
    for line in process.stderr:
        seen.append(line)
        if line.startswith("{") and (record := json.loads(line))["event"] == event:
            return record
    raise AssertionError(f"{event!r} never came; the log was {''.join(seen)}")


@pytest.fixture
def camera_flags(weights, video):
    return [
        *("camera", "--model", weights, "--source", video, "--size", f"{SIZE[0]}x{SIZE[1]}"),
        *("--metrics-port", "0", "--stream", "door"),
    ]


def test_two_processes_and_their_signals(weights, camera_flags):
    with started("detector", "--port", "0", "--model", weights, "--confidence", "0.001") as detector:
        port = next_event(detector, "listening")["port"]
        next_event(detector, "ready")
        url = f"ws://127.0.0.1:{port}"

        watching = subprocess.Popen(
            [*COMMAND, "watch", url, "--json", "--count", str(FRAMES + 1)],
            stdout=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )
        wait_for(lambda: metric(port, "splitcast_detector_subscribers") >= 1)

        finished = run(*camera_flags, "--detector", url)
        assert finished.returncode == Exit.OK, finished.stderr
        messages = [json.loads(line) for line in watching.communicate(timeout=LIMIT_S)[0].splitlines()]
        assert watching.returncode == Exit.OK
        assert (messages[0]["type"], messages[0]["state"]) == ("stream", "connected")
        assert [message["sequence"] for message in messages[1:]] == list(range(FRAMES))

        with started(*camera_flags, "--loop", "--detector", url) as camera:
            next_event(camera, "streaming")
            camera.send_signal(signal.SIGTERM)
            stopped = next_event(camera, "camera stopped")
            assert camera.wait(LIMIT_S) == Exit.OK
            assert stopped["captured"] == stopped["detected"] + stopped["dropped"]
            assert next_event(detector, "session ended")["code"] in {1000, 1001}
            assert next_event(detector, "session ended")["code"] == 1001

        with started(*camera_flags, "--loop", "--detector", url) as camera:
            next_event(camera, "streaming")
            detector.send_signal(signal.SIGTERM)
            assert next_event(camera, "no detector")["code"] == 1001
            assert detector.wait(LIMIT_S) == Exit.OK


def test_a_second_signal_stops_at_once(weights, camera_flags):
    """With a detector that has frozen, the drain would take an hour."""
    with started("detector", "--port", "0", "--model", weights) as detector:
        port = next_event(detector, "listening")["port"]
        next_event(detector, "ready")
        flags = [*camera_flags, "--loop", "--detector", f"ws://127.0.0.1:{port}", "--drain-s", "3600"]
        flags += ["--metrics-port", str(metrics_port := free_port()), "--window", "3"]
        with started(*flags) as camera:
            next_event(camera, "streaming")
            detector.send_signal(signal.SIGSTOP)
            wait_for(lambda: metric(metrics_port, "splitcast_camera_frames_in_flight") >= 3)
            camera.send_signal(signal.SIGTERM)
            with pytest.raises(subprocess.TimeoutExpired):
                camera.wait(1.0)
            camera.send_signal(signal.SIGTERM)
            assert camera.wait(LIMIT_S) == Exit.OK


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def metric(port: int, name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        found = re.search(rf"^{name} (\S+)$", answer.read().decode(), re.MULTILINE)
    assert found
    return float(found[1])


def test_refused_by_the_detector(weights, other_weights, camera_flags, capsys):
    with started("detector", "--port", "0", "--model", other_weights) as detector:
        port = next_event(detector, "listening")["port"]
        next_event(detector, "ready")
        assert main([*map(str, camera_flags), "--detector", f"ws://127.0.0.1:{port}"]) == Exit.REFUSED
    assert "the detector refused this camera (4410): weights differ" in capsys.readouterr().err


def test_credentials_appear_nowhere(camera_flags):
    flags = [*camera_flags, "--source", "rtsp://admin:hunter2@127.0.0.1:9/live", "--open-timeout-s", "1"]
    with started(*flags) as camera:
        lost = next_event(camera, "source lost")
        camera.send_signal(signal.SIGTERM)
        rest = camera.communicate(timeout=LIMIT_S)[1]
    assert "127.0.0.1:9" in lost["source"]
    assert "hunter2" not in json.dumps(lost) + rest
    assert camera.returncode == Exit.OK


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["camera"], Exit.USAGE, "--source: is needed"),
        (["camera", "--source", "0", "--codec", "rle:bits=9"], Exit.USAGE, "bits"),
        (["camera", "--source", "none.mp4"], Exit.SOURCE, "none.mp4"),
        (["camera", "--source", ""], Exit.USAGE, "--source"),
        (["camera", "--source", "0", "--detector", "ws://"], Exit.USAGE, "--detector"),
        (["camera", "--source", "0", "--detector", "ws://x:99999"], Exit.USAGE, "--detector"),
        (["detector", "--device", "banana", "--port", "0", "--model", "WEIGHTS"], Exit.USAGE, "banana"),
        (["watch", "ws://x@[::1"], Exit.USAGE, "not an address"),
        (["detector", "--model", "none.pt", "--port", "0"], Exit.WEIGHTS, "none.pt"),
        (["watch", "ftp://x"], Exit.USAGE, "not an address"),
        (["encode", "none.npz", "out.spc"], Exit.FAILURE, "none.npz"),
        (["decode", "none.spc", "out.npz"], Exit.FAILURE, "none.spc"),
        (["points", "--model", "yolov9"], Exit.USAGE, "yolov9"),
        (["points", "--size", "33"], Exit.USAGE, "multiples of 32"),
    ],
)
@pytest.mark.usefixtures("empty_folder")
def test_errors_say_what_to_do(arguments, code, words, capsys, weights):
    arguments = [str(weights) if argument == "WEIGHTS" else argument for argument in arguments]
    assert main(arguments) == code
    message = capsys.readouterr().err.splitlines(keepends=True)[-1]
    assert words in message
    assert "Traceback" not in message
    if arguments[0] in {"camera", "detector"}:  # whose logs are JSON where nobody sits at a terminal
        entry = json.loads(message)
        assert (entry["event"], entry["level"], entry["exit_code"]) == ("ended by an error", "critical", code)
        assert words in entry["reason"]
    else:
        assert message.startswith("splitcast: ")


@pytest.mark.parametrize(
    ("arguments", "variable", "in_json"),
    [
        (["--log-format", "json", "--prot", "1"], "", True),
        (["--log-format=json", "--prot", "1"], "", True),
        (["--prot", "1"], "json", True),
        (["--prot", "1"], "", True),  # auto: nobody sits at a terminal here
        (["--prot", "1"], "text", False),
        (["--log-format", "text", "--prot", "1"], "json", False),
        (["--log-format", "text", "--port", "none"], "json", False),
    ],
)
def test_settings_that_are_wrong_are_told_as_the_service_logs(
    arguments, variable, in_json, capsys, monkeypatch
):
    monkeypatch.setenv("SPLITCAST_LOG_FORMAT", variable)
    assert main(["detector", *arguments]) == Exit.USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("{" if in_json else "splitcast: ")


def test_a_defect_of_ours_is_one_line_of_a_service_and_a_traceback_elsewhere(capsys, monkeypatch):
    def fail(_: object) -> None:
        raise ValueError("a bug with a password: rtsp://admin:hunter2@camera")

    monkeypatch.setattr("services.commands.detector.run_detector", fail)
    assert main(["detector", "--port", "0"]) == Exit.FAILURE
    (line,) = capsys.readouterr().err.splitlines()
    entry = json.loads(line)
    assert entry["exception"].startswith("Traceback")
    assert "a bug" in entry["exception"]
    assert "hunter2" not in line
    with pytest.raises(ValueError, match="a bug"):
        main(["detector", "--port", "0", "--log-format", "text"])


def test_no_password_is_told_with_what_is_no_flag(capsys):
    assert main(["camera", "--log-format", "text", "rtsp://admin:hunter2@camera"]) == Exit.USAGE
    assert "hunter2" not in capsys.readouterr().err


def test_a_taken_port_is_told(weights, capsys, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        loading = {"services.commands.detector", "services.commands.camera"}
        for module in loading:
            monkeypatch.delitem(sys.modules, module, raising=False)
        for flags, name in (
            (["detector", "--model", str(weights), "--port", str(port)], "--port"),
            (["camera", "--source", "demo", "--metrics-port", str(port)], "--metrics-port"),
        ):
            assert main(flags) == Exit.FAILURE
            assert (
                f"{name}: cannot listen on 127.0.0.1:{port}: Address already in use"
                in capsys.readouterr().err
            )
        monkeypatch.setenv("SPLITCAST_PORT", str(port))
        assert main(["detector", "--model", str(weights)]) == Exit.FAILURE
        assert f"SPLITCAST_PORT: cannot listen on 127.0.0.1:{port}: " in capsys.readouterr().err
        assert not loading & sys.modules.keys()  # told before anything is loaded


def test_an_address_of_another_machine_is_told(capsys):
    assert main(["detector", "--host", "192.0.2.1", "--insecure"]) == Exit.FAILURE
    assert "--host: cannot listen on 192.0.2.1:8765: " in capsys.readouterr().err
    assert main(["detector", "--host", "no such host", "--insecure"]) == Exit.FAILURE
    assert "--host: cannot listen on no such host:8765: " in capsys.readouterr().err


def test_a_damaged_profile_is_a_wrong_setting(weights, tmp_path, capsys):
    """So that systemd does not start the service again for ever."""
    (tmp_path / "damaged.profile").write_bytes(b"no profile")
    flags = ["--model", str(weights), "--port", "0", "--profile", str(tmp_path / "damaged.profile")]
    assert main(["detector", *flags]) == Exit.USAGE
    assert "damaged.profile is no profile" in capsys.readouterr().err


def test_encode_and_decode(tmp_path, capsys):
    numbers = np.random.default_rng(0)
    frames = {
        "4.m": numbers.normal(size=(3, 4, 6, 8)).astype(np.float32),
        "4.cv2": numbers.normal(size=(3, 2, 6, 8)).astype(np.float32),
    }
    source, packets, target = (tmp_path / name for name in ("in.npz", "out.spc", "out.npz"))
    np.savez(source, **frames)
    assert main(["encode", str(source), str(packets), "--codec", "rle:bits=8"]) == Exit.OK
    encoded = capsys.readouterr().out
    assert main(["decode", str(packets), str(target)]) == Exit.OK
    decoded = np.load(target)
    assert set(decoded) == set(frames)
    for name, frame in frames.items():
        span = frame.max() - frame.min()
        np.testing.assert_allclose(decoded[name], frame, atol=span / 255 / 2 * 1.01)
    assert "bits" in encoded
    assert f" {sum(map(len, read_packets(packets)))} coded" in encoded  # a file also says where each ends


@pytest.mark.parametrize(
    ("codec", "warned"), [("feature", True), ("feature:profile=none", False), ("rle", False)]
)
def test_encode_says_that_features_are_not_calibrated(codec, warned, tmp_path, capsys):
    source = tmp_path / "in.npz"
    np.savez(source, **{"4.m": np.random.default_rng(0).normal(size=(4, 6, 8)).astype(np.float32)})
    assert main(["encode", str(source), str(tmp_path / "out.spc"), "--codec", codec]) == Exit.OK
    said = capsys.readouterr()
    assert ("without statistics" in said.err) == warned


def test_demo_shows_and_writes_its_figures(weights, video, tmp_path, capsys, monkeypatch):
    """By its flags alone: what the environment says is for services."""
    for name, value in (("HOST", "192.0.2.1"), ("SPLIT", "2"), ("PREVIEW", "false")):
        monkeypatch.setenv(f"SPLITCAST_{name}", value)
    target = tmp_path / "demo.json"
    flags = ["--model", weights, "--source", video, "--size", f"{SIZE[0]}x{SIZE[1]}", "--preview"]
    code = main(["demo", *map(str, flags), "--seconds", "0", "--json", str(target)])
    figures = json.loads(target.read_text())
    # Random weights may find nothing above the default confidence, which the exit code has to tell.
    assert code == (Exit.OK if figures["detections"] else Exit.NOTHING_DETECTED)
    assert figures["frames"] == FRAMES
    assert figures["raw_kb_per_frame"] == pytest.approx(2 * 32 * 8 * 12 * 4 / 1e3)
    assert 0 < figures["kb_per_frame"] < figures["raw_kb_per_frame"]
    stages = {stage: ms for stage, ms in figures["latency_ms"].items() if not stage.startswith("total")}
    assert figures["latency_ms"]["total"] == pytest.approx(sum(stages.values()), rel=0.02)
    assert "frames/s" in capsys.readouterr().out


def test_demo_needs_nothing_but_what_is_installed(tmp_path):
    """The embedded network on the virtual camera: people and a bus, beside what raw tensors and JPEG would take."""
    target, browser = tmp_path / "demo.json", tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" >{tmp_path}/opened\n')
    browser.chmod(0o755)
    shown = run("demo", "--seconds", "8", "--json", target, "--open", BROWSER=f"{browser} %s")
    figures = json.loads(target.read_text())
    assert shown.returncode == Exit.OK, shown.stderr
    page = re.search(r"live page (http://127\.0\.0\.1:\d+/)", shown.stdout)
    assert page
    assert figures["frames"] > 0
    assert figures["detections"] > 0
    assert set(figures["detections_by_class"]) >= {"person", "bus"}
    assert figures["raw_kb_per_frame"] == pytest.approx(1228.8)
    assert 10 < figures["jpeg_kb_per_frame"] < 300
    for text in ("as raw tensors", "as JPEG, quality 90", "person", "bus", "tail, ms"):
        assert text in shown.stdout
    assert page[1] in (tmp_path / "opened").read_text()


def test_demo_ends_by_ctrl_c_without_a_loss(weights, video):
    """A terminal sends it to every process of the demo; the detector has to outlive the camera."""
    small = ("--source", "demo:size=96x64", "--size", "64x96", "--codec", "rle:bits=4")
    with demo_in_a_terminal("--model", weights, *small) as shown:
        assert shown.stdout
        for line in shown.stdout:
            if "frames/s" in line:
                break
        os.killpg(shown.pid, signal.SIGINT)
        summary, noise = shown.communicate(timeout=LIMIT_S)
    assert shown.returncode in {Exit.OK, Exit.NOTHING_DETECTED}
    assert "frames detected" in summary
    assert "connection_lost" not in summary
    assert noise == ""


def test_demo_that_is_stopped_before_its_camera_has_detected_nothing(weights):
    with demo_in_a_terminal("--model", weights) as shown:
        assert shown.stdout
        for line in shown.stdout:
            if "starting the detector" in line:
                break
        os.killpg(shown.pid, signal.SIGINT)
        shown.communicate(timeout=LIMIT_S)
    assert shown.returncode == Exit.NOTHING_DETECTED


@contextmanager
def demo_in_a_terminal(*arguments: str | Path):
    """The demo until it is stopped, in a process group of its own as a shell gives it one."""
    # A suite that runs in the background ignores Ctrl-C, and what it starts would inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [*COMMAND, "demo", "--seconds", "0", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
            start_new_session=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--codec", "foo"], Exit.USAGE, "foo"),
        (["--size", "0"], Exit.USAGE, "size"),
        (["--source", "absent.mp4"], Exit.SOURCE, "absent.mp4"),
        (["--source", "demo:fps=0"], Exit.SOURCE, "fps"),
        (["--model", "absent.pt"], Exit.WEIGHTS, "absent.pt"),
        (["--device", "toaster"], Exit.USAGE, "toaster"),
        (["--json", "absent/demo.json"], Exit.FAILURE, "absent"),
    ],
)
def test_demo_tells_what_is_wrong_before_it_starts(weights, capsys, flags, code, message):
    assert main(["demo", "--model", str(weights), *flags]) == code
    told = capsys.readouterr()
    assert "starting" not in told.out
    assert message in told.err


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1", "soon"])
def test_demo_takes_only_times_that_end(seconds, capsys):
    assert main(["demo", "--seconds", seconds]) == Exit.USAGE
    assert "--seconds: " in capsys.readouterr().err


def test_demo_without_a_camera_says_so_and_ends(weights, capsys, monkeypatch):
    monkeypatch.setattr("services.commands.demo.REFRESH_S", 0.05)
    flags = ["--model", str(weights), "--source", "97", "--seconds", "2"]
    assert main(["demo", *flags]) == Exit.NOTHING_DETECTED
    assert "waiting for the source: there is no /dev/video97" in capsys.readouterr().out


def test_bench_pipeline_reports_its_ratio(weights, video, tmp_path, capsys):
    target = tmp_path / "bench.json"
    flags = ["--model", weights, "--source", video, "--size", f"{SIZE[0]}x{SIZE[1]}", "--frames", "10"]
    flags += ["--rounds", "2", "--codec", "rle:bits=4", "--json", target]
    flags += ["--against", "onnxruntime"]  # the other engine takes seconds to import
    assert main(["bench", "pipeline", *map(str, flags)]) == Exit.OK
    record = json.loads(target.read_text())
    assert (record["engine"], record["against"]["engine"]) == ("auto", "onnxruntime")
    assert record["against"]["frames"] == 20
    assert len(record["speedups"]) == 2
    assert f"of that by onnxruntime: {record['speedup']:.2f} times" in capsys.readouterr().out
    assert record["frames"] == 20
    assert len(record["ratios"]) == 2
    assert record["ratio"] == pytest.approx(sum(record["ratios"]) / 2, abs=1e-3)
    assert record["pipeline_fps"] > 0
    assert record["bare_fps"] > 0
    assert set(record["stages_ms"]) >= {"head", "encode", "decode", "tail"}
