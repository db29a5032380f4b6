"""What a detector checks of a camera's hello before it lets it send."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from codec.errors import CodecError, UnknownProfile
from codec.feature.profile import Profile
from codec.interface import Decoder
from codec.layout import Layout, raw_bytes
from codec.spec import Codec
from services.detector.settings import DetectorSettings
from services.loading import LoadedModel
from stream.errors import SessionError
from stream.network.cut import split_points
from stream.network.graph import Graph
from stream.session.close_codes import CloseCode
from stream.session.detector import check_codec, check_hello, check_layout
from stream.session.messages import Hello

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Agreement:
    """What both ends know from the welcome on."""

    codec: Codec
    layout: Layout
    decoder: Decoder
    max_packet_bytes: int


def agree(
    hello: Hello,
    network: LoadedModel,
    config: DetectorSettings,
    layout: Callable[[Graph, str, tuple[int, int]], Layout],
    profiles: Mapping[str, Profile],
) -> Agreement:
    """The codec and the tensors that will cross, `layout` telling what the cut yields.

    Raises SessionError, with the close code and a reason a person understands, where the two ends differ or
    the camera asks for more than the settings allow; UnknownProfile where everything but a calibration profile is
    there.
    """
    graph = network.model.graph
    splits = frozenset([config.split] if config.split else split_points(graph))
    check_hello(hello, network.model.weights_hash, splits, network.name)
    if hello.preview and not config.preview:
        raise SessionError(
            CloseCode.PREVIEW_REFUSED,
            "this detector takes no pixels (--no-preview): start the camera without --preview",
        )
    height, width = hello.canvas
    if height % 32 or width % 32 or max(height, width) > config.max_side:
        raise SessionError(
            CloseCode.SHAPES_DIFFER,
            f"canvas {height}x{width}: sides must be multiples of 32, at most {config.max_side}",
        )
    agreed = layout(graph, hello.split, hello.canvas)
    check_layout(hello, agreed)
    try:
        codec = check_codec(hello, profiles)
    except UnknownProfile as unknown:
        if config.profiles:
            raise
        raise SessionError(
            CloseCode.PROFILE_REFUSED,
            f"this detector lacks calibration profile {unknown.hash[:12]} and takes none (--no-profiles)",
        ) from None
    try:
        max_packet_bytes = codec.packet_format(agreed).max_packet_bytes
    except CodecError as error:  # tensors beyond what the codec's packets can say
        raise SessionError(CloseCode.CODEC_REFUSED, str(error)) from None
    if max_packet_bytes > config.max_packet_mib * MIB:
        raise SessionError(
            CloseCode.PACKET_TOO_LARGE,
            f"{hello.codec} may need packets of {max_packet_bytes} bytes; allowed: "
            f"{config.max_packet_mib} MiB (--max-packet-mib)",
        )
    if raw_bytes(agreed) > config.max_tensors_mib * MIB:
        raise SessionError(
            CloseCode.PACKET_TOO_LARGE,
            f"tensors of {raw_bytes(agreed)} bytes cross at {hello.split!r}; allowed: "
            f"{config.max_tensors_mib} MiB (--max-tensors-mib)",
        )
    try:
        decoder = codec.decoder(agreed)
    except CodecError as error:  # a profile of another network
        raise SessionError(CloseCode.CODEC_REFUSED, str(error)) from None
    return Agreement(codec, agreed, decoder, max_packet_bytes)
