"""What draws pictures from features: its shapes, and that it learns what features tell, the same each time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from services.study.likeness import psnr
from services.study.picture_decoder import PictureDecoder, TrainingPair, stacked


def _examples(count: int, size: tuple[int, int] = (48, 64)) -> list[TrainingPair]:
    """Pictures of colored squares, whose features are the colors."""
    rng = np.random.default_rng(0)
    examples = []
    for _ in range(count):
        colors = torch.from_numpy(rng.integers(0, 256, (3, size[0] // 8, size[1] // 8), np.uint8))
        picture = colors.repeat_interleave(8, 1).repeat_interleave(8, 2)
        examples.append(TrainingPair((colors / 255).half(), picture))
    return examples


def _decoder(channels: int = 3, stride: int = 8) -> PictureDecoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return PictureDecoder(channels, stride)


@pytest.mark.parametrize("stride", [1, 2, 4, 8, 16])
def test_a_drawn_picture_is_as_large_as_what_the_head_saw(stride: int) -> None:
    drawn = _decoder(5, stride).draw(torch.rand(5, 4, 6))
    assert drawn.shape == (1, 3, 4 * stride, 6 * stride)
    assert drawn.dtype == torch.float32
    torch.testing.assert_close(drawn * 255, (drawn * 255).round().clamp(0, 255))


def test_it_learns_what_the_features_tell() -> None:
    examples, (unseen,) = _examples(3), _examples(4)[3:]
    true = unseen.picture[None] / 255
    decoder = _decoder()
    before = psnr(decoder.draw(unseen.features.float()), true)
    steps = []
    decoder.learn(examples, 20, 0, lambda: steps.append(1))
    assert len(steps) == 20
    assert psnr(decoder.draw(unseen.features.float()), true) > before + 3


def test_the_same_seed_draws_the_same_picture_and_another_seed_another() -> None:
    examples = _examples(3)
    drawn = []
    for seed in (1, 1, 2):
        decoder = _decoder()
        decoder.learn(examples, 2, seed, lambda: None)
        drawn.append(decoder.draw(examples[0].features.float()))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_pictures_of_different_sizes_are_learned_from_together() -> None:
    examples = [*_examples(2), *_examples(2, (32, 96))]
    decoder = _decoder()
    decoder.learn(examples, 1, 0, lambda: None)
    assert decoder.draw(examples[-1].features.float()).shape == (1, 3, 32, 96)


def test_tensors_of_several_resolutions_become_one() -> None:
    fine, coarse = np.arange(24, dtype=np.float32).reshape(1, 4, 6), np.float32([[[1, 2, 3], [4, 5, 6]]])
    both = stacked({"a": coarse, "b": fine})
    assert both.shape == (2, 4, 6)
    assert both[0].tolist()[0] == [1, 1, 2, 2, 3, 3]
    assert both[0].tolist()[3] == [4, 4, 5, 5, 6, 6]
    np.testing.assert_array_equal(both[1], fine[0])
