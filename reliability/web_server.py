"""A real `nestkala serve` of a small index, some of whose entries point outside its folder; requests are sent as is."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

from nestkala.hasher import Hasher
from nestkala.index import PrefixIndex
from nestkala.search.folder import update_from_folder
from nestkala.search.provenance import about_model
from nestkala.settings.config import Config
from nestkala.training.run import train

from .pictures import noise

INSIDE = sorted(f"{'ab'[number % 2]}/{number}.png" for number in range(24))
"""Images in the index."""
OUTSIDE = 7
"""Entries that point outside its folder, to a file that is not an image, or to nothing."""
SECRET = b"nobody may read this"


def make_index(folder: Path) -> Path:
    """Noise images in folder/photos, a 20-bit model and an index of them; secrets are next to the images."""
    photos = folder / "photos"
    for number, name in enumerate(INSIDE):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        noise(number).resize((600, 400)).save(photos / name)
    noise(0).save(folder / "secret.png")
    (photos / "secret.txt").write_bytes(SECRET)
    small = {"queries": 2, "shots": 4, "lengths": (4, 20), "epochs": 2, "workers": 0, "cache_gb": 0}
    model = train(Config(data=str(photos), output=folder / "model", head_init="random", **small))
    hasher = Hasher.from_pretrained(model, "cpu")
    index = PrefixIndex.empty(20, {**about_model(hasher, str(model)), "folder": str(photos.resolve())})
    update_from_folder(index, photos, hasher)
    (photos / "link.png").symlink_to(folder / "secret.png")
    (photos / "circle.png").symlink_to("circle.png")
    absolute = str((folder / "secret.png").resolve())
    names = ["../secret.png", absolute, "a/../../secret.png", "link.png", "circle.png", "no\0thing.png", "secret.txt"]
    index.add(hasher.encode([folder / "secret.png"] * OUTSIDE), names, [{}] * OUTSIDE)
    index.save(folder / "photos.index")
    return folder / "photos.index"


@dataclass(frozen=True)
class Server:
    """A server on 127.0.0.1 in its own process, and the file with its errors."""

    port: int
    pid: int
    errors: Path

    def memory(self, kind: str) -> int:
        """Memory in MiB, current (VmRSS) or maximum (VmHWM); only on Linux."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(kind)) // 1024


@contextmanager
def serving(index: Path) -> Iterator[Server]:
    """Serve an index until the context ends."""
    command = [sys.executable, "-m", "nestkala", "serve", str(index), "--port", "0"]
    errors = index.with_suffix(".errors")
    with errors.open("w") as log, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            if "http://" not in said:
                raise RuntimeError(f"the server did not start: {errors.read_text()}")
            yield Server(int(said.partition("http://")[2].split()[0].rpartition(":")[2]), process.pid, errors)
        finally:
            process.terminate()


@dataclass(frozen=True)
class Answer:
    """The server's answer: a status (0 if it closed the connection), a body, and the time in seconds."""

    status: int
    body: bytes
    seconds: float

    @property
    def said(self) -> str | None:
        """The sentence of an error; None if there is none."""
        try:
            content = json.loads(self.body)
        except ValueError:
            return None
        return content.get("error") if isinstance(content, dict) else None


def ask(port: int, target: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Answer:
    """Send a GET, or a POST with a body; the target is sent as is, and `headers` override the usual ones."""
    usual = {"Host": f"127.0.0.1:{port}"}
    if body is not None and "Transfer-Encoding" not in (headers or {}):
        usual["Content-Length"] = str(len(body))
    head = "".join(f"{name}: {value}\r\n" for name, value in {**usual, **(headers or {})}.items())
    method = "GET" if body is None else "POST"
    started, status, content = time.perf_counter(), 0, b""
    with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
        try:
            connection.sendall(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + (body or b""))
            response = HTTPResponse(connection)
            response.begin()
            status, content = response.status, response.read()
        except (OSError, HTTPException):  # closed before or during the answer
            pass
    return Answer(status, content, time.perf_counter() - started)


def entries(port: int) -> list[dict[str, Any]]:
    """All entries of the index, from a search."""
    found: list[dict[str, Any]] = json.loads(ask(port, f"/search?code=000000&k={len(INSIDE) + OUTSIDE}").body)[
        "results"
    ]
    return found
