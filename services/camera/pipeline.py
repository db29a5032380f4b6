"""What makes packets of frames: letterbox → head → encoder, and the hello that announces them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

from codec.interface import Adjustable, EncodedFrame, Encoder, Guided
from codec.layout import FloatArray
from codec.packet import Stamp
from codec.spec import Codec
from services.camera.settings import CameraSettings
from services.camera.statistics import CameraStatistics
from services.clock import clock_now
from services.environment import forget_loading
from services.loading import LoadedModel
from services.metrics import VERSION
from services.profiles import resolve
from services.recording.recorder import Recorder
from stream.canvas import canvas_for, parse_size
from stream.frame import Frame
from stream.letterbox import Letterbox
from stream.network.engine import Head
from stream.network.trial import warming_up
from stream.rate.control import RateControl, Steps
from stream.session.camera import StepMapReceived, tensor_shapes
from stream.session.messages import REJECT_REASONS, Hello
from stream.tasks.worker import Worker

RESIZED_FRAMES = 3  # of another size in a row, until the canvas follows


@dataclass(frozen=True, slots=True, eq=False)
class FeaturePipeline:
    """Head, encoder and rate control of pictures of one size, for all connections, and the thread that they run on.

    The encoder owns the reference frame: frames have to be encoded in the order in which they are sent.
    """

    network: str  # the name that people know it by
    weights: str  # SHA-256
    stride: int  # the network's, in pixels
    head: Head
    codec: Codec
    encoder: Encoder
    steps: Steps | None  # quantizer steps that `encode` takes; None where the codec has none to choose
    rate: RateControl
    worker: Worker
    recorder: Recorder | None = None  # of the packets that are encoded

    @classmethod
    async def build(
        cls,
        config: CameraSettings,
        network: LoadedModel,
        frame_size: tuple[int, int],
        worker: Worker,
        recorder: Recorder | None = None,
    ) -> FeaturePipeline:
        """The pipeline for frames of this size (H, W), not warmed up. It keeps the head's layers of the network.

        Raises SettingsError or ProfileError where there is no calibration profile in the file given.
        """
        stride = network.model.stride
        canvas = canvas_for(parse_size(config.size), *frame_size, stride)
        head = await worker.run(network.model.head, config.split, canvas)
        name, weights = network.name, network.model.weights_hash
        del network
        codec = await worker.run(resolve, config.parsed_codec, weights, config.split, config.profile)
        encoder = await worker.run(codec.encoder, head.layout)
        steps = _steps(codec, encoder)
        rate = RateControl(steps, config.target_kbps, config.max_latency_ms)
        return cls(name, weights, stride, head, codec, encoder, steps, rate, worker, recorder)

    def canvas(self, config: CameraSettings, frame: Frame) -> tuple[int, int]:
        """(H, W) of the canvas that a frame needs: where it is not the head's, the frame needs another pipeline."""
        return canvas_for(parse_size(config.size), frame.height, frame.width, self.stride)

    async def resized(self, config: CameraSettings, canvas: tuple[int, int]) -> FeaturePipeline:
        """The same for another canvas (H, W), not warmed up."""
        head = await self.worker.run(self.head.resized, canvas)
        encoder = await self.worker.run(self.codec.encoder, head.layout)
        rate = RateControl(self.steps, config.target_kbps, config.max_latency_ms)
        return replace(self, head=head, encoder=encoder, rate=rate)

    async def warm_up(self) -> None:
        """Let the engine choose its kernels and touch its memory before the first frame counts: it may take seconds."""
        await self.worker.run(_warm_up, self.head, self.codec)

    def hello(
        self, config: CameraSettings, statistics: CameraStatistics, *, session: str | None, live: bool
    ) -> Hello:
        """What a detector has to know before the first packet; say it now."""
        hello = Hello(
            stream=config.stream,
            model=self.network,
            weights=self.weights,
            split=config.split,
            canvas=self.head.size,
            tensors=tensor_shapes(self.head.layout),
            codec=str(self.codec),
            clock=clock_now(),
            software=f"splitcast/{VERSION}",
            preview=config.preview,
            reject_reasons=REJECT_REASONS,
            step_map_bytes=self.encoder.step_map_bytes if isinstance(self.encoder, Guided) else 0,
            session=session,
            live=live,
            frame=statistics.frame_counts.done,
            welcomes=statistics.welcomes,
        )
        if self.recorder:
            self.recorder.begin(hello, self.codec.profile)
        return hello

    async def run_head(self, frame: Frame) -> dict[str, FloatArray]:
        """The tensors that cross the split, by name: float32 of shape (C, H, W)."""
        return await self.worker.run(_run_head, self.head, frame)

    async def encode(
        self,
        tensors: dict[str, FloatArray],
        stamp: Stamp,
        step: int | None,
        max_bytes: int,
        step_map: StepMapReceived | None = None,
    ) -> EncodedFrame:
        """The frame's packet, at one of `steps`, and by the detector's newest step map, if one has come.

        Raises PacketTooLarge where it has more than `max_bytes`. The next packet then takes its sequence number, by
        which the encoder knows that it must be a keyframe.
        """
        if step_map is not None:
            assert isinstance(self.encoder, Guided)
            await self.worker.run(self.encoder.guide, step_map.sequence, step_map.data)
        encoded = await self.worker.run(_encode, self.encoder, step, tensors, stamp, max_bytes)
        if self.recorder:
            self.recorder.offer(encoded, stamp.captured_ns)
        return encoded

    async def prepare_recording(self) -> bool:
        """Make the next packet a keyframe if the recording needs one to go on; whether it does."""
        if self.recorder is None or not self.recorder.take_keyframe_due():
            return False
        await self.force_keyframe()
        return True

    async def force_keyframe(self) -> None:
        """Make the next packet a keyframe."""
        await self.worker.run(self.encoder.force_keyframe)


