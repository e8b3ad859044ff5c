"""An engine over TCP and TLS: its address, its certificates, half-closes, and what failures say."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from authority import BOTH, Authority
from forwarder import Forwarder
from proxyprocess import ProxyProcess, plain_environment
from scripted import CONTAINER_ID, ScriptedEngine, logs_answer, stdcopy_frame
from wire import free_port, read_all, read_until

from _dockeraudit.diagnostics import Diagnostics
from _dockeraudit.engine import ask_engine, engine_connection
from _dockeraudit.errors import ConfigurationError, EngineError
from _dockeraudit.listeners import load_listeners
from _dockeraudit.options import load_settings
from _dockeraudit.remoteengine import RemoteEngine, with_tls
from _dockeraudit.startup import announce_engine, refuse_loop, say_upstream
from _dockeraudit.tlssocket import TLSClientSocket
from _dockeraudit.values import read_upstream
from conftest import DEADLINE, PROGRAM, splits, wait_for

VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority with a server's and a client's certificate."""
    return Authority(tmp_path_factory.mktemp("ca"), "ca").with_docker()


@pytest.fixture
def scripted(folder: Path) -> Iterator[ScriptedEngine]:
    with ScriptedEngine(str(folder / "engine.sock")) as engine:
        yield engine


# ================================================================================================
# the address
# ================================================================================================


@pytest.mark.parametrize(
    "text, host, port, said",
    [
        ("tcp://engine:2375", "engine", 2375, "tcp://engine:2375"),
        ("tcp://127.0.0.1:1/", "127.0.0.1", 1, "tcp://127.0.0.1:1"),
        ("tcp://[::1]:2376", "::1", 2376, "tcp://[::1]:2376"),
        ("tcp://[fe80::1%eth0]:65535", "fe80::1%eth0", 65535, "tcp://[fe80::1%eth0]:65535"),
    ],
)
def test_an_engine_on_tcp_has_a_host_and_a_port(text: str, host: str, port: int, said: str) -> None:
    engine = read_upstream(text)
    assert isinstance(engine, RemoteEngine)
    assert (engine.host, engine.port, engine.tls, str(engine)) == (host, port, None, said)


@pytest.mark.parametrize(
    "text, message",
    [
        ("tcp://engine", "is not tcp://HOST:PORT or tcp://"),
        ("tcp://:2375", "is not tcp://HOST:PORT"),
        ("tcp://::1:2375", "is not tcp://HOST:PORT"),
        ("tcp://engine:0", "is not tcp://HOST:PORT"),
        ("tcp://engine:65536", "is not tcp://HOST:PORT"),
        ("tcp://engine:2375/v1.41", "is not tcp://HOST:PORT"),
        ("tcp://user@engine:2375", "is not tcp://HOST:PORT"),
        ("https://engine:2376", "is not unix:///PATH, an absolute path or tcp://HOST:PORT"),
        ("engine.sock", "is not unix:///PATH"),
        ("ssh://root@engine", "ssh -L /run/engine.sock:/var/run/docker.sock HOST"),
        ("ssh://root@engine", "`docker context`"),
    ],
)
def test_what_is_no_address_of_an_engine_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_upstream(text)
    assert message in str(caught.value)


def test_the_files_of_tls_come_from_the_option_the_variable_and_the_file(
    authority: Authority, folder: Path
) -> None:
    (folder / "x.ini").write_text(
        f"[dockeraudit]\nupstream = tcp://engine:2376\nupstream-tls = {authority.docker}\n"
    )
    for arguments, environ in (
        (["--upstream", "tcp://engine:2376", "--upstream-tls", str(authority.docker)], {}),
        (
            [],
            {
                "DOCKERAUDIT_UPSTREAM": "tcp://engine:2376",
                "DOCKERAUDIT_UPSTREAM_TLS": str(authority.docker),
            },
        ),
        (["--config", str(folder / "x.ini")], {}),
    ):
        settings = load_settings(arguments, environ)
        engine = with_tls(settings.upstream, settings.upstream_tls)
        assert engine == RemoteEngine("engine", 2376) != RemoteEngine("engine", 2375)
        assert isinstance(engine, RemoteEngine) and engine.tls is not None
        assert engine.tls.verify_mode == ssl.CERT_REQUIRED and engine.tls.check_hostname
    docker = {"DOCKER_CERT_PATH": str(authority.docker), "DOCKER_TLS_VERIFY": "1"}
    settings = load_settings(["--upstream", "tcp://engine:2376"], docker)
    assert settings.upstream_tls is None, "Docker's own variables are about the client"


