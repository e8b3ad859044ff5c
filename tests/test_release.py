"""A release: the same bytes each time, whole, and what the workflows say of it."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from product import ROOT
from proxyprocess import plain_environment

from _dockeraudit import __version__

WHEEL = f"dockeraudit-{__version__}-py3-none-any.whl"
SDIST = f"dockeraudit-{__version__}.tar.gz"
BILL = f"dockeraudit-{__version__}.cdx.json"
WORKFLOWS = ROOT / ".github" / "workflows"
EPOCH = "1750000000"


def release(tree: Path, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Make a release of a tree in a folder."""
    return subprocess.run(
        [sys.executable, str(tree / "deploy" / "release.py"), str(folder)],
        env={**plain_environment(), "SOURCE_DATE_EPOCH": EPOCH, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a release of this tree."""
    folder = tmp_path_factory.mktemp("release")
    done = release(ROOT, folder)
    assert done.returncode == 0, done.stderr
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what a release is made of, at another path and without a repository."""
    for name in ("_dockeraudit", "deploy"):
        shutil.copytree(ROOT / name, tmp_path / "x" / name)
    names = "dockeraudit.py patterns.py setup.cfg pyproject.toml README.md LICENSE CHANGELOG.md"
    for name in names.split():
        shutil.copy(ROOT / name, tmp_path / "x")
    return tmp_path / "x"


def test_a_release_has_the_same_bytes_in_another_place_zone_and_language(
    made: Path, tree: Path, tmp_path: Path
) -> None:
    before = os.umask(0o077)
    try:
        done = release(tree, tmp_path / "out", TZ="Pacific/Auckland", LC_ALL="C", HOME="/x")
    finally:
        os.umask(before)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "out") == contents(made)


def test_a_release_holds_five_files_and_their_sums(made: Path) -> None:
    assert set(contents(made)) == {WHEEL, SDIST, BILL, "dockeraudit.py", "SHA256SUMS"}
    sums = dict(
        reversed(line.split("  ")) for line in (made / "SHA256SUMS").read_text().splitlines()
    )
    found = {name: hashlib.sha256(data).hexdigest() for name, data in contents(made).items()}
    assert sums == {name: digest for name, digest in found.items() if name != "SHA256SUMS"}


def test_the_wheel_is_one_module_and_its_record_is_right(made: Path) -> None:
    archive = zipfile.ZipFile(made / WHEEL)
    info = f"dockeraudit-{__version__}.dist-info"
    named = {name for name in archive.namelist() if not name.startswith(info)}
    assert named == {"dockeraudit.py"}
    rows = {
        row[0]: row[1:] for row in csv.reader(io.StringIO(archive.read(f"{info}/RECORD").decode()))
    }
    assert list(rows) == archive.namelist()
    for name, (digest, size) in rows.items():
        data = archive.read(name)
        if name.endswith("/RECORD"):
            continue
        expected = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        assert (digest, size) == (f"sha256={expected}", str(len(data)))


@pytest.mark.parametrize("name", [WHEEL, "dockeraudit.py"])
def test_the_program_runs_from_what_is_released(name: str, made: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dockeraudit", "--version"]
    path = str(made / name if name == WHEEL else made)  # Python imports from a zip file too
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**plain_environment(), "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == f"dockeraudit {__version__}\n"


def test_the_metadata_says_what_setup_cfg_says(made: Path) -> None:
    metadata = zipfile.ZipFile(made / WHEEL).read(f"dockeraudit-{__version__}.dist-info/METADATA")
    head, _, body = metadata.decode().partition("\n\n")
    for line in (f"Version: {__version__}", "Requires-Python: >=3.9", "License: MIT"):
        assert line in head.splitlines()
    assert "Requires-Dist" not in head and body == (ROOT / "README.md").read_text()


def test_the_source_distribution_builds_the_same_wheel(made: Path, tmp_path: Path) -> None:
    with tarfile.open(made / SDIST) as archive:
        for member in archive.getmembers():  # extractall's filters differ between Pythons
            path = tmp_path / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            data = archive.extractfile(member)
            assert data and member.isfile() and (member.uid, member.uname) == (0, "")
            path.write_bytes(data.read())
    script = "import backend; backend.build_wheel('.')"
    folder = tmp_path / f"dockeraudit-{__version__}" / "deploy"
    environ = {**plain_environment(), "SOURCE_DATE_EPOCH": EPOCH}
    subprocess.run([sys.executable, "-c", script], cwd=folder, env=environ, timeout=60, check=True)
    assert (folder / WHEEL).read_bytes() == (made / WHEEL).read_bytes()


def test_the_bill_of_materials_names_the_files_and_no_dependency(made: Path) -> None:
    bill = json.loads((made / BILL).read_text())
    assert (bill["bomFormat"], bill["specVersion"], bill["components"]) == ("CycloneDX", "1.5", [])
    product = bill["metadata"]["component"]
    assert (product["name"], product["version"]) == ("dockeraudit", __version__)
    assert bill["dependencies"] == [{"ref": product["bom-ref"], "dependsOn": []}]
    assert bill["metadata"]["timestamp"] == "2025-06-15T15:06:40Z"
    for file in product["components"]:
        digest = hashlib.sha256((made / file["name"]).read_bytes()).hexdigest()
        assert file["hashes"] == [{"alg": "SHA-256", "content": digest}]


@pytest.mark.parametrize(
    "name, old, new, said",
    [
        ("CHANGELOG.md", f"## {__version__}", "## 9.9.9", "CHANGELOG.md has no section"),
        ("setup.cfg", f"version = {__version__}", "version = 9.9.9", "__init__.py does not"),
    ],
)
def test_a_version_that_is_not_the_same_everywhere_is_not_released(
    name: str, old: str, new: str, said: str, tree: Path, tmp_path: Path
) -> None:
    (tree / name).write_text((tree / name).read_text().replace(old, new))
    done = release(tree, tmp_path / "out")
    assert done.returncode == 1 and said in done.stderr and not (tmp_path / "out").exists()


# ================================================================================================
# the workflows of the forge
# ================================================================================================


def test_the_workflows_name_targets_of_make_that_exist() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.M))
    text = "".join(path.read_text() for path in WORKFLOWS.iterdir())
    named = re.findall(r"^[^#\n]*\bmake ([a-z0-9 -]+)$", text, re.M)
    assert set(" ".join(named).split()) <= targets
    assert {"lint", "test", "e2e", "release"} <= set(" ".join(named).split())


def test_ci_tests_each_python_that_is_supported() -> None:
    text = (WORKFLOWS / "ci.yml").read_text()
    listed = re.findall(r'"(3\.\d+)"', text.partition("python: [")[2].partition("]")[0])
    assert listed == [f"3.{minor}" for minor in range(9, 15)]


@pytest.mark.parametrize("name", ["ci.yml", "release.yml"])
def test_the_image_is_built_for_each_platform(name: str) -> None:
    assert "platforms: linux/amd64,linux/arm64,linux/arm/v7\n" in (WORKFLOWS / name).read_text()


@pytest.mark.parametrize("path", sorted(WORKFLOWS.iterdir()), ids=lambda path: path.name)
def test_a_workflow_may_do_nothing_that_it_does_not_say(path: Path) -> None:
    text = path.read_text()
    assert "\npermissions:\n  contents: read\n\n" in text
    assert "\t" not in text and "pull_request_target" not in text
