"""What a camera without a detector tells a broker: the same texts as over WebSocket, under a name of its own."""

from __future__ import annotations

import asyncio
import json

import pytest

from services.commands.camera import telling
from services.commands.camera_settings import CameraProgramSettings
from services.commands.detector_settings import DetectorProgramSettings
from services.errors import SettingsError
from tests.mosquitto import kept_by, mosquitto, needs_mosquitto, spying
from tests.services.camera.sources import picture, scripted
from tests.services.waiting import LIVENESS_S, until

NOWHERE = "ws://127.0.0.1:9"  # the discard port: nobody listens


@needs_mosquitto
async def test_a_broker_gets_what_the_camera_detects(make_camera, monkeypatch, tmp_path):
    made = scripted(monkeypatch, live=True)
    camera = make_camera(
        NOWHERE, fallback="local", fallback_after_s=0.01, fallback_confidence=0.001, silence_s=LIVENESS_S
    )
    detections = camera.local_tail.detections
    async with mosquitto(tmp_path) as broker, spying(broker) as spy:
        settings = CameraProgramSettings.load({"source": "0", "fallback": "local", "mqtt": broker.url})
        async with telling(detections, camera.statistics.metrics, settings):
            playing = asyncio.ensure_future(camera.run())
            await until(lambda: made)
            for number in range(3):
                made[0].play(picture())
                await until(lambda number=number: len(detections.kept) > number)
            await until(lambda: len(spy.texts("splitcast/door/detections")) == 3)
            camera.stop()
            await asyncio.wait_for(playing, LIVENESS_S)
        kept = await kept_by(broker)
        states = [json.loads(text) for text in spy.texts("splitcast/door/state")]
    assert spy.texts("splitcast/door/detections") == detections.kept.since(0)
    assert [state["state"] for state in states] == ["connected", "ended"]
    assert {state["publisher"] for state in states} == {settings.mqtt_id}
    assert json.loads(kept["splitcast/door/state"])["state"] == "ended"
    assert kept[f"splitcast/{settings.mqtt_id}/available"] == "offline"
    published = camera.statistics.metrics.registry.get_sample_value(
        "splitcast_camera_mqtt_published_total", {"kind": "detections"}
    )
    assert published == 3


def test_camera_and_detector_of_one_machine_are_two_to_a_broker():
    camera = CameraProgramSettings.load({"source": "0"})
    assert camera.mqtt_id.endswith("-camera")
    assert camera.mqtt_id != DetectorProgramSettings.load({}).mqtt_id


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"mqtt": "mqtt://nas"}, "--mqtt: a camera publishes what it detects without a detector"),
        ({"fallback": "local", "metrics_port": 0}, "--fallback: nobody could read"),
    ],
)
def test_what_would_come_to_nobody_is_refused(flags, words):
    with pytest.raises(SettingsError, match=words):
        CameraProgramSettings.load({"source": "0", **flags})
