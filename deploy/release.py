"""Write a release into a folder: `make release`, or `python3 deploy/release.py dist`.

    dockeraudit-VERSION-py3-none-any.whl    what pip, pipx and uv install
    dockeraudit-VERSION.tar.gz              the same as source, with its build step
    dockeraudit.py                          the single file
    dockeraudit-VERSION.cdx.json            the bill of materials (CycloneDX 1.5)
    SHA256SUMS                              their hashes, for `sha256sum --check`

The same commit gives the same bytes wherever zlib is the same: no time but that of
SOURCE_DATE_EPOCH (the commit's, unless it is set), no name of a host or a user.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from backend import ROOT, TAG, epoch, program, read_setup, sdist_bytes, version, wheel_bytes

NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "dockeraudit")


def main(folder: Path) -> None:
    """Write all files, and say their names."""
    os.environ.setdefault("SOURCE_DATE_EPOCH", commit_time())
    refuse_unfinished()
    base = f"dockeraudit-{version()}"
    files = {
        f"{base}-{TAG}.whl": wheel_bytes(),
        f"{base}.tar.gz": sdist_bytes(),
        "dockeraudit.py": program().encode(),
    }
    files[f"{base}.cdx.json"] = bill_of_materials(files)
    sums = "".join(f"{sha256(data)}  {name}\n" for name, data in sorted(files.items()))
    files["SHA256SUMS"] = sums.encode()
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
        print(folder / name)


def commit_time() -> str:
    """When the commit was made, in seconds since 1970; nothing outside a repository."""
    command = ["git", "log", "-1", "--format=%ct"]
    try:
        return subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def refuse_unfinished() -> None:
    """End with a sentence where version numbers differ, or the change log lacks this one."""
    source = (ROOT / "_dockeraudit" / "__init__.py").read_text(encoding="utf-8")
    said = re.search(r'^__version__ = "(.*)"$', source, re.M)
    if said is None or said[1] != version():
        sys.exit(f"release: setup.cfg says {version()}, _dockeraudit/__init__.py does not")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    if not re.search(rf"^## {re.escape(version())}\b", changes, re.M):
        sys.exit(f"release: CHANGELOG.md has no section for {version()}")


def sha256(data: bytes) -> str:
    """The hash of a file in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def bill_of_materials(files: dict[str, bytes]) -> bytes:
    """What the release consists of, as CycloneDX: the program, its files, and no dependencies."""
    about = read_setup()["metadata"]
    name = f"{about['name']}@{version()}"
    product = {
        "type": "application",
        "bom-ref": name,
        "name": about["name"],
        "version": version(),
        "description": about["description"],
        "licenses": [{"license": {"id": about["license"]}}],
        "purl": f"pkg:pypi/{name}",
        "components": [file_component(file, data) for file, data in files.items()],
    }
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch()))
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, sha256(b''.join(files.values())))}",
        "version": 1,
        "metadata": {"timestamp": moment, "component": product},
        "components": [],
        "dependencies": [{"ref": name, "dependsOn": []}],
    }
    return (json.dumps(bill, indent=2) + "\n").encode()


def file_component(name: str, data: bytes) -> dict[str, Any]:
    """A file of the release with its hash."""
    return {
        "type": "file",
        "bom-ref": name,
        "name": name,
        "hashes": [{"alg": "SHA-256", "content": sha256(data)}],
    }


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "dist"))
