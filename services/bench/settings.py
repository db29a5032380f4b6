"""Settings of `splitcast bench`. Light, so that `--help` is there at once."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_settings import CliPositionalArg

from services.command_settings import CommandSettings
from services.settings import (
    DEFAULT_CODEC,
    ClientSettings,
    CodecText,
    Count,
    EngineChoice,
    EngineSettings,
    NetworkSettings,
    PathSetting,
    PathText,
    Seconds,
    SplitSettings,
    Threads,
    require_folder_of,
    websocket_url,
)

MAX_COUNT = 1024
MAX_CAMERAS = 10**8


def counts_text(text: str) -> str:
    for word in text.split(","):
        if not word.strip().isdecimal() or not 1 <= int(word) <= MAX_COUNT:
            raise ValueError(f"must be numbers from 1 to {MAX_COUNT}, separated by commas: 8, or 1,2,4")
    return text


def counts(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


CountsText = Annotated[str, AfterValidator(counts_text)]
"""Numbers one after the other: 1,2,4."""


class BenchPipelineSettings(SplitSettings, EngineSettings):
    """Settings of `splitcast bench pipeline`."""

    source: PathText = Field(description="video file")
    codec: CodecText = Field(DEFAULT_CODEC, description="codec")
    frames: Count = Field(150, description="frames a round")
    rounds: Count = Field(5, description="rounds")
    against: EngineChoice | None = Field(None, description="another engine, measured in turns with the first")
    record: PathSetting | None = Field(None, alias="json", title="OUT", description="write the record there")


class BenchLoadSettings(SplitSettings, EngineSettings, ClientSettings):
    """Settings of `splitcast bench load`."""

    streams: CountsText = Field(
        "8", title="N,...", description="simulated cameras; several numbers, one after the other: 1,2,4,8"
    )
    fps: Annotated[float, Field(gt=0, le=1000)] = Field(5.0, description="frames a second of each camera")
    seconds: Seconds = Field(20.0, description="how long each number of streams is measured")
    warm_up_s: Annotated[float, Field(ge=0, le=3600)] = Field(
        3.0, description="seconds before that, with one stream and then with all"
    )
    detector: Annotated[str, AfterValidator(websocket_url)] | None = Field(
        None,
        title="URL",
        description="ws://host:8765 of one that runs, with the same network (default: one is started for each number); "
        "a token needs the roles camera and metrics, and the streams load* and warm-up",
    )
    detectors: Annotated[int, Field(ge=1, le=64)] = Field(
        1, title="N", description="how many are started, among which streams are shared out evenly"
    )
    model: PathText = Field("demo", description="network by name or path; demo: the embedded one")
    tails: Threads | Literal["auto"] = Field(
        "auto", title="N", description="threads of the detector that is started; auto: as many as cores"
    )
    source: PathText = Field(
        "demo", description="what the packets are recorded from: a video, a folder of images, or demo"
    )
    recording: PathSetting | None = Field(
        None,
        title="FILE|DIR",
        description="packets of a camera's recording in place of a source, with its split, canvas and codec",
    )
    codec: CodecText = Field(DEFAULT_CODEC, description="codec")
    frames: Count = Field(60, description="packets recorded, and then sent in a circle")
    window: Annotated[int, Field(ge=1, le=1024)] = Field(3, description="most unanswered frames of a camera")
    tolerance: Annotated[float, Field(ge=0, le=1)] = Field(
        0.02, title="SHARE", description="a stream is held that loses no more than this share of its frames"
    )
    out: PathSetting | None = Field(None, title="OUT", description="write the record there, as JSON")
    table: PathSetting | None = Field(None, title="OUT", description="write the table there, as Markdown")

    @property
    def stream_counts(self) -> tuple[int, ...]:
        return counts(self.streams)

    @model_validator(mode="after")
    def _check_way(self) -> Self:
        if self.detector:
            self.check_way(self.detector)
            if self.detectors > 1:
                raise ValueError("--detectors: are started here, and --detector names one that runs")
        return self

    def check_machine(self) -> None:
        from services.certificates import check_files, client_tls
        from services.own_token import token_headers

        require_folder_of(self.out, "--out")
        require_folder_of(self.table, "--table")
        check_files(client_tls(self))
        token_headers(self)


def camera_counts_text(text: str) -> str:
    for word in text.split(","):
        if not word.strip().isdecimal() or not 1 <= int(word) <= MAX_CAMERAS:
            raise ValueError(
                f"must be numbers from 1 to {MAX_CAMERAS:,}, separated by commas: 100, or 1,10,100"
            )
    return text


class BenchSizingSettings(CommandSettings):
    """Settings of `splitcast bench sizing`."""

    load_record: CliPositionalArg[PathSetting] = Field(
        title="LOAD.json",
        description="what `splitcast bench load --out` wrote on a machine like the detectors'",
    )
    cameras: Annotated[str, AfterValidator(camera_counts_text)] = Field(
        "1,10,100,1000,10000,100000", title="N,...", description="numbers of cameras"
    )
    fps: Annotated[float, Field(gt=0, le=1000)] | None = Field(
        None, description="frames a second of each camera (default: as measured)"
    )
    cores: Annotated[int, Field(ge=1, le=1024)] = Field(
        8, title="N", description="cores of a detector's machine"
    )
    busy: Annotated[float, Field(gt=0, le=1)] = Field(
        0.6,
        title="SHARE",
        description="of these cores that detectors may keep busy; what is left is for a lost one's streams",
    )
    metrics: Literal["brief", "full"] = Field("brief", description="as the cameras have --metrics")
    table: PathSetting | None = Field(None, title="OUT", description="write the table there, as Markdown")

    @property
    def camera_counts(self) -> tuple[int, ...]:
        return counts(self.cameras)

    def check_machine(self) -> None:
        require_folder_of(self.table, "--table")


class BenchDeviceSettings(NetworkSettings):
    """Settings of `splitcast bench device`."""

    model: PathText = Field("demo", description="network by name or path; demo: the embedded one")
    device: str = Field("cuda", description="torch device")
    pictures: Count = Field(32, description="pictures of the virtual camera that are compared")
    batches: CountsText = Field("1,2,4,8,16,32", title="N,...", description="sizes of batches")
    batch_seconds: Seconds = Field(2.0, description="how long each size is measured")
    streams: CountsText = Field("64", title="N,...", description="simulated cameras of the load test")
    fps: Annotated[float, Field(gt=0, le=1000)] = Field(5.0, description="frames a second of each camera")
    seconds: Seconds = Field(20.0, description="how long the load is measured")
    out: PathSetting | None = Field(None, title="OUT", description="write the record there, as JSON")
    table: PathSetting | None = Field(None, title="OUT", description="write the tables there, as Markdown")

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        return counts(self.batches)

    @property
    def load_settings(self) -> BenchLoadSettings:
        """The load test's, of the same network on the same device."""
        return BenchLoadSettings.load(
            {
                "model": self.model,
                "size": self.size,
                "threads": self.threads,
                "device": self.device,
                "engine": "torch",
                "streams": self.streams,
                "fps": self.fps,
                "seconds": self.seconds,
                "warm_up_s": self.seconds / 10,
            }
        )

    def check_machine(self) -> None:
        require_folder_of(self.out, "--out")
        require_folder_of(self.table, "--table")
