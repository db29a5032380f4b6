"""What the packets of a stream say, to a detector of a test's own that decodes none."""

from __future__ import annotations

from codec.layout import TensorSpec
from codec.packet import PacketHeader
from codec.packet_stream import PacketReader
from codec.spec import parse_codec


class PacketHeaders:
    """Reads the headers of packets in their order."""

    def __init__(self, hello: dict) -> None:
        layout = tuple(TensorSpec(tensor["name"], tuple(tensor["shape"])) for tensor in hello["tensors"])
        self._reader = PacketReader(parse_codec(hello["codec"]).packet_format(layout))

    def read(self, packet: bytes) -> PacketHeader:
        """The next packet's header; its frame counts as decoded."""
        opened = self._reader.open(packet)
        self._reader.accept(opened)
        return opened.header
