"""Calibration from images to a profile's file, and what the command says when it cannot."""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import pytest

from codec.errors import ProfileMismatch
from codec.feature.calibration import MIN_SAMPLES
from codec.feature.profile import Profile
from services.calibration import calibrate, step_network
from services.calibration.calibrate import Sampler, find_images, vary
from services.calibration.step_network import train_step_network
from services.cli import main
from services.errors import Exit
from stream.errors import SourceError
from stream.network.cut import layout
from stream.torch_network.model import load_model
from stream.torch_network.split import TorchHead
from tests.services.clips import SIZE

IMAGES = MIN_SAMPLES


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Just enough images, of two shapes."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        shape = SIZE if number % 2 else SIZE[::-1]
        coarse = rng.integers(0, 256, (4, 4, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number:02}.png"), cv2.resize(coarse, shape[::-1]))
    return folder


@pytest.fixture(scope="module")
def model(weights):
    return load_model(weights)


class FakeProfile:
    hash = "ab" * 32

    @staticmethod
    def pack() -> bytes:
        return b"a profile"


@pytest.fixture
def calls(monkeypatch):
    """What the command gives to `calibrate`, which here goes through the samples twice and finds a fixed profile."""
    found = []

    def fake(samples, train, metadata, seed, variants):
        assert train is train_step_network
        found.append(([list(samples()), list(samples()), list(variants)], metadata, seed))
        return FakeProfile()

    monkeypatch.setattr(calibrate, "calibrate", fake)
    return found


@pytest.fixture
def run(weights, folder, tmp_path):
    """Runs the command; later flags overrule."""

    def run(*flags: object) -> int:
        common = ["calibrate", "--model", weights, "--images", folder, "--size", "96", "--variants", "1"]
        output = ["-o", tmp_path / "profile"]
        return main([*map(str, (*common, *output, *flags))])

    return run


def equal(first, second) -> bool:
    """Whether two samples are the same, number for number."""
    maps = [(first.tensors, second.tensors), *zip(first.gradients, second.gradients, strict=True)]
    return all(list(a) == list(b) and all(np.array_equal(a[name], b[name]) for name in a) for a, b in maps)


class TestCommand:
    def test_writes_the_profile_and_says_its_hash(self, run, calls, tmp_path, capsys):
        assert run("--draws", 2, "--seed", 7) == Exit.OK
        assert (tmp_path / "profile").read_bytes() == FakeProfile.pack()
        assert [path.name for path in tmp_path.iterdir()] == ["profile"]
        out, err = capsys.readouterr()
        assert out == f"{tmp_path / 'profile'}: profile {FakeProfile.hash}, 9 bytes, of 16 images\n"
        assert "pass 1" in err
        assert "pass 2" in err
        assert "variants" in err

    def test_gives_samples_that_are_the_same_in_every_pass(self, run, calls, model, folder):
        assert run("--draws", 2, "--seed", 7) == Exit.OK
        (((first, second, _), _, seed),) = calls
        assert seed == 7
        assert len(first) == len(second) == IMAGES
        assert all(map(equal, first, second))
        for place, sample in enumerate(first):
            assert len(sample.gradients) == 2
            assert sample.tensors["4.m"].shape == ((32, 8, 12) if place % 2 else (32, 12, 8))

    @pytest.mark.parametrize("count", [0, 2])
    def test_gives_variants_of_every_image(self, run, calls, count):
        assert run("--draws", 2, "--variants", count) == Exit.OK
        (((samples, _, variants), _, _),) = calls
        assert len(variants) == count * IMAGES
        for place, variant in enumerate(variants):
            sample = samples[place // count]
            assert len(variant.gradients) == 2
            assert variant.tensors["4.m"].shape == sample.tensors["4.m"].shape
            assert not np.array_equal(variant.tensors["4.m"], sample.tensors["4.m"])

    def test_describes_what_was_calibrated_and_neither_when_nor_where(self, run, calls, weights, model):
        assert run("--split", "3", "--max-images", IMAGES, "--seed", 5) == Exit.OK
        ((_, metadata, _),) = calls
        assert metadata == {
            "model": weights.stem,
            "weights": model.weights_hash,
            "split": "3",
            "size": "96",
            "images": IMAGES,
            "draws": 3,
            "variants": 1,
            "seed": 5,
            "software": f"splitcast {version('splitcast')}",
        }

    def test_a_list_gives_what_its_folder_gives(self, run, calls, folder, tmp_path):
        names = sorted(path.name for path in folder.iterdir())
        listed = folder.parent / "listed.txt"
        listed.write_text("".join(f"{folder.name}/{name}  \n\n" for name in names))
        assert run("--images", listed) == run() == Exit.OK
        (from_list, _, _), (from_folder, _, _) = (passes for passes, _, _ in calls)
        assert all(map(equal, from_list, from_folder))

    def test_a_failure_leaves_an_older_profile_alone(self, run, monkeypatch, tmp_path, capsys):
        (tmp_path / "profile").write_bytes(b"older")

        def fake(samples, train, metadata, seed, variants):
            next(iter(samples()))
            raise SourceError("there is no more to see")

        monkeypatch.setattr(calibrate, "calibrate", fake)
        assert run() == Exit.SOURCE
        assert "there is no more to see" in capsys.readouterr().err
        assert (tmp_path / "profile").read_bytes() == b"older"
        assert [path.name for path in tmp_path.iterdir()] == ["profile"]


class TestProfile:
    """With the real `calibrate`, but a step network that is hardly trained."""

    @pytest.fixture(autouse=True)
    def brief(self, monkeypatch):
        monkeypatch.setattr(step_network, "UPDATES", 20)

    def test_fits_the_split_and_depends_on_its_inputs_alone(self, run, model, folder, tmp_path, capsys):
        target = tmp_path / "profile"
        assert run() == Exit.OK
        packed = target.read_bytes()
        profile = Profile.parse(packed)
        assert profile.hash in capsys.readouterr().out
        for size in (SIZE, (480, 640)):
            profile.check(layout(model.graph, "4.m", size))
        with pytest.raises(ProfileMismatch):
            profile.check(layout(model.graph, "6.m", SIZE))
        assert profile.metadata["weights"] == model.weights_hash

        elsewhere = shutil.copytree(folder, tmp_path / "elsewhere")
        assert run("--images", elsewhere) == Exit.OK
        assert target.read_bytes() == packed
        assert run("--seed", 1) == Exit.OK
        assert target.read_bytes() != packed

    def test_tensors_of_several_sizes_cross(self, run, model, tmp_path):
        """After layer 6 three tensors of two sizes are needed still, and images have two shapes."""
        assert run("--split", "6.m") == Exit.OK
        profile = Profile.parse((tmp_path / "profile").read_bytes())
        profile.check(layout(model.graph, "6.m", SIZE))
        assert len(profile.groups) == 2


class TestRefusals:
    """None of them gets as far as to calibrate."""

    @pytest.fixture
    def refused(self, run, calls, tmp_path, capsys):
        def refused(*flags: object) -> tuple[int, str]:
            code = run(*flags)
            assert not (tmp_path / "profile").exists()
            return code, capsys.readouterr().err.replace("\n", " ")

        return refused

    @pytest.mark.parametrize(
        "flags",
        [
            ("--draws", 0),
            ("--threads", 0),
            ("--max-images", 0),
            ("--max-images", -1),
            ("--seed", -1),
            ("--variants", -1),
        ],
    )
    def test_numbers_that_are_too_small(self, refused, flags):
        code, message = refused(*flags)
        assert code == Exit.USAGE
        assert flags[0] in message

    def test_a_size_that_no_network_takes(self, refused):
        code, message = refused("--size", "100")
        assert code == Exit.USAGE
        assert "multiples of 32" in message

    def test_an_unknown_split_point(self, refused):
        code, message = refused("--split", "4.n")
        assert code == Exit.USAGE
        assert "unknown split point '4.n'" in message

    def test_an_unknown_device(self, refused):
        code, message = refused("--device", "abacus")
        assert code == Exit.USAGE
        assert "--device" in message

    def test_a_missing_folder_to_write_to(self, refused, tmp_path):
        code, message = refused("-o", tmp_path / "absent" / "profile")
        assert code == Exit.USAGE
        assert str(tmp_path / "absent") in message

    @pytest.mark.parametrize("images", [1, IMAGES - 1])
    def test_too_few_images(self, refused, images):
        code, message = refused("--max-images", images)
        assert code == Exit.SOURCE
        assert f"takes {IMAGES} images or more" in message
        assert message.rstrip().endswith(f"gives {images}")

    def test_no_images(self, refused, tmp_path):
        (tmp_path / "empty").mkdir()
        assert refused("--images", tmp_path / "empty")[0] == Exit.SOURCE
        (tmp_path / "empty.txt").touch()
        assert refused("--images", tmp_path / "empty.txt")[0] == Exit.SOURCE
        code, message = refused("--images", tmp_path / "absent")
        assert code == Exit.SOURCE
        assert "give a folder of images" in message

    def test_a_list_that_is_no_text(self, refused, folder):
        code, message = refused("--images", folder / "00.png")
        assert code == Exit.SOURCE
        assert "00.png" in message
        assert "text file" in message

    def test_a_list_that_names_what_is_not_there(self, refused, folder):
        listed = folder.parent / "absent.txt"
        listed.write_text(f"{folder.name}/00.png\n{folder.name}/99.png\n")
        code, message = refused("--images", listed)
        assert code == Exit.SOURCE
        assert "99.png, which is no file" in message

    @pytest.mark.parametrize("by", ["folder", "list"])
    def test_a_file_that_is_no_image(self, refused, folder, tmp_path, by):
        images = tmp_path / "images"
        images.mkdir()
        for path in folder.iterdir():
            (images / path.name).write_bytes(path.read_bytes() if path.name != "05.png" else b"no picture")
        listed = tmp_path / "listed.txt"
        listed.write_text("".join(f"images/{path.name}\n" for path in sorted(images.iterdir())))
        code, message = refused("--images", images if by == "folder" else listed)
        assert code == Exit.SOURCE
        assert "1 left out" in message
        assert "(05.png: OpenCV cannot decode it)" in message
        assert "images or more" in message

    def test_an_unreadable_checkpoint(self, refused, folder):
        code, _ = refused("--model", folder / "00.png")
        assert code == Exit.WEIGHTS


class TestSamples:
    def test_an_images_draws_depend_on_seed_and_place_alone(self, model, folder):
        pictures = find_images(folder, 3)
        first, second, third = pictures

        def drawn(*pictures, seed=0):
            return list(Sampler(model, "4.m", 64, draws=1, seed=seed).samples(pictures))

        base = drawn(first, second)
        assert equal(base[1], drawn(third, second)[1])
        assert not equal(base[1], drawn(second)[0])  # another place
        assert not equal(base[1], drawn(first, second, seed=1)[1])

    def test_variants_differ_and_depend_on_seed_and_place_alone(self, model, folder):
        pictures = find_images(folder, 2)
        first, second = pictures

        def drawn(*pictures, seed=0, count=2):
            return list(Sampler(model, "4.m", 64, draws=1, seed=seed).variant_samples(pictures, count))

        base = drawn(first, second)
        assert not equal(base[2], base[3])
        assert equal(base[2], drawn(second, second)[2])
        assert equal(base[2], drawn(first, second, count=1)[1])
        assert not equal(base[2], drawn(first, second, seed=1)[2])

    def test_images_are_letterboxed_as_for_inference(self, model, folder):
        """A picture of 64x96 at a long side of 192 is enlarged; at 96x96 exactly it has gray above and below."""
        _, picture = find_images(folder, 2)
        assert picture.shape == (*SIZE, 3)
        (sample,) = Sampler(model, "4.m", (96, 96), draws=1, seed=0).samples([picture])
        canvas = np.full((96, 96, 3), 114, np.uint8)
        canvas[16:80] = picture
        expected = TorchHead(model, "4.m", (96, 96))(canvas)
        assert all(np.array_equal(sample.tensors[name], expected[name]) for name in expected)
        (sample,) = Sampler(model, "4.m", 192, draws=1, seed=0).samples([picture])
        assert sample.tensors["4.m"].shape == (32, 128 // 8, 192 // 8)

    def test_images_come_in_the_order_of_the_list(self, folder, tmp_path):
        listed = tmp_path / "listed.txt"
        listed.write_text(f"{folder / '01.png'}\n{folder / '00.png'}\n{folder / '01.png'}\n")
        pictures = find_images(listed)
        assert len(pictures.paths) == 3
        expected = [cv2.imread(str(folder / f"{name}.png")) for name in ("01", "00", "01")]
        assert all(np.array_equal(*pair) for pair in zip(pictures, expected, strict=True))
        assert len(find_images(listed, 2).paths) == 2


class TestVary:
    """Many draws at once: what each of them does is random."""

    @staticmethod
    def varied(picture):
        return [vary(picture, np.random.default_rng(seed)) for seed in range(40)]

    def test_what_is_farther_stands_in_gray_and_what_is_nearer_fills_the_picture(self):
        picture = np.full((60, 90, 3), 200, np.uint8)
        found = self.varied(picture)
        assert {(one.shape, one.dtype) for one in found} == {(picture.shape, picture.dtype)}
        shares = [(one == 200).mean() for one in found]
        assert min(shares) > 0.2  # half as near: a quarter of the area, less the blend at its edges
        assert min(shares) < 0.4
        assert 10 < sum(share > 0.99 for share in shares) < 30
        assert {one[0, 0, 0] for one in found if (one == 200).mean() < 0.3} <= {114}
        assert all(one.min() >= 114 for one in found)

    def test_objects_become_larger_and_smaller(self):
        picture = np.full((120, 120, 3), 114, np.uint8)
        picture[50:70, 50:70] = 255
        sides = [np.sqrt((one[..., 0] > 184).sum()) for one in self.varied(picture)]
        assert 9 <= min(sides) < 13
        assert 30 < max(sides) <= 41

    def test_half_are_mirrored(self):
        picture = np.repeat(np.linspace(0, 255, 90).astype(np.uint8)[None, :, None], 60, 0).repeat(3, 2)
        kept = picture.copy()
        slopes = [np.sign(int(one[30, 60, 0]) - int(one[30, 30, 0])) for one in self.varied(picture)]
        assert 10 < slopes.count(-1) < 30
        assert np.array_equal(picture, kept)
