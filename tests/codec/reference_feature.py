"""A decoder of the feature codec as docs/bitstream.md defines it: slow, plain Python and numpy, nothing shared."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from dataclasses import dataclass

import numpy as np

KEY, DIFFERENCE = 0, 1

# Places of the first binary context of each kind.
PLANE, BLOCK, SIGN = 0, 48, 96
STEP = SIGN + 5
SKIP = STEP + 2 * 28
MOTION = SKIP + 3
PROFILED = SHARP = MOTION + 3 + 2 * 32
CONTEXTS = SHARP + 4

# Places of the first alphabet of each kind.
LAST, FIRST, OTHER, END, ALPHABETS = 0, 48, 96, 144, 192

STEPS = [round(2 ** (s / 16)) for s in range(241)]
ORDER = [(0, 0), (0, 1), (1, 0), (2, 0), (1, 1), (0, 2), (0, 3), (1, 2)]
ORDER += [(2, 1), (3, 0), (3, 1), (2, 2), (1, 3), (2, 3), (3, 2), (3, 3)]  # (vertical, horizontal) frequency
TAPS = [
    [(0, 256, 0, 0), (-9, 219, 49, -3), (-8, 136, 136, -8), (-3, 49, 219, -9)],
    [(0, 256, 0, 0), (-18, 222, 58, -6), (-16, 144, 144, -16), (-6, 58, 222, -18)],
]


class Refused(Exception):
    """Bytes that a decoder must not take."""


@dataclass
class Group:
    """One group of a profile."""

    mean: np.ndarray
    inverse: np.ndarray
    rotation: np.ndarray
    prior: list[list[int]]
    weights: list[list[list[int]]]
    block_weights: list[list[int]]
    probabilities: list[int]
    distributions: list[list[int]]


def parse_profile(data):
    """The groups of a profile file, and its metadata."""
    magic, version, count, text_bytes = struct.unpack_from(">4sBBH", data)
    assert (magic, version) == (b"SPCP", 2)
    at = 8 + text_bytes
    metadata = json.loads(data[8:at])
    sizes = struct.unpack_from(f">{count}H", data, at)
    at += 2 * count
    groups = []

    def take(kind, *shape):
        nonlocal at
        array = np.frombuffer(data, kind, int(np.prod(shape)), at).reshape(shape)
        at += array.nbytes
        return array

    for channels in sizes:
        mean = take("<f4", channels)
        take("<f4", channels, channels)
        groups.append(
            Group(
                mean,
                take("<f4", channels, channels),
                take("<i2", 16, min(channels, 32), min(channels, 32)),
                take("<u2", channels, 16).tolist(),
                take("<u2", 2, 5, 16).tolist(),
                take("<u2", 2, 6).tolist(),
                take("<u2", PROFILED).tolist(),
                take("<u2", ALPHABETS, 16).tolist(),
            )
        )
        take("<i2", 1)
        for shape in [(34, 3 * channels), (34,), (16, 32, 3, 3), (16,), (16, 16, 3, 3), (16,), (16,)]:
            take("<f4", *shape)
    assert at == len(data)
    return groups, metadata


def group_of_ranges(ranges):
    """What stands for a profile's group where there is none; ranges: (2, C), least and greatest."""
    if not np.isfinite(ranges).all() or (ranges[0] > ranges[1]).any():
        raise Refused("ranges")
    low, high = ranges.astype(np.float32)
    span = np.where(high > low, high - low, np.float32(1))
    prior = [4096 if f == 0 else round(8192 / 5 / (1 + sum(ORDER[f]))) for f in range(16)]
    weights = [[w] * 16 for w in (160, 24, 4, 24, 0)]
    block_weights = [20, 60, 5, 90, 12, 0]
    return Group(
        low,
        np.diag(span / np.float32(8192)),
        np.zeros((16, 0, 0), np.int16),
        [prior] * len(low),
        [weights, [*weights[:4], [60] * 16]],
        [block_weights, [*block_weights[:5], 60]],
        default_probabilities(),
        default_distributions(),
    )


def class_mean(c):
    """What a class stands for, in steps."""
    return 2 ** ((4 * c - 110) / 16)


