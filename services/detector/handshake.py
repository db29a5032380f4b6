"""What comes before a camera's first packet: hello → checks → profile exchange → welcome."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from codec.errors import CodecError, UnknownProfile
from codec.feature.bundled import BUNDLED
from codec.feature.profile import Profile
from codec.interface import Decoder
from codec.layout import Layout, raw_bytes
from codec.spec import CODECS, Codec
from services.access.tokens import Quota
from services.detector.inference import Inference
from services.detector.memory import MemoryBudget, camera_bytes
from services.detector.profile_store import ProfileStore
from services.detector.quota import agreed_packet_bytes, check_quota
from services.detector.settings import DetectorSettings
from services.detector.step_maps import CameraStepMaps, StepMaps
from services.detector.streams import Stream
from services.detector.tails import AgreedCamera, CameraTail, Tails
from services.detector.trial import Trials, serve_trial
from services.detector.visit import Visit
from services.metrics import VERSION
from services.profiles import read_profile
from stream.errors import SessionError
from stream.session.close_codes import CloseCode
from stream.session.detector import (
    DetectorSession,
    check_address,
    check_codec,
    check_hello,
    check_layout,
    check_name,
    check_version,
)
from stream.session.messages import MAX_TEXT_CHARACTERS, Hello, Waiting
from stream.tasks.fair_workers import FairWorkers
from stream.transport.websocket import Link

log = structlog.get_logger(__name__)

MIB = 2**20
MAX_GREETING_BYTES = MAX_TEXT_CHARACTERS + 1024  # and some pings
PROFILE_TIMEOUT_S = 30.0  # a camera gives up earlier, if its link takes nothing


@dataclass(frozen=True, slots=True, eq=False)
class NegotiatedCodec:
    """What both ends know from the welcome on."""

    layout: Layout
    decoder: Decoder
    profile: Profile | None
    max_packet_bytes: int
    memory_bytes: int  # that the camera can make the detector hold


@dataclass(frozen=True, slots=True, eq=False)
class AdmittedCamera:
    """A camera that was welcomed: its packets may come."""

    session: DetectorSession
    hello: Hello
    stream: Stream
    tail: CameraTail
    quota: Quota
    step_maps: CameraStepMaps | None


class Handshake:
    """Admits cameras, and holds the calibration profiles that they may name."""

    def __init__(
        self,
        settings: DetectorSettings,
        inference: Inference,
        workers: FairWorkers,
        *,
        memory: MemoryBudget,
        tails: Tails,
        step_maps: StepMaps,
        ready: asyncio.Event,
    ) -> None:
        self._settings, self._inference, self._ready = settings, inference, ready
        # All handshakes together have the share of one camera: they cost before anybody has a name.
        self._workers, self._owner = workers, workers.owner()
        self._memory, self._tails, self._step_maps = memory, tails, step_maps
        self._trials = Trials()
        self._profiles = ProfileStore(BUNDLED)  # touched in this owner's calls only

    async def load(self) -> None:
        """Load the codecs, and read the operator's profile, if there is one. Raises SettingsError or ProfileError."""
        for codec in CODECS:
            await self._workers.run(self._owner, codec.load)
        if self._settings.profile:
            await self._workers.run(self._owner, self._keep_profile, self._settings.profile)

    async def admit(self, link: Link, session: DetectorSession, visit: Visit, quota: Quota) -> AdmittedCamera:
        """The camera at the other end of `link`, once its packets may come; its token grants `quota`.

        Raises SessionError, with the close code and a reason a person understands, where it is refused, or
        ConnectionLost.
        """
        hello = await self._receive_hello(link, session, visit)
        negotiated = await self._negotiate(link, session, visit, hello, quota)
        # All that can fail comes before the name is taken.
        self._memory.reserve(session, negotiated.memory_bytes)
        if hello.type == "trial":
            self._memory.release(session)
            visit.check(hello.stream, hello.session)
            with self._trials.one_more():
                await serve_trial(link, session, negotiated.max_packet_bytes, quota)
        step_maps = self._step_maps.camera(hello, negotiated.layout, negotiated.profile)
        paced = quota.frames_per_s is not None
        tail = await self._tails.camera(
            AgreedCamera(hello, negotiated.decoder, negotiated.profile, step_maps, paced)
        )
        stream = visit.greet(hello, negotiated.layout)
        software = f"splitcast/{VERSION}"
        await link.send(session.welcome(negotiated.max_packet_bytes, software, quota.frames_per_s))
        return AdmittedCamera(session, hello, stream, tail, quota, step_maps)

    async def _receive_hello(self, link: Link, session: DetectorSession, visit: Visit) -> Hello:
        """The camera's hello; until its source has a picture it says that it waits."""
        while True:
            message = await self._receive_greeting(link, session)
            check_version(message)
            check_name(message)
            check_address(message, visit.addressed)
            visit.check_granted(message.stream)
            if not self._ready.is_set():
                raise SessionError(CloseCode.TRY_AGAIN_LATER, "detector is not ready")
            if isinstance(message, Hello):
                return message
            session.receive_report(time.monotonic_ns())
            visit.wait(message)

    async def _receive_greeting(self, link: Link, session: DetectorSession) -> Hello | Waiting:
        timeout_s = self._settings.hello_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                data = await link.receive_small(MAX_GREETING_BYTES)
        except TimeoutError:
            raise SessionError(CloseCode.TIMEOUT, f"no hello within {timeout_s:g} s") from None
        if isinstance(data, bytes):
            raise SessionError(CloseCode.BAD_MESSAGE, "packet before the hello")
        message = session.receive_text(data)
        assert isinstance(message, Hello | Waiting)
        return message

    async def _negotiate(
        self, link: Link, session: DetectorSession, visit: Visit, hello: Hello, quota: Quota
    ) -> NegotiatedCodec:
        """What both ends know from the welcome on; the codec's calibration profile may have to come first."""
        try:
            return await self._workers.run(
                self._owner, negotiate, hello, self._settings, self._inference, self._profiles, quota
            )
        except UnknownProfile as unknown:
            visit.check(hello.stream, hello.session)
            log.debug("calibration profile requested", stream=hello.stream, profile=unknown.hash[:12])
            await link.send(session.request_profile(unknown.hash))
        packed = await self._receive_profile(link)
        return await self._workers.run(self._owner, self._negotiate_with, packed, session, hello, quota)

    async def _receive_profile(self, link: Link) -> bytes:
        try:
            async with asyncio.timeout(PROFILE_TIMEOUT_S):
                data = await link.receive()
        except TimeoutError:
            raise SessionError(
                CloseCode.TIMEOUT, f"no calibration profile within {PROFILE_TIMEOUT_S:g} s"
            ) from None
        if isinstance(data, str):
            raise SessionError(CloseCode.BAD_MESSAGE, "a text in place of the calibration profile")
        return data

    def _negotiate_with(
        self, packed: bytes, session: DetectorSession, hello: Hello, quota: Quota
    ) -> NegotiatedCodec:
        profile = session.receive_profile(packed, self._settings.max_profile_mib * MIB)
        negotiated = negotiate(hello, self._settings, self._inference, {profile.hash: profile}, quota)
        self._profiles.add(profile)  # now: one that fits no tensors displaces none that does
        return negotiated

    def _keep_profile(self, file: Path) -> None:
        self._profiles.keep(read_profile(file))


