"""Settings of `splitcast detector` as a program: the detector's, and those of what runs beside it."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from services.detector.settings import DetectorSettings
from services.mqtt.settings import MqttSettings
from services.ray_tail.settings import RaySettings


class DetectorProgramSettings(MqttSettings, RaySettings, DetectorSettings):
    """Settings of `splitcast detector`, which may publish to an MQTT broker and have its tails in Ray Serve."""

    @model_validator(mode="after")
    def _check_feedback(self) -> Self:
        if self.feedback and self.tail == "ray":
            raise ValueError(
                "--feedback: is measured where the network runs in this process: leave out --tail ray"
            )
        return self