def default_probabilities():
    """P(0) of each binary context before the first frame, if there is no profile."""
    shares = [0.5] * PROFILED
    for c in range(48):
        none = (1 / (1 + class_mean(c))) ** 4
        shares[PLANE + c], shares[BLOCK + c] = 1 - none, none
    return [min(max(round(32768 * share), 32), 32736) for share in shares]


def default_distributions():
    """Starts of the symbols of each alphabet before the first frame, if there is no profile."""
    distributions = []
    for alphabet in range(ALPHABETS):
        ratio = 1.0 if alphabet < FIRST else 1 - 1 / (1 + class_mean(alphabet % 48))
        counts = [ratio**symbol + 1e-9 for symbol in range(16)]
        starts = [sum(counts[:symbol]) / sum(counts) for symbol in range(16)]
        distributions.append([int(32640 * start) + 8 * symbol for symbol, start in enumerate(starts)])
    return distributions


def adapt_bit(context, bit):
    """Both estimates of P(0) after a bit."""
    for i, rate in enumerate((5, 7)):
        context[i] += ((0 if bit else 32768) - context[i]) >> rate


class Alphabet(list):
    """Starts of an alphabet's symbols in 1/32768, and how many symbols were met, up to 128."""

    def __init__(self, starts, met):
        super().__init__(starts)
        self.met = met

    def adapt(self, symbol):
        """Learn from a symbol."""
        rate = 5 if self.met < 32 else 6 if self.met < 128 else 7
        for i in range(16):
            self[i] += (8 * i + (32640 if i > symbol else 0) - self[i]) >> rate
        self.met = min(self.met + 1, 128)


