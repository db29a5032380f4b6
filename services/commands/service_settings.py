"""Settings of the services as programs: their own, and those of what runs beside them."""

from __future__ import annotations

from services.detector.settings import DetectorSettings
from services.mqtt.settings import MqttSettings


class DetectorProgramSettings(MqttSettings, DetectorSettings):
    """Settings of `splitcast detector`, which may publish to an MQTT broker."""
