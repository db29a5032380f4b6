"""Weights are found, or fetched whole, or refused with a way out; a failed download leaves nothing."""

from __future__ import annotations

import io
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from stream.errors import DownloadFailed, MissingWeights, UnknownModel, WeightsError
from stream.network.download import find_weights
from stream.network.names import EXPORT_DESCRIPTION


def zip_bytes() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", bytes(100_000))
    return stream.getvalue()


class Release:
    """A web server that stands for the official release."""

    def __init__(self) -> None:
        release = self
        self.body = zip_bytes()
        self.status = 200
        self.missing_bytes = 0  # promised in the header and never sent
        self.requests: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                release.requests.append(self.path)
                self.send_response(release.status)
                self.send_header("Content-Length", str(len(release.body)))
                self.end_headers()
                self.wfile.write(release.body[: len(release.body) - release.missing_bytes])

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v6.0"


@pytest.fixture
def release() -> Iterator[Release]:
    served = Release()
    thread = threading.Thread(target=served.server.serve_forever, args=(0.01,))
    thread.start()
    yield served
    served.server.shutdown()
    served.server.server_close()
    thread.join()


@pytest.mark.parametrize("name", ["yolov5s", "yolov5xu"])
def test_fetches_once(tmp_path, release, capfd, name):
    cache = tmp_path / "not" / "there"
    path = find_weights(name, cache, release.url)
    assert path == cache / f"{name}.pt"
    assert path.read_bytes() == release.body
    assert "100%" in capfd.readouterr().err
    assert find_weights(name, cache, release.url) == path
    assert release.requests == [f"/v6.0/{name}.pt"]
    assert list(cache.iterdir()) == [path]


def test_the_cache_follows_the_users(tmp_path, release, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert find_weights("yolov5s", base_url=release.url) == tmp_path / "splitcast" / "yolov5s.pt"


def test_a_fetched_file_needs_no_network(tmp_path):
    (tmp_path / "yolov5s.pt").write_bytes(b"there")
    assert find_weights("yolov5s", tmp_path, "http://127.0.0.1:1") == tmp_path / "yolov5s.pt"


def refused(release: Release, cache: Path, name: str = "yolov5s") -> DownloadFailed:
    with pytest.raises(DownloadFailed) as caught:
        find_weights(name, cache, release.url)
    assert str(cache / f"{name}.pt") in str(caught.value)
    assert "path of a .pt file" in str(caught.value)
    assert list(cache.iterdir()) == []
    return caught.value


@pytest.mark.parametrize("missing", [1, 50_000])
def test_refuses_a_download_cut_short(tmp_path, release, missing):
    release.missing_bytes = missing
    refused(release, tmp_path)


def test_refuses_a_short_file_of_the_right_length(tmp_path, release):
    release.body = release.body[:-10]
    assert "not a whole checkpoint" in refused(release, tmp_path).reason


def test_refuses_a_page_in_its_place(tmp_path, release):
    release.body = b"<html>please log in</html>"
    assert "not a whole checkpoint" in refused(release, tmp_path).reason


def test_refuses_a_file_of_another_hash(tmp_path, release):
    assert "hash" in refused(release, tmp_path, "yolov5n").reason


def test_a_cached_file_of_another_hash_is_fetched_again(tmp_path, release):
    (tmp_path / "yolov5n.pt").write_bytes(b"damaged")
    with pytest.raises(DownloadFailed):
        find_weights("yolov5n", tmp_path, release.url)
    assert release.requests == ["/v6.0/yolov5n.pt"]


def test_says_what_to_do_when_there_is_no_such_file(tmp_path, release):
    release.status = 404
    assert "404" in refused(release, tmp_path).reason


def test_says_what_to_do_without_a_network(tmp_path):
    with pytest.raises(DownloadFailed, match="fetch it on another machine and put it at"):
        find_weights("yolov5s", tmp_path, "http://127.0.0.1:1")
    assert list(tmp_path.iterdir()) == []


def test_says_what_to_do_where_the_cache_cannot_be_written(tmp_path, release):
    (tmp_path / "file").write_text("")
    with pytest.raises(WeightsError):
        find_weights("yolov5s", tmp_path / "file", release.url)


@pytest.mark.shared
def test_the_official_file_has_the_known_hash(tmp_path, release, yolov5n_weights):
    release.body = yolov5n_weights.read_bytes()
    assert find_weights("yolov5n", tmp_path, release.url).read_bytes() == release.body


def test_a_path_is_taken_as_it_is(tmp_path):
    path = tmp_path / "mine.pt"
    path.write_bytes(b"")
    assert find_weights(str(path)) == path


@pytest.mark.parametrize("name", ["best.pth", "BEST.PT", "run.1", "plain"])
def test_a_file_is_a_path_whatever_it_is_called(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(b"")
    assert find_weights(name) == Path(name)


def test_a_name_is_a_name_also_beside_a_file_of_that_name(tmp_path, monkeypatch, release):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "yolov5s").write_bytes(b"")
    assert find_weights("yolov5s", tmp_path / "cache", release.url) == tmp_path / "cache" / "yolov5s.pt"


def test_a_folder_is_told_from_nothing(tmp_path):
    with pytest.raises(MissingWeights, match="a folder that holds no export; give"):
        find_weights(f"{tmp_path}/")


def test_an_exported_network_is_found_by_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / EXPORT_DESCRIPTION).touch()
    assert find_weights("mine") == Path("mine")


@pytest.mark.parametrize(
    "name",
    ["absent.pt", "absent.pth", "ABSENT.PT", "absent.onnx", "weights/yolov5n", "/nowhere/yolov5n.pt"],
)
def test_a_missing_path_is_named(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingWeights, match="no weights at"):
        find_weights(name)


@pytest.mark.parametrize("name", ["yolov5", "yolov8n", "", "YOLOV5N", "yolov5n6"])
def test_an_unknown_name_is_refused(name):
    with pytest.raises(UnknownModel, match=r"choose demo .*, one of yolov5n, .* or give a path"):
        find_weights(name)