def test_a_folder_that_lacks_a_file_is_named(authority: Authority, folder: Path) -> None:
    def message() -> str:
        with pytest.raises(ConfigurationError) as caught:
            with_tls(RemoteEngine("engine", 1), str(folder))
        return str(caught.value)

    assert "has none of ca.pem, cert.pem and key.pem" in message()
    shutil.copy(authority.docker / "cert.pem", folder)
    assert f"{folder} has no key.pem; cert.pem and key.pem belong together" in message()
    shutil.copy(authority.server[1], folder / "key.pem")
    assert "it is not the key of the certificate" in message()
    (folder / "ca.pem").write_text("nothing")
    assert f"--upstream-tls: cannot load {folder}/ca.pem: it holds no certificate" in message()
    with pytest.raises(ConfigurationError, match="is a Unix socket, which has no TLS"):
        with_tls("/x.sock", str(folder))


def test_without_an_authority_those_of_the_system_are_trusted(
    authority: Authority, folder: Path
) -> None:
    for name in ("cert.pem", "key.pem"):
        shutil.copy(authority.docker / name, folder)
    engine = RemoteEngine("engine", 1, str(folder))
    assert engine.tls is not None and engine.tls.verify_mode == ssl.CERT_REQUIRED


@pytest.mark.parametrize(
    "upstream, listen, own",
    [
        ("tcp://127.0.0.1:2375", "tcp://127.0.0.1:2375", True),
        ("tcp://localhost:2375", "tcp://127.0.0.1:2375", True),
        ("tcp://127.0.0.1:2375", "tcp://0.0.0.0:2375", True),
        ("tcp://127.0.0.1:2376", "tcp://127.0.0.1:2375", False),
        ("tcp://127.0.0.2:2375", "tcp://127.0.0.1:2375", False),
        ("tcp://engine:2375", "tcp://0.0.0.0:2375", False),
        ("/var/run/docker.sock", "tcp://127.0.0.1:2375", False),
        ("tcp://127.0.0.1:2375", "unix:///x.sock", False),
    ],
)
def test_a_listener_that_is_its_own_engine_is_refused(
    upstream: str, listen: str, own: bool
) -> None:
    settings = load_settings(["--upstream", upstream, "--listen", listen], {})
    found = load_listeners(settings, {}, lambda level, text: None)
    if not own:
        refuse_loop(settings.upstream, found)
        return
    with pytest.raises(ConfigurationError, match="is the listener tcp://.*itself"):
        refuse_loop(settings.upstream, found)


def test_the_process_ends_with_78_where_it_would_be_its_own_engine(folder: Path) -> None:
    url = f"tcp://127.0.0.1:{free_port()}"
    command = [sys.executable, PROGRAM, "--listen", url, "--upstream", url]
    run = subprocess.run(
        command, cwd=folder, env=plain_environment(), capture_output=True, timeout=60, check=False
    )
    assert run.returncode == 78 and b"is the listener" in run.stderr
    assert not list(folder.iterdir()), "no log, no key"


