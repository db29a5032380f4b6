"""Settings of `splitcast calibrate`. Light: no torch, so that `--help` is there at once."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.settings import (
    Count,
    PathSetting,
    SplitSettings,
)


class CalibrateSettings(SplitSettings):
    """Settings of `splitcast calibrate`."""

    model_config = SettingsConfigDict(cli_shortcuts={"output": "o"})

    images: PathSetting = Field(
        title="FOLDER|LIST",
        description="folder of images, or text file with one path a line; 16 images or more, as the cameras will see",
    )
    max_images: Count | None = Field(None, title="N", description="only the first N images")
    draws: Count = Field(3, description="random samples of the sensitivity an image")
    variants: Annotated[int, Field(ge=0)] = Field(
        8, description="other views of an image, nearer, farther or mirrored"
    )
    seed: Annotated[int, Field(ge=0)] = Field(0, description="of all that is random")
    output: PathSetting = Field(title="PROFILE", description="write the profile there")
