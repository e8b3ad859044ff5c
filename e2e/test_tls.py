"""TLS on TCP listeners: certificates in the records, half-closes, many streams at once, reload."""

from __future__ import annotations

import hashlib
import os
import select
import shutil
import signal
import socket
import ssl
import threading

import pytest
from authority import CLIENT, SERVER, Authority
from scripted import ScriptedEngine, chunk, json_answer, logs_answer, stdcopy_frame

from conftest import wait_for

UPGRADE = b"Connection: Upgrade\r\nUpgrade: tcp\r\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """An authority with a server's and a client's certificate; `docker` is a DOCKER_CERT_PATH."""
    return Authority(tmp_path_factory.mktemp("ca"), "ca").with_docker()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def start_tls(start_proxy, authority):
    """A function that starts a proxy with a TLS listener; its port is `proxy.port`."""

    def start(upstream, *options, mutual=True):
        port = free_port()
        client_ca = ("--tls-client-ca", authority.certificate) if mutual else ()
        tls = (
            "--listen",
            f"tcp://127.0.0.1:{port}",
            "--tls-cert",
            authority.server[0],
            "--tls-key",
            authority.server[1],
            *client_ca,
        )
        proxy = start_proxy(upstream, *tls, *options)
        proxy.port = port
        return proxy

    return start


@pytest.fixture
def scripted(folder):
    with ScriptedEngine(str(folder / "engine.sock")) as engine:
        yield engine


def client_context(authority, certificate=True, maximum=None):
    context = ssl.create_default_context(cafile=authority.certificate)
    if certificate:
        context.load_cert_chain(*authority.client)
    if maximum:
        context.maximum_version = maximum
    return context


class TLSClient:
    """A TLS client that can half-close and read while it writes, which SSLSocket cannot."""

    def __init__(self, port, context):
        self.sock = socket.create_connection(("127.0.0.1", port), 20)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="127.0.0.1")
        self.clean_end = False
        self._until(self.tls.do_handshake)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def _flush(self):
        self.sock.sendall(self.outgoing.read())

    def _until(self, action, *arguments):
        while True:
            try:
                return action(*arguments)
            except ssl.SSLWantReadError:
                self._flush()
                block = self.sock.recv(65536)
                if block:
                    self.incoming.write(block)
                else:
                    self.incoming.write_eof()
            finally:
                self._flush()

    def send(self, data):
        self.tls.write(data)
        self._flush()

    def close_notify(self):
        """End this side of the connection; the other one stays open."""
        try:
            self.tls.unwrap()
        except ssl.SSLWantReadError:
            pass
        self._flush()

    def read(self):
        """The next bytes; b"" at the end, and `clean_end` if that was a close_notify."""
        try:
            data = self._until(self.tls.read, 65536)
        except ssl.SSLEOFError:
            return b""
        except ssl.SSLZeroReturnError:
            data = b""
        self.clean_end = self.clean_end or not data
        return data

    def read_until(self, mark):
        data = b""
        while mark not in data:
            block = self.read()
            assert block, data
            data += block
        return data

    def read_all(self):
        return b"".join(iter(self.read, b""))

    def echo(self, data):
        """Send all of data while reading as much back, so that a deadlock on either side shows."""
        self.sock.setblocking(False)
        sent, back, pending = 0, b"", b""
        while len(back) < len(data):
            readable, writable, _ = select.select(
                [self.sock], [self.sock] if pending or sent < len(data) else [], [], 20
            )
            assert readable or writable, f"stuck after {sent} sent and {len(back)} back"
            if writable:
                if not pending and sent < len(data):
                    sent += self.tls.write(data[sent : sent + 65536])
                    pending = self.outgoing.read()
                pending = pending[self.sock.send(pending) :]
            if readable:
                self.incoming.write(self.sock.recv(65536))
                back += self._available()
        self.sock.settimeout(20)
        return back

    def _available(self):
        data = b""
        while True:
            try:
                data += self.tls.read(65536)
            except ssl.SSLWantReadError:
                return data


def request(method, path, *fields, body=b""):
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    return (
        f"{method} {path} HTTP/1.1\r\nHost: docker\r\n".encode()
        + b"".join(fields)
        + length
        + b"\r\n"
        + body
    )


def echoing(sock, head):
    """An engine's hijacked stream that echoes its input, and then says that the input ended."""
    sock.sendall(
        b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
        b"Content-Type: application/vnd.docker.raw-stream\r\n\r\n"
    )
    while True:
        block = sock.recv(65536)
        if not block:
            sock.sendall(b"input ended")
            return
        sock.sendall(block)


# ================================================================================================
# a scripted engine
# ================================================================================================


