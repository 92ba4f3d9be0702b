"""Downloads against a real server on this machine that cuts, stalls, corrupts, forgets ranges and sends web pages."""

import gzip
import hashlib
import http.server
import io
import json
import re
import resource
import threading
import time
import zipfile

import h5py
import numpy as np
import pytest

from histopath.data import download
from histopath.data.download import download_kaggle, download_pcam
from histopath.data.kaggle import COMPETITION
from histopath.data.patches import open_patches

CONTENT = {name: np.random.default_rng(number).bytes(300_000) for number, name in enumerate(("a.h5.gz", "b.h5.gz", "c.csv"))}
MD5 = {name: hashlib.md5(content).hexdigest() for name, content in CONTENT.items()}
TIMEOUT = (1, 0.5)


class Server(http.server.ThreadingHTTPServer):
    """Serves `content`, and misbehaves as told: file name → what to do at each request, in turn."""

    daemon_threads = True

    def __init__(self, port=0):
        super().__init__(("127.0.0.1", port), Handler)
        self.tricks, self.asked, self.content = {}, [], CONTENT
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/files/"


class Handler(http.server.BaseHTTPRequestHandler):
    """One request."""

    def log_message(self, *_):
        """Says nothing."""

    def do_POST(self):
        """Kaggle's download service: an archive, or a refusal."""
        trick = (self.server.tricks.get("kaggle") or ["fine"]).pop(0)
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("train_labels.csv", "id,label\n")
            file.writestr("train/one.tif", b"pixels")
        self.answer(200 if trick == "fine" else trick, archive.getvalue() if trick == "fine" else b"{}", "application/zip")

    def do_GET(self):
        """A file of the content, as the next trick has it."""
        name = self.path.rsplit("/", 1)[1]
        start = int((re.findall(r"bytes=(\d+)-", self.headers.get("Range", "")) or [0])[0])
        self.server.asked.append((name, start))
        tricks = self.server.tricks.get(name) or ["fine"]
        trick = tricks.pop(0)
        body = self.server.content.get(name, b"")
        if isinstance(trick, int):
            self.answer(trick, b"")
        elif trick == "page":
            self.answer(200, b"<html>log in</html>", "text/html; charset=utf-8")
        elif trick == "forgets ranges":
            self.answer(200, body)
        elif trick == "corrupts":
            self.answer(206 if start else 200, bytes(len(body) - start))
        else:
            self.answer(206 if start else 200, body[start:], sent=100_000 if trick in ("cuts", "stalls") else None)
            if trick == "stalls":
                time.sleep(2)

    def answer(self, status, body, kind="application/octet-stream", sent=None):
        """Announces the whole body, and sends it or a part."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body[:sent])
            self.wfile.flush()
        except OSError:  # who only asked for the size has gone
            pass


@pytest.fixture
def server():
    one = Server()
    yield one
    one.shutdown()
    one.server_close()


def fetch(server, folder):
    return download_pcam(folder, server.url, MD5, TIMEOUT)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def is_whole(folder, name):
    return (folder / name).read_bytes() == CONTENT[name]


def test_files_come_whole_and_are_not_fetched_again(server, tmp_path):
    assert fetch(server, tmp_path / "pcam") == [tmp_path / "pcam" / name for name in MD5]
    assert all(is_whole(tmp_path / "pcam", name) for name in MD5) and names(tmp_path / "pcam") == sorted(MD5)
    server.asked.clear()
    fetch(server, tmp_path / "pcam")
    assert server.asked == []


@pytest.mark.parametrize("trick", ["cuts", "stalls"])
def test_a_download_that_is_cut_goes_on_where_it_stopped(server, tmp_path, trick):
    server.tricks["a.h5.gz"] = ["fine", trick, trick, "fine"]
    fetch(server, tmp_path)
    assert [start for name, start in server.asked if name == "a.h5.gz"] == [0, 0, 100_000, 200_000]
    assert is_whole(tmp_path, "a.h5.gz") and names(tmp_path) == sorted(MD5)


def test_a_server_that_forgets_ranges_starts_anew(server, tmp_path):
    server.tricks["a.h5.gz"] = ["fine", "cuts", "forgets ranges"]
    fetch(server, tmp_path)
    assert is_whole(tmp_path, "a.h5.gz")


def test_a_server_that_never_answers_is_given_up_and_the_next_command_goes_on(server, tmp_path, monkeypatch):
    server.tricks["b.h5.gz"] = ["fine", "cuts", *[503] * 9]
    with pytest.raises(ValueError, match="answers 503 .* 5 times in a row, with 100,000 of 300,000 bytes here; run the same"):
        fetch(server, tmp_path)
    assert is_whole(tmp_path, "a.h5.gz") and ".b.h5.gz.part" in names(tmp_path)
    server.tricks["b.h5.gz"].clear()
    server.asked.clear()
    fetch(server, tmp_path)
    assert ("b.h5.gz", 100_000) in server.asked and all(name != "a.h5.gz" for name, _ in server.asked)
    assert names(tmp_path) == sorted(MD5)


def test_a_corrupt_file_is_named_and_set_aside(server, tmp_path):
    server.tricks["b.h5.gz"] = ["fine", "corrupts"]
    with pytest.raises(ValueError, match="b.h5.gz came with another checksum .* set aside as b.h5.gz.damaged; run the same"):
        fetch(server, tmp_path)
    assert names(tmp_path) == ["a.h5.gz", "b.h5.gz.damaged"]
    fetch(server, tmp_path)
    assert is_whole(tmp_path, "b.h5.gz")


def test_a_file_that_went_bad_on_the_disk_is_set_aside_and_fetched_again(server, tmp_path, capsys):
    fetch(server, tmp_path)
    (tmp_path / "c.csv").write_bytes(b"scratched")
    fetch(server, tmp_path)
    assert is_whole(tmp_path, "c.csv") and (tmp_path / "c.csv.damaged").read_bytes() == b"scratched"
    assert "c.csv has another checksum than PCam's: set aside as c.csv.damaged" in capsys.readouterr().out


@pytest.mark.parametrize(
    "tricks, words",
    [
        (["page"], "sent a web page in place of a.h5.gz, .* open http://127.0.0.1:.*/files/a.h5.gz in a browser"),
        ([404], "a.h5.gz cannot be fetched: .* answers 404 Not Found .* look whether it has moved"),
        ([503] * 9, "answers 503 Service Unavailable, 5 times in a row; run the same command again"),
    ],
)
def test_what_is_not_a_file_is_refused_in_one_sentence(server, tmp_path, tricks, words):
    server.tricks["a.h5.gz"] = tricks
    with pytest.raises(ValueError, match=words) as error:
        fetch(server, tmp_path)
    assert "\n" not in str(error.value) and names(tmp_path) == []


def test_no_network_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="127.0.0.1:9 cannot be reached .*refused.*, 5 times in a row; run the same command"):
        download_pcam(tmp_path, "http://127.0.0.1:9/", MD5, TIMEOUT)


def test_space_is_looked_at_before_the_first_byte(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "SPARE", 10**18)
    with pytest.raises(ValueError, match="GB free and the download needs .*; free some, or give another folder"):
        fetch(server, tmp_path)
    assert names(tmp_path) == []


def test_a_full_disk_is_said_and_what_came_is_kept(server, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, limits[1]))
    try:
        with pytest.raises(ValueError, match="no space left to write .*a.h5.gz; free some and run the same command again"):
            fetch(server, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert 0 < (tmp_path / ".a.h5.gz.part").stat().st_size <= 150_000
    fetch(server, tmp_path)
    assert is_whole(tmp_path, "a.h5.gz")


def test_what_came_is_packed_as_it_is(server, tmp_path):
    pixels = {part: np.random.default_rng(len(part)).integers(0, 256, (4, 96, 96, 3), "uint8") for part in ("train", "valid")}
    server.content = {}
    for part, images in pixels.items():
        for kind, values in (("x", images), ("y", np.array([0, 1, 1, 0], "uint8").reshape(4, 1, 1, 1))):
            stream = io.BytesIO()
            with h5py.File(stream, "w") as file:
                file[kind] = values
            server.content[f"camelyonpatch_level_2_split_{part}_{kind}.h5.gz"] = gzip.compress(stream.getvalue())
    checksums = {name: hashlib.md5(content).hexdigest() for name, content in server.content.items()}
    assert set(checksums) < set(download.PCAM_MD5)
    server.tricks["camelyonpatch_level_2_split_train_x.h5.gz"] = ["fine", "cuts", "fine"]
    download_pcam(tmp_path / "pcam", server.url, checksums, TIMEOUT)
    packed = open_patches(tmp_path / "pcam", cache=tmp_path / "cache", progress=False)
    np.testing.assert_array_equal(packed.images, np.concatenate([pixels["train"], pixels["valid"]]))
    assert packed.table["label"].tolist() == [0, 1, 1, 0] * 2


@pytest.fixture
def kaggle(monkeypatch, tmp_path):
    """A server where kagglehub's own test setting looks for Kaggle, and a home without credentials."""
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "TEST")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    try:
        one = Server(7777)
    except OSError:
        pytest.skip("port 7777, which kagglehub's test setting asks for, is taken")
    yield one
    one.shutdown()
    one.server_close()


