"""The detector's answer to nearly every packet, in as few bytes as it takes (docs/protocol.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from codec.varint import pack_varint, read_varint
from stream.errors import InvalidMessage
from stream.latency import DETECTOR_STAGES

KIND = 1  # first byte of the message; a step map has another
_MOST = 2**53  # µs, or detections
_NUMBERS = 2**16  # sequence numbers are told modulo this, of which a window is a small part


@dataclass(frozen=True, slots=True)
class Ack:
    """The oldest unanswered packet was detected on."""

    sequence: int  # modulo 2**16
    detections: int
    stages_ns: Mapping[str, int]  # durations on the detector's clock, by DETECTOR_STAGES; told in whole µs

    def pack(self) -> bytes:
        """The message as it goes on the wire."""
        numbers = [
            self.detections,
            *((self.stages_ns.get(stage, 0) + 500) // 1000 for stage in DETECTOR_STAGES),
        ]
        start = bytes((KIND,)) + (self.sequence % _NUMBERS).to_bytes(2)
        return start + b"".join(map(pack_varint, numbers))

    @classmethod
    def parse(cls, data: bytes) -> Ack:
        """The message that these bytes are. Raises InvalidMessage."""
        if data[:1] != bytes((KIND,)) or len(data) < 3:
            raise InvalidMessage(f"{len(data)} bytes that are no ack")
        numbers, at = [], 3
        try:
            for _ in ("detections", *DETECTOR_STAGES):
                number, at = read_varint(data, at)
                numbers.append(number)
        except ValueError as error:
            raise InvalidMessage(f"ack: {error}") from None
        if at != len(data):
            raise InvalidMessage(f"ack: {len(data) - at} bytes follow it")
        if max(numbers) >= _MOST:
            raise InvalidMessage(f"ack: a number is {max(numbers)}")
        stages_ns = {stage: 1000 * number for stage, number in zip(DETECTOR_STAGES, numbers[1:], strict=True)}
        return cls(int.from_bytes(data[1:3]), numbers[0], stages_ns)

    def answers(self, sequence: int) -> bool:
        """Whether it is the answer to the packet with this number."""
        return self.sequence == sequence % _NUMBERS