class RangeDecoder:
    """Bits and symbols out of bytes."""

    def __init__(self, data):
        self._data, self.position = data, 8
        self._size = 2**64 - 1
        self._code = int.from_bytes(data[:8].ljust(8, b"\0"), "big")

    def _narrow(self, start, size):
        self._code -= start
        self._size = size
        if self._size < 2**32:
            word = int.from_bytes(self._data[self.position : self.position + 4].ljust(4, b"\0"), "big")
            self._size <<= 32
            self._code = (self._code << 32 | word) % 2**64
            self.position += 4

    def bit(self, context):
        """A bit whose two estimates of P(0) are `context`, which learns from it."""
        below = (self._size >> 15) * min(max((context[0] + context[1]) >> 1, 32), 32736)
        bit = int(self._code >= below)
        self._narrow(below if bit else 0, self._size - below if bit else below)
        adapt_bit(context, bit)
        return bit

    def symbol(self, alphabet):
        """A symbol of 16, by an alphabet, which learns from it."""
        unit = self._size >> 15
        starts = [unit * start for start in (*alphabet, 32768)]
        symbol = max(s for s in range(16) if starts[s] <= self._code)
        self._narrow(starts[symbol], starts[symbol + 1] - starts[symbol])
        alphabet.adapt(symbol)
        return symbol

    def bits(self, count):
        """A number of `count` bits, all as likely."""
        size = self._size >> count
        value = min(self._code // size, 2**count - 1)
        self._narrow(value * size, size)
        return value


class RangeWriter:
    """Bytes out of what `choose` says: the reading functions write where they are given this."""

    def __init__(self, choose):
        """choose: of a context or None, and the number of values that there are."""
        self._choose, self._words = choose, 0
        self._low, self._size = 0, 2**64 - 1

    def _narrow(self, start, size):
        self._low += start
        self._size = size
        if self._size < 2**32:
            self._low <<= 32
            self._size <<= 32
            self._words += 1

    def bit(self, context):
        """As of RangeDecoder."""
        bit = self._choose(context, 2)
        below = (self._size >> 15) * min(max((context[0] + context[1]) >> 1, 32), 32736)
        self._narrow(below if bit else 0, self._size - below if bit else below)
        adapt_bit(context, bit)
        return bit

    def symbol(self, alphabet):
        """As of RangeDecoder."""
        symbol = self._choose(alphabet, 16)
        start, end = (*alphabet, 32768)[symbol : symbol + 2]
        self._narrow((self._size >> 15) * start, (self._size >> 15) * (end - start))
        alphabet.adapt(symbol)
        return symbol

    def bits(self, count):
        """As of RangeDecoder."""
        value = self._choose(None, 2**count)
        assert 0 <= value < 2**count
        self._narrow(value * (self._size >> count), self._size >> count)
        return value

    def finish(self):
        """The bytes: as few as say a number from low up, less than low + size."""
        for bits in range(63, -1, -1):
            value = -(-self._low >> bits) << bits
            if value - self._low < self._size:
                break
        data = value.to_bytes(4 * self._words + 8, "big")
        return data[: 4 * self._words] + data[4 * self._words :].rstrip(b"\0")


def logarithm(magnitude):
    """About 16 log2 of a magnitude."""
    n = min(max(magnitude, 1), 2**24 - 1)
    exponent = n.bit_length() - 1
    return 16 * exponent + (16 * n >> exponent) - 16


def level_class(expected, step):
    """Context of a magnitude of expected/256 units when the step is 2**(step/16)."""
    return min(max((logarithm(expected) - step - 16) >> 2, 0), 47)


@dataclass
class State:
    """What a decoder keeps of a group from one frame to the next."""

    channels: int
    height: int
    width: int
    group: Group | None
    planes: np.ndarray = None
    changes: list[int] = None
    energy: list[list[int]] = None
    prior: list[list[int]] = None
    contexts: list[list[int]] = None
    alphabets: list[Alphabet] = None
    vectors: list[tuple[int, int]] = None
    sharp: list[int] = None
    coded: list[bool] = None
    sums: list[list[int]] = None

    def __post_init__(self):
        self.calibrated = self.group is not None

    @property
    def down(self):
        return -(-self.height // 4)

    @property
    def across(self):
        return -(-self.width // 4)

    def begin(self, kind, after_keyframe):
        """Before a frame of this group is read."""
        blocks = self.down * self.across
        if kind == KEY:
            self.planes = np.zeros((self.channels, 4 * self.down, 4 * self.across), np.int64)
            self.changes = [0] * blocks
            self.energy = [[0] * blocks for _ in range(self.channels)]
            self.prior = [list(row) for row in self.group.prior]
        elif after_keyframe:
            self.prior = [[max(38 * m >> 8, 1) for m in row] for row in self.prior]
        if kind == KEY or after_keyframe:
            self.contexts = [[p, p] for p in self.group.probabilities]
            self.contexts += [[16384, 16384] for _ in range(CONTEXTS - PROFILED)]
            met = 128 if kind == KEY and self.calibrated else 0
            self.alphabets = [Alphabet(starts, met) for starts in self.group.distributions]


def read_blocks(bits, state, kind):
    """Vectors, filters, coded flags and changes of step."""
    contexts, across = state.contexts, state.across
    blocks = state.down * across
    first = STEP + 28 * kind
    before, state.changes = state.changes, [0] * blocks
    state.vectors, state.sharp, state.coded = [(0, 0)] * blocks, [0] * blocks, [True] * blocks
    moving = kind == DIFFERENCE and bits.bit(contexts[MOTION])
    sharpening = moving and bits.bit(contexts[SHARP])
    odd = 0
    for b in range(blocks):
        if moving:
            state.vectors[b] = read_vector(bits, state, b)
        if sharpening and any(part % 4 for part in state.vectors[b]):
            left = b % across > 0 and state.sharp[b - 1]
            above = b >= across and state.sharp[b - across]
            state.sharp[b] = bits.bit(contexts[SHARP + 1 + left + above])
        if kind == DIFFERENCE:
            beside = (b % across > 0 and state.coded[b - 1]) + (b >= across and state.coded[b - across])
            state.coded[b] = bool(bits.bit(contexts[SKIP + beside]))
            if not state.coded[b]:
                state.changes[b] = before[b]
                continue
            expected = before[b]
        elif b % across == 0:
            expected = state.changes[b - across] if b else 0
        elif b < across:
            expected = state.changes[b - 1]
        else:
            expected = (state.changes[b - 1] + state.changes[b - across] + 1) >> 1
        off = 0
        if bits.bit(contexts[first + min(odd, 2)]):
            sign = -1 if bits.bit(contexts[first + 3]) else 1
            off = 1
            while off < 24 and bits.bit(contexts[first + 3 + off]):
                off += 1
            off *= sign
        odd = abs(off)
        state.changes[b] = expected + off
        if abs(state.changes[b]) > 12:
            raise Refused("change of step")


def read_vector(bits, state, b):
    """(down, right) in quarters of a sample."""
    contexts, across = state.contexts, state.across
    left = state.vectors[b - 1] if b % across else (0, 0)
    above = state.vectors[b - across] if b >= across else (0, 0)
    if not bits.bit(contexts[MOTION + 1]):
        return left
    if left != above and not bits.bit(contexts[MOTION + 2]):
        return above
    vector = []
    for axis in range(2):
        node = 1
        for _ in range(5):
            node = 2 * node + bits.bit(contexts[MOTION + 3 + 32 * axis + node])
        vector.append(node - 32 - 8)
        if vector[-1] > 8:
            raise Refused("vector")
    return tuple(vector)


def read_levels(bits, state, kind, frame_step):
    """Levels (K, B, 16), and the width of each block's step."""
    contexts, down, across = state.contexts, state.down, state.across
    blocks = down * across
    w, wb = state.group.weights[kind], state.group.block_weights[kind]
    steps = [min(max(frame_step + 4 * change, 32), 240) for change in state.changes]
    deltas = [STEPS[step] for step in steps]
    all_levels = np.zeros((state.channels, blocks, 16), np.int64)
    if not any(state.coded):
        state.energy = [[0] * blocks for _ in range(state.channels)]
        return all_levels, deltas
    state.sums = [[0] * 16 for _ in range(state.channels)]
    nothing = [0] * 16
    previous = [nothing] * blocks  # magnitudes of the component before
    shown = [0] * blocks
    for k in range(state.channels):
        prior = state.prior[k]
        magnitudes, signs = [nothing] * blocks, [0] * blocks
        old_energy, state.energy[k] = state.energy[k], [0] * blocks
        if bits.bit(contexts[PLANE + level_class(sum(prior) << 4, frame_step)]):
            previous = magnitudes
            continue

        def at(rows, b, dy, dx):
            y, x = b // across + dy, b % across + dx
            return rows[y * across + x] if 0 <= y < down and 0 <= x < across else nothing

        def block_sum(rows, b, dy, dx):
            return min(sum(at(rows, b, dy, dx)), 65535)

        for b in range(blocks):
            if not state.coded[b]:
                continue
            expected = (
                wb[0] * sum(prior)
                + wb[1] * (block_sum(magnitudes, b, 0, -1) + block_sum(magnitudes, b, -1, 0))
                + wb[2] * (block_sum(magnitudes, b, -1, -1) + block_sum(magnitudes, b, -1, 1))
                + wb[3] * block_sum(previous, b, 0, 0)
                + wb[4] * (block_sum(previous, b, 0, 1) + block_sum(previous, b, 1, 0))
                + wb[5] * old_energy[b]
            ) >> 4
            class_step = steps[b] - (shown[b] >> 5 if state.calibrated else 0)
            c = level_class(expected, class_step)
            if not bits.bit(contexts[BLOCK + c]):
                shown[b] += (16 * (steps[b] - 32 - logarithm(sum(prior))) - shown[b]) >> 3
                continue
            classes = [
                level_class(
                    w[0][f] * prior[f]
                    + w[1][f] * (at(magnitudes, b, 0, -1)[f] + at(magnitudes, b, -1, 0)[f])
                    + w[2][f] * (at(magnitudes, b, -1, -1)[f] + at(magnitudes, b, -1, 1)[f])
                    + w[3][f] * previous[b][f]
                    + w[4][f] * (old_energy[b] >> 4),
                    class_step,
                )
                for f in range(16)
            ]
            levels = read_block(bits, state, b, bits.symbol(state.alphabets[LAST + c]), classes, signs)
            delta = deltas[b]
            all_levels[k, b] = levels
            magnitudes[b] = [min(abs(level) * delta, 65535) for level in levels]
            state.energy[k][b] = min(sum(magnitudes[b]), 65535)
            shown[b] += (16 * (logarithm(state.energy[k][b]) - logarithm(sum(prior))) - shown[b]) >> 3
            state.sums[k] = [s + m for s, m in zip(state.sums[k], magnitudes[b], strict=True)]
        previous = magnitudes
    return all_levels, deltas


def read_block(bits, state, b, last, classes, signs):  # noqa: PLR0917 - what the text names
    """The 16 levels of a block; sets its place in `signs`."""
    levels = [0] * 16
    for f in range(last + 1):
        kind = END if f == last else OTHER if f else FIRST
        levels[f] = bits.symbol(state.alphabets[kind + classes[f]])
        if levels[f] == 15:
            levels[f] += read_escape(bits)
        levels[f] += f == last
        if levels[f] > 32767:
            raise Refused("level")
        if f == 0 and levels[0]:
            left = signs[b - 1] if b % state.across else 0
            above = signs[b - state.across] if b >= state.across else 0
            signs[b] = -1 if bits.bit(state.contexts[SIGN + 2 + left + above]) else 1
            levels[0] *= signs[b]
    signed = [f for f in range(1, 16) if levels[f]]
    negative = bits.bits(len(signed))
    for i, f in enumerate(reversed(signed)):
        if negative >> i & 1:
            levels[f] = -levels[f]
    return levels


def read_escape(bits):
    """What a magnitude is more than 15."""
    width = 0
    while bits.bits(1):
        width += 1
        if width > 14:
            raise Refused("escape")
    return 2**width - 1 + bits.bits(width)


def dequantize(rotation, levels, deltas):
    """Coefficients (K, B, 16) of levels, of which those of the first components are of rotated ones."""
    coefficients = levels * np.asarray(deltas, np.int64)[:, None]
    for f, turn in enumerate(rotation.astype(np.int64)):
        turned = np.tensordot(turn.T, levels[: len(turn), :, f], 1)
        coefficients[: len(turn), :, f] = turned * deltas + 512 >> 10
    return np.clip(coefficients, -(2**17), 2**17)


def inverse_dct(coefficients, down, across):
    """Samples (H, W) of one component's blocks (B, 16)."""
    spectrum = np.zeros((down * across, 4, 4), np.int64)
    for f, (v, u) in enumerate(ORDER):
        spectrum[:, v, u] = coefficients[:, f]

    def invert(x):
        """Along the last axis."""
        even, odd = 512 * (x[..., 0] + x[..., 2]), 512 * (x[..., 0] - x[..., 2])
        far, near = 669 * x[..., 1] + 277 * x[..., 3], 277 * x[..., 1] - 669 * x[..., 3]
        return np.stack((even + far, odd + near, odd - near, even - far), -1) + 512 >> 10

    samples = invert(invert(spectrum).swapaxes(1, 2)).swapaxes(1, 2)
    return samples.reshape(down, across, 4, 4).swapaxes(1, 2).reshape(4 * down, 4 * across)


def predict(planes, vectors, across, sharp=None):
    """The reference frame, each block moved by its vector; sharp: the filter of each block, 0 unless told."""
    height, width = planes.shape[1:]
    prediction = np.empty_like(planes)
    for b, (down, right) in enumerate(vectors):
        taps = TAPS[sharp[b] if sharp else 0]
        top, left = 4 * (b // across), 4 * (b % across)
        rows = np.clip(np.arange(top - 1, top + 6) + (down >> 2), 0, height - 1)
        part = planes[:, rows]
        columns = [
            np.clip(np.arange(left + i, left + i + 4) + (right >> 2), 0, width - 1) for i in (-1, 0, 1, 2)
        ]
        part = sum(tap * part[:, :, x] for tap, x in zip(taps[right & 3], columns, strict=True)) + 128 >> 8
        part = sum(tap * part[:, i : i + 4] for i, tap in enumerate(taps[down & 3])) + 128 >> 8
        prediction[:, top : top + 4, left : left + 4] = np.clip(part, -32768, 32767)
    return prediction


def read_group(bits, state, kind, frame_step):
    """One group of a frame; its planes are then the reference."""
    read_blocks(bits, state, kind)
    coefficients = dequantize(state.group.rotation, *read_levels(bits, state, kind, frame_step))
    moved = predict(state.planes, state.vectors, state.across, state.sharp)
    difference = np.stack([inverse_dct(own, state.down, state.across) for own in coefficients])
    state.planes = np.clip(moved + difference, -32768, 32767)
    coded = sum(state.coded)
    if kind == DIFFERENCE and coded:
        state.prior = [
            [max((3 * coded * m + s) // (4 * coded), 1) for m, s in zip(*rows, strict=True)]
            for rows in zip(state.prior, state.sums, strict=True)
        ]


def checksum(states):
    """Of the reference frame."""
    total = 0
    for state in states:
        samples = state.planes.reshape(-1) % 2**16
        total += int(((2 * np.arange(samples.size) + 1) * samples % 2**32).sum())
    return total % 2**32


class Decoder:
    """Decodes the packets of one stream; a refused packet ends it until the next keyframe."""

    def __init__(self, profile, planes):
        """profile: its bytes, or None; planes: channels, height and width of each group."""
        groups = parse_profile(profile)[0] if profile else [None] * len(planes)
        self._calibrated = profile is not None
        self._parameters = hashlib.sha256(profile).digest()[:8] if profile else bytes(8)
        self.states = [State(*size, group) for size, group in zip(planes, groups, strict=True)]
        self._description = b""  # of the last keyframe
        self._last = None  # sequence number and kind of the last frame

    def decode(self, packet):
        """The reference planes (K, H, W) of each group."""
        last, self._last = self._last, None
        if packet[0] >= 128:
            kind = DIFFERENCE
            sequence, payload = open_difference(packet, self._description)
            if last is None or sequence != (last[0] + 1) % 2**14:
                raise Refused("sequence")
        else:
            kind = KEY
            sequence, parameters, payload, self._description = open_keyframe(packet)
            if parameters != self._parameters:
                raise Refused("profile")
        if len(payload) < 1 or not 32 <= payload[0] <= 240:
            raise Refused("step")
        at = 1
        if kind == DIFFERENCE:
            if len(payload) < 5 or struct.unpack_from(">I", payload, 1)[0] != checksum(self.states):
                raise Refused("reference")
            at = 5
        elif not self._calibrated:
            for state in self.states:
                if len(payload) < at + 4 * state.channels:
                    raise Refused("ranges")
                ranges = np.frombuffer(payload, ">f2", 2 * state.channels, at).reshape(2, -1)
                state.group = group_of_ranges(ranges)
                at += 4 * state.channels
        bits = RangeDecoder(payload[at:])
        for state in self.states:
            state.begin(kind, last is not None and last[1] == KEY)
            read_group(bits, state, kind, payload[0])
        if not bits.position - 8 <= len(payload) - at <= bits.position:
            raise Refused("size")
        self._last = sequence, kind
        return [state.planes for state in self.states]

    def decode_all(self, packets):
        """Decode packets for what they leave behind."""
        for packet in packets:
            self.decode(packet)

    def tensors(self):
        """The tensors (C, H, W) of each group, float64."""
        return [
            np.tensordot(state.group.inverse.astype(np.float64), state.planes.astype(np.float64), 1)[
                :, : state.height, : state.width
            ]
            + state.group.mean.astype(np.float64)[:, None, None]
            for state in self.states
        ]


def open_keyframe(packet):
    """Sequence number, parameters, payload, and the description that the checksums of differences are over first."""
    fixed = struct.unpack_from(">4sBBBBIIQHHB", packet)
    magic, version, codec, flags, parameter_bytes, size, sequence = fixed[:7]
    assert (magic, version, codec, flags, size) == (b"SPLC", 2, 2, 0, len(packet))
    if struct.unpack(">I", packet[-4:])[0] != zlib.crc32(packet[:-4]):
        raise Refused("checksum")
    at = 29 + parameter_bytes
    parameters = packet[29:at]
    description = bytes((version, codec, parameter_bytes)) + parameters + bytes(fixed[-1:])
    sections = []
    for _ in range(fixed[-1]):
        start = at
        at += 1 + packet[at]
        at += 1 + 2 * packet[at]
        description += packet[start:at]
        sections.append(struct.unpack_from(">I", packet, at)[0])
        at += 4
    if any(sections[1:]):
        raise Refused("section")
    return sequence, parameters, packet[at : at + sections[0]], description


def open_difference(packet, description):
    """Sequence number modulo 2^14, and payload."""
    if struct.unpack(">I", packet[-4:])[0] != zlib.crc32(description + packet[:-4]):
        raise Refused("checksum")
    return int.from_bytes(packet[:2], "big") % 2**14, packet[head_bytes(packet) : -4]


def head_bytes(difference):
    """Where the payload of a difference starts."""
    at = 2
    while difference[at] >= 128:
        at += 1
    return at + 1 + (4 if difference[0] & 64 else 0)
