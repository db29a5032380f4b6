"""What a detector says, unasked, of a frame that it has detected on: which blocks its detections depend on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from stream.errors import InvalidMessage

KIND = 2  # first byte of the message; an ack has another
_START = 3  # kind and number
_NUMBERS = 2**16  # sequence numbers are told modulo this


@dataclass(frozen=True, slots=True)
class StepMap:
    """The step map of one packet's frame, in the bytes that the codec has for it."""

    sequence: int  # modulo 2**16
    data: bytes

    def pack(self) -> bytes:
        """The message as it goes on the wire."""
        return bytes((KIND,)) + (self.sequence % _NUMBERS).to_bytes(2) + self.data

    @classmethod
    def parse(cls, message: bytes, size: int) -> Self:
        """The message that these bytes are, with a map of so many bytes. Raises InvalidMessage."""
        if message[:1] != bytes((KIND,)) or len(message) != _START + size:
            raise InvalidMessage(f"{len(message)} bytes that are no step map of {size}")
        return cls(int.from_bytes(message[1:_START]), message[_START:])

    def newest(self, packets: int) -> int:
        """Sequence number, modulo 2**32, of the newest packet that it can be of, after so many were sent."""
        last = packets - 1
        return (last - (last - self.sequence) % _NUMBERS) % 2**32
