"""The build step of `pip install`, and of `make release`: a wheel and a source distribution.

Both hold the stitched file, so pip installs one module, `dockeraudit`, and none of its rooms. pip
calls the functions (PEP 517). They need nothing but the standard library, and write the same bytes
for the same sources: entries in a fixed order, with the time of SOURCE_DATE_EPOCH.
"""

from __future__ import annotations

import base64
import configparser
import gzip
import hashlib
import io
import os
import sys
import tarfile
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from stitch import PACKAGE, stitched

ROOT = Path(__file__).resolve().parent.parent
EARLIEST = 315532800  # 1980-01-01, before which a zip file knows no time
TAG = "py3-none-any"
#: what an sdist holds beside the stitched file and PKG-INFO: all that a wheel is built from
SDIST_FILES = (
    "CHANGELOG.md",
    "LICENSE",
    "README.md",
    "deploy/backend.py",
    "deploy/stitch.py",
    "pyproject.toml",
    "setup.cfg",
)
WHEEL = f"Wheel-Version: 1.0\nGenerator: dockeraudit\nRoot-Is-Purelib: true\nTag: {TAG}\n"


def epoch() -> int:
    """The time that everything built has: SOURCE_DATE_EPOCH, else the earliest there is."""
    return max(EARLIEST, int(os.environ.get("SOURCE_DATE_EPOCH") or EARLIEST))


def read_setup() -> configparser.ConfigParser:
    """What setup.cfg says of the project."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    return setup


def version() -> str:
    """The version that is built."""
    return read_setup()["metadata"]["version"]


def program() -> str:
    """The single file: stitched, or as it lies in an sdist."""
    if (ROOT / PACKAGE).is_dir():
        return stitched(ROOT)
    return (ROOT / "dockeraudit.py").read_text(encoding="utf-8")


def core_metadata() -> str:
    """METADATA and PKG-INFO (core metadata 2.1), with the README as description."""
    setup = read_setup()
    about = setup["metadata"]
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {about['name']}",
        f"Version: {about['version']}",
        f"Summary: {about['description']}",
        f"Author: {about['author']}",
        f"License: {about['license']}",
        *(f"Classifier: {line}" for line in about["classifiers"].strip().splitlines()),
        f"Requires-Python: {setup['options']['python_requires']}",
        f"Description-Content-Type: {about['long_description_content_type']}",
        "License-File: LICENSE",
    ]
    return "\n".join(lines) + "\n\n" + (ROOT / "README.md").read_text(encoding="utf-8")


def entry_points() -> str:
    """entry_points.txt: the commands that pip makes."""
    scripts = read_setup()["options.entry_points"]["console_scripts"].strip()
    return f"[console_scripts]\n{scripts}\n"


def zipped(files: Mapping[str, bytes]) -> bytes:
    """A zip file of these files, in this order."""
    out = io.BytesIO()
    moment = time.gmtime(epoch())[:6]
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name, moment)
            info.external_attr = 0o100644 << 16
            info.create_system = 3  # Unix, on every system
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, data, compresslevel=9)
    return out.getvalue()


def tarred(files: Mapping[str, bytes]) -> bytes:
    """A compressed tar file of these files, in this order; nobody in particular owns them."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.mode = len(data), epoch(), 0o644
            archive.addfile(info, io.BytesIO(data))
    return gzip.compress(out.getvalue(), mtime=epoch())


def record(files: Mapping[str, bytes], own_name: str) -> bytes:
    """A wheel's RECORD: the hash and size of each file but itself."""
    lines = []
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(data)}\n")
    return "".join([*lines, f"{own_name},,\n"]).encode()


def wheel_bytes() -> bytes:
    """The wheel: the module, and what describes it."""
    info = f"dockeraudit-{version()}.dist-info"
    files = {
        "dockeraudit.py": program().encode(),
        f"{info}/LICENSE": (ROOT / "LICENSE").read_bytes(),
        f"{info}/METADATA": core_metadata().encode(),
        f"{info}/WHEEL": WHEEL.encode(),
        f"{info}/entry_points.txt": entry_points().encode(),
        f"{info}/top_level.txt": b"dockeraudit\n",
    }
    files[f"{info}/RECORD"] = record(files, f"{info}/RECORD")
    return zipped(files)


def sdist_bytes() -> bytes:
    """The source distribution: the stitched file, and what builds a wheel of it."""
    base = f"dockeraudit-{version()}"
    files = {f"{base}/PKG-INFO": core_metadata().encode()}
    for name in SDIST_FILES:
        files[f"{base}/{name}"] = (ROOT / name).read_bytes()
    files[f"{base}/dockeraudit.py"] = program().encode()
    return tarred(files)


def build_wheel(
    wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None
) -> str:
    """PEP 517: write the wheel; returns its file name."""
    name = f"dockeraudit-{version()}-{TAG}.whl"
    Path(wheel_directory, name).write_bytes(wheel_bytes())
    return name


def build_sdist(sdist_directory: str, config_settings: Any = None) -> str:
    """PEP 517: write the source distribution; returns its file name."""
    name = f"dockeraudit-{version()}.tar.gz"
    Path(sdist_directory, name).write_bytes(sdist_bytes())
    return name
