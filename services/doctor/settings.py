"""Settings of `splitcast doctor`: those of the service that is to be started, and what is wanted of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from services.command_settings import GivenValue
from services.commands.camera_settings import CameraProgramSettings
from services.commands.detector_settings import DetectorProgramSettings
from services.errors import SettingsError
from services.logs import LogSettings
from services.settings import PREFIX, ServiceSettings

FramesPerSecond = Annotated[float, Field(gt=0, le=1e5)]


_OWN = {"json", "as_json", "fps", "seconds"}
"""Settings that the services do not have."""


class DoctorSettings(ServiceSettings):
    """What both doctors are told beside the service's own settings, by flags alone: the service must not mind."""

    as_json: bool = Field(False, alias="json", description="one JSON object in place of lines")

    @property
    def logs(self) -> LogSettings:
        return LogSettings("text", "critical")

    def check_machine(self) -> None:
        """Nothing: what is wrong is what the doctor tells."""

    @classmethod
    def collect(cls, flags: Mapping[str, Any]) -> dict[str, GivenValue]:
        """As the service collects its settings. Raises SettingsError."""
        values = super().collect(flags)
        for name in _OWN - flags.keys():
            given = values.pop(name, None)
            if given and not given.origin.startswith(PREFIX):
                raise SettingsError(f"{given.origin}: is not a setting of the service: give it as a flag")
        return values


class DoctorCameraSettings(DoctorSettings, CameraProgramSettings):
    """Settings of `splitcast doctor camera`."""

    fps: FramesPerSecond | None = Field(
        None, description="frames a second that are wanted (default: as many as the source gives)"
    )
    seconds: Annotated[float, Field(ge=1, le=3600)] = Field(
        8.0, description="how long the source is watched; below 5 a picture that stands still is not noticed"
    )


class DoctorDetectorSettings(DoctorSettings, DetectorProgramSettings):
    """Settings of `splitcast doctor detector`."""

    fps: FramesPerSecond | None = Field(
        None, description="frames a second of all cameras together that are wanted (default: just measure)"
    )
