"""A detector, as the program that it is, with a camera and a real broker: killed, stopped, and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from services.errors import Exit
from services.extras import EXTRAS
from tests.faults.programs import ENVIRONMENT, camera_program, detector_program, running, total
from tests.mosquitto import Spy, mosquitto, needs_mosquitto, spying
from tests.paths import ROOT
from tests.services.waiting import LIVENESS_S, until

SOURCE = "demo:scene=bus,fps=5,size=192x128"


def is_state(spy: Spy, state: str, publisher: str = "attic") -> bool:
    text = spy.newest().get("cams/door/state", "{}")
    return json.loads(text).items() >= {"state": state, "publisher": publisher}.items()


@needs_mosquitto
@pytest.mark.slow
async def test_a_detector_that_is_killed_started_again_and_stopped(tmp_path):
    async with mosquitto(tmp_path, "persistence true") as broker, spying(broker) as spy:
        flags = ["--mqtt", broker.url, "--mqtt-id", "attic", "--mqtt-prefix", "cams"]
        detector = detector_program(*flags, "--mqtt-discovery", "homeassistant", "--confidence", "0.01")
        camera = camera_program(SOURCE, f"ws://127.0.0.1:{detector.metrics_port}", "door")
        async with running(detector, camera):
            await detector.until_logged("ready")
            await until(lambda: is_state(spy, "connected") and spy.texts("cams/door/detections"))
            assert spy.newest()["cams/attic/available"] == "online"
            assert "homeassistant/sensor/cams_door_person/config" in spy.newest()
            detection = json.loads(spy.texts("cams/door/detections")[-1])
            assert {"frame", "captured_at", "predictions", "published_at"} <= detection.keys()
            async with aiohttp.ClientSession() as session:
                metrics = await detector.metrics(session)
                assert total(metrics, "splitcast_detector_mqtt_connected") == 1
                assert total(metrics, "splitcast_detector_mqtt_published_total", kind="detections") > 0
                assert total(metrics, "splitcast_detector_subscribers") == 0

            detector.send(signal.SIGKILL)
            await detector.ended()
            await until(lambda: spy.newest()["cams/attic/available"] == "offline")

            seen = len(spy.texts("cams/door/detections"))
            await detector.start()
            await detector.until_logged("ready", 2)
            await until(lambda: len(spy.texts("cams/door/detections")) > seen)
            assert spy.newest()["cams/attic/available"] == "online"
            assert is_state(spy, "connected")

            detector.send(signal.SIGTERM)
            assert await detector.ended() == Exit.OK
            await until(lambda: spy.newest()["cams/attic/available"] == "offline")
            assert is_state(spy, "lost") or is_state(spy, "ended")


@needs_mosquitto
async def test_a_detector_works_whatever_its_broker_does(tmp_path):
    """Without one it says so, and is ready all the same; on a stop it does not wait for it."""
    detector = detector_program("--mqtt", "mqtt://door:hunter2hunter2@127.0.0.1:9")
    async with running(detector):
        await detector.until_logged("no MQTT broker")
        await detector.until_logged("ready")
        detector.send(signal.SIGTERM)
        assert await detector.ended() == Exit.OK
    [told, *_] = detector.logged("no MQTT broker")
    assert told["reason"] == "Connection refused"
    assert "hunter2" not in json.dumps(list(detector.log))


def test_without_the_extra_it_says_what_to_install(tmp_path: Path):
    hiding = f"""
import sys
from importlib.machinery import PathFinder

class Plain(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name in {EXTRAS["mqtt"]} else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Plain
"""
    (tmp_path / "sitecustomize.py").write_text(hiding)
    for arguments in (
        ["detector", "--port", "0", "--mqtt", "mqtt://nas"],
        ["watch", "mqtt://nas"],
    ):
        ran = subprocess.run(
            [sys.executable, "-m", "services.cli", *arguments],
            env=ENVIRONMENT | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
            capture_output=True,
            text=True,
            timeout=LIVENESS_S,
            check=False,
        )
        assert ran.returncode == Exit.USAGE
        assert "needs the extra 'mqtt': pip install 'splitcast[mqtt]'" in ran.stderr