@pytest.mark.parametrize(
    "upstream, warned",
    [
        ("tcp://127.0.0.1:1", False),
        ("tcp://[::1]:1", False),
        ("tcp://localhost:1", False),
        ("/x", False),
        ("tcp://10.0.0.1:1", True),
        ("tcp://engine:1", True),
    ],
)
def test_plain_tcp_to_another_host_is_warned_of(
    upstream: str, warned: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    say_upstream(read_upstream(upstream), Diagnostics("info"))
    assert ("is plain TCP to another host" in capsys.readouterr().err) is warned


def test_tls_to_another_host_is_not_warned_of(
    authority: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    say_upstream(RemoteEngine("engine", 1, str(authority.docker)), Diagnostics("info"))
    assert capsys.readouterr().err == ""


# ================================================================================================
# the TLS socket
# ================================================================================================


class Peer:
    """A TLS server on one end of a pair of sockets, whose records the test sends as it likes."""

    def __init__(self, authority: Authority, version: ssl.TLSVersion) -> None:
        self.sock, other = socket.socketpair()
        context = authority.server_context()
        context.minimum_version = context.maximum_version = version
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._in, self._out, server_side=True)
        engine = RemoteEngine("127.0.0.1", 1, str(authority.docker))
        assert engine.tls is not None
        self.client = TLSClientSocket(other, engine.tls, engine.host)
        thread = threading.Thread(target=self._shake_hands)
        thread.start()
        self.client.handshake(time.monotonic() + DEADLINE)
        thread.join()
        self.client.setblocking(False)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()
        self.client.close()

    def _shake_hands(self) -> None:
        while True:
            try:
                self.tls.do_handshake()
                self.sock.sendall(self._out.read())
                return
            except ssl.SSLWantReadError:
                self.sock.sendall(self._out.read())
                self._in.write(self.sock.recv(65536))

    def records(self, data: bytes) -> bytes:
        """Data as records."""
        self.tls.write(data)
        return self._out.read()

    def end(self) -> bytes:
        """A close_notify."""
        with contextlib.suppress(ssl.SSLWantReadError):  # the client's has not come
            self.tls.unwrap()
        return self._out.read()

    def received(self) -> bytes:
        """What the client has sent; b"" behind its close_notify."""
        self._in.write(self.sock.recv(1 << 20))
        parts = []
        try:
            while True:
                part = self.tls.read(65536)
                parts.append(part)
                if not part:
                    break
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            pass
        return b"".join(parts)


def all_there_is(client: TLSClientSocket) -> tuple[bytes, bool]:
    """What a client can receive now, and whether it is the end; it never asks poll."""
    data = b""
    while True:
        try:
            block = client.recv(65536)
        except BlockingIOError:
            assert not client.pending(), "nothing is held back that poll does not see"
            return data, False
        if not block:
            return data, True
        data += block


@pytest.mark.parametrize("version", VERSIONS)
def test_records_are_decrypted_however_they_are_cut(
    authority: Authority, version: ssl.TLSVersion
) -> None:
    with Peer(authority, version) as peer:
        text = b"one record" * 3
        for number, _ in enumerate(splits(text)):
            sent = peer.records(text) + peer.records(b"and another")
            got = b""
            for part in list(splits(sent))[number]:
                peer.sock.sendall(part)
                got += all_there_is(peer.client)[0]
            assert got == text + b"and another"


@pytest.mark.parametrize("version", VERSIONS)
def test_bytes_that_came_before_our_end_are_still_received(
    authority: Authority, version: ssl.TLSVersion
) -> None:
    with Peer(authority, version) as peer:
        first, cut = peer.records(b"f" * 30_000), peer.records(b"second")
        peer.sock.sendall(first + cut[:10])
        begun = peer.client.recv(100)
        peer.client.half_close()
        assert peer.received() == b"", "the close_notify has come"
        peer.sock.sendall(cut[10:] + peer.records(b"third" * 9_000))
        rest, ended = all_there_is(peer.client)
        assert begun + rest == b"f" * 30_000 + b"second" + b"third" * 9_000 and not ended
        peer.sock.sendall(peer.records(b"last") + peer.end())
        assert all_there_is(peer.client) == (b"last", True)
        assert all_there_is(peer.client) == (b"", True), "the end stays"


@pytest.mark.parametrize("version", VERSIONS)
def test_an_end_without_close_notify_is_an_error_behind_what_came(
    authority: Authority, version: ssl.TLSVersion
) -> None:
    with Peer(authority, version) as peer:
        peer.sock.sendall(peer.records(b"cut"))
        peer.sock.shutdown(socket.SHUT_WR)
        assert peer.client.recv(100) == b"cut"
        with pytest.raises(ssl.SSLError) as caught:
            peer.client.recv(100)
        assert "EOF" in str(caught.value)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_socket_that_takes_no_more_gets_each_byte_once(
    authority: Authority, version: ssl.TLSVersion
) -> None:
    text = bytes(range(256)) * 8192
    with Peer(authority, version) as peer:
        sent, got, waits = 0, b"", 0
        while len(got) < len(text):
            try:
                if sent < len(text):
                    sent += peer.client.send(memoryview(text)[sent:])
                    continue
                peer.client.flush()
            except ssl.SSLWantWriteError:
                waits += 1
                assert peer.client.unsent
            got += peer.received()
        assert got == text and waits > 3 and not peer.client.unsent


# ================================================================================================
# what a failure says
# ================================================================================================


def failure(engine: RemoteEngine, timeout: float = 5.0) -> str:
    """What asking the engine says."""
    with pytest.raises(EngineError) as caught:
        ask_engine(engine, "/version", timeout)
    assert caught.value.status == 502
    return str(caught.value)


def test_a_refused_connection_says_how_the_engine_would_listen() -> None:
    port = free_port()
    assert failure(RemoteEngine("127.0.0.1", port)) == (
        f"cannot reach the Docker engine at tcp://127.0.0.1:{port}: Connection refused "
        "(ECONNREFUSED); is the engine running, and does it listen there "
        f"(dockerd -H tcp://127.0.0.1:{port})?"
    )


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 70 + ".invalid", "a..b"])
def test_an_unknown_name_says_so(host: str) -> None:
    assert f"no address is known for {host}; check the name" in failure(RemoteEngine(host, 2375))


