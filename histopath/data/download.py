"""Fetches PCam from Zenodo and the Kaggle competition's data. In: a folder. Out: the files in it, each complete or absent.

PatchCamelyon: Zenodo record 2546921, nine files, CC0. The checksums are those of the files as downloaded (basveeling/pcam#1,
pytorch/vision#6643). The table on the data set's own page swaps valid and test for six of them.
"""

import os
import shutil
import time
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import pooch
import requests
import urllib3

from histopath.data.kaggle import COMPETITION
from histopath.files import NO_SPACE, InputError, make_folder, progress_bar, say

PCAM_URL = "https://zenodo.org/records/2546921/files/"
PCAM_MD5 = {
    "camelyonpatch_level_2_split_train_x.h5.gz": "1571f514728f59376b705fc836ff4b63",
    "camelyonpatch_level_2_split_train_y.h5.gz": "35c2d7259d906cfc8143347bb8e05be7",
    "camelyonpatch_level_2_split_train_meta.csv": "5a3dd671e465cfd74b5b822125e65b0a",
    "camelyonpatch_level_2_split_valid_x.h5.gz": "d5b63470df7cfa627aeec8b9dc0c066e",
    "camelyonpatch_level_2_split_valid_y.h5.gz": "2b85f58b927af9964a4c15b8f7e8f179",
    "camelyonpatch_level_2_split_valid_meta.csv": "67589e00a4a37ec317f2d1932c7502ca",
    "camelyonpatch_level_2_split_test_x.h5.gz": "d8c2d60d490dbd479f8199bdfa0cf6ec",
    "camelyonpatch_level_2_split_test_y.h5.gz": "60a7035772fbdb7f34eb86d4420cf66a",
    "camelyonpatch_level_2_split_test_meta.csv": "3455fd69135b66734e1008f3af684566",
}
KAGGLE_BYTES = 15_000_000_000  # the archive of 6.3 GB and what is in it
ATTEMPTS = 5
TIMEOUT = (10, 30)  # seconds to connect, and without a byte
CHUNK = 2**20
SPARE = 2**28  # bytes to leave free


def download_pcam(folder: Path, url: str = PCAM_URL, checksums: dict[str, str] = PCAM_MD5, timeout=TIMEOUT) -> list[Path]:
    """Fetches the files of PCam that are not in a folder yet, or not whole.

    A download that was cut goes on where it stopped; a finished file is kept when its checksum is right.

    Args:
        folder: where to write.
        url: address of the folder that holds the files, with a slash at its end.
        checksums: file name → md5.
        timeout: seconds to connect, and seconds without a byte after which the server counts as stalled.

    Returns:
        The files.

    Raises:
        InputError: when the network or the server fails for good, the disk is too small, or a checksum is wrong; each in one
            sentence with the cure.
    """
    make_folder(folder)
    wanted = [name for name, md5 in checksums.items() if not _is_whole(folder / name, md5)]
    pooch.get_logger().setLevel("WARNING")
    downloads = {name: Download(url + name, folder / name, timeout) for name in wanted}
    _check_space(folder, sum(download.missing for download in downloads.values()))
    for name, download in downloads.items():
        try:
            pooch.retrieve(url + name, f"md5:{checksums[name]}", name, folder, downloader=download)
        except ValueError as error:
            if "does not match the known hash" not in str(error):
                raise
            aside = _set_aside(download.part, folder / name)
            raise InputError(
                f"{name} came with another checksum than PCam's and is set aside as {aside.name}; run the same command again."
            ) from None
        download.part.unlink()
    return [folder / name for name in checksums]


def _is_whole(path: Path, md5: str) -> bool:
    """Whether a file is there with its checksum; one with another is set aside."""
    if not path.is_file():
        return False
    say(f"checking {path.name}")
    if pooch.file_hash(str(path), alg="md5") == md5:
        return True
    say(f"{path.name} has another checksum than PCam's: set aside as {_set_aside(path, path).name}, and fetched again")
    return False


def _set_aside(path: Path, name: Path) -> Path:
    return path.replace(name.with_name(f"{name.name}.damaged"))


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed + SPARE > free:
        raise InputError(
            f"{folder} has {free / 1e9:.1f} GB free and the download needs {(needed + SPARE) / 1e9:.1f}; free some, or give "
            "another folder."
        )


class ConnectionCut(Exception):
    """The connection failed in a way that may pass."""


