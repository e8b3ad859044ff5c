"""docs/migrating.md, tried line by line: Compose files, commands, rules, options, listeners."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import socket
import subprocess

import pytest
from test_access import ENDPOINTS, METHODS

from _dockeraudit import compatible
from _dockeraudit.learning import learn
from _dockeraudit.listeners import load_listeners
from _dockeraudit.options import (
    ENVIRONMENT,
    OPTIONS,
    SHARED_VARIABLES,
    load_settings,
)
from _dockeraudit.policy import native_policy
from conftest import ROOT

PAGE = (ROOT / "docs" / "migrating.md").read_text()
ORIGINALS = ("Tecnativa", "linuxserver", "wollomatic", "cetusguard")


def section(word):
    """The text under the heading that names it."""
    return next(
        part for part in re.split(r"^## ", PAGE, flags=re.M)[1:] if word in part.partition("\n")[0]
    )


def blocks(text, language):
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def compose(text):
    """The proxy's service as Compose itself reads it."""
    command = ["docker", "compose", "-p", "migrating", "-f", "-", "config", "--format", "json"]
    run = subprocess.run(command, input=text.encode(), capture_output=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr.decode()
    return json.loads(run.stdout)["services"]["proxy"]


def image_environment():
    """The settings that the image itself brings."""
    return dict(re.findall(r"(DOCKERAUDIT_\w+)=(\S+)", (ROOT / "Dockerfile").read_text()))


# ================================================================================================
# the page beside the code
# ================================================================================================


def test_the_page_names_every_variable():
    assert set(re.findall(r"\b[A-Z][A-Z_]+\b", section("Tecnativa"))) >= set(
        compatible.SECTIONS
    ) | set(compatible.TECNATIVA_ACTIONS) | set(compatible.TECNATIVA_GATES)
    text = section("linuxserver")
    assert (
        all(name in text for name in compatible.LINUXSERVER_ONLY if "LIBPOD" not in name)
        and "LIBPOD_" in text
    )


def test_the_settings_exist_and_take_what_the_page_gives_them():
    known = (
        {ENVIRONMENT + option.key.upper() for option in OPTIONS}
        | {f"{ENVIRONMENT}ACCESS"}
        | set(SHARED_VARIABLES.values())
    )
    assert set(re.findall(r"DOCKERAUDIT_[A-Z_]*[A-Z]", PAGE)) <= known
    values = re.findall(r"`(DOCKERAUDIT_[A-Z_]+|LOG_LEVEL)=([^`]+)`", PAGE)
    assert len(values) > 8
    for name, value in values:
        if name != "DOCKERAUDIT_CONFIG":
            load_settings([], {name: value})


RULE_ROWS = re.findall(r"^\| `(?:-allow)?([A-Z,]+)[ =]([^`]+)` \| (`allow = .*) \|$", PAGE, re.M)


def their_pattern(pattern):
    """A rule's regular expression, with cetusguard's words spelled out."""
    pattern = pattern.replace("\\|", "|").replace(
        "%CONTAINER_ID_OR_NAME%", "[a-zA-Z0-9][a-zA-Z0-9_.-]+"
    )
    pattern = re.sub(r"%API_PREFIX_PING%", r"(?:/v[0-9]+(?:\\.[0-9]+)*)?/_ping", pattern)
    return re.sub(
        r"%API_PREFIX_(\w+)%",
        lambda word: rf"(?:/v[0-9]+(?:\.[0-9]+)*)?/{word[1].lower()}",
        pattern,
    )


@pytest.mark.parametrize("methods, pattern, ours", RULE_ROWS)
def test_a_translated_rule_decides_the_same(methods, pattern, ours):
    rules = native_policy(re.findall(r"`([^`]+)`", ours))
    theirs, admitted = re.compile(their_pattern(pattern)), 0
    for method, endpoint in itertools.product(METHODS, ENDPOINTS):
        path = endpoint.replace("/x", "/web")
        expected = method in methods.split(",") and theirs.fullmatch("/v1.41" + path) is not None
        assert rules.decide(method, path).allowed is expected, (method, path)
        admitted += expected
    assert admitted


def test_enough_rules_are_translated():
    assert len(RULE_ROWS) >= 12


def test_learn_prints_what_the_page_shows(folder):
    printed = blocks(section("do not know"), "text")[0].splitlines()
    requests = [
        ("GET", "/containers/json"),
        ("GET", "/containers/web/json"),
        ("POST", "/containers/web/restart"),
    ]
    assert (
        learn({"event": "would_deny", "method": method, "path": path} for method, path in requests)
        == printed
    )
    command = blocks(section("do not know"), "sh")[0]
    assert command.startswith("docker compose exec proxy python3 -m dockeraudit learn ")
    assert image_environment()["DOCKERAUDIT_AUDIT_LOG"] == command.split()[-1]
    load_settings([], {"DOCKERAUDIT_MODE": "learn"})


def test_the_pages_listeners_decide_as_it_says(folder):
    path = folder / "dockeraudit.ini"
    path.write_text(blocks(section("Several clients"), "ini")[0])
    warned = []
    settings = load_settings([], {"DOCKERAUDIT_CONFIG": str(path)})
    traefik, dozzle, ci = load_listeners(settings, {}, lambda level, text: warned.append(text))
    assert not warned and [listener.name for listener in (traefik, dozzle, ci)] == [
        "traefik",
        "dozzle",
        "ci",
    ]
    assert (
        traefik.policy.title == "tecnativa"
        and traefik.policy.decide("GET", "/containers/json").allowed
    )
    assert not traefik.policy.decide("POST", "/containers/x/restart").allowed
    assert (
        dozzle.policy.decide("GET", "/containers/web/logs").allowed
        and not dozzle.policy.decide("GET", "/containers/web/json").allowed
    )
    assert (
        dozzle.clients.admits({"address": "172.17.0.3"}).allowed
        and not dozzle.clients.admits({"address": "10.0.0.1"}).allowed
    )
    assert ci.policy is None and ci.clients.admits({"uid": 5, "gid": 0}).allowed


# ================================================================================================
# the Compose files and the commands, on real engines
# ================================================================================================


@pytest.mark.slow
@pytest.mark.parametrize("original", ORIGINALS)
def test_the_compose_files_are_sound_and_keep_the_variables(original):
    before, after = map(compose, blocks(section(original), "yaml"))
    assert (
        "dockeraudit" not in before["image"]
        and after["image"] == "dockeraudit"
        and after["group_add"] == ["999"]
    )
    assert not after.get("privileged") and after.get("ports") == before.get("ports")
    assert [volume["target"] for volume in after["volumes"]] == [
        "/var/run/docker.sock",
        "/var/log/dockeraudit",
    ]
    if original in ("Tecnativa", "linuxserver"):
        kept, given = before["environment"].items(), after["environment"].items()
        assert kept <= given and {name for name, _ in given - kept} <= {"DOCKERAUDIT_POLICY"}


@pytest.mark.engine
@pytest.mark.parametrize("original", ORIGINALS)
def test_the_commands_do_what_the_page_says(original, real_engine, start_proxy):
    environ = {
        **image_environment(),
        **{
            name: str(value)
            for name, value in compose(blocks(section(original), "yaml")[1])["environment"].items()
        },
    }
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    proxy = start_proxy(real_engine.host, "--listen", host, env=environ)
    assert "warning" not in proxy.errors.read_text()
    name, tried = f"access-migrating-{os.getpid()}", 0
    real_engine.docker("run", "-d", "--network", "none", "--name", name, "busybox", "sleep", "300")
    try:
        for line in blocks(section(original), "sh")[0].splitlines():
            command, _, expected = line.partition("  #")
            if line.startswith("export DOCKER_HOST="):
                continue
            arguments = [name if word == "web" else word for word in shlex.split(command)]
            assert arguments[0] == "docker" and expected, line
            run = real_engine.docker(*arguments[1:], host=host, check=False)
            said, wanted = (run.stdout + run.stderr).decode(), expected.strip()
            if wanted == "works":
                assert run.returncode == 0, (line, said)
            else:
                assert (
                    run.returncode
                    and " is refused" in said
                    and wanted.removeprefix("refused: ") in said
                ), (line, said)
            tried += 1
    finally:
        real_engine.docker("rm", "-f", name)
    assert tried >= 4
