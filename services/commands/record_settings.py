"""Settings of `splitcast record`."""

from __future__ import annotations

import os
from typing import ClassVar

from pydantic import Field

from services.camera.settings import CameraSettings, SourceSettings
from services.errors import SettingsError
from services.settings import PathSetting, Seconds


class RecordSettings(SourceSettings):
    """Settings of `splitcast record`: a camera's, without those of its detector."""

    table: ClassVar[str] = "record"

    out: PathSetting = Field(title="DIR", description="folder to write the recording to")
    seconds: Seconds | None = Field(None, description="stop after so many seconds (default: never)")

    @property
    def camera(self) -> CameraSettings:
        """The camera that records."""
        shared = {name: getattr(self, name) for name in SourceSettings.model_fields}
        return CameraSettings(**shared, record=self.out, metrics_port=0)

    def check_machine(self) -> None:
        try:
            self.out.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(f"--out: cannot make the folder {self.out}: {error.strerror}") from None
        if not os.access(self.out, os.W_OK | os.X_OK):
            raise SettingsError(f"--out: cannot write to the folder {self.out}: Permission denied")
