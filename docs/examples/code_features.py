"""Code tensors to packets and back, as camera and detector do, without network and sockets."""

import numpy as np

from codec import Stamp, TensorSpec, parse_codec

layout = (TensorSpec("4.m", (32, 60, 80)), TensorSpec("4.cv2", (32, 60, 80)))
codec = parse_codec(
    "feature:profile=none,quality=6"
)  # no calibration profile: these tensors are no network's
encoder, decoder = codec.encoder(layout), codec.decoder(layout)

random = np.random.default_rng(0)
rows, columns = np.mgrid[:60, :80]
down, across, start = random.uniform(0, 0.3, (3, 32, 1, 1))  # of each channel's wave, in radians
for sequence in range(5):
    waves = np.sin(
        down * rows + across * columns + start + 0.02 * sequence
    )  # that move on from frame to frame
    tensors = {spec.name: np.maximum(waves, 0).astype(np.float32) for spec in layout}
    packet = encoder.encode(tensors, Stamp(sequence, captured_ns=0))
    decoded = decoder.decode(packet.data)
    error = max(float(np.abs(decoded.tensors[name] - tensor).mean()) for name, tensor in tensors.items())
    kind = "keyframe" if packet.keyframe else "difference"
    print(f"packet {sequence}: {kind} of {len(packet.data)} bytes, mean error {error:.3f}")
