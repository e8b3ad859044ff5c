"""Requests from web pages, by a real browser: none reaches the engine; those of clients do.

Chromium, headless, opens a page of another origin that tries what pages can: fetch, a form, an
image, a WebSocket. Under a name that resolves to 127.0.0.1 it asks for the API itself. With
--allow-browser the same page reaches the engine, so the browser really sends what is refused here.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from typing import Any

import pytest
from scripted import ScriptedEngine, json_answer
from wire import free_port, read_all

from conftest import DEADLINE, ProxyProcess, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # installing a browser may take long

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--no-default-browser-check",
]
RULES = (
    "--host-resolver-rules=MAP evil.example 127.0.0.1, MAP rebound.example 127.0.0.1, "
    "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"
)
PAGE = """<!doctype html><title>a page</title><body><script>
const proxy = "http://127.0.0.1:PORT", seen = {};
const note = (name, value) => { seen[name] = value };
const attempt = (name, promise) =>
  promise.then(value => note(name, value), error => note(name, "failed"));
const blind = (path, more) =>
  fetch(proxy + path, {mode: "no-cors", ...more}).then(response => response.type);
const socketAttempt = new Promise(done => {
  const socket = new WebSocket("ws://127.0.0.1:PORT/containers/web/attach/ws?stream=1&stdout=1");
  socket.onopen = () => done("open"); socket.onerror = () => done("failed");
});
const imageAttempt = new Promise(done => {
  const image = new Image(); image.onload = image.onerror = () => done("tried");
  image.src = proxy + "/containers/image/json";
});
const formAttempt = new Promise(done => {
  const [frame, form, field] = ["iframe", "form", "input"].map(tag => document.createElement(tag));
  frame.name = "target"; field.name = '{"Image": "busybox", "x": "'; field.value = '"}';
  form.method = "POST"; form.enctype = "text/plain"; form.target = "target";
  form.action = proxy + "/containers/create";
  form.append(field); document.body.append(frame, form);
  frame.onload = () => done("loaded"); form.submit(); setTimeout(() => done("no load"), 3000);
});
Promise.all([
  attempt("fetch", fetch(proxy + "/containers/json").then(response => response.text())),
  attempt("opaque fetch", blind("/images/json")),
  attempt("post", blind("/containers/web/kill", {method: "POST", body: "x"})),
  attempt("form", formAttempt), attempt("image", imageAttempt),
  attempt("websocket", socketAttempt),
]).then(() => fetch("/report", {method: "POST", body: JSON.stringify(seen)}));
</script>"""
#: what a page's attempts look like in the log of refusals
ATTEMPTS = {
    ("GET", "/containers/json"),
    ("GET", "/images/json"),
    ("POST", "/containers/web/kill"),
    ("POST", "/containers/create"),
    ("GET", "/containers/image/json"),
    ("GET", "/containers/web/attach/ws"),
}


@pytest.fixture(scope="module")
def chromium() -> str:
    """Debian's Chromium, installed where it is missing."""
    if not shutil.which("chromium") and os.geteuid() == 0 and shutil.which("apt-get"):
        for attempt in range(5):
            done = subprocess.run(
                "apt-get update -qq; apt-get -o DPkg::Lock::Timeout=120 "
                "install -y -qq --no-install-recommends chromium",
                shell=True,
                capture_output=True,
                timeout=900,
                check=False,
            )
            if done.returncode == 0:
                break
            time.sleep(0.4 * attempt)
    found = shutil.which("chromium")
    if not found:
        pytest.skip("no chromium here, and it cannot be installed (Debian's package of that name)")
    return found


class Page(http.server.ThreadingHTTPServer):
    """Serves the page, and takes its report."""

    daemon_threads = True

    def __init__(self, proxy_port: int) -> None:
        super().__init__(("127.0.0.1", 0), PageHandler)
        self.text = PAGE.replace("PORT", str(proxy_port)).encode()
        self.report: Any = None


class PageHandler(http.server.BaseHTTPRequestHandler):
    server: Page

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(self.server.text)

    def do_POST(self) -> None:
        self.server.report = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def attach_websocket(sock: socket.socket, head: bytes) -> None:
    """The engine's side of a WebSocket attach: one binary message (RFC 6455), then the close."""
    key = head.lower().partition(b"sec-websocket-key:")[2].split()[0]
    key = head[head.lower().index(key) :][: len(key)]
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    sock.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )
    sock.sendall(b"\x82\x05hello\x88\x02\x03\xe8")
    read_all(sock)