@pytest.mark.parametrize("maximum", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_sides_can_half_close_and_records_name_the_certificate(
    scripted, start_tls, authority, maximum
):
    scripted.routes["/containers/web/attach"] = echoing
    proxy = start_tls(scripted.path)
    with TLSClient(proxy.port, client_context(authority, maximum=maximum)) as client:
        assert (
            client.tls.selected_alpn_protocol() is None
            and client.tls.version().replace(".", "_") == maximum.name
        )
        client.send(request("POST", "/containers/web/attach?stream=1", UPGRADE))
        client.read_until(b"\r\n\r\n")
        data = os.urandom(300_000)
        assert client.echo(data) == data
        client.send(b"ok\n")
        client.close_notify()
        assert client.read_all() == b"ok\ninput ended"
        assert client.clean_end, "the engine's end must arrive as a close_notify, not as a cut"
    proxy.wait_records("stream_close")
    who = {
        "listener": f"tcp://127.0.0.1:{proxy.port}",
        "address": "127.0.0.1",
        "certificate": "CN=ci,O=Example\\, Inc,C=XX",
    }
    assert (
        proxy.records("stream_open")[0]["client"] == who
        and proxy.records("request")[0]["client"] == who
    )
    assert proxy.records("stream_close")[0]["reason"] == "end"


def test_pipelined_requests_are_answered_and_an_illegal_one_refused(scripted, start_tls, authority):
    scripted.routes["/containers/create"] = json_answer({"Id": "x"}, b"201 Created")
    proxy = start_tls(scripted.path)
    with TLSClient(proxy.port, client_context(authority)) as client:
        client.send(
            request("GET", "/_ping") * 3 + request("POST", "/containers/create", body=b"x" * 40_000)
        )
        answers = client.read_until(b'{"Id": "x"}')
        assert answers.count(b"HTTP/1.1 200 OK") == 3 and answers.count(b"201 Created") == 1
        client.send(b"GET / HTTP/9.9\r\n\r\n")
        assert b"HTTP/1.1 400 " in client.read_all() and client.clean_end


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_alpn_chooses_http_1_1_and_tls_1_1_is_refused(scripted, start_tls, authority):
    proxy = start_tls(scripted.path, mutual=False)
    context = client_context(authority)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with TLSClient(proxy.port, context) as client:
        assert client.tls.selected_alpn_protocol() == "http/1.1"
    old = client_context(authority)
    old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        TLSClient(proxy.port, old)


@pytest.mark.slow
def test_only_clients_with_a_certificate_of_the_ca_are_served(
    scripted, start_tls, authority, folder
):
    proxy = start_tls(scripted.path)
    other = Authority(folder, "other")
    stranger = client_context(authority, certificate=False)
    stranger.load_cert_chain(*other.sign("stranger", "/CN=stranger", CLIENT))
    for context in (client_context(authority, certificate=False), stranger):
        with (
            pytest.raises((ssl.SSLError, ConnectionError, AssertionError)),
            TLSClient(proxy.port, context) as client,
        ):  # in TLS 1.3 a client learns it at its first read
            client.send(request("GET", "/_ping"))
            client.read_until(b"HTTP/1.1")
    with socket.create_connection(("127.0.0.1", proxy.port), 20) as plain:
        plain.sendall(request("GET", "/_ping"))
        answer = plain.recv(65536)
        assert answer.startswith(b"HTTP/1.1 400 ") and b"DOCKER_TLS_VERIFY=1" in answer
    assert not any(head.startswith(b"GET /_ping") for head, _ in scripted.requests)
    assert proxy.stop() == 0 and "defect" not in proxy.errors.read_text()


@pytest.mark.slow
def test_a_web_page_is_refused_where_clients_need_no_certificate(scripted, start_tls, authority):
    proxy = start_tls(scripted.path, mutual=False)
    with TLSClient(proxy.port, client_context(authority, certificate=False)) as client:
        client.send(request("GET", "/_ping", b"Sec-Fetch-Site: cross-site\r\n"))
        assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 403")


@pytest.mark.slow
def test_clients_that_never_shake_hands_delay_no_other_client(scripted, start_tls, authority):
    proxy = start_tls(scripted.path)
    silent = [socket.create_connection(("127.0.0.1", proxy.port), 20) for _ in range(40)]
    try:
        silent[0].sendall(b"\x16\x03\x01")
        with TLSClient(proxy.port, client_context(authority)) as client:
            client.send(request("GET", "/_ping"))
            assert b"200 OK" in client.read_until(b"\r\n\r\n")
    finally:
        for sock in silent:
            sock.close()
    assert proxy.stop() == 0


@pytest.mark.full
def test_a_handshake_that_takes_longer_than_ten_seconds_is_ended(scripted, start_tls):
    proxy = start_tls(scripted.path)
    with (
        socket.create_connection(("127.0.0.1", proxy.port), 20) as silent,
        socket.create_connection(("127.0.0.1", proxy.port), 20) as slow,
    ):
        slow.sendall(b"\x16\x03\x01\x02\x00\x01")
        assert silent.recv(1) == b"" and slow.recv(1) == b""
    assert "defect" not in proxy.errors.read_text() and "failed" not in proxy.errors.read_text()


@pytest.mark.slow
def test_fifty_streams_at_once_each_get_their_own_bytes(scripted, start_tls, authority):
    """Half of them are logs, half are full-duplex attaches."""
    frames = [stdcopy_frame(1, bytes([65 + n % 26]) * 1000 + b"\n") for n in range(400)]
    scripted.routes["/containers/web/logs"] = logs_answer(*frames)
    scripted.routes["/containers/web/attach"] = echoing
    proxy = start_tls(scripted.path)
    expected, wrong = b"".join(map(chunk, frames)) + b"0\r\n\r\n", []

    def one(number):
        try:
            with TLSClient(proxy.port, client_context(authority)) as client:
                if number % 2:
                    client.send(request("GET", "/containers/web/logs?stdout=1&follow=1"))
                    got = client.read_until(b"\r\n0\r\n\r\n").partition(b"\r\n\r\n")[2]
                    assert got == expected, len(got)
                else:
                    data = bytes([65 + number]) * 400_000
                    client.send(request("POST", "/containers/web/attach?stream=1", UPGRADE))
                    client.read_until(b"\r\n\r\n")
                    assert client.echo(data) == data
                    client.close_notify()
                    assert client.read_all() == b"input ended" and client.clean_end
        except Exception as error:  # for the main thread to report
            wrong.append((number, repr(error)[:200]))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert not wrong, wrong
    closes = proxy.wait_records("stream_close", 50)
    assert {record["reason"] for record in closes} == {"end"}
    assert sum(record["frames"] for record in closes) == 25 * 400


@pytest.mark.slow
def test_sighup_loads_a_new_certificate_and_keeps_the_old_one_if_it_is_bad(
    scripted, start_proxy, authority, folder
):
    certificate, key, port = folder / "cert.pem", folder / "key.pem", free_port()
    shutil.copy(authority.server[0], certificate)
    shutil.copy(authority.server[1], key)
    proxy = start_proxy(
        scripted.path,
        "--listen",
        f"tcp://127.0.0.1:{port}",
        "--tls-cert",
        str(certificate),
        "--tls-key",
        str(key),
    )

    def served():
        with TLSClient(port, client_context(authority)) as client:
            return client.tls.getpeercert()["subject"][0][0][1]

    assert served() == "dockeraudit"
    for source, target in zip(authority.sign("renewed", "/CN=renewed", SERVER), (certificate, key)):
        shutil.copy(source, target)
    proxy.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "have been read again" in proxy.errors.read_text(), "the reload")
    assert served() == "renewed"
    certificate.write_text("not a certificate")
    proxy.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "stay as they are" in proxy.errors.read_text(), "the complaint")
    assert served() == "renewed" and "--tls-cert: cannot load" in proxy.errors.read_text()


