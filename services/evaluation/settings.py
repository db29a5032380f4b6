"""Settings of `splitcast evaluate` and `splitcast advise`. Light: no torch, so that `--help` is there at once."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from codec.spec import parse_codec
from services.settings import (
    CodecText,
    Count,
    EngineSettings,
    PathSetting,
    PathText,
    SplitSettings,
)

Finite = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Noise = Annotated[float, Field(ge=0, le=64)]

DEFAULT_LAG = 3  # frames of a step map's way: a tenth of a second at 30 frames a second
REPEAT = 50  # frames of a noisy picture: so many that its keyframe does not hide what differences cost


class EvaluateSettings(EngineSettings, SplitSettings):
    """Settings of `splitcast evaluate`."""

    data: PathSetting | None = Field(
        None, title="FOLDER", description="folder of images; YOLO labels beside it are used"
    )
    labels: PathSetting | None = Field(
        None, title="FILE", description="COCO's labels of those images, a JSON"
    )
    clip: tuple[PathText, ...] = Field(
        (),
        title="FILE",
        description="video file, or a virtual camera (demo:scene=bus,noise=4); may be repeated",
    )
    codec: tuple[str, ...] = Field(
        (),
        title="SPEC",
        description="codec, of features (feature, rle, raw) or pixels (jpeg, webp, avif, x264, x264-medium, x265, "
        "svt-av1); may be repeated; a name alone stands for its standard set (default: all of them)",
    )
    profile: PathSetting | None = Field(
        None, title="FILE", description="calibration profile of the feature codec (default: bundled)"
    )
    max_frames: Count | None = Field(None, title="N", description="at most so many frames of each source")
    every: Count = Field(1, title="N", description="only every n-th frame or image")
    against: str | None = Field(
        None,
        title="CODEC",
        description="tell what the others take of this codec's bytes at equal quality, with 90 % intervals; a setting, "
        "or a name alone for the settings given of it or its standard set, is measured too",
    )
    noise: Noise | None = Field(
        None,
        title="SD",
        description="put fresh sensor noise of this standard deviation, in gray levels, on every frame, and judge "
        "codecs by what the network sees without it",
    )
    repeat: Count | None = Field(
        None,
        title="N",
        description=f"with --noise, each image of --data is N consecutive frames (default: {REPEAT})",
    )
    feedback: Count | None = Field(
        None,
        title="N",
        description="give the feature codec a step map of every n-th frame, as a detector with --feedback N does",
    )
    feedback_lag: Count = Field(
        DEFAULT_LAG, title="N", description="with --feedback, frames until a map reaches the encoder"
    )
    json_file: PathSetting | None = Field(
        None, alias="json", title="OUT", description="write the records there"
    )
    html: PathSetting | None = Field(None, title="OUT", description="write a page with plots and words there")

    @model_validator(mode="after")
    def _check_sources(self) -> Self:
        if self.labels and not self.data:
            raise ValueError("--labels tells what is in the images of --data, which is missing")
        if not self.data and not self.clip:
            raise ValueError(
                "nothing to evaluate on; give a folder of images with --data, or videos with --clip"
            )
        return self

    @model_validator(mode="after")
    def _check_noise(self) -> Self:
        if self.repeat and self.noise is None:
            raise ValueError("--repeat is for --noise; give --noise 0 for a still camera that has none")
        if self.repeat and not self.data:
            raise ValueError("--repeat is for the images of --data, which are missing; clips run as they are")
        return self

    @model_validator(mode="after")
    def _check_profile(self) -> Self:
        names = {text.partition(":")[0] for text in self.codec}
        if self.profile and names and "feature" not in names:
            raise ValueError("--profile is for the feature codec, and none is to be measured")
        return self


class AdviseSettings(EngineSettings):
    """Settings of `splitcast advise`."""

    link_kbps: Positive = Field(title="N", description="what the link carries, kbit/s")
    rtt_ms: Finite = Field(0.0, title="N", description="its round trip")
    detector_speed: Positive = Field(
        1.0,
        title="F",
        description="how many times faster the detector's machine is than this one",
    )
    fps: Finite = Field(0.0, title="N", description="frame rate that has to be sustained")
    source: PathText = Field(
        "demo", description="video file or folder of images as your camera's; or the virtual camera"
    )
    frames: Count = Field(10, title="N", description="at most so many")
    split: tuple[str, ...] = Field(
        (),
        title="P",
        description="try codecs at this point; may be repeated (default: 4.m and the most promising)",
    )
    codec: CodecText | None = Field(
        None, description="codec of features (default: the better of feature and rle:bits=4)"
    )
    profile: PathSetting | None = Field(
        None, title="FILE", description="calibration profile, for its own split point"
    )
    json_file: PathSetting | None = Field(
        None, alias="json", title="OUT", description="write the figures and the advice there"
    )

    @model_validator(mode="after")
    def _check_profile(self) -> Self:
        if self.profile and self.codec and not parse_codec(self.codec).takes_profile:
            raise ValueError(f"--profile is for the feature codec, not for {self.codec}")
        return self