class Stage:
    """A scripted engine, the proxy on a TCP port, and a page of another origin."""

    def __init__(self, *options: str) -> None:
        self.options = options

    def __enter__(self) -> Stage:
        self.folder = tempfile.mkdtemp(prefix="da-")
        self.engine = ScriptedEngine(f"{self.folder}/engine.sock")
        self.engine.routes["/containers/json"] = self.engine.routes["/images/json"] = json_answer(
            []
        )
        self.engine.routes["/containers/web/attach/ws"] = attach_websocket
        self.engine.__enter__()
        self.port = free_port()
        self.proxy = ProxyProcess(
            self.folder, self.engine.path, "--listen", f"tcp://127.0.0.1:{self.port}", *self.options
        ).ready()
        self.page = Page(self.port)
        self._server = threading.Thread(target=self.page.serve_forever)
        self._server.start()
        self.asked_before = len(self.engine.requests)
        return self

    def __exit__(self, *_: object) -> None:
        self.page.shutdown()
        self._server.join()
        self.page.server_close()
        self.proxy.stop()
        self.engine.__exit__()
        shutil.rmtree(self.folder)

    def reached(self) -> set[tuple[str, str]]:
        """Method and path of what reached the engine, without the proxy's own questions."""
        lines = [head.split(b" ", 2) for head, _ in self.engine.requests[self.asked_before :]]
        asked = {(line[0].decode(), line[1].decode().partition("?")[0]) for line in lines}
        return asked - {("GET", "/containers/web/json"), ("GET", "/version")}

    def denied(self) -> set[tuple[str, str]]:
        """Method and path of what was refused as a web page's."""
        return {
            (record["method"], record["path"])
            for record in self.proxy.records("denied")
            if record["rule"] == "browser"
        }


class Browser:
    """A Chromium with a profile of its own; ends with all its processes."""

    def __init__(self, program: str, *arguments: str) -> None:
        self.profile = tempfile.mkdtemp(prefix="da-profile-")
        command = [program, *FLAGS, RULES, f"--user-data-dir={self.profile}", *arguments]
        home = {
            **os.environ,
            "HOME": self.profile,
            "XDG_CONFIG_HOME": self.profile,
            "XDG_CACHE_HOME": self.profile,
        }
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=home,
        )

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it has ended by itself
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()
        wait_for(
            lambda: (
                shutil.rmtree(self.profile, ignore_errors=True) or not os.path.exists(self.profile)
            ),
            "the profile to be removed",
        )


def open_page(stage: Stage, program: str, host: str) -> Any:
    """What the page of this host reports of its attempts."""
    with Browser(program, "--remote-debugging-port=0", f"http://{host}:{stage.page.server_port}/"):
        return wait_for(lambda: stage.page.report, "the page's report", 3 * DEADLINE)


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1"])
def test_a_page_of_another_origin_reaches_nothing(
    chromium: str, host: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of another site, and of the same host on another port."""
    with Stage() as stage:
        report = open_page(stage, chromium, host)
        assert stage.reached() == set()
        assert report["websocket"] == "failed" and report["fetch"] == "failed"
        refused = {
            ("GET", "/containers/json"),
            ("POST", "/containers/create"),
            ("GET", "/containers/web/attach/ws"),
            ("POST", "/containers/web/kill"),
        }
        wait_for(lambda: stage.denied() >= refused, "the refusals' records")
        with capsys.disabled():
            print(
                f"\na page of http://{host}:{stage.page.server_port}: tried {len(ATTEMPTS)}, "
                f"reached the engine 0, refused {sorted(stage.denied())}"
            )


def test_the_same_page_reaches_the_engine_where_browsers_are_allowed(chromium: str) -> None:
    """The control: what is refused above is really sent."""
    with Stage("--allow-browser") as stage:
        open_page(stage, chromium, "127.0.0.1")
        assert stage.reached() >= {
            ("POST", "/containers/create"),
            ("GET", "/containers/json"),
            ("GET", "/containers/web/attach/ws"),
        }
        assert stage.denied() == set()


def dumped(program: str, url: str) -> str:
    """The page at an address as the browser shows it."""
    with Browser(program, "--dump-dom", url) as browser:
        return browser.process.communicate(timeout=3 * DEADLINE)[0].decode()


def test_a_rebound_name_reaches_nothing_unless_it_is_allowed(chromium: str) -> None:
    with Stage() as stage:
        assert "its Host 'rebound.example' is a public-looking name" in dumped(
            chromium, f"http://rebound.example:{stage.port}/containers/json"
        )
        assert stage.reached() == set()
    with Stage("--allow-host", "rebound.example") as stage:
        dumped(chromium, f"http://rebound.example:{stage.port}/containers/json")
        assert ("GET", "/containers/json") in stage.reached()


def test_docker_s_own_websocket_clients_reach_the_engine() -> None:
    docker = pytest.importorskip("docker", reason="docker-py comes with the e2e extra")
    websocket = pytest.importorskip("websocket", reason="websocket-client comes with the e2e extra")
    with Stage() as stage:
        plain = websocket.create_connection(
            f"ws://127.0.0.1:{stage.port}/containers/web/attach/ws?stream=1&stdout=1",
            timeout=DEADLINE,
        )
        assert plain.recv() == b"hello"
        plain.close()
        client = docker.APIClient(
            base_url=f"tcp://127.0.0.1:{stage.port}", version="1.43", timeout=DEADLINE
        )
        attached = client.attach_socket("web", {"stream": 1, "stdout": 1}, ws=True)
        assert attached.recv() == b"hello"
        attached.close()
        client.close()
        assert stage.reached() == {
            ("GET", "/containers/web/attach/ws"),
            ("GET", "/v1.43/containers/web/attach/ws"),
        }
        assert stage.denied() == set()
        assert any(b"\r\nOrigin: http://127.0.0.1" in head for head, _ in stage.engine.requests)
        assert len(stage.proxy.wait_records("stream_close", 2)) == 2
