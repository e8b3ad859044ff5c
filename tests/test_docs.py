"""README, CONTRIBUTING, SECURITY and docs/: links lead somewhere, names exist, commands run.

A command line is an indented or fenced line of a page that begins with a command of ours. Each runs
as it stands there, in a folder that holds the files it names, against a scripted engine.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from product import PROGRAM, ROOT
from proxyprocess import ProxyProcess, plain_environment
from raw import ask
from scripted import ScriptedEngine, json_answer, logs_answer, stdcopy_frame

from _dockeraudit.options import OPTIONS

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
BY_NAME = {str(page.relative_to(ROOT)): page.read_text() for page in PAGES}
TEXT = "\n".join(BY_NAME.values())
AWS_KEY = b"AK" + b"IA" + b"Z7QXV3MD2LKPW5TR"


def command_lines(text: str) -> Iterator[str]:
    """The lines of a page's indented and `sh` blocks, a line that ends with a backslash joined."""
    for block in re.findall(r"(?:^    .*\n)+|^```sh\n(?:.*\n)*?```", text, re.M):
        for line in (
            block.removeprefix("```sh\n").removesuffix("```").replace("\\\n", "").split("\n")
        ):
            yield re.sub(r"\s+", " ", line).strip().removeprefix("$ ")


def lines_with(*words: str) -> list[str]:
    """Every command line of all pages in which a command begins with one of these words."""
    found = {}
    for text in BY_NAME.values():
        for line in command_lines(text):
            if any(part.strip().startswith(words) for part in re.split(r"[|;&]", line)):
                found[line] = None
    return list(found)


# ================================================================================================
# names and links
# ================================================================================================


@pytest.mark.parametrize("page", PAGES, ids=BY_NAME)
def test_every_link_leads_to_a_file(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=BY_NAME)
def test_every_link_to_a_heading_leads_to_one(page: Path) -> None:
    text = page.read_text()
    headings = [re.sub(r"[^\w\- ]", "", line) for line in re.findall(r"^#+ (.*)$", text, re.M)]
    anchors = {heading.lower().replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]*)\)", text)) <= anchors


def test_every_file_that_a_page_names_exists() -> None:
    folders = "_dockeraudit|bench|deploy|docs|e2e|tests"
    named = set(re.findall(rf"`((?:{folders})/[\w./-]+\.\w+)`", TEXT))
    assert len(named) > 20
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


def test_every_file_in_deploy_is_mentioned_in_a_page() -> None:
    names = {path.name for path in (ROOT / "deploy").iterdir() if path.is_file()}
    assert {name for name in names if name not in TEXT} == set()


def test_every_make_target_that_a_page_names_exists() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"\bmake ([a-z0-9-]+)", "\n".join(lines_with("make")))) <= targets
    assert set(re.findall(r"`make ([a-z0-9-]+)", TEXT)) <= targets


def test_every_test_that_the_fault_table_names_exists() -> None:
    names = set(re.findall(r"\| `(\w+)` \|$", BY_NAME["docs/reliability.md"], re.M))
    source = (ROOT / "e2e" / "test_faults.py").read_text()
    assert names and sorted(name for name in names if f"def test_{name}(" not in source) == []


def test_every_thread_that_contributing_names_exists() -> None:
    table = BY_NAME["CONTRIBUTING.md"].partition("| thread |")[2].partition("\n\n")[0]
    names = re.findall(r"`([\w-]+)`", " ".join(re.findall(r"^\| ([^|]*)", table, re.M)))
    source = "".join(path.read_text() for path in (ROOT / "_dockeraudit").glob("*.py"))
    source += (ROOT / "dockeraudit.py").read_text()
    assert [name for name in names if not name.startswith("-") and f'"{name}"' not in source] == []


