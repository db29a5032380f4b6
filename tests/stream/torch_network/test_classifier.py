"""Classifiers are cut where the paper cuts them, and their halves equal the whole."""

from __future__ import annotations

import hashlib
import pickle
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision

from stream.errors import BrokenNetwork, DownloadFailed, MissingWeights, UnreadableCheckpoint
from stream.network.cut import layout, points, split_points
from stream.torch_network.classifier import (
    CLASSIFIERS,
    SIZE,
    Classifier,
    classifier_skeleton,
    find_classifier_weights,
    load_classifier,
    random_classifier,
)
from stream.torch_network.split import TorchHead, TorchTail


@pytest.fixture(scope="module")
def resnet50() -> Classifier:
    return random_classifier("resnet50")


@pytest.mark.parametrize(
    ("name", "layer", "shape", "kb"),
    [
        ("vgg16", "10", (128, 56, 56), 1568),
        ("vgg16", "17", (256, 28, 28), 784),
        ("resnet50", "4", (64, 56, 56), 784),
        ("resnet50", "8", (512, 28, 28), 1568),
        ("resnet152", "16", (1024, 14, 14), 784),
    ],
)
def test_layers_have_the_papers_shapes_and_sizes(
    name: str, layer: str, shape: tuple[int, ...], kb: int
) -> None:
    (crossing,) = layout(classifier_skeleton(name), layer, SIZE)
    assert crossing.shape == shape
    assert crossing.raw_bytes == kb * 1024


@pytest.mark.parametrize(("name", "layers"), [("resnet50", 22), ("resnet152", 56)])
def test_resnets_have_as_many_layers_as_the_paper_says(name: str, layers: int) -> None:
    nodes = classifier_skeleton(name).nodes
    assert len(nodes) == layers
    assert [node.name for node in nodes[:-2]] == [str(number) for number in range(1, layers - 1)]


def test_vgg_is_numbered_over_its_convolutional_part() -> None:
    names = [node.name for node in classifier_skeleton("vgg16").nodes]
    assert names == [*map(str, range(1, 32)), "avgpool", "classifier"]


def test_the_whole_is_torchvisions(resnet50: Classifier) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = torchvision.models.resnet50(weights=None).eval()
    picture = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        ours = resnet50.graph.forward(picture)
        torch.testing.assert_close(ours, theirs(picture), rtol=1e-4, atol=1e-4)


def test_halves_equal_the_whole_at_every_point(resnet50: Classifier) -> None:
    picture = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        whole = resnet50.graph.forward(picture)
    for split in split_points(resnet50.graph):
        crossing = TorchHead(resnet50, split, (64, 64)).run(picture)
        before = {name: tensor.clone() for name, tensor in crossing.items()}
        assert torch.equal(TorchTail(resnet50, split).run(crossing), whole), split
        assert all(torch.equal(before[name], tensor) for name, tensor in crossing.items()), (
            "left as they were"
        )


def test_vgg_halves_equal_the_whole() -> None:
    vgg = random_classifier("vgg16")
    picture = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        whole = vgg.graph.forward(picture)
    for split in ("1", "10", "17", "avgpool"):
        assert torch.equal(TorchTail(vgg, split).run(TorchHead(vgg, split, (32, 32)).run(picture)), whole)


def test_random_weights_are_the_same_for_the_same_seed(resnet50: Classifier) -> None:
    state = torch.random.get_rng_state()
    assert random_classifier("resnet50").weights_hash == resnet50.weights_hash
    assert random_classifier("resnet50", seed=1).weights_hash != resnet50.weights_hash
    assert torch.equal(torch.random.get_rng_state(), state), "nobody else's random numbers change"


def test_points_count_the_linear_layer_too() -> None:
    found = points(classifier_skeleton("resnet50"), SIZE)
    assert found[-1].total_flops == pytest.approx(2 * 4.09e9, rel=0.01), (
        "torchvision gives 4.09 GFLOPs, as pairs"
    )
    shares = [point.share for point in found]
    assert shares == sorted(shares)


