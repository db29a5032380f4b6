"""Code tensors to packets and back, as camera and detector do, without network and sockets."""

import numpy as np

from codec import Stamp, TensorSpec, parse_codec

layout = (TensorSpec("4.m", (32, 60, 80)), TensorSpec("4.cv2", (32, 60, 80)))
codec = parse_codec(
    "feature:profile=none,quality=6"
)  # no calibration profile: these tensors are no network's
encoder, decoder = codec.encoder(layout), codec.decoder(layout)

random = np.random.default_rng(0)
scene = {spec.name: random.gamma(0.5, size=spec.shape).astype(np.float32) for spec in layout}
for sequence in range(5):
    noise = np.float32(1 + 0.01 * random.standard_normal())
    tensors = {name: tensor * noise for name, tensor in scene.items()}
    packet = encoder.encode(tensors, Stamp(sequence, captured_ns=0))
    decoded = decoder.decode(packet.data)
    error = max(float(np.abs(decoded.tensors[name] - tensor).mean()) for name, tensor in tensors.items())
    kind = "keyframe" if packet.keyframe else "difference"
    print(f"packet {sequence}: {kind} of {len(packet.data)} bytes, mean error {error:.3f}")
