"""The JSON that consumers of detections receive; docs/protocol.md is normative."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from aiohttp import web

from stream.detections import Detections
from stream.late_name import camera_name, is_late

MESSAGE_KINDS = frozenset({"detections", "stream", "gap"})


DetectionPath: TypeAlias = Literal["split", "local"]
"""How a frame was detected: split between camera and detector, or by the camera alone."""


@dataclass(frozen=True, slots=True)
class DetectionMessage:
    """One frame's detections: a superset of Roboflow inference's response, so its consumers read it as it is."""

    stream: str
    connection: int
    frame: int  # number, over all connections
    sequence: int  # of its packet; of a frame without one, of those on the camera
    keyframe: bool
    captured_ns: int  # on the camera's monotonic clock
    frame_size: tuple[int, int]  # (H, W) of the original picture, in pixels
    detections: Detections
    class_names: tuple[str, ...]
    captured_unix_ns: int  # on the camera's clock
    stages_ns: Mapping[str, int]  # of who publishes it
    published_unix_ns: int
    clock_stepped_s: float | None = (
        None  # by how much the camera's time of day was set since the frame before
    )
    path: DetectionPath = "split"

    def text(self) -> str:
        """The message as it goes on the wire: boxes by center and size, in pixels of the original picture."""
        height, width = self.frame_size
        stepped = {} if self.clock_stepped_s is None else {"clock_stepped": round(self.clock_stepped_s, 3)}
        late = {"late": True, "late_of": camera_name(self.stream)} if is_late(self.stream) else {}
        return json.dumps(
            {
                "type": "detections",
                "stream": self.stream,
                "path": self.path,
                "connection": self.connection,
                "frame": self.frame,
                "sequence": self.sequence,
                "keyframe": self.keyframe,
                "captured_ns": self.captured_ns,
                "captured_at": self.captured_unix_ns / 1e9,
                "published_at": self.published_unix_ns / 1e9,
                "time": sum(self.stages_ns.values()) / 1e9,
                "image": {"width": width, "height": height},
                "predictions": self._predictions(),
                **stepped,
                **late,
            },
            separators=(",", ":"),
        )

    def _predictions(self) -> list[dict[str, object]]:
        # Lists first: numpy's scalars make every step below several times slower.
        boxes, confidences = self.detections.boxes.tolist(), self.detections.confidence.tolist()
        return [
            {
                "x": round((left + right) / 2, 2),
                "y": round((top + bottom) / 2, 2),
                "width": round(right - left, 2),
                "height": round(bottom - top, 2),
                "confidence": round(confidence, 4),
                "class": self.class_names[class_id],
                "class_id": class_id,
            }
            for (left, top, right, bottom), confidence, class_id in zip(
                boxes, confidences, self.detections.class_id.tolist(), strict=True
            )
        ]


def with_drops(text: str, dropped: int) -> str:
    """A message that says how many before it were lost by a consumer that reads too slowly."""
    return f'{text[:-1]},"dropped":{dropped}}}' if dropped else text


def message_kinds(types: list[str]) -> frozenset[str]:
    """The kinds of messages that are asked for; all, where none is named. Raises HTTPBadRequest."""
    if not types:
        return MESSAGE_KINDS
    kinds = frozenset(",".join(types).split(","))
    if unknown := kinds - MESSAGE_KINDS:
        raise web.HTTPBadRequest(
            text=f"types={min(unknown)[:64]!r}: choose of {', '.join(sorted(MESSAGE_KINDS))}, with commas"
        )
    return kinds
