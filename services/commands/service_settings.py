"""Settings of the services as programs: their own, and those of what runs beside them."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from services.camera.settings import CameraSettings
from services.detector.settings import DetectorSettings
from services.mqtt.settings import MqttSettings
from services.ray_tail.settings import RaySettings
from services.settings import own_name
from stream.session.messages import StreamName


class DetectorProgramSettings(MqttSettings, RaySettings, DetectorSettings):
    """Settings of `splitcast detector`, which may publish to an MQTT broker and have its tails in Ray Serve."""

    @model_validator(mode="after")
    def _check_feedback(self) -> Self:
        if self.feedback and self.tail == "ray":
            raise ValueError(
                "--feedback: is measured where the network runs in this process: leave out --tail ray"
            )
        return self


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