def test_the_competition_is_fetched_and_unpacked(kaggle, tmp_path, monkeypatch):
    monkeypatch.setenv("KAGGLE_API_TOKEN", "a token")
    assert download_kaggle(tmp_path / "data") == tmp_path / "data"
    assert (tmp_path / "data" / "train" / "one.tif").read_bytes() == b"pixels"
    assert names(tmp_path / "data") == ["train", "train_labels.csv"] and not (tmp_path / ".data.part").exists()


@pytest.mark.parametrize(
    "status, words", [(401, "does not accept the token"), (403, f"{COMPETITION}/rules"), (500, "answers 500")]
)
def test_what_kaggle_refuses_is_said_with_the_cure(kaggle, tmp_path, monkeypatch, status, words):
    monkeypatch.setenv("KAGGLE_API_TOKEN", "a token")
    kaggle.tricks["kaggle"] = [status]
    with pytest.raises(ValueError, match=words) as error:
        download_kaggle(tmp_path / "data")
    assert "\n" not in str(error.value) and names(tmp_path / "data") == []


def test_without_a_token_kaggle_is_not_asked(kaggle, tmp_path):
    with pytest.raises(ValueError, match="make a token at https://www.kaggle.com/settings and save it as ~/.kaggle/access_token"):
        download_kaggle(tmp_path / "data")


