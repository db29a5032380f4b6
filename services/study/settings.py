"""Settings of `splitcast study`. Light: no torch, so that `--help` is there at once."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_settings import CliPositionalArg

from services.command_settings import CommandSettings
from services.logs import LogSettings
from services.settings import (
    Count,
    PathSetting,
    SizeText,
    Threads,
    expanded,
)
from services.study import NAMES


def _experiment(name: str) -> str:
    if name not in ("all", *NAMES):
        raise ValueError(f"no experiment {name!r}; choose all, or one of {', '.join(NAMES)}")
    return name


def _network(text: str) -> str:
    name, equals, file = text.partition("=")
    return f"{expanded(name)}{equals}{expanded(file)}"


class StudySettings(CommandSettings):
    """Settings of `splitcast study`."""

    name: CliPositionalArg[Annotated[str, AfterValidator(_experiment)]] = Field(
        title="NAME", description=f"all, or one of {', '.join(NAMES)}"
    )
    out: PathSetting = Field(
        title="FOLDER",
        description="records, figures and report go there; what is recorded there already is not measured again",
    )
    model: tuple[Annotated[str, AfterValidator(_network)], ...] = Field(
        (),
        title="SPEC",
        description="network NAME, at a layer NAME@LAYER, with weights NAME=FILE or NAME=random, or a .pt file; may be "
        "repeated (default: yolov5n, vgg16, resnet50 and resnet152 at the paper's layers)",
    )
    data: PathSetting | None = Field(
        None, title="FOLDER", description="folder of images; YOLO labels beside it are used"
    )
    labels: PathSetting | None = Field(
        None, title="FILE", description="COCO's labels of those images, a JSON"
    )
    imagenet: PathSetting | None = Field(None, title="FOLDER", description="images in one folder a class")
    clip: tuple[PathSetting, ...] = Field(
        (),
        title="FILE",
        description="video file; may be repeated; the first should show a nearly static scene",
    )
    train: tuple[PathSetting, ...] = Field(
        (),
        title="PATH",
        description="folder of images or video file that `inversion` trains on, apart from those of --data and --clip; "
        "may be repeated",
    )
    images: Count | None = Field(None, title="N", description="at most so many images (default: all)")
    size: SizeText = Field("640", description="input of detectors, multiples of the network's stride")
    quick: bool = Field(False, description="16 images and few settings: two minutes")
    from_records: bool = Field(False, description="measure nothing, draw what is recorded")
    seed: Annotated[int, Field(ge=0)] = Field(0, description="of all that is random")
    threads: Threads = Field(1, description="torch threads")
    device: str = Field("auto", description="torch device")

    @property
    def logs(self) -> LogSettings:
        return LogSettings(level="error")  # experiments tell of uncalibrated codecs themselves

    @model_validator(mode="after")
    def _check_labels(self) -> Self:
        if self.labels and not self.data:
            raise ValueError("--labels tells what is in the images of --data, which is missing")
        return self
