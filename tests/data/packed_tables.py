"""Tables for the tests of packed studies: small images of several formats, texts alone, labels, views and copies."""

from __future__ import annotations

import csv
import http.server
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import nibabel
import numpy as np
from PIL import Image

from medvl.transforms.packed_image import read_settings
from medvl.utils import http_ranges

REPORTS = (
    "FINDINGS: Small left effusion. No edema.",
    "Lungs clear. No effusion. Heart size é normal.",
    "Possible pneumonia.",
    "",
    "Fracture of a rib. No edema.",
)
COLUMNS = ("study_id", "patient_id", "split", "image", "report", "Edema", "Fracture")
LABELS = ["Edema", "Fracture"]


def write_table(folder: Path, count: int = 24, split: bool = False, size: tuple[int, int] = (40, 28)) -> Path:
    """A table of studies of every kind: some without an image, one file in rows of two patients, a study of two views."""
    (folder / "images").mkdir(parents=True)
    generator = np.random.default_rng(0)
    rows = []
    for i in range(count):
        image = f"images/{i}.png"
        pixels = generator.random(size)
        if i % 7 == 6:
            image = ""
        elif i % 7 == 5:
            Image.fromarray((pixels * 40_000).astype(np.uint16)).save(folder / image)
        else:
            Image.fromarray((pixels * 255).astype(np.uint8)).save(folder / image)
        report = REPORTS[i % 5] or ("Alone." if not image else "")
        label = [("1", "0", "-1", "")[i % 4], ("", "1")[i % 2]]
        rows.append([f"s{i}", f"p{i // 2}", ("train", "train", "val", "test")[i // 2 % 4], image, report, *label])
    if count > 12:
        # another study of the patient, with the same file, of which the labels are
        rows[9] = [*rows[9][:3], rows[8][3], rows[9][4], *rows[8][5:]]
        rows[11] = [rows[10][0], *rows[11][1:]]  # another view of the study
    if not split:
        rows = [row[:2] + row[3:] for row in rows]
        if count > 12:
            rows[12] = [*rows[12][:2], rows[8][2], rows[12][3], *rows[8][4:]]  # another patient with the same file
    with (folder / "cases.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS if split else [*COLUMNS[:2], *COLUMNS[3:]], *rows])
    return folder / "cases.csv"


def write_volumes(folder: Path, count: int = 4) -> Path:
    """A table of CT-like volumes with slices three times as thick as wide."""
    folder.mkdir()
    generator = np.random.default_rng(1)
    lines = ["image,report"]
    for i in range(count):
        voxels = generator.uniform(-1000, 1000, (20, 16, 6)).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1, 1, 3, 1])), folder / f"{i}.nii.gz")
        lines.append(f"{i}.nii.gz,Clear lungs {i}.")
    (folder / "cases.csv").write_text("\n".join(lines) + "\n")
    return folder / "cases.csv"


class RangeHandler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder with range requests, also as a proxy; ``failures`` requests are answered 503 first."""

    protocol_version = "HTTP/1.1"
    ranges = True
    failures = 0
    redirect: str | None = None
    connections: set[tuple[str, int]]
    requests: list[tuple[str, str | None]]

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""

    def do_GET(self) -> None:
        """Answer a request for a file or a part of it."""
        self.connections.add(self.client_address)
        self.requests.append((self.path, self.headers.get("Proxy-Authorization")))
        path = Path(self.translate_path(urlsplit(self.path).path))
        if self.redirect is not None:
            self.answer(302, b"moved", Location=f"{self.redirect}{self.path}")
        elif type(self).failures:
            type(self).failures -= 1
            self.answer(503, b"")
        elif not path.is_file():
            self.answer(404, b"")
        elif self.ranges and (found := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))):
            start, end = int(found[1]), int(found[2])
            self.answer(206, path.read_bytes()[start : end + 1])
        else:
            self.answer(200, path.read_bytes())

    def answer(self, status: int, content: bytes, **headers: str) -> None:
        """Send an answer."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def web_server(folder: Path, **attributes: object) -> Iterator[tuple[str, type[RangeHandler]]]:
    """A web server on this machine: its URL, and the class that answers."""
    handler = type("Handler", (RangeHandler,), {"connections": set(), "requests": [], **attributes})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=os.fspath(folder)))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield url, handler
    finally:
        http_ranges._close(url)  # another server may get its port
        read_settings.cache_clear()
        server.shutdown()
        server.server_close()
        thread.join()