def test_pictures_are_scaled_cropped_and_normalized(resnet50: Classifier) -> None:
    image = np.empty((300, 500, 3), np.uint8)
    image[:] = (10, 100, 200)  # blue, green, red
    picture = resnet50.preprocess(image)
    assert picture.shape == (1, 3, 224, 224)
    expected = (np.array([200, 100, 10]) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(picture[0, :, 5, 5].numpy(), expected, atol=1e-5)
    assert len(resnet50.names) == 1000
    assert resnet50.names[0] == "tench"


def _state() -> dict[str, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        state: dict[str, torch.Tensor] = torchvision.models.resnet50(weights=None).state_dict()
    return state


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_come_from_a_file(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(_state(), file)
    else:
        safetensors.torch.save_file(_state(), file)
    assert load_classifier("resnet50", file).weights_hash == random_classifier("resnet50", 7).weights_hash


class _Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise SystemExit('code in a checkpoint was run')",)


@pytest.mark.parametrize(
    "leave",
    [
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {"epoch": 90, "state_dict": state},
        lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}},
    ],
    ids=["data parallel", "with the optimizer", "both"],
)
def test_weights_come_as_training_leaves_them(tmp_path: Path, leave: Any) -> None:
    file = tmp_path / "weights.pth"
    torch.save(leave(_state()), file)
    assert load_classifier("resnet50", file).weights_hash == random_classifier("resnet50", 7).weights_hash


def test_weights_that_are_of_no_use_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    state = _state()
    torch.save({**state, "fc.weight": torch.full_like(state["fc.weight"], float("nan"))}, file)
    with pytest.raises(BrokenNetwork, match=r"weights\.pth: fc\.weight holds numbers that are not finite"):
        load_classifier("resnet50", file)
    torch.save({**state, "layer1.0.bn1.running_var": torch.full((64,), -1.0)}, file)
    with pytest.raises(BrokenNetwork, match=r"weights\.pth: layer 5 puts out numbers that are not finite"):
        load_classifier("resnet50", file)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
        (b"<html>", "a web page"),
        (b"", "empty"),
    ],
)
def test_a_file_is_named_for_what_it_is(tmp_path: Path, content: bytes, kind: str) -> None:
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(UnreadableCheckpoint, match=f"weights.pth is .*{kind}"):
        load_classifier("resnet50", tmp_path / "weights.pth")


def test_files_of_something_else_are_refused_and_never_run(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    with pytest.raises(MissingWeights):
        load_classifier("resnet50", file)
    torch.save({"weight": _Harmful()}, file)
    with pytest.raises(UnreadableCheckpoint):
        load_classifier("resnet50", file)
    file.write_bytes(pickle.dumps(_Harmful()))
    with pytest.raises(UnreadableCheckpoint):
        load_classifier("resnet50", file)
    for content in ([torch.zeros(1)], {"weight": 1}):
        torch.save(content, file)
        with pytest.raises(UnreadableCheckpoint, match="something else"):
            load_classifier("resnet50", file)
    for junk in (b"", b"PK\x03\x04", b"not a checkpoint"):
        file.write_bytes(junk)
        with pytest.raises(UnreadableCheckpoint):
            load_classifier("resnet50", file)
    (tmp_path / "w.safetensors").write_bytes(b"junk")
    with pytest.raises(UnreadableCheckpoint):
        load_classifier("resnet50", tmp_path / "w.safetensors")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save({**_state(), "fc.weight": torch.zeros(10, 2048)}, file)
    with pytest.raises(UnreadableCheckpoint, match=r"fc\.weight"):
        load_classifier("resnet50", file)
    torch.save({"layer": torch.zeros(1)}, file)
    with pytest.raises(UnreadableCheckpoint, match="do not fit"):
        load_classifier("resnet50", file)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server of a folder's files."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    served = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=served.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{served.server_port}", folder
    served.shutdown()
    served.server_close()
    thread.join()


def test_official_weights_are_fetched_once_and_checked(
    tmp_path: Path, server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, folder = server
    content = b"weights"
    digest = hashlib.sha256(content).hexdigest()[:8]
    weights = torchvision.models.get_model_weights("resnet50").DEFAULT
    name = f"resnet50-{digest}.pth"
    monkeypatch.setattr(type(weights), "url", f"https://example.org/models/{name}")
    (folder / name).write_bytes(content)
    cache = tmp_path / "cache"
    assert find_classifier_weights("resnet50", cache, url).read_bytes() == content
    (folder / name).unlink()
    assert find_classifier_weights("resnet50", cache, url) == cache / name


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_other_bytes_than_the_official_ones_are_refused(
    name: str, tmp_path: Path, server: tuple[str, Path]
) -> None:
    url, folder = server
    official = torchvision.models.get_model_weights(name).DEFAULT.url.rpartition("/")[2]
    (folder / official).write_bytes(b"a login page")
    with pytest.raises(DownloadFailed, match="SHA-256"):
        find_classifier_weights(name, tmp_path / "cache", url)
    assert not list((tmp_path / "cache").iterdir())
    (folder / official).unlink()
    with pytest.raises(DownloadFailed, match="404"):
        find_classifier_weights(name, tmp_path / "cache", url)
