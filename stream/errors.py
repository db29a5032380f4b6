"""Every error of `stream`. Whatever a caller may want to handle is a StreamError; anything else is a defect of ours.

    StreamError
    ├── WeightsError                 there are no weights to load
    │   ├── UnknownModel
    │   ├── MissingWeights
    │   └── DownloadFailed
    ├── CheckpointError              there are, and they cannot be used
    │   ├── UnreadableCheckpoint
    │   ├── UnsafeCheckpoint
    │   ├── UnsupportedLayer
    │   └── BrokenNetwork
    ├── UnknownSplitPoint            the network cannot be cut there
    ├── WrongTensors                 the tail needs other tensors
    ├── InvalidSize                  the network cannot have pictures of that size
    ├── SourceError                  frames cannot be read, and trying again would not help
    │   ├── UnreadableImage
    │   └── BadVirtualCamera
    ├── SessionError                 one end has to close the connection, and says why
    ├── InvalidMessage               a text is no message of the protocol
    ├── InvalidPreview               bytes are no preview
    ├── BadCertificate               a file of TLS cannot be used
    ├── NoRecording                  a file holds no packets that could be played
    └── ConnectionLost               the link is gone
        └── TlsFailed                one end does not take the other's certificate, or speaks no TLS

What only says that nothing more comes is no error and stays beside what has ended: `MailboxClosed` in
`stream.tasks.mailbox`, and `CaptureEnded` in `stream.sources.capture`. A value that makes no sense to whoever wrote
the call is a plain ValueError.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from stream.network.names import DEMO, MODELS
from stream.session.close_codes import CloseCode


class StreamError(Exception):
    """Base of every error here. The message is for people and says what to do where something can be done."""


class WeightsError(StreamError):
    """There are no weights to load; the message says what to do."""


class UnknownModel(WeightsError):
    """A name that is not one of the official networks."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"unknown model {name!r}; choose {DEMO} (which comes with Splitcast), one of {', '.join(MODELS)}, "
            "or give a path to a .pt file"
        )
        self.name = name


class MissingWeights(WeightsError):
    """A path at which there is no file."""

    def __init__(self, path: Path) -> None:
        what = (
            "a folder that holds no export"
            if path.is_dir()
            else "it is no file"
            if path.exists()
            else "there is no file"
        )
        super().__init__(
            f"no weights at {path}: {what}; give an existing .pt file, or a name such as yolov5n to fetch one"
        )
        self.path = path


class DownloadFailed(WeightsError):
    """The weights could not be fetched whole; nothing was kept."""

    def __init__(self, url: str, path: Path, reason: str) -> None:
        super().__init__(
            f"cannot fetch {url} ({reason}); fetch it on another machine and put it at {path}, "
            "or give the path of a .pt file as the model"
        )
        self.url, self.path, self.reason = url, path, reason


class CheckpointError(StreamError):
    """A checkpoint cannot be used; the message says why and what to do."""


class UnreadableCheckpoint(CheckpointError):
    """The file is not a checkpoint, is cut short, or contradicts itself."""


class UnsafeCheckpoint(CheckpointError):
    """The checkpoint names something outside the allow-list, which a normal loader would import or call."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"refused: the checkpoint refers to {name!r}, which a YOLOv5 model does not need. "
            "It may be malicious; use weights from a source you trust"
        )
        self.name = name


class UnsupportedLayer(CheckpointError):
    """The network has a layer that Splitcast does not know."""

    def __init__(self, name: str, where: str) -> None:
        super().__init__(
            f"unsupported layer {name!r} ({where}); use a YOLOv5 n/s/m/l/x detection model, "
            "release v6.0 to v7.0 or ultralytics' YOLOv5u"
        )
        self.name = name


class BrokenNetwork(CheckpointError):
    """The network was read, and what it computes is of no use: it cannot be run, or its numbers are not finite."""


class UnknownSplitPoint(StreamError):
    """A name that is not a split point of this network."""

    def __init__(self, split: str, points: Sequence[str]) -> None:
        layer = split.partition(".")[0]
        near = [point for point in points if point.partition(".")[0] == layer]
        near = near or difflib.get_close_matches(split, points, cutoff=0) or list(points)
        super().__init__(f"unknown split point {split!r}; near it are {', '.join(near)}")
        self.split, self.near = split, tuple(near)


class WrongTensors(StreamError):
    """The tail was given other tensors than those which cross its split."""

    def __init__(self, needed: tuple[str, ...], got: tuple[str, ...]) -> None:
        super().__init__(f"the tail needs the tensors {', '.join(needed)}, got {', '.join(got) or 'none'}")
        self.needed, self.got = needed, got


class InvalidSize(
    StreamError, ValueError
):  # a ValueError to argparse and pydantic, which turn it into a refusal
    """A picture size that the network cannot have."""


class SourceError(StreamError):
    """The source cannot be opened and trying again would not help. The message says what to do."""


class UnreadableImage(SourceError):
    """A file is no image, or cannot be read. `path` is for people to read."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path} is no image that can be read: {reason}; mend it, or leave it out")
        self.path, self.reason = path, reason


class BadVirtualCamera(SourceError):
    """A setting makes no sense, or the photographs are not there. The message says what to do."""


class SessionError(StreamError):
    """The session cannot go on; close the connection with `code` and `reason`."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


class InvalidMessage(StreamError):
    """A text is not one of this protocol's messages."""


class InvalidPreview(StreamError, ValueError):  # a ValueError to pydantic, which names the field
    """Bytes are not a preview that a detector would pass on."""


class ConnectionLost(StreamError):
    """The link is gone, or never was.

    `code` is the WebSocket close code, 1006 where the peer said none; `status` the HTTP status where the peer answered
    with one in place of a WebSocket. `answered` is false where nothing came from the peer, not even a refusal.
    """

    def __init__(
        self, reason: str, code: int = 1006, *, status: int | None = None, answered: bool = True
    ) -> None:
        super().__init__(reason)
        self.reason, self.code, self.status, self.answered = reason, code, status, answered


class BadCertificate(StreamError):
    """A file with a certificate or key cannot be read, or holds something else; the message says which."""


class NoRecording(StreamError):
    """A file is no recording, or one of another version, or was cut before its first packet."""


class TlsFailed(ConnectionLost):
    """The ends do not agree on TLS, and will not until somebody mends a certificate or an address."""