def test_the_readmes_table_names_exactly_the_options() -> None:
    table = BY_NAME["README.md"].partition("| option |")[2].partition("\n\n")[0]
    first_column = " ".join(re.findall(r"^\| ([^|]*)", table, re.M))
    assert sorted(re.findall(r"--([a-z0-9-]+)", first_column)) == sorted(
        option.name for option in OPTIONS
    )


def test_every_environment_variable_that_a_page_names_is_an_option() -> None:
    named = set(re.findall(r"\bDOCKERAUDIT_([A-Z0-9_]+)\b", TEXT))
    known = {option.name.upper().replace("-", "_") for option in OPTIONS}
    tests_own = {"ENGINES", "FAULT_TABLE", "FORM", "MATRIX"}
    assert named <= known | tests_own | {"ACCESS", "PROGRAM"}


# ================================================================================================
# commands
# ================================================================================================


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder with the files that the pages name, a command `dockeraudit`, and an engine."""
    folder = Path(tempfile.mkdtemp(prefix="da-"))
    commands = folder / "bin"
    commands.mkdir()
    for name, script in {
        "dockeraudit": f'exec {sys.executable} {PROGRAM} "$@"',
        "ssh": 'shift; exec "$@"',
    }.items():
        (commands / name).write_text(f"#!/bin/sh\n{script}\n")
        (commands / name).chmod(0o755)
    with ScriptedEngine(str(folder / "engine.sock")) as engine:
        identity = "c0ffee" + "0" * 58
        listed = [{"Id": identity, "Names": ["/web"]}]
        engine.routes["/containers/json"] = json_answer(listed)
        engine.routes[f"/containers/{identity}/logs"] = engine.routes["/containers/web/logs"] = (
            logs_answer(stdcopy_frame(1, b"key " + AWS_KEY + b"\n"))
        )
        make_files(folder, engine.path)
        yield folder
    shutil.rmtree(folder)


def make_files(folder: Path, engine: str) -> None:
    """Audit logs of a real run, rotated, compressed and collected, and files to scan."""
    proxy = ProxyProcess(folder, engine).ready()
    target = b"GET /containers/web/logs?stdout=1 HTTP/1.1"
    assert AWS_KEY in ask(proxy.socket, target + b"\r\nHost: d\r\nConnection: close\r\n\r\n").body
    proxy.wait_records("stream_close")
    proxy.stop()
    log = proxy.log.read_bytes()
    for name in ("audit.log.1", "other/audit.log", "log/audit.log", "fleet/web-17/audit.log"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(log)
    (folder / "audit.log.1").unlink()
    (folder / "old").mkdir()
    for name in ("old/audit.log.gz", "audit.log.1.gz"):
        (folder / name).write_bytes(gzip.compress(log))
    (folder / "backup").mkdir()
    for name in ("app.log", "backup/app.log"):
        (folder / name).write_bytes(b"key " + AWS_KEY + b"\n")
    (folder / "dump.gz").write_bytes(gzip.compress(b"key " + AWS_KEY + b"\n"))
    (folder / "known.txt").write_text("0123456789abcdef - an example\n")
    (folder / "fleet.key").write_bytes(bytes(range(32)))
    (folder / "fleet.key").chmod(0o600)


def adapted(line: str, folder: Path) -> str:
    """A line with the paths and values of its page replaced by those of this folder."""
    finding = next(
        record
        for record in map(json.loads, (folder / "audit.log").read_bytes().splitlines())
        if record["event"] == "finding"
    )
    for old, new in (
        ("/var/log/dockeraudit-fleet", f"{folder}/fleet"),
        ("/var/log/dockeraudit/.audit.log.key", f"{folder}/fleet.key"),
        ("/var/log/dockeraudit", f"{folder}/log"),
        ("/usr/local/lib/dockeraudit/", f"{ROOT}/deploy/"),
        ("/etc/dockeraudit.key", f"{folder}/fleet.key"),
        ("0123456789abcdef", finding["fingerprint"]),
        ("26ef", finding["fingerprint"][:4]),
        ("ba66", finding["fingerprint"][:4]),
        ("audit.log.1 audit.log", "audit.log.1.gz"),
        ("audit.log.1.gz audit.log other/*.log", "audit.log.1.gz other/*.log"),
        ("HASH", finding["prev"]),
        ("FILE", "audit.log"),
        ("dockeraudit watch ", "dockeraudit watch - "),  # of a pipe that ends
    ):
        line = line.replace(old, new)
    return line


def run_line(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **plain_environment(),
        "PATH": f"{folder}/bin:{os.environ['PATH']}",
        "DOCKERAUDIT_UPSTREAM": f"{folder}/engine.sock",
    }
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def is_server(line: str) -> bool:
    """Whether a line starts the proxy itself."""
    words = shlex.split(line, comments=True)
    at = words.index("dockeraudit")
    return at + 1 == len(words) or words[at + 1] == "serve" or words[at + 1].startswith("--")


def without_docker(lines: list[str]) -> list[str]:
    """The lines that need neither a container nor root."""
    return [line for line in lines if not line.startswith(("docker ", "sudo ", "install "))]


OUR_LINES = without_docker(lines_with("dockeraudit ", "python3 -m dockeraudit"))


def test_the_pages_have_command_lines() -> None:
    assert len(OUR_LINES) > 15 and any(map(is_server, OUR_LINES))


@pytest.mark.parametrize("line", [line for line in OUR_LINES if not is_server(line)])
def test_a_command_line_runs_as_it_stands(line: str, place: Path) -> None:
    done = run_line(adapted(line, place), place)
    found = done.returncode == 1 and re.search(r"\bscan\b|--fail-on|--anchor|verify", line)
    assert done.returncode == 0 or found, (line, done.returncode, done.stderr)
    assert "Traceback" not in done.stderr and "usage:" not in done.stderr, done.stderr


@pytest.mark.parametrize("line", list(filter(is_server, OUR_LINES)))
def test_a_line_that_starts_the_proxy_starts_it(line: str, place: Path, folder: Path) -> None:
    words = shlex.split(adapted(line, place), comments=True)
    options = words[words.index("dockeraudit") + 1 :]
    options = [option for option in options if option != "serve"]
    proxy = ProxyProcess(folder, f"{place}/engine.sock", *options, forked=True)
    try:
        proxy.ready()
    finally:
        assert proxy.stop(signal.SIGTERM) == 0


@pytest.mark.parametrize("line", lines_with(".venv/bin/python -m pytest"))
def test_a_line_that_runs_tests_selects_some(line: str) -> None:
    words = shlex.split(line.partition(".venv/bin/python")[2], comments=True)
    if "NAME" in words:
        words[words.index("NAME")] = "rename"
    collect(words[2:])


def test_every_selection_of_the_table_of_hostile_cases_selects_tests() -> None:
    cells = re.findall(
        r"\| `((?:e2e/)?(?:test_\w+\.py)? ?-k [^`]*)` \|$", BY_NAME["docs/hostile.md"], re.M
    )
    assert len(cells) > 20
    source = {path.name: path.read_text() for path in ROOT.glob("*/test_*.py")}
    for cell in cells:
        *file, _, words = shlex.split(cell)
        text = source[Path(file[0]).name] if file else "".join(source.values())
        names = re.findall(r"def test_(\w+)\(", text) + re.findall(r"^ *\"([^\"]+)\",$", text, re.M)
        for word in words.split(" or "):
            assert any(word in name for name in names), cell


def collect(arguments: list[str]) -> None:
    """Have pytest select tests, without running them."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--collect-only"]
    run = subprocess.run(
        [*command, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stdout[-1000:]


@pytest.mark.parametrize("line", lines_with("python3 bench/run.py"))
def test_a_line_that_runs_the_bench_has_options_that_exist(line: str) -> None:
    arguments = shlex.split(line.partition("bench/run.py")[2], comments=True)
    script = "import sys; sys.path.insert(0, 'bench'); import run; run.read_options()"
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