class Download:
    """One file on its way, for pooch: kept beside its place as `.NAME.part`, so that the next attempt goes on from there."""

    def __init__(self, url: str, path: Path, timeout: tuple[float, float]):
        self.url, self.path, self.timeout = url, path, timeout
        self.host = urlsplit(url).netloc
        self.part = path.with_name(f".{path.name}.part")
        self.size = self._attempt(self._ask_size)

    @property
    def finished(self) -> int:
        """Bytes that are here."""
        return self.part.stat().st_size if self.part.is_file() else 0

    @property
    def missing(self) -> int:
        """Bytes that are still to come."""
        return max(0, self.size - self.finished)

    def __call__(self, url: str, output_file: str, _pooch) -> None:
        """Fetches what is missing, and gives pooch the file to check; the part stays until that is done."""
        if self.finished > self.size:
            self.part.unlink()
        self.part.touch()
        if self.missing:
            self._attempt(self._fetch)
        os.unlink(output_file)
        os.link(self.part, output_file)

    def _attempt(self, what):
        """Tries several times, waiting longer each time; what came counts, so only attempts without a byte do."""
        failures = 0
        while True:
            before = self.finished
            try:
                return what()
            except ConnectionCut as cut:
                failures = 1 if self.finished > before else failures + 1
                if failures == ATTEMPTS:
                    got = f", with {self.finished:,} of {self.size:,} bytes here" if self.finished else ""
                    raise InputError(
                        f"{cut}, {ATTEMPTS} times in a row{got}; run the same command again, it goes on from there."
                    ) from None
                time.sleep(min(30, self.timeout[0] * 2**failures / 20))

    def _ask_size(self) -> int:
        with self._open(0) as response:
            return int(response.headers.get("Content-Length", 0))

    def _fetch(self) -> None:
        with self._open(self.finished) as response, open(self.part, "ab") as file:
            if response.status_code != 206:  # the server does not know ranges
                file.truncate(0)
            with progress_bar(self.path.name, self.size, self.finished, True, unit="B") as bar:
                while chunk := self._read(response):
                    _write(file, chunk, self.path)
                    bar.update(len(chunk))
        if self.missing:
            raise ConnectionCut(f"The connection to {self.host} ended early")

    def _read(self, response: requests.Response) -> bytes:
        """What is there, so that no byte that came is lost with the connection; nothing at the end."""
        try:
            return response.raw.read1(CHUNK)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ConnectionCut(f"The connection to {self.host} was cut ({_reason(error)})") from None

    def _open(self, start: int) -> requests.Response:
        """Asks for the file from some byte on; refuses everything that is not one."""
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        try:
            response = requests.get(self.url, stream=True, timeout=self.timeout, headers=headers)
        except requests.RequestException as error:
            raise ConnectionCut(f"{self.host} cannot be reached ({_reason(error)})") from None
        answer = f"{self.host} answers {response.status_code} {response.reason}"
        if response.status_code >= 500 or response.status_code == 429:
            raise ConnectionCut(answer)
        if response.status_code >= 400:
            raise InputError(f"{self.path.name} cannot be fetched: {answer} to {self.url}; look whether it has moved.")
        if "html" in response.headers.get("Content-Type", ""):
            raise InputError(
                f"{self.host} sent a web page in place of {self.path.name}, as a login page or a proxy does; open {self.url} "
                "in a browser, then run the same command again."
            )
        return response


def _write(file: BinaryIO, chunk: bytes, path: Path) -> None:
    try:
        file.write(chunk)
        file.flush()
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        raise InputError(
            f"There is no space left to write {path}; free some and run the same command again: it goes on."
        ) from None


def _reason(error: Exception) -> str:
    """The innermost cause, in one line."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    return " ".join(str(error).split())[-120:]


def download_kaggle(folder: Path) -> Path:
    """Fetches the competition's files with kagglehub, which resumes; they appear in the folder when all are there.

    Args:
        folder: a new or empty folder.

    Raises:
        InputError: without credentials, when the rules are not accepted, without a network, or when the folder holds other
            files; each in one sentence with the cure.
    """
    if (folder / "train_labels.csv").is_file():
        say(f"{folder} already holds the competition's files")
        return folder
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty and does not hold the competition's files; give a new folder.")
    make_folder(folder)
    _check_space(folder, KAGGLE_BYTES)
    cache = folder.with_name(f".{folder.name}.part")
    os.environ["KAGGLEHUB_CACHE"] = str(cache)
    import kagglehub  # reads its settings from the environment

    page = f"https://www.kaggle.com/competitions/{COMPETITION}"
    try:
        fetched = kagglehub.competition_download(COMPETITION)
    except kagglehub.exceptions.UnauthenticatedError:
        raise InputError(
            "Kaggle needs to know who asks: make a token at https://www.kaggle.com/settings and save it as "
            "~/.kaggle/access_token, or set KAGGLE_API_TOKEN."
        ) from None
    except kagglehub.exceptions.DataCorruptionError:
        raise InputError(
            "What Kaggle sent has another checksum than it said, and is deleted; run the same command again."
        ) from None
    except requests.RequestException as error:
        raise InputError(_explain_kaggle(error, page)) from None
    except ValueError as error:
        if "credentials file" not in str(error):  # a kaggle.json that cannot be used
            raise
        raise InputError(f"{error}; make a new token at https://www.kaggle.com/settings.") from None
    Path(fetched).replace(folder)
    shutil.rmtree(cache)
    return folder


def _explain_kaggle(error: requests.RequestException, page: str) -> str:
    status = getattr(error.response, "status_code", None)
    if status == 401:
        return "Kaggle does not accept the token; make a new one at https://www.kaggle.com/settings."
    if status == 403:
        return (
            f"Kaggle refuses the files until the rules are accepted: open {page}/rules, accept, then run the same command again."
        )
    if status:
        return f"Kaggle answers {status} to the request for {page}/data; try again later."
    return f"Kaggle cannot be reached ({_reason(error)}); look after the network, then run the same command again: it goes on."
