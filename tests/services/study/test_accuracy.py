"""Changes of the tensors are scored on the same pictures, each by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from codec.rle.codec import Rle
from services.study.accuracy import accuracies, through, unchanged
from services.study.subject import SplitSample
from tests.services.study.records import StudyFactory


class _Sum:
    """A network whose prediction is the sum of what crosses, and whose score is its mean."""

    def __init__(self) -> None:
        self._sums: list[float] = []

    def finish(self, tensors: dict[str, np.ndarray]) -> torch.Tensor:
        return torch.tensor(float(sum(tensor.sum() for tensor in tensors.values())))

    def scorer(self) -> _Sum:
        return _Sum()

    def add(self, sample: SplitSample, prediction: torch.Tensor) -> None:
        self._sums.append(float(prediction))

    def values(self) -> dict[str, float]:
        return {"mean": float(np.mean(self._sums))}


def test_each_change_is_scored_on_every_picture() -> None:
    tensors = [{"a": np.full((1, 2, 2), value, np.float32)} for value in (1, 3)]
    samples = [SplitSample(torch.empty(0), one, (), (slice(0), slice(0)), lambda: None) for one in tensors]
    found = accuracies(
        _Sum(),  # type: ignore[arg-type]
        iter(samples),
        {
            "same": unchanged,
            "twice": lambda tensors, layout: ({"a": 2 * tensors["a"]}, 10 * int(tensors["a"][0, 0, 0])),
        },
    )
    assert found["same"].scores == {"mean": 8.0}
    assert found["same"].bytes == 16
    assert found["twice"].scores == {"mean": 16.0}
    assert found["twice"].bytes == 20


def test_unchanged_tensors_agree_with_the_unsplit_network(make_study: StudyFactory) -> None:
    study = make_study()
    (subject,) = study.subjects
    for sample in study.samples(subject, study.stills(subject)):
        whole = subject.graph.forward(sample.picture)
        assert torch.equal(subject.finish(sample.tensors), whole)


def test_a_codec_gives_back_what_a_decoder_would(make_study: StudyFactory) -> None:
    study = make_study()
    (subject,) = study.subjects
    sample = next(study.samples(subject, study.stills(subject)))
    decoded, size = through(Rle(3))(sample.tensors, sample.layout)
    for name, tensor in sample.tensors.items():
        low, high = float(tensor.min()), float(tensor.max())
        levels = np.floor((tensor.astype(np.float64) - low) * 7 / (high - low) + 0.5)
        np.testing.assert_allclose(decoded[name], low + levels * (high - low) / 7, atol=1e-6)
    assert size < sum(tensor.nbytes for tensor in sample.tensors.values()) / 4


@pytest.mark.shared
def test_real_weights_score_as_the_evaluation_does(
    yolov5n_weights: Path, shared_data: Path, tmp_path: Path
) -> None:
    from services.evaluation.evaluate import evaluate
    from services.study.dataset import folder_pictures
    from services.study.detection import Detection
    from stream.network.engine import open_network
    from stream.torch_network.model import load_model

    model = load_model(yolov5n_weights)
    images = folder_pictures(shared_data / "coco/images/val2017", 6)
    subject = Detection("yolov5n", model, model.weights_hash, "4.m", 320)
    assert images.dataset is not None
    codec = Rle(4)
    ceiling, coded = evaluate(open_network(yolov5n_weights, "torch"), [codec], images.dataset, size=320)
    found = accuracies(subject, subject.samples(images), {"none": unchanged, "rle": through(codec)})
    for record, outcome in ((ceiling, found["none"]), (coded, found["rle"])):
        for name in ("map", "map50", "agreement"):
            assert outcome.scores[name] == pytest.approx(getattr(record, name), abs=1e-4)
    assert found["rle"].bytes / 1e3 == pytest.approx(coded.kb_per_frame, abs=1e-3)