class PacketTooLarge(Exception):
    """A packet of more bytes than the detector takes, which would close for it."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(
            f"more than the {max_bytes} bytes that the detector takes: code more coarsely (--codec) or smaller (--size)"
        )


class CanvasWatch:
    """Notices pictures that have got another size for good, and not only one of them.

    Others are letterboxed as they are: a folder may hold photographs of all shapes.
    """

    def __init__(self) -> None:
        self._canvases: deque[tuple[int, int]] = deque(maxlen=RESIZED_FRAMES)

    def is_misfit(self, canvas: tuple[int, int], present: tuple[int, int]) -> bool:
        """Whether the frame that needs this canvas (H, W), as those before it do, has to wait for it."""
        self._canvases.append(canvas)
        return self._canvases.count(canvas) == RESIZED_FRAMES and canvas != present


def _steps(codec: Codec, encoder: Encoder) -> Steps | None:
    if codec.step_range and isinstance(encoder, Adjustable):
        return Steps(encoder.step, codec.step_range.coarsest)
    return None


def _run_head(head: Head, frame: Frame) -> dict[str, FloatArray]:
    return head(Letterbox((frame.height, frame.width), head.size).apply(frame.image))


def _encode(
    encoder: Encoder,
    step: int | None,
    tensors: dict[str, FloatArray],
    stamp: Stamp,
    max_bytes: int,
) -> EncodedFrame:
    if step is not None:
        assert isinstance(encoder, Adjustable)
        encoder.step = step
    encoded = encoder.encode(tensors, stamp)
    if len(encoded.data) > max_bytes:
        raise PacketTooLarge(max_bytes)
    return encoded


def _warm_up(head: Head, codec: Codec) -> None:
    blank = Frame(Letterbox(head.size, head.size).blank(), captured_ns=0)
    with warming_up("the network up to {} at {}x{} pixels".format(head.split, *head.size)):
        tensors = _run_head(head, blank)
    codec.encoder(head.layout).encode(tensors, Stamp(0, 0, *head.size))
    forget_loading()
