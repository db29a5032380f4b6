"""Settings of `splitcast camera` as a program: the camera's, and those of what runs beside it."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from services.camera.settings import CameraSettings
from services.mqtt.settings import MqttSettings
from services.settings import own_name
from stream.session.messages import StreamName


class CameraProgramSettings(MqttSettings, CameraSettings):
    """Settings of `splitcast camera`, which may publish to an MQTT broker what it detects itself."""

    mqtt_id: StreamName = Field(
        default_factory=lambda: f"{own_name()[:57]}-camera",
        description="name of this publisher at the broker, of its own (default: host name, and -camera)",
    )

    @model_validator(mode="after")
    def _check_readers(self) -> Self:
        if self.mqtt and not self.fallback:
            raise ValueError(
                "--mqtt: a camera publishes what it detects without a detector: add --fallback local, or give "
                "--mqtt to the detector alone"
            )
        if self.fallback and not self.metrics_port and not self.mqtt:
            raise ValueError(
                "--fallback: nobody could read what this camera detects: give it a --metrics-port, or --mqtt"
            )
        return self