def negotiate(
    hello: Hello,
    settings: DetectorSettings,
    inference: Inference,
    profiles: Mapping[str, Profile],
    quota: Quota,
) -> NegotiatedCodec:
    """The tensors that will cross, and what decodes them.

    Raises SessionError, with the close code and a reason a person understands, where the two ends differ or
    the camera asks for more than the settings or its token's quota allow; UnknownProfile where everything but a
    calibration profile is there.
    """
    network = inference.network
    splits = frozenset([settings.split] if settings.split else network.model.split_points)
    check_hello(hello, network.model.weights_hash, splits, network.name)
    _check_preview(hello, settings)
    _check_canvas(hello, settings, network.model.stride)
    check_quota(hello, quota)
    layout = inference.layout(hello.split, hello.canvas)
    check_layout(hello, layout)
    check_cost(hello, inference.expected_ms(hello.split, hello.canvas), settings.max_tail_ms)
    codec = _find_codec(hello, settings, profiles, quota)
    try:
        max_packet_bytes = codec.packet_format(layout).max_packet_bytes
    except CodecError as error:  # tensors beyond what the codec's packets can say
        raise SessionError(CloseCode.CODEC_REFUSED, str(error)) from None
    _check_sizes(hello, settings, layout, max_packet_bytes)
    max_packet_bytes = agreed_packet_bytes(max_packet_bytes, quota)
    try:
        decoder = codec.decoder(layout)
    except CodecError as error:  # a profile of another network
        raise SessionError(CloseCode.CODEC_REFUSED, str(error)) from None
    memory_bytes = camera_bytes(settings, max_packet_bytes, raw_bytes(layout)) + inference.new_tail_bytes(
        hello.split
    )
    return NegotiatedCodec(layout, decoder, codec.profile, max_packet_bytes, memory_bytes)