def test_a_silent_port_ends_after_the_timeout(authority: Authority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        text = failure(RemoteEngine("127.0.0.1", port, str(authority.docker)), 0.1)
    assert "no answer in time" in text


def test_a_certificate_of_another_authority_is_not_trusted(
    authority: Authority, scripted: ScriptedEngine, folder: Path
) -> None:
    other = Authority(folder, "other")
    shutil.copy(other.certificate, folder / "ca.pem")
    with Forwarder(scripted.path, authority.server_context(mutual=False)) as remote:
        text = failure(RemoteEngine("127.0.0.1", remote.port, str(folder)))
    assert "its certificate is not trusted (" in text
    assert f"ca.pem in {folder} must have signed it" in text


def test_a_certificate_for_another_name_is_not_trusted(
    authority: Authority, scripted: ScriptedEngine, folder: Path
) -> None:
    names = BOTH + "subjectAltName=DNS:engine.test\nextendedKeyUsage=serverAuth\n"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.sign("elsewhere", "/CN=127.0.0.1", names))
    with Forwarder(scripted.path, context) as remote:
        text = failure(RemoteEngine("127.0.0.1", remote.port, str(authority.docker)))
    assert "its certificate is for other names (" in text and "'127.0.0.1'" in text


def test_an_engine_without_tls_is_told_from_one_with(authority: Authority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as plain:
        thread = threading.Thread(target=answer_400, args=(plain,))
        thread.start()
        engine = RemoteEngine("127.0.0.1", plain.getsockname()[1], str(authority.docker))
        assert "does not speak TLS there; is this its TLS port?" in failure(engine)
        thread.join()


def answer_400(listener: socket.socket, body: bytes = b"") -> None:
    """What an HTTP server says to a TLS handshake, and one with TLS to plain HTTP."""
    sock, _ = listener.accept()
    with sock:
        sock.recv(65536)
        sock.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n" + body)
        sock.shutdown(socket.SHUT_WR)
        read_all(sock)


def test_an_engine_with_tls_that_is_asked_without_names_the_option(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        body = b"Client sent an HTTP request to an HTTPS server.\n"
        thread = threading.Thread(target=answer_400, args=(listener, body))
        thread.start()
        engine = RemoteEngine("127.0.0.1", listener.getsockname()[1])
        announce_engine(engine, Diagnostics("info"))
        thread.join()
    assert capsys.readouterr().err == (
        f"dockeraudit: warning: the engine at {engine} speaks TLS; it takes --upstream-tls FOLDER\n"
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_an_engine_that_refuses_our_certificate_says_whose_it_must_be(
    authority: Authority, scripted: ScriptedEngine, folder: Path, version: ssl.TLSVersion
) -> None:
    shutil.copy(authority.certificate, folder / "ca.pem")
    context = authority.server_context()
    context.minimum_version = context.maximum_version = version
    with Forwarder(scripted.path, context) as remote:
        engine = RemoteEngine("127.0.0.1", remote.port, str(folder))
        text = failure(engine)
        assert (
            "it refused our certificate (" in text and f"key.pem in {folder} must be there" in text
        )
        other = Authority(folder, "other")
        certificate, key = other.sign("stranger", "/CN=stranger", BOTH)
        shutil.copy(certificate, folder / "cert.pem")
        shutil.copy(key, folder / "key.pem")
        engine.renew(RemoteEngine("127.0.0.1", remote.port, str(folder)))
        assert "it refused our certificate (unknown ca" in failure(engine)


# ================================================================================================
# through the proxy
# ================================================================================================


class Remote:
    """A proxy whose engine is reached over TCP."""

    def __init__(self, tls: bool, authority: Authority) -> None:
        self.tls, self.authority = tls, authority

    def __enter__(self) -> Remote:
        self.folder = Path(tempfile.mkdtemp(prefix="da-"))
        self.engine = ScriptedEngine(str(self.folder / "engine.sock")).__enter__()
        context = self.authority.server_context() if self.tls else None
        self.remote = Forwarder(self.engine.path, context).__enter__()
        tls = ("--upstream-tls", str(self.authority.docker)) if self.tls else ()
        self.proxy = ProxyProcess(self.folder, self.remote.url, *tls).ready()
        return self

    def __exit__(self, *_: object) -> None:
        status = self.proxy.stop()
        self.remote.__exit__()
        self.engine.__exit__()
        errors = self.proxy.errors.read_text()
        shutil.rmtree(self.folder)
        assert status == 0 and "defect" not in errors, errors

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(DEADLINE)
        sock.connect(self.proxy.socket)
        return sock

    def talk(self, data: bytes) -> bytes:
        with self.connect() as sock:
            sock.sendall(data)
            return read_all(sock)


@pytest.fixture(scope="module", params=["tcp", "tls"])
def remote(request: pytest.FixtureRequest, authority: Authority) -> Iterator[Remote]:
    with Remote(request.param == "tls", authority) as started:
        yield started


UPGRADE = b"Connection: Upgrade\r\nUpgrade: tcp\r\n"
OPENED = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
LAST = b"Connection: close\r\n\r\n"


def test_a_log_is_relayed_and_audited_with_the_containers_name(remote: Remote) -> None:
    secret = "AK" + "IA" + "Q3EGRZ7XW4KTPL2M"
    frame = stdcopy_frame(1, f"key={secret}\n".encode())
    remote.engine.routes["/containers/web/logs"] = logs_answer(frame, frame)
    answer = remote.talk(b"GET /containers/web/logs?stdout=1 HTTP/1.1\r\nHost: d\r\n" + LAST)
    assert answer.count(frame) == 2 and answer.endswith(b"0\r\n\r\n")
    finding = remote.proxy.wait_records("finding")[0]
    assert (finding["container_id"], finding["container_name"]) == (CONTAINER_ID, "web")
    start = remote.proxy.wait_records("start")[0]
    assert start["upstream"] == remote.remote.url
    assert secret not in remote.proxy.log.read_text()


def echoing(sock: socket.socket, head: bytes) -> None:
    """An engine's hijacked stream that echoes its input, and then says that the input ended."""
    sock.sendall(OPENED)
    while True:
        block = sock.recv(65536)
        if not block:
            sock.sendall(b"input ended")
            return
        sock.sendall(block)


def test_a_half_closed_attach_gets_all_that_the_engine_still_says(remote: Remote) -> None:
    remote.engine.routes["/containers/web/attach"] = echoing
    with remote.connect() as sock:
        sock.sendall(b"POST /containers/web/attach HTTP/1.1\r\nHost: d\r\n" + UPGRADE + b"\r\nok\n")
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock).endswith(b"\r\n\r\nok\ninput ended")


def test_nothing_is_lost_where_the_engine_talks_while_we_end_our_side(remote: Remote) -> None:
    size = 3_000_000

    def talking(sock: socket.socket, head: bytes) -> None:
        sock.sendall(OPENED)
        sock.sendall(bytes(size))

    remote.engine.routes["/exec/x/start"] = talking
    for _ in range(5):
        with remote.connect() as sock:
            sock.sendall(b"POST /exec/x/start HTTP/1.1\r\nHost: d\r\n" + UPGRADE + b"\r\n")
            sock.shutdown(socket.SHUT_WR)
            assert len(read_all(sock).partition(b"\r\n\r\n")[2]) == size


def test_both_directions_flow_at_the_same_time(remote: Remote) -> None:
    remote.engine.routes["/containers/web/attach"] = echoing
    text = b"both ways " * 400_000
    with remote.connect() as sock:
        sock.sendall(b"POST /containers/web/attach HTTP/1.1\r\nHost: d\r\n" + UPGRADE + b"\r\n")
        assert read_until(sock, b"\r\n\r\n").startswith(b"HTTP/1.1 101")
        sender = threading.Thread(target=send_and_end, args=(sock, text))
        sender.start()
        back = read_all(sock)
        sender.join()
    assert back == text + b"input ended"


def send_and_end(sock: socket.socket, data: bytes) -> None:
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)


def test_a_large_body_arrives_whole(remote: Remote) -> None:
    body = b"0123456789abcdef" * 200_000
    got: list[str] = []

    def build(sock: socket.socket, head: bytes) -> None:
        got.append(hashlib.sha256(remote.engine.requests[-1][1]).hexdigest())
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    remote.engine.routes["/build"] = build
    head = b"POST /build HTTP/1.1\r\nHost: d\r\nContent-Length: %d\r\n" % len(body)
    assert remote.talk(head + LAST + body).startswith(b"HTTP/1.1 200")
    assert got == [hashlib.sha256(body).hexdigest()]


def test_a_kept_connection_serves_many_requests(remote: Remote) -> None:
    request = b"GET /version HTTP/1.1\r\nHost: d\r\n\r\n"
    with remote.connect() as sock:
        sock.sendall(request)
        read_until(sock, b"}")
        before = remote.remote.connections
        for _ in range(20):
            sock.sendall(request)
            assert b'"28.0"' in read_until(sock, b"}")
        assert remote.remote.connections == before


def test_a_connection_that_ends_with_its_answer_is_not_used_again(remote: Remote) -> None:
    def last(sock: socket.socket, head: bytes) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        sock.close()

    remote.engine.routes["/auth"] = last
    request = b"POST /auth HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n"
    with remote.connect() as sock:
        for _ in range(10):
            ends = remote.remote.ends
            sock.sendall(request)
            assert read_until(sock, b"\r\n\r\nok").startswith(b"HTTP/1.1 200")
            wait_for(lambda before=ends: remote.remote.ends > before, "the connection's end")


def test_an_answer_that_is_cut_short_reaches_the_client_cut_short(remote: Remote) -> None:
    def cut(sock: socket.socket, head: bytes) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart")
        sock.close()

    remote.engine.routes["/containers/cut/json"] = cut
    answer = remote.talk(b"GET /containers/cut/json HTTP/1.1\r\nHost: d\r\n\r\n")
    assert answer.endswith(b"\r\n\r\npart")


def test_an_engine_that_goes_and_comes_back_is_said_once(authority: Authority) -> None:
    with Remote(True, authority) as remote:
        request = b"GET /version HTTP/1.1\r\nHost: d\r\n" + LAST
        assert b'"28.0"' in remote.talk(request)
        wait_for(lambda: "is Docker 28.0" in remote.proxy.errors.read_text(), "the engine's name")
        remote.remote.__exit__()
        for _ in range(3):
            answer = remote.talk(request)
            assert answer.startswith(b"HTTP/1.1 502")
            message = json.loads(answer.partition(b"\r\n\r\n")[2])["message"]
            assert message.startswith(
                f"dockeraudit: cannot reach the Docker engine at {remote.remote.url}: "
            )
        errors = remote.proxy.errors.read_text()
        assert errors.count("requests get 502 until it answers") == 1
        remote.remote = Forwarder(
            remote.engine.path, authority.server_context(), remote.remote.port
        )
        remote.remote.__enter__()
        assert b'"28.0"' in remote.talk(request)
        wait_for(lambda: "answers again" in remote.proxy.errors.read_text(), "the news")


def test_a_client_certificate_that_is_refused_gives_502_and_renewed_files_count(
    authority: Authority, scripted: ScriptedEngine, folder: Path, start_proxy: Callable[..., Any]
) -> None:
    files = folder / "tls"
    files.mkdir()
    shutil.copy(authority.certificate, files / "ca.pem")
    with Forwarder(scripted.path, authority.server_context()) as remote:
        proxy = start_proxy(remote.url, "--upstream-tls", str(files))
        request = b"GET /version HTTP/1.1\r\nHost: d\r\n" + LAST

        def talk() -> bytes:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(DEADLINE)
                sock.connect(proxy.socket)
                sock.sendall(request)
                return read_all(sock)

        answer = talk()
        assert answer.startswith(b"HTTP/1.1 502") and b"it refused our certificate" in answer
        for name in ("cert.pem", "key.pem"):
            shutil.copy(authority.docker / name, files)
        proxy.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "have been read again" in proxy.errors.read_text(), "the reload")
        assert b'"28.0"' in talk()


def test_a_vanished_client_ends_its_engine_connection(remote: Remote) -> None:
    gone = threading.Event()

    def waiting(sock: socket.socket, head: bytes) -> None:
        sock.sendall(OPENED)
        read_all(sock)
        gone.set()

    remote.engine.routes["/containers/web/attach"] = waiting
    sock = remote.connect()
    sock.sendall(b"POST /containers/web/attach HTTP/1.1\r\nHost: d\r\n" + UPGRADE + b"\r\n")
    read_until(sock, b"\r\n\r\n")
    sock.close()
    assert gone.wait(DEADLINE)


def test_the_connection_keeps_itself_alive(remote: Remote, authority: Authority) -> None:
    folder = str(authority.docker) if remote.tls else None
    connection = engine_connection(RemoteEngine("127.0.0.1", remote.remote.port, folder))
    connection.connect()
    try:
        for level, name in (
            (socket.SOL_SOCKET, "SO_KEEPALIVE"),
            (socket.IPPROTO_TCP, "TCP_NODELAY"),
        ):
            assert connection.sock.getsockopt(level, getattr(socket, name)) == 1
        assert connection.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 15
    finally:
        connection.close()
