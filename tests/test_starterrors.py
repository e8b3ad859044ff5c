"""What is wrong at the start: the message names the cause, not what it led to."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from needs import need_program
from proxyprocess import ProxyProcess
from raw import ask
from scripted import ScriptedEngine

import dockeraudit
from _dockeraudit import keyfile as keyfile_room
from _dockeraudit.errors import AuditLogError, ConfigurationError
from _dockeraudit.keyfile import refuse_unfit_log
from _dockeraudit.listeners import load_listeners, tls_context
from _dockeraudit.options import load_settings
from _dockeraudit.settings import Listener
from _dockeraudit.startup import client_hint
from _dockeraudit.values import read_address


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """`serve` blocks the signals that end it, and processes that later tests start inherit that."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of our variables is set."""
    for name in list(os.environ):
        if name.startswith("DOCKERAUDIT_"):
            monkeypatch.delenv(name)


# ================================================================================================
# the log and its folder
# ================================================================================================


def test_a_folder_that_cannot_be_written_is_the_logs_fault_and_not_the_keys(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(keyfile_room.os, "access", lambda path, mode: False)  # root may do anything
    log = str(folder / "audit.log")
    arguments = ["--listen", f"unix://{folder}/p.sock", "--audit-log", log]
    assert dockeraudit.dispatch(arguments) == 78
    assert capsys.readouterr().err == (
        f"dockeraudit: the audit log {log} cannot be opened: uid {os.geteuid()} may not write in "
        f"the folder {folder}; choose another with --audit-log\n"
    )


def test_a_folder_that_is_missing_is_made_where_its_parent_can_be_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_unfit_log(str(folder / "a" / "b" / "audit.log"))
    monkeypatch.setattr(keyfile_room.os, "access", lambda path, mode: False)
    with pytest.raises(AuditLogError, match=f"may not write in the folder {folder};"):
        refuse_unfit_log(str(folder / "a" / "b" / "audit.log"))


def test_a_file_in_the_folders_place_is_named(folder: Path) -> None:
    (folder / "x").write_text("")
    with pytest.raises(AuditLogError, match=f"audit.log cannot be opened: .*{folder}/x|Not a dir"):
        refuse_unfit_log(str(folder / "x" / "audit.log"))


# ================================================================================================
# listeners
# ================================================================================================


def listen_error(*arguments: str, folder: Path, capsys: Any) -> str:
    """What is said about a listener that cannot be opened."""
    log = str(folder / "audit.log")
    assert dockeraudit.dispatch([*arguments, "--audit-log", log]) == 73
    return str(capsys.readouterr().err).splitlines()[-1]


def test_a_port_in_use_says_who_can_be_asked_and_which_option_gives_another(
    folder: Path, capsys: Any
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        url, unix = f"tcp://127.0.0.1:{port}", f"unix://{folder}/p.sock"
        said = listen_error("--listen", url, folder=folder, capsys=capsys)
        assert said == (
            f"dockeraudit: cannot listen on {url}: Address already in use; `ss -ltnp 'sport = "
            f":{port}'` shows who has it; choose another with --listen"
        )
        (folder / "x.ini").write_text(f"[listener web]\nlisten = {url}\n")
        said = listen_error("--config", str(folder / "x.ini"), folder=folder, capsys=capsys)
        assert said.endswith("; choose another with listen of [listener web]")
        arguments = ("--listen", unix, "--admin-listen", url)
        said = listen_error(*arguments, folder=folder, capsys=capsys)
        assert said.endswith("; choose another with --admin-listen")


def test_a_unix_socket_that_cannot_be_made_says_why(folder: Path, capsys: Any) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(f"{folder}/p.sock")
        other.listen(1)
        said = listen_error("--listen", f"unix://{folder}/p.sock", folder=folder, capsys=capsys)
    assert f"`ss -lxp src {folder}/p.sock` shows who has it" in said
    said = listen_error("--listen", f"unix://{folder}/x/p.sock", folder=folder, capsys=capsys)
    assert f"the folder of {folder}/x/p.sock is missing; make it, or choose another" in said


def test_an_address_of_another_host_is_named(folder: Path, capsys: Any) -> None:
    said = listen_error("--listen", "tcp://192.0.2.1:2375", folder=folder, capsys=capsys)
    assert "192.0.2.1 is no address of this host; choose another with --listen" in said


# ================================================================================================
# TLS
# ================================================================================================


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two certificates and their keys, one key encrypted, and files that are none."""
    need_program("openssl")
    home = tmp_path_factory.mktemp("tls")
    for name, more in (("a", ("-nodes",)), ("b", ("-nodes",)), ("locked", ("-passout", "pass:x"))):
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-subj", f"/CN={name}"]
        files = ["-keyout", f"{home}/{name}.key", "-out", f"{home}/{name}.pem"]
        subprocess.run([*command, *more, *files], capture_output=True, check=True)
    both = (home / "a.pem").read_text() + (home / "a.key").read_text()
    (home / "both.pem").write_text(both)
    (home / "text").write_text("no certificate\n")
    (home / "torn.pem").write_text((home / "a.pem").read_text()[:200])
    return home


def tls_values(home: Path, **names: str) -> Mapping[str, Any]:
    """TLS options by their last word, as paths in the folder."""
    files = {f"tls-{name.replace('_', '-')}": str(home / file) for name, file in names.items()}
    return {**dict.fromkeys(("tls-cert", "tls-key", "tls-client-ca")), **files}


@pytest.mark.slow
@pytest.mark.parametrize(
    "names, said",
    [
        ({"cert": "none"}, "--tls-cert: cannot load HOME/none: No such file"),
        ({"cert": "text"}, "--tls-cert: cannot load HOME/text: it holds no certificate"),
        ({"cert": "torn.pem", "key": "a.key"}, "--tls-cert: cannot load HOME/torn.pem: "),
        ({"cert": "a.pem"}, "--tls-cert: HOME/a.pem holds no private key; .* --tls-key FILE"),
        ({"cert": "a.pem", "key": "none"}, "--tls-key: cannot load HOME/none: No such file"),
        ({"cert": "a.pem", "key": "b.pem"}, "--tls-key: cannot load HOME/b.pem: it holds no priv"),
        ({"cert": "a.pem", "key": "b.key"}, "--tls-key: .*/b.key: it is not the key of .*/a.pem"),
        ({"cert": "locked.pem", "key": "locked.key"}, "--tls-key: .*: the key is encrypted"),
        ({"cert": "both.pem", "client_ca": "text"}, "--tls-client-ca: .*/text: it holds no cert"),
        ({"cert": "both.pem", "client_ca": "torn.pem"}, "--tls-client-ca: .*HOME/torn.pem: "),
        ({"key": "a.key"}, "need --tls-cert"),
    ],
)
def test_the_wrong_file_of_tls_is_named(
    names: dict[str, str], said: str, certificates: Path
) -> None:
    with pytest.raises(ConfigurationError, match=said.replace("HOME", str(certificates))):
        tls_context(tls_values(certificates, **names))


@pytest.mark.slow
def test_right_files_of_tls_are_taken_and_the_hint_says_what_docker_needs(
    certificates: Path,
) -> None:
    address = read_address("tcp://0.0.0.0:2376")
    context = tls_context(tls_values(certificates, cert="both.pem"))
    assert client_hint(Listener("x", address, tls=context)) == (
        "export DOCKER_HOST=tcp://127.0.0.1:2376 DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH=FOLDER "
        "(it holds ca.pem)"
    )
    context = tls_context(tls_values(certificates, cert="a.pem", key="a.key", client_ca="b.pem"))
    assert context and context.verify_mode == ssl.CERT_REQUIRED
    hint = client_hint(Listener("x", address, tls=context))
    assert hint.endswith("(it holds ca.pem, cert.pem and key.pem)")


# ================================================================================================
# hints and refusals
# ================================================================================================


def test_the_hint_at_start_names_each_listener(folder: Path) -> None:
    with ScriptedEngine(str(folder / "engine.sock")) as engine:
        with socket.create_server(("127.0.0.1", 0)) as free:
            url = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        proxy = ProxyProcess(folder, engine.path, "--listen", url)
        try:
            said = proxy.ready().errors.read_text()
        finally:
            proxy.stop()
    assert f"info: next: export DOCKER_HOST=unix://{folder}/proxy.sock\n" in said
    assert f"info: or: export DOCKER_HOST={url}\n" in said


def test_a_refusal_by_rules_says_what_to_add(folder: Path) -> None:
    with ScriptedEngine(str(folder / "engine.sock")) as engine:
        rules = {"DOCKERAUDIT_ACCESS": "allow = GET /version; deny = GET /info"}
        proxy = ProxyProcess(folder, engine.path, env=rules)
        try:
            proxy.ready()
            messages = [
                ask(proxy.socket, b"%b HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n" % line)
                for line in (b"GET /containers/web/logs", b"GET /info")
            ]
        finally:
            proxy.stop()
    assert (
        b"GET /containers/web/logs is refused: no rule of access admits it; add `allow = GET "
        in (messages[0].body)
    )
    assert b"is refused by deny = GET /info; it takes the rule `allow = GET /info` above" in (
        messages[1].body
    )


def test_policy_rules_without_rules_starts_to_learn_them(folder: Path) -> None:
    for text in ("[dockeraudit]\n", "[listener x]\nlisten = unix:///a\n"):
        (folder / "x.ini").write_text(f"{text}policy = rules\n")
        options = ["--config", str(folder / "x.ini")]
        settings = load_settings([*options, "--mode", "learn"], {})
        (listener,) = load_listeners(settings, {}, lambda level, text: None)
        assert listener.policy and not listener.policy.decide("GET", "/info").allowed
        with pytest.raises(ConfigurationError, match="policy 'rules' has no rule"):
            load_listeners(load_settings(options, {}), {}, lambda level, text: None)
