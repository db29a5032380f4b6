"""What makes packets of frames: letterbox → head → encoder, and the hello that announces them."""

from __future__ import annotations

import time
from dataclasses import dataclass

from codec.interface import Adjustable, EncodedFrame, Encoder
from codec.layout import FloatArray
from codec.packet import Stamp
from codec.spec import Codec
from services.camera.settings import CameraSettings
from services.loading import LoadedModel
from services.metrics import VERSION
from services.profiles import resolve
from stream.frame import Frame
from stream.letterbox import Letterbox, canvas_for, parse_size
from stream.network.split import Head
from stream.network.trial import warming_up
from stream.rate.control import Steps
from stream.session.camera import tensor_shapes
from stream.session.messages import REJECT_REASONS, Clock, Hello
from stream.tasks.worker import Worker


@dataclass(frozen=True, slots=True, eq=False)
class FeaturePipeline:
    """Head and encoder of one camera, for all its connections, and the thread that both run on.

    The encoder owns the reference frame: frames have to be encoded in the order in which they are sent.
    """

    network: str  # the name that people know it by
    weights: str  # SHA-256
    head: Head
    codec: Codec
    encoder: Encoder
    steps: Steps | None  # quantizer steps that `encode` takes; None where the codec has none to choose
    worker: Worker

    @classmethod
    async def build(
        cls, config: CameraSettings, network: LoadedModel, frame_size: tuple[int, int], worker: Worker
    ) -> FeaturePipeline:
        """The pipeline for frames of this size (H, W), not warmed up. It keeps the head's layers of the network.

        Raises SettingsError or ProfileError where there is no calibration profile in the file given.
        """
        canvas = canvas_for(parse_size(config.size), *frame_size, network.model.stride)
        head = await worker.run(Head, network.model, config.split, canvas)
        name, weights = network.name, network.model.weights_hash
        del network
        codec = await worker.run(resolve, config.parsed_codec, weights, config.split, config.profile)
        encoder = await worker.run(codec.encoder, head.layout)
        steps = None
        if codec.step_range and isinstance(encoder, Adjustable):
            steps = Steps(encoder.step, codec.step_range.coarsest)
        return cls(name, weights, head, codec, encoder, steps, worker)

    async def warm_up(self) -> None:
        """Let torch choose its kernels and touch its memory before the first frame counts: it may take seconds."""
        await self.worker.run(_warm_up, self.head, self.codec)

    def hello(self, config: CameraSettings) -> Hello:
        """What a detector has to know before the first packet."""
        return Hello(
            stream=config.stream,
            model=self.network,
            weights=self.weights,
            split=config.split,
            canvas=self.head.size,
            tensors=tensor_shapes(self.head.layout),
            codec=str(self.codec),
            clock=Clock(monotonic_ns=time.monotonic_ns(), unix_ns=time.time_ns()),
            software=f"splitcast/{VERSION}",
            preview=config.preview,
            reject_reasons=REJECT_REASONS,
        )

    async def run_head(self, frame: Frame) -> dict[str, FloatArray]:
        """The tensors that cross the split, by name: float32 of shape (C, H, W)."""
        return await self.worker.run(_run_head, self.head, frame)

    async def encode(self, tensors: dict[str, FloatArray], stamp: Stamp, step: int | None) -> EncodedFrame:
        """The frame's packet, at one of `steps`."""
        return await self.worker.run(_encode, self.encoder, step, tensors, stamp)

    async def force_keyframe(self) -> None:
        """Make the next packet a keyframe."""
        await self.worker.run(self.encoder.force_keyframe)


def _run_head(head: Head, frame: Frame) -> dict[str, FloatArray]:
    return head(Letterbox((frame.height, frame.width), head.size).apply(frame.image))


def _encode(encoder: Encoder, step: int | None, tensors: dict[str, FloatArray], stamp: Stamp) -> EncodedFrame:
    if step is not None:
        assert isinstance(encoder, Adjustable)
        encoder.step = step
    return encoder.encode(tensors, stamp)


def _warm_up(head: Head, codec: Codec) -> None:
    blank = Frame(Letterbox(head.size, head.size).blank(), captured_ns=0)
    with warming_up("the network up to {} at {}x{} pixels".format(head.split, *head.size)):
        tensors = _run_head(head, blank)
    codec.encoder(head.layout).encode(tensors, Stamp(0, 0, *head.size))
