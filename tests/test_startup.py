"""What `serve` checks and says at start, and what SIGHUP puts in force."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import types
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from program import run_program
from scripted import ScriptedEngine, json_answer

import dockeraudit
from _dockeraudit.baseline import BaselineEntry, KnownSecrets
from _dockeraudit.diagnostics import Diagnostics
from _dockeraudit.errors import ConfigurationError, ListenError
from _dockeraudit.listeners import load_listeners
from _dockeraudit.options import OPTION, OPTIONS, load_settings
from _dockeraudit.proxy import Proxy
from _dockeraudit.reload import reload
from _dockeraudit.sockets import inherited_sockets, peer_groups, peer_identity, with_groups
from _dockeraudit.startup import (
    announce,
    announce_engine,
    inherited_count,
    load_scanner,
    require_linux,
    watchdog_interval,
)
from _dockeraudit.workers import Workers
from conftest import wait_for
from patterns import DEFAULT_SCANNER

# ================================================================================================
# the system and the supervisor
# ================================================================================================


@pytest.mark.parametrize("missing", [(signal, "sigtimedwait"), (socket, "SO_PEERCRED")])
def test_serve_needs_linux_and_says_what_runs_elsewhere(
    missing: tuple[Any, str], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    require_linux()
    monkeypatch.delattr(*missing)
    assert dockeraudit.dispatch(["serve", "--listen", "tcp://127.0.0.1:1"]) == 78
    said = capsys.readouterr().err
    assert said.startswith("dockeraudit: serve needs Linux") and said.count("\n") == 1
    assert "scan, report, verify" in said


def test_a_supervisors_numbers_are_read() -> None:
    assert watchdog_interval({"WATCHDOG_USEC": "200000"}) == 0.1
    ours = {"LISTEN_FDS": "2", "LISTEN_PID": str(os.getpid())}
    assert inherited_count(ours) == 2
    assert inherited_count({**ours, "LISTEN_PID": "1"}) == 0, "meant for another process"


@pytest.mark.parametrize("text", ["", " ", "0"])
def test_an_empty_number_of_a_supervisor_is_an_unset_one(text: str) -> None:
    assert watchdog_interval({"WATCHDOG_USEC": text}) == watchdog_interval({}) > 60
    assert inherited_count({"LISTEN_FDS": text, "LISTEN_PID": str(os.getpid())}) == 0


@pytest.mark.parametrize("text", ["soon", "-1", "1.5", "9" * 5000, "\u0663"])
@pytest.mark.parametrize(
    "name, read", [("WATCHDOG_USEC", watchdog_interval), ("LISTEN_FDS", inherited_count)]
)
def test_what_is_no_number_of_a_supervisor_is_named(name: str, read: Any, text: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name}='.*' is not a number"):
        read({name: text})


@pytest.mark.parametrize("name", ["WATCHDOG_USEC", "LISTEN_FDS"])
def test_an_odd_environment_ends_the_start_with_one_sentence(name: str, folder: Path) -> None:
    options = ("--listen", f"unix://{folder}/p.sock", "--audit-log", folder / "a.log")
    done = run_program(*options, env={**os.environ, name: "some"})
    assert done.returncode == 78
    assert done.stderr.decode() == f"dockeraudit: {name}='some' is not a number from 0 to " + (
        "9007199254740992\n" if name == "WATCHDOG_USEC" else "64\n"
    )
    assert not list(folder.iterdir()), "it has made no file before"


def test_a_passed_descriptor_that_is_no_socket_is_named() -> None:
    with pytest.raises(ListenError, match="LISTEN_FDS=999, but descriptor [0-9]+ is no socket"):
        inherited_sockets(999)


def test_the_groups_of_a_unix_client_are_known_and_not_recorded() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        identity = peer_identity(ours, "", "x")
        assert set(peer_groups(ours)) == set(os.getgroups())
        assert with_groups(identity, ours) == {**identity, "groups": peer_groups(ours)}
        assert "groups" not in identity
        assert (identity["uid"], identity["gid"]) == (os.getuid(), os.getgid())


def test_a_tcp_client_has_no_groups() -> None:
    with socket.socket() as sock:
        assert with_groups({"address": "192.0.2.1"}, sock) == {"address": "192.0.2.1"}
        assert peer_groups(sock) == ()


# ================================================================================================
# what it says
# ================================================================================================


def said_by(announcement: Any) -> list[str]:
    """The lines that a function says to the Diagnostics that it is given."""
    stream = io.StringIO()
    announcement(Diagnostics("debug", stream))
    return stream.getvalue().splitlines()


@pytest.mark.parametrize(
    "components, title",
    [
        ([{"Name": "Engine"}], "Docker 4.3.1 (API 1.41)"),
        ([{"Name": "Podman Engine"}, {"Name": "Conmon"}], "Podman 4.3.1 (API 1.41)"),
    ],
)
def test_the_engine_is_announced_by_its_own_name(
    folder: Path, components: list[Any], title: str
) -> None:
    version = {"Version": "4.3.1", "ApiVersion": "1.41", "Components": components}
    with ScriptedEngine(str(folder / "engine.sock")) as engine:
        engine.routes["/version"] = json_answer(version)
        said = said_by(lambda diagnostics: announce_engine(engine.path, diagnostics))
    assert said == [f"dockeraudit: info: the engine at {engine.path} is {title}"]


def test_an_engine_that_is_not_there_is_said_once(folder: Path) -> None:
    (said,) = said_by(lambda diagnostics: announce_engine(str(folder / "none"), diagnostics))
    assert "warning: cannot reach" in said and said.endswith("requests get 502 until it answers")


def test_a_start_does_not_wait_for_an_engine_that_hangs(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(str(folder / "engine.sock"))
        engine.listen(1)
        settings = load_settings(["--upstream", str(folder / "engine.sock")], {})
        listeners = load_listeners(settings, {}, lambda level, text: None)
        stream = io.StringIO()
        announce(settings, listeners, Diagnostics("info", stream))
        assert "next: export DOCKER_HOST=tcp://127.0.0.1:2375" in stream.getvalue()
        engine.accept()[0].close()
        wait_for(lambda: "requests get 502" in stream.getvalue(), "the word on the engine")


# ================================================================================================
# SIGHUP
# ================================================================================================


class FakeLog:
    """Stands for the audit log: keeps which secrets it was told to allow."""

    allowed: list[str] = []

    def allow(self, entries: list[str]) -> None:
        self.allowed = list(entries)


class Running:
    """A proxy that runs from a configuration file, as far as a reload touches it."""

    def __init__(self, folder: Path, text: str) -> None:
        self.file = folder / "x.ini"
        self.file.write_text(text)
        self.said = io.StringIO()
        settings = load_settings(["--config", str(self.file)], {})
        self.proxy: Any = types.SimpleNamespace(
            settings=settings,
            diagnostics=Diagnostics(settings.log_level, self.said),
            scanner=load_scanner(settings),
            workers=Workers(0, load_scanner(settings)),
            log=FakeLog(),
            known=KnownSecrets(),
        )
        found = load_listeners(settings, {}, lambda level, text: None)
        self.servers: list[Any] = [types.SimpleNamespace(listener=item) for item in found]

    def reload(self, text: str) -> tuple[bool, str]:
        """Change the file and read it again: whether it was right, and what was said."""
        self.file.write_text(text)
        before = self.said.tell()
        right = reload(self.proxy, self.servers, {})
        return right, self.said.getvalue()[before:]


LISTEN = "[dockeraudit]\nlisten = unix:///a.sock\n"


def test_a_reload_puts_the_rules_and_known_secrets_in_force(folder: Path) -> None:
    own = {"id": "my-rule", "name": "Mine", "severity": "HIGH", "keywords": ["foo_"]}
    own.update(regex="foo_[a-z0-9]{12}", examples=["foo_a1b2c3d4e5f6"])
    (folder / "rules.json").write_text(json.dumps([own]))
    running = Running(folder, LISTEN)
    before = running.proxy.scanner
    right, said = running.reload(
        LISTEN + f"rules = {folder}/rules.json\ndisable-rule = email-address\n"
        "allow-secret = web:0123456789abcdef\nlog-level = debug\nmode = learn\n"
    )
    ids = {rule.id for rule in running.proxy.scanner.rules}
    assert right and "my-rule" in ids and "email-address" not in ids
    assert running.proxy.scanner is not before
    assert running.proxy.log.allowed == ["web:0123456789abcdef"]
    assert running.proxy.diagnostics.level == Diagnostics("debug").level
    assert running.proxy.settings.mode == "learn"
    assert "have been read again; changed: log-level, rules" in said and "restart" not in said


def test_a_changed_baseline_counts_after_a_reload(folder: Path) -> None:
    (folder / "known").write_text("")
    text = LISTEN + f"baseline = {folder}/known\n"
    running = Running(folder, text)
    (folder / "known").write_text("0123456789abcdef - an example\n")
    assert running.reload(text)[0]
    assert running.proxy.log.allowed == ["0123456789abcdef"]
    (folder / "known").write_text("0123456789abcdef - an example\nmalformed\n")
    right, said = running.reload(text)
    assert not right and f"{folder}/known, line 2" in said
    assert running.proxy.known.now() == {"0123456789abcdef"}


def test_an_entry_of_the_baseline_that_expires_while_serve_runs_counts_no_more() -> None:
    day = [0.0]
    entry = BaselineEntry("", "0123456789abcdef", date(1970, 1, 2), "an example")
    known = KnownSecrets([], [entry], clock=lambda: day[0])
    proxy: Any = types.SimpleNamespace(known=known, log=FakeLog(), write_due_denials=lambda: None)
    proxy.workers = Workers(0, DEFAULT_SCANNER)
    Proxy.do_what_is_due(proxy)
    assert proxy.log.allowed == ["0123456789abcdef"]
    day[0] = 2 * 86400.0
    Proxy.do_what_is_due(proxy)
    assert proxy.log.allowed == []


def test_a_reload_of_the_same_keeps_the_scanner(folder: Path) -> None:
    running = Running(folder, LISTEN)
    before = running.proxy.scanner
    right, said = running.reload(LISTEN)
    assert right and running.proxy.scanner is before and "changed" not in said


def test_a_changed_rules_file_counts_though_its_name_is_the_same(folder: Path) -> None:
    own = {"id": "my-rule", "name": "Mine", "severity": "HIGH", "keywords": ["foo_"]}
    own.update(regex="foo_[a-z0-9]{12}", examples=["foo_a1b2c3d4e5f6"])
    (folder / "rules.json").write_text(json.dumps([own]))
    text = LISTEN + f"rules = {folder}/rules.json\n"
    running = Running(folder, text)
    own.update(keywords=["bar_"], regex="bar_[a-z0-9]{12}", examples=["bar_a1b2c3d4e5f6"])
    (folder / "rules.json").write_text(json.dumps([own]))
    assert running.reload(text)[0]
    assert running.proxy.scanner.scan(b"bar_a1b2c3d4e5f6\n")[0].rule.id == "my-rule"


#: options that need a restart, each with a value that is none of its default. Not here: `listen`,
#: which is said for each listener, and `config`, which a reload cannot change.
NEED_RESTART = {
    "upstream": "/other.sock",
    "upstream-tls": "/other",
    "socket-mode": "0600",
    "socket-group": "7",
    "admin-listen": "tcp://127.0.0.1:9",
    "audit-log": "/other.log",
    "fingerprint-key": "/other.key",
    "fsync": "never",
    "on-audit-failure": "deny",
    "workers": "7",
    "max-connections": "7",
    "on-finding": "/bin/true",
    "alert-severity": "LOW",
}


def test_every_option_counts_after_a_reload_or_needs_a_restart() -> None:
    need = {option.name for option in OPTIONS if not option.reloads}
    assert need == {*NEED_RESTART, "listen", "config"}


@pytest.mark.parametrize("name, value", NEED_RESTART.items())
def test_an_option_that_needs_a_restart_is_said_and_stays(
    name: str, value: str, folder: Path
) -> None:
    running = Running(folder, LISTEN)
    before = getattr(running.proxy.settings, OPTION[name].key)
    right, said = running.reload(LISTEN + f"{name} = {value}\n")
    assert right and "restart" in said
    assert (name in said) or name.startswith("socket-")
    assert getattr(running.proxy.settings, OPTION[name].key) == before


def test_a_reload_holds_each_listener_to_its_new_access(folder: Path) -> None:
    running = Running(folder, "[listener a]\nlisten = unix:///a.sock\nallow = GET /version\n")
    right, said = running.reload(
        "[listener a]\nlisten = unix:///a.sock\nallow = GET /_ping\nallow-uid = 7\n"
    )
    listener = running.servers[0].listener
    assert right and "allow = GET /_ping" in said
    assert listener.policy.decide("GET", "/_ping").allowed
    assert not listener.policy.decide("GET", "/version").allowed
    assert not listener.clients.admits({"uid": 0, "gid": 0}).allowed


def test_listeners_that_come_and_go_are_said(folder: Path) -> None:
    running = Running(folder, LISTEN)
    before = running.servers[0].listener
    _, said = running.reload("[dockeraudit]\nlisten = unix:///b.sock\n")
    assert "unix:///a.sock is no longer configured; it stays open as it was until a restart" in said
    assert "unix:///b.sock is new; it is listened on after a restart" in said
    assert running.servers[0].listener is before


@pytest.mark.parametrize(
    "text, problem",
    [
        (LISTEN + "allow = get /x\n", "'allow = get /x' is no rule"),
        (LISTEN + "nonsense = 1\n", "'nonsense' is not an option"),
        (LISTEN + "disable-rule = none-such\n", "none-such"),
        (LISTEN + "rules = /nonexistent.json\n", "/nonexistent.json"),
        (LISTEN + "allow-from = 10.0.0.0/8\n", "allow-from restricts"),
    ],
)
def test_a_reload_of_something_wrong_changes_nothing_and_says_why(
    folder: Path, text: str, problem: str
) -> None:
    running = Running(folder, LISTEN + "mode = learn\n")
    scanner, listener = running.proxy.scanner, running.servers[0].listener
    right, said = running.reload(text)
    assert not right and problem in said and "the rules in force stay as they are" in said
    assert running.proxy.scanner is scanner and running.servers[0].listener is listener
    assert running.proxy.settings.mode == "learn"
