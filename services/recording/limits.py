"""How much of a stream is kept."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20
DEFAULT_MIB = 1024
MOST_SEGMENT_MIB = 64  # unless it is said otherwise


@dataclass(frozen=True, slots=True)
class RecordingLimits:
    """Sizes in bytes, times in seconds."""

    total_bytes: int  # of all files of the stream
    segment_bytes: int  # of one of them, about: the next begins with the first keyframe behind it
    segment_s: float

    @classmethod
    def of(cls, total_mib: float, segment_mib: float | None, segment_s: float) -> RecordingLimits:
        """As flags say them; a segment has a quarter of the whole, and at most 64 MiB, unless it is said otherwise.

        Raises ValueError where two segments would not fit.
        """
        segment = min(MOST_SEGMENT_MIB, total_mib / 4) if segment_mib is None else segment_mib
        if 2 * segment > total_mib:
            raise ValueError(
                f"--record-segment-mib: {segment:g} MiB are more than half of --record-mib {total_mib:g}"
            )
        return cls(int(total_mib * MIB), int(segment * MIB), segment_s)
