"""Least and greatest coefficient of a tensor, as they travel."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar, Self

from codec.errors import CorruptPacket


@dataclass(frozen=True, slots=True)
class ValueRange:
    """Least and greatest coefficient of one tensor: finite float32 values, held exactly as floats."""

    minimum: float
    maximum: float

    WIRE: ClassVar = struct.Struct(">ff")

    @classmethod
    def parse(cls, data: memoryview) -> Self:
        """Range at the start of a section; raises CorruptPacket if no tensor has it."""
        minimum, maximum = cls.WIRE.unpack_from(data)
        # False for NaN too
        if not float("-inf") < minimum <= maximum < float("inf"):
            raise CorruptPacket(f"a tensor's range is {minimum} to {maximum}")
        return cls(minimum, maximum)

    def pack(self) -> bytes:
        """Minimum and maximum as 4-byte floats."""
        return self.WIRE.pack(self.minimum, self.maximum)
