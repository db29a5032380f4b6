"""Settings of `splitcast replay` and `splitcast recording show`. Light, so that `--help` is there at once."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_settings import CliPositionalArg

from services.command_settings import CommandSettings
from services.settings import DEFAULT_PORT, ClientSettings, PathSetting, websocket_url
from stream.session.messages import StreamName

FLAT_OUT = "flat-out"


class ReplaySettings(ClientSettings):
    """Settings of `splitcast replay`."""

    recording: CliPositionalArg[PathSetting] = Field(
        title="FILE|DIR", description="a file of a recording, or the folder of one"
    )
    of: StreamName | None = Field(
        None, title="NAME", description="whose recording, where the folder holds those of several streams"
    )
    detector: Annotated[str, AfterValidator(websocket_url)] = Field(
        f"ws://127.0.0.1:{DEFAULT_PORT}",
        title="URL",
        description="address of the detector; a token needs the roles camera and consumer",
    )
    stream: StreamName | None = Field(
        None, title="NAME", description="name to send under (default: that of the recording)"
    )
    speed: Literal["flat-out"] | Annotated[float, Field(gt=0, le=1000)] = Field(
        1.0,
        title="N",
        description="1: as it was recorded, 2: twice as fast; flat-out: as fast as the detector can",
    )
    window: Annotated[int, Field(ge=1, le=1024)] = Field(3, description="most unanswered packets")
    no_digest: bool = Field(False, description="do not watch the detections, and print no hash of them")
    as_json: bool = Field(False, alias="json", description="print the account as JSON")

    @model_validator(mode="after")
    def _check_token(self) -> Self:
        self.check_way(self.detector)
        return self

    def check_machine(self) -> None:
        from services.certificates import check_files, client_tls
        from services.own_token import token_headers

        check_files(client_tls(self))
        token_headers(self)


class RecordingShowSettings(CommandSettings):
    """Settings of `splitcast recording show`."""

    recording: CliPositionalArg[PathSetting] = Field(
        title="FILE|DIR", description="a file of a recording, or a folder of several"
    )
    as_json: bool = Field(False, alias="json", description="JSON, an object a file")