def _check_preview(hello: Hello, settings: DetectorSettings) -> None:
    if hello.preview and not settings.preview:
        raise SessionError(
            CloseCode.PREVIEW_REFUSED,
            "this detector takes no pixels (--no-preview): start the camera without --preview",
        )


def _check_canvas(hello: Hello, settings: DetectorSettings, stride: int) -> None:
    height, width = hello.canvas
    if height % stride or width % stride:
        raise SessionError(
            CloseCode.SHAPES_DIFFER, f"canvas {height}x{width}: sides must be multiples of {stride}"
        )
    if max(height, width) > settings.max_side:
        raise SessionError(
            CloseCode.TOO_COSTLY,
            f"too_costly: canvas {height}x{width}; sides of at most {settings.max_side} are allowed (--max-side)",
        )


def check_cost(hello: Hello, tail_ms: float | None, max_tail_ms: float | None) -> None:
    """Raise SessionError where a frame's tail takes longer than any may; None: that is not known, or not limited."""
    if tail_ms is not None and max_tail_ms is not None and tail_ms > max_tail_ms:
        height, width = hello.canvas
        raise SessionError(
            CloseCode.TOO_COSTLY,
            f"too_costly: a frame of {height}x{width} split at {hello.split} takes {tail_ms:.0f} ms; "
            f"allowed: {max_tail_ms:g} (--max-tail-ms)",
        )


def _find_codec(
    hello: Hello, settings: DetectorSettings, profiles: Mapping[str, Profile], quota: Quota
) -> Codec:
    try:
        return check_codec(hello, profiles)
    except UnknownProfile as unknown:
        if settings.profiles and quota.profiles:
            raise
        why = "this camera's token allows none" if settings.profiles else "takes none (--no-profiles)"
        raise SessionError(
            CloseCode.PROFILE_REFUSED,
            f"this detector lacks calibration profile {unknown.hash[:12]} and {why}",
        ) from None


def _check_sizes(hello: Hello, settings: DetectorSettings, layout: Layout, max_packet_bytes: int) -> None:
    if max_packet_bytes > settings.max_packet_mib * MIB:
        raise SessionError(
            CloseCode.PACKET_TOO_LARGE,
            f"{hello.codec} may need packets of {max_packet_bytes} bytes; allowed: "
            f"{settings.max_packet_mib} MiB (--max-packet-mib)",
        )
    if raw_bytes(layout) > settings.max_tensors_mib * MIB:
        raise SessionError(
            CloseCode.PACKET_TOO_LARGE,
            f"tensors of {raw_bytes(layout)} bytes cross at {hello.split!r}; allowed: "
            f"{settings.max_tensors_mib} MiB (--max-tensors-mib)",
        )