# ================================================================================================
# the docker CLI with its own TLS variables, on real engines
# ================================================================================================


@pytest.mark.engine
def test_the_docker_cli_works_with_its_tls_variables(real_engine, start_tls, authority, folder):
    proxy = start_tls(real_engine.host)
    name = f"access-tls-{os.getpid()}"
    through = {
        "host": f"tcp://127.0.0.1:{proxy.port}",
        "env": {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(authority.docker)},
    }

    def docker(*arguments, **options):
        return real_engine.docker(*arguments, **through, **options)

    assert real_engine.version.encode() in docker("version").stdout
    assert (
        docker("run", "-i", "--rm", "--network", "none", "busybox", "cat", stdin=b"ok\n").stdout
        == b"ok\n"
    )
    assert (
        docker(
            "run", "--rm", "--network", "none", "busybox", "sh", "-c", "exit 7", check=False
        ).returncode
        == 7
    )
    docker(
        "run",
        "-d",
        "--network",
        "none",
        "--name",
        name,
        "busybox",
        "sh",
        "-c",
        "echo first; sleep 1; echo last >&2",
    )
    try:
        followed = docker("logs", "-f", name)
        assert (followed.stdout, followed.stderr) == (b"first\n", b"last\n")
        docker("start", name)
        data = os.urandom(20 << 20)
        big = folder / "big"
        big.write_bytes(data)
        docker("cp", str(big), f"{name}:/big")
        docker("cp", f"{name}:/big", str(folder / "back"))
        assert (folder / "back").read_bytes() == data
        run = docker(
            "run",
            "-i",
            "--rm",
            "--network",
            "none",
            "busybox",
            "sh",
            "-c",
            "tee /dev/stderr | sha256sum",
            stdin=data[: 4 << 20],
        )
        assert (
            run.stdout.split()[0].decode() == hashlib.sha256(data[: 4 << 20]).hexdigest()
            and run.stderr == data[: 4 << 20]
        )
    finally:
        real_engine.docker("rm", "-f", name)
    who = [record["client"].get("certificate") for record in proxy.records("request")]
    assert set(who) == {"CN=ci,O=Example\\, Inc,C=XX"}
    without = {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": ""}
    assert (
        real_engine.docker(
            "version", host=through["host"], env={**without, "HOME": str(folder)}, check=False
        ).returncode
        != 0
    )