@pytest.mark.parametrize("text", ["no JSON", '{"username": "somebody"}'])
def test_a_damaged_kaggle_json_is_named_with_the_cure(kaggle, tmp_path, monkeypatch, text):
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path))  # kagglehub looked for a home when it was imported
    (tmp_path / "kaggle.json").write_text(text)
    with pytest.raises(ValueError, match=r"kaggle\.json.*; make a new token at https://www.kaggle.com/settings"):
        download_kaggle(tmp_path / "data")


def test_without_a_network_kaggle_cannot_be_reached(tmp_path, monkeypatch):
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "TEST")
    monkeypatch.setenv("KAGGLE_API_TOKEN", "a token")
    with pytest.raises(ValueError, match="Kaggle cannot be reached .* run the same command again"):
        download_kaggle(tmp_path / "data")


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty .* give a new folder"):
        download_kaggle(tmp_path)
    assert names(tmp_path) == ["mine.txt"]
    (tmp_path / "train_labels.csv").write_text("id,label\n")
    assert download_kaggle(tmp_path) == tmp_path


def test_each_file_of_pcam_has_the_checksum_that_users_measured():
    """basveeling/pcam#1 and pytorch/vision#6643; the table on the page of the data set has valid and test exchanged."""
    measured = {
        "train_x.h5.gz": "1571f514728f59376b705fc836ff4b63",
        "train_y.h5.gz": "35c2d7259d906cfc8143347bb8e05be7",
        "train_meta.csv": "5a3dd671e465cfd74b5b822125e65b0a",
        "valid_x.h5.gz": "d5b63470df7cfa627aeec8b9dc0c066e",
        "valid_y.h5.gz": "2b85f58b927af9964a4c15b8f7e8f179",
        "valid_meta.csv": "67589e00a4a37ec317f2d1932c7502ca",
        "test_x.h5.gz": "d8c2d60d490dbd479f8199bdfa0cf6ec",
        "test_y.h5.gz": "60a7035772fbdb7f34eb86d4420cf66a",
        "test_meta.csv": "3455fd69135b66734e1008f3af684566",
    }
    assert download.PCAM_MD5 == {f"camelyonpatch_level_2_split_{name}": md5 for name, md5 in measured.items()}
    assert {name.split("_split_")[1].split("_")[0] for name in download.PCAM_MD5} == {"train", "valid", "test"}
    assert json.dumps(sorted(download.PCAM_MD5)).count(".h5.gz") == 6


def test_the_command_knows_its_two_sets(command):
    status, _, err = command("download", "camelyon17")
    assert status == 2 and "choose kaggle or pcam" in err
