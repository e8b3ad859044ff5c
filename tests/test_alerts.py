"""Alerts: a command for each new secret, what is known across restarts, lines on a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import stat
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from auditlogs import AWS, CLIENT, EMAIL, ENDED, FULL_ID, KEY, find, problems, records
from program import ForkedProgram, run_program
from proxyprocess import ProxyProcess, plain_environment
from raw import ask
from scripted import CONTAINER_ID, ScriptedEngine, logs_answer, stdcopy_frame

from _dockeraudit import alertcommand, alerts, seensecrets
from _dockeraudit.alertcommand import PASSED_VARIABLES, AlertCommand, make_descriptors_private
from _dockeraudit.alerts import Alerts, FairQueue, NewSecret, TerminalNews
from _dockeraudit.auditlog import AuditLog
from _dockeraudit.diagnostics import Diagnostics
from _dockeraudit.records import Fingerprinter
from _dockeraudit.seensecrets import SeenSecrets, read_seen, write_seen
from conftest import ROOT, wait_for

KEY_ID = Fingerprinter(KEY).key_id
HIGH, LOW = 3, 1


def aws_key(number: int) -> bytes:
    """A made-up key; each number gives another."""
    return b"AK" + b"IA" + b"Z7QXV3MD2LKP" + bytes([65 + number // 26, 65 + number % 26]) + b"TR"


class FakeCommand:
    """In place of AlertCommand: keeps what it was given; `why` is how it fails."""

    def __init__(self) -> None:
        self.given: list[dict[str, Any]] = []
        self.why = ""
        self.lines: list[bytes] = []
        self.time_left: Callable[[], float] = lambda: 0.0

    def run(self, line: bytes, time_left: Callable[[], float]) -> tuple[str, str]:
        self.lines.append(line)
        self.given.append(json.loads(line))
        return self.why, self.why and f"it {self.why}"

    def kill(self) -> None:
        pass


class Place:
    """A log, and alerts of it with a command that only keeps what it is given."""

    def __init__(self, log: AuditLog, folder: Path, said: Any, **options: Any) -> None:
        self.log = log
        self.file = folder / ".audit.log.alerts"
        self.command = FakeCommand()
        self.diagnostics = Diagnostics("info", said)
        least = options.pop("least", HIGH)
        command: Any = self.command
        self.alerts = Alerts(log, command, least, str(self.file), self.diagnostics, **options)
        self.alerts.start()

    def stream(self, container: str = FULL_ID, name: str | None = "web") -> Any:
        stream = self.log.open_stream("logs", container, CLIENT, False, True)
        stream.named(container, name)
        return stream

    def stop(self) -> list[dict[str, Any]]:
        """Stop; returns the alerts that were given."""
        self.alerts.stop(time.monotonic() + 20)
        return self.command.given


class Said(list):
    """A stream that keeps what is written."""

    tty = False

    def __bool__(self) -> bool:
        return True

    def write(self, text: str) -> None:
        self.append(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return self.tty


@pytest.fixture
def stream_said() -> Said:
    return Said()


@pytest.fixture
def place(new_log: Callable[..., AuditLog], folder: Path, stream_said: Said) -> Iterator[Place]:
    place = Place(new_log(), folder, stream_said)
    yield place
    place.stop()


# ================================================================================================
# which findings are news
# ================================================================================================


def test_a_new_secret_gives_one_alert_whatever_repeats_it(place: Place) -> None:
    for _ in range(3):
        stream = place.stream()
        find(stream)
        find(stream)
        stream.close(**ENDED)
    given = place.stop()
    assert [alert["fingerprint"] for alert in given] == [Fingerprinter(KEY).of(b"value")]
    alert = given[0]
    assert (alert["event"], alert["run"], alert["severity"]) == ("alert", place.log.run, "HIGH")
    assert (alert["container_id"], alert["container_name"]) == (FULL_ID, "web")
    assert alert["client"] == CLIENT and alert["line"] == 1 and alert["host"]
    assert alert["text"] == (
        "HIGH secret AWS Access Key ke***e; in web (stdout, line 1), "
        f"read by uid 0 (docker) in logs; fingerprint {alert['fingerprint']}"
    )


def test_an_alert_of_a_containers_own_secret_names_its_variable() -> None:
    own = {"pattern": "Container's Own Secret", "redacted_match": "***", "env": "DB_PASSWORD"}
    text = NewSecret(("ab" * 32, "cd" * 8), 0.0, {**own, "severity": "HIGH"}).text()
    assert text.startswith("HIGH secret Container's Own Secret *** (its variable DB_PASSWORD) in ")


def test_the_same_secret_in_another_container_is_news_there(place: Place) -> None:
    find(place.stream())
    find(place.stream("cd" * 32, "db"))
    assert [alert["container_name"] for alert in place.stop()] == ["web", "db"]


def test_only_the_severity_that_was_asked_for_gives_alerts(
    new_log: Callable[..., AuditLog], folder: Path, stream_said: Said
) -> None:
    high = Place(new_log(), folder, stream_said)
    find(high.stream(), b"mail", EMAIL)
    assert high.stop() == []
    low = Place(high.log, folder, stream_said, least=LOW)
    find(low.stream(), b"mail", EMAIL)
    assert [alert["rule"] for alert in low.stop()] == [EMAIL.id]


def test_a_placeholder_gives_no_alert(place: Place) -> None:
    find(place.stream(), placeholder=True)
    assert place.stop() == []


def test_a_partial_finding_gives_its_alert_when_its_update_has_come(place: Place) -> None:
    stream = place.stream()
    handle = find(stream, None, partial=True)
    find(stream, b"other")
    wait_for(lambda: place.command.given, "the other alert")
    stream.update(handle, None, b"key=whole;", b"whole", 3, True)
    whole = place.stop()[1]
    assert whole["fingerprint"] == Fingerprinter(KEY).of(b"whole")
    assert whole["redacted_match"] == "ke***e;" and "partial" not in whole
    assert (whole["event"], whole["container_name"]) == ("alert", "web")


def test_an_update_that_makes_a_finding_graver_gives_an_alert(place: Place) -> None:
    stream = place.stream()
    handle = find(stream, b"begin", EMAIL, partial=True, placeholder=True)
    stream.update(handle, AWS, b"key=begin;", b"begin", 1, True)
    assert [alert["rule"] for alert in place.stop()] == [AWS.id]


def test_a_key_whose_end_never_comes_gives_one_alert_in_its_container(place: Place) -> None:
    for _ in range(2):
        stream = place.stream()
        stream.update(find(stream, None, partial=True), None, b"key=val", None, 1, False)
    given = place.stop()
    assert len(given) == 1 and given[0]["fingerprint"] is None and given[0]["partial"]
    assert place.file.read_text().count("\n") == 1  # it has no fingerprint to be known by


def test_a_secret_that_its_containers_name_allows_gives_no_alert(
    new_log: Callable[..., AuditLog], folder: Path, stream_said: Said
) -> None:
    allow = [f"web:{Fingerprinter(KEY).of(b'value')}"]
    place = Place(new_log(allow=allow), folder, stream_said)
    stream = place.log.open_stream("logs", FULL_ID, CLIENT, False, True)
    find(stream)
    stream.named(FULL_ID, "web")
    find(stream, b"other")
    assert [alert["fingerprint"] for alert in place.stop()] == [Fingerprinter(KEY).of(b"other")]


def test_a_finding_that_waits_for_a_name_at_the_stop_gives_its_alert(place: Place) -> None:
    find(place.log.open_stream("logs", FULL_ID, CLIENT, False, True))
    assert [alert["container_name"] for alert in place.stop()] == [None]


def test_alerts_come_while_the_disk_is_full_and_for_lost_records_too(
    new_log: Callable[..., AuditLog], folder: Path, disk: Any, stream_said: Said
) -> None:
    place = Place(new_log(queue_limit=12, budgeted=False), folder, stream_said)
    stream = place.stream()
    disk.error = 28
    for number in range(20):
        find(stream, b"%d" % number)
    assert len(place.stop()) == 20
    assert place.log.counters()["degraded"]


def test_a_defect_of_a_listener_costs_no_record_and_is_said(
    new_log: Callable[..., AuditLog], folder: Path, said: list[str]
) -> None:
    def broken(record: Any) -> None:
        raise ZeroDivisionError

    log = new_log()
    log.add_finding_listener(broken)
    stream = log.open_stream("logs", FULL_ID, CLIENT, False, True)
    stream.named(FULL_ID, "web")
    find(stream)
    wait_for(lambda: said, "the line")
    log.close("end", 20)
    assert "a listener to findings raised ZeroDivisionError, by a defect" in said[0]
    assert len(records(folder / "audit.log", "finding")) == 1


def test_a_hostile_name_reaches_neither_the_text_nor_a_line_of_its_own(place: Place) -> None:
    find(place.stream(name="a\n\x1b[2J\u202eb" + "x" * 9000))
    alert = place.stop()[0]
    assert "a\\u000a\\u001b[2J\\u202eb" in alert["text"]
    line = place.command.lines[0]
    assert len(line) <= 4096 and line.count(b"\n") == 1 and b"\x1b" not in line


# ================================================================================================
# what is dropped
# ================================================================================================


def test_a_full_queue_drops_alerts_and_records_how_many(
    new_log: Callable[..., AuditLog], folder: Path, stream_said: Said
) -> None:
    place = Place(new_log(), folder, stream_said, held=0)
    stream = place.stream()
    for number in range(5):
        find(stream, b"%d" % number)
    find(stream, b"mail", EMAIL)
    assert place.stop() == []
    place.log.close("end", 20)
    gaps = records(folder / "audit.log", "alert_gap")  # the first may be written at once
    assert {gap["reason"] for gap in gaps} == {"queue"}
    assert sum((Counter(gap["counts"]) for gap in gaps), Counter()) == {AWS.name: 5}
    assert sum((Counter(gap["severities"]) for gap in gaps), Counter()) == {"HIGH": 5}
    assert gaps[0]["since"].endswith("Z") and problems(folder / "audit.log") == []
    dropped = r"warning: [1-5] alerts? dropped; alert_gap records in the log count them"
    assert re.search(dropped, stream_said[0])


def waiting(container: str, number: int) -> NewSecret:
    return NewSecret((container, f"{number:016}"), 0.0, {})


def test_containers_take_turns_and_the_one_with_the_most_alerts_gives_way() -> None:
    queue = FairQueue(4)
    flood = [waiting("flood", number) for number in range(6)]
    assert [queue.put(secret) for secret in flood] == [None] * 4 + flood[4:]
    assert queue.put(waiting("quiet", 1)) == flood[3]
    assert queue.put(waiting("other", 1)) == flood[2] and len(queue) == 4
    order = [queue.get().place[0] for _ in range(4)]
    assert order == ["flood", "quiet", "other", "flood"] and len(queue) == 0
    with pytest.raises(IndexError):
        queue.get()


def test_a_flood_in_one_container_keeps_no_alert_of_another_out(
    new_log: Callable[..., AuditLog], folder: Path, stream_said: Said
) -> None:
    place = Place(new_log(), folder, stream_said, held=8)
    free, began = threading.Event(), threading.Event()
    run = place.command.run

    def slow(*arguments: Any) -> tuple[str, str]:
        began.set()
        assert free.wait(20)
        return run(*arguments)

    place.command.run = slow  # type: ignore[method-assign]
    flooding = place.stream("cd" * 32, "flooding")
    find(flooding, b"first")
    assert began.wait(20)
    for number in range(100):
        find(flooding, b"%d" % number)
    find(place.stream(), b"precious")
    free.set()
    given = [alert["container_name"] for alert in place.stop()]
    assert len(given) == 9 and given.index("web") <= 2
    place.log.close("end", 20)
    assert records(folder / "audit.log", "alert_gap")[0]["counts"] == {AWS.name: 93}


def test_a_secret_whose_command_failed_is_news_again_with_its_next_finding(
    place: Place, stream_said: Said
) -> None:
    place.command.why = "failed"
    find(place.stream())
    wait_for(lambda: place.command.given, "the first try")
    wait_for(lambda: "an alert was not delivered: it failed" in "".join(stream_said), "the line")
    place.command.why = ""
    find(place.stream())
    wait_for(lambda: len(place.command.given) == 2, "the second try")
    find(place.stream())
    assert len(place.stop()) == 2
    place.log.close("end", 20)
    gap = records(Path(place.file).parent / "audit.log", "alert_gap")[0]
    assert gap["reason"] == "failed" and gap["counts"] == {AWS.name: 1}


def test_a_defect_in_giving_an_alert_is_counted_and_the_next_one_is_given(
    place: Place, stream_said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> tuple[str, str]:
        raise RuntimeError

    monkeypatch.setattr(place.command, "run", broken)
    find(place.stream())
    wait_for(lambda: "RuntimeError" in "".join(stream_said), "the line")
    monkeypatch.undo()
    find(place.stream(), b"other")
    assert len(place.stop()) == 1


def test_what_waits_beyond_the_stop_is_dropped_and_recorded(
    new_log: Callable[..., AuditLog], folder: Path, stream_said: Said
) -> None:
    log = new_log()
    command = AlertCommand(["sleep", "600"], os.environ)
    slow = Alerts(log, command, HIGH, None, Diagnostics("error", stream_said))
    slow.start()
    stream = log.open_stream("logs", FULL_ID, CLIENT, False, True)
    stream.named(FULL_ID, "web")
    for number in range(3):
        find(stream, b"%d" % number)
    wait_for(lambda: command._pid is not None, "the command")
    pid = command._pid
    slow.stop(time.monotonic() + 0.1)
    assert not slow._thread.is_alive() and pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    log.close("end", 20)
    gaps = records(folder / "audit.log", "alert_gap")
    assert sum(gap["counts"][AWS.name] for gap in gaps) == 3


# ================================================================================================
# what is known across restarts
# ================================================================================================


def test_a_restart_gives_no_alert_again(
    new_log: Callable[..., AuditLog], folder: Path, stream_said: Said
) -> None:
    place = Place(new_log(), folder, stream_said)
    find(place.stream())
    place.stop()
    assert place.file.read_text() == (
        f"dockeraudit alerts 1 {KEY_ID}\n{FULL_ID} {Fingerprinter(KEY).of(b'value')}\n"
    )
    assert stat.S_IMODE(place.file.stat().st_mode) == 0o600
    again = Place(place.log, folder, stream_said)
    find(again.stream())
    find(again.stream(), b"other")
    assert [alert["fingerprint"] for alert in again.stop()] == [Fingerprinter(KEY).of(b"other")]
    assert stream_said == []


PLACES = [("ab" * 32, "0" * 16), ("-", "1" * 16)]


def test_what_is_written_reads_back_under_the_same_key_alone(folder: Path) -> None:
    path = str(folder / "known")
    assert read_seen(path, KEY_ID) == []
    typed = [("a name that\na client typed", "2" * 16), ("ab" * 32, "rule private-key")]
    write_seen(path, KEY_ID, [*PLACES, *typed])
    assert read_seen(path, KEY_ID) == PLACES
    assert read_seen(path, "00000000") == []
    assert os.listdir(folder) == ["known"]


def test_what_is_kept_is_bounded_and_the_oldest_goes(folder: Path) -> None:
    seen = SeenSecrets(((f"{number:064}", "0" * 16) for number in range(30)), limit=10)
    assert len(seen) == 10 and seen.places()[0] == (f"{20:064}", "0" * 16)
    assert (f"{29:064}", "0" * 16) in seen and (f"{19:064}", "0" * 16) not in seen
    full = [(f"{number:064}", "0" * 16) for number in range(seensecrets.SEEN_LIMIT)]
    write_seen(str(folder / "known"), KEY_ID, full)
    assert read_seen(str(folder / "known"), KEY_ID) == full  # its largest file is not refused


@pytest.mark.parametrize(
    "text, reason",
    [
        (b"", "dockeraudit has not written it, or not all of it"),
        (b"something else\n", "dockeraudit has not written it"),
        (b"dockeraudit alerts 1 %b" % KEY_ID.encode(), "or not all of it"),
        (b"dockeraudit alerts 1 %b\nx\n" % KEY_ID.encode(), "its line 2 is not CONTAINER"),
        (b"\xff\x00" * 2_000_000, "it is larger than any"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_and_each_secret_counts_as_new(
    text: bytes, reason: str, new_log: Callable[..., AuditLog], folder: Path, stream_said: Said
) -> None:
    (folder / ".audit.log.alerts").write_bytes(text)
    place = Place(new_log(), folder, stream_said)
    find(place.stream())
    assert len(place.stop()) == 1
    said = "".join(stream_said)
    assert f"{place.file} cannot be used: " in said and reason in said
    assert "each secret counts as new once more" in said and said.count("\n") == 1
    assert len(read_seen(str(place.file), KEY_ID)) == 1  # and it has been made anew


def test_a_symbolic_link_is_not_followed(
    new_log: Callable[..., AuditLog], folder: Path, stream_said: Said
) -> None:
    (folder / "other").write_text("precious\n")
    (folder / ".audit.log.alerts").symlink_to(folder / "other")
    place = Place(new_log(), folder, stream_said)
    find(place.stream())
    place.stop()
    assert "cannot be used" in stream_said[0]
    assert (folder / "other").read_text() == "precious\n" and not place.file.is_symlink()


def test_a_failed_write_leaves_the_file_whole_and_is_said(
    place: Place, stream_said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_seen(str(place.file), KEY_ID, PLACES)

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(seensecrets.os, "fsync", full)
        find(place.stream())
        wait_for(lambda: "No space left" in "".join(stream_said), "the line")
        assert read_seen(str(place.file), KEY_ID) == PLACES
    place.stop()
    assert len(read_seen(str(place.file), KEY_ID)) == 1
    assert not [name for name in os.listdir(place.file.parent) if ".alerts." in name]


# ================================================================================================
# the command
# ================================================================================================


def for_ever() -> float:
    return 3600.0


def test_the_command_reads_one_line_and_no_shell_sees_its_words(folder: Path) -> None:
    words = ["sh", "-c", 'cat > "$1"; printf %s "$2" >> "$1"', "-", f"{folder}/out", "$(id) * ;"]
    assert AlertCommand(words, os.environ).run(b'{"a": 1}\n', for_ever) == ("", "")
    assert (folder / "out").read_text() == '{"a": 1}\n$(id) * ;'


def test_the_command_gets_only_harmless_variables(folder: Path) -> None:
    environ = {**os.environ, "PASSWORD": "x", "DOCKERAUDIT_AUDIT_LOG": "x", "LANG": "C"}
    words = ["sh", "-c", f"env > {folder}/out"]
    assert AlertCommand(words, environ).run(b"", for_ever) == ("", "")
    names = {line.partition("=")[0] for line in (folder / "out").read_text().splitlines()}
    assert "LANG" in names and names <= {*PASSED_VARIABLES, "PWD", "SHLVL", "_", "OLDPWD"}


def test_the_command_has_none_of_our_descriptors_signals_or_outputs(folder: Path) -> None:
    script = (
        "import json, os, signal, sys\n"
        "print('to nobody'); print('to nobody', file=sys.stderr)\n"
        "fds = [f'/proc/self/fd/{fd}' for fd in os.listdir('/proc/self/fd')]\n"
        "json.dump({'ours': [fd for fd in fds if os.path.realpath(fd).endswith('kept')],\n"
        "  'outputs': [os.readlink(f'/proc/self/fd/{fd}') for fd in (1, 2)],\n"
        "  'group': os.getpgid(0) == os.getpid(),\n"
        "  'blocked': len(signal.pthread_sigmask(signal.SIG_BLOCK, []))},\n"
        "  open(sys.argv[1], 'w'))\n"
    )
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        with open(folder / "kept", "w") as kept:
            os.set_inheritable(kept.fileno(), True)  # as whoever started us may have left it
            make_descriptors_private()
            words = [sys.executable, "-S", "-c", script, f"{folder}/out"]
            assert AlertCommand(words, os.environ).run(b"", for_ever) == ("", "")
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    found = json.loads((folder / "out").read_text())
    assert found["outputs"] == ["/dev/null"] * 2 and not found["ours"]
    assert found["group"] and found["blocked"] == 0


@pytest.mark.parametrize(
    "words, why",
    [
        (["sh", "-c", "exit 7"], ("failed", "sh ended with status 7")),
        (["sh", "-c", "kill -9 $$"], ("failed", "sh ended by signal 9")),
        (["/none/such"], ("failed", "/none/such cannot be run: No such file or directory")),
    ],
)
def test_a_command_that_fails_says_how(words: list[str], why: tuple[str, str]) -> None:
    assert AlertCommand(words, os.environ).run(b"", for_ever) == why


def test_a_command_that_reads_nothing_is_no_failure() -> None:
    assert AlertCommand(["true"], os.environ).run(b"x" * 4096, for_ever) == ("", "")


@pytest.mark.parametrize("trap", ["", "trap '' TERM; "])
def test_a_command_that_hangs_is_ended_with_all_it_started(
    folder: Path, trap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alertcommand, "KILL_GRACE", 0.1)
    words = ["sh", "-c", f"{trap}sleep 600 & echo $! > {folder}/child; wait; sleep 600"]
    command = AlertCommand(words, os.environ, limit=0.5)
    assert command.run(b"", for_ever) == ("timeout", "sh was ended after 0.5 seconds")
    child = int((folder / "child").read_text())
    wait_for(lambda: not running(child), "the end of the child")


def running(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# ================================================================================================
# the terminal
# ================================================================================================


def test_a_burst_of_secrets_is_a_line_and_a_count(
    new_log: Callable[..., AuditLog], stream_said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "LINE_PERIOD", 3600.0)
    log = new_log()
    news = TerminalNews(log, Diagnostics("info", stream_said))
    news.start()
    stream = log.open_stream("logs", FULL_ID, CLIENT, False, True)
    stream.named(FULL_ID, "web")
    find(stream, b"mail", EMAIL)
    find(stream, b"first")
    wait_for(lambda: len(stream_said) == 1, "the first line")
    for number in range(5):
        find(stream, b"%d" % (number % 4))
    assert len(stream_said) == 1
    news.stop(time.monotonic() + 20)
    assert len(stream_said) == 2 and not news._thread.is_alive()
    assert stream_said[0].startswith("dockeraudit: info: new HIGH secret AWS Access Key ke***t; in")
    assert stream_said[1].endswith(" (and 3 others)\n")


# ================================================================================================
# the process
# ================================================================================================

GET_LOGS = b"GET /containers/web/logs?stdout=1 HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"


@pytest.fixture
def engine(folder: Path) -> Iterator[ScriptedEngine]:
    with ScriptedEngine(str(folder / "engine.sock")) as engine:
        engine.routes["/containers/web/logs"] = logs_answer(
            stdcopy_frame(1, b"key " + aws_key(0) + b"\n"),
            stdcopy_frame(1, b"key " + aws_key(0) + b" " + aws_key(1) + b"\n"),
        )
        yield engine


def test_serve_runs_the_command_for_each_new_secret_and_knows_them_after_a_restart(
    engine: ScriptedEngine, folder: Path, start_proxy: Callable[..., ProxyProcess]
) -> None:
    given = folder / "given"
    options = ("--on-finding", f"sh -c 'cat >> {given}; echo to nobody >&2'")
    proxy = start_proxy(engine.path, *options)
    ask(proxy.socket, GET_LOGS)
    ask(proxy.socket, GET_LOGS)
    wait_for(lambda: given.exists() and given.read_bytes().count(b"\n") == 2, "two alerts")
    assert proxy.stop() == 0
    found = [json.loads(line) for line in given.read_text().splitlines()]
    assert [alert["rule"] for alert in found] == ["aws-access-key"] * 2
    assert {alert["container_id"] for alert in found} == {CONTAINER_ID}
    assert aws_key(0).decode() not in given.read_text()
    proxy = start_proxy(engine.path, *options)
    ask(proxy.socket, GET_LOGS)
    assert proxy.stop() == 0
    assert given.read_bytes().count(b"\n") == 2
    assert proxy.records("alert_gap") == [] and b"to nobody" not in proxy.errors.read_bytes()


def test_a_hanging_command_delays_no_stream_and_ends_with_the_proxy(
    engine: ScriptedEngine, folder: Path, start_proxy: Callable[..., ProxyProcess]
) -> None:
    script = f"echo $$ >> {folder}/pids; sleep 600"
    proxy = start_proxy(
        engine.path, "--on-finding", f'sh -c "{script}"', "--shutdown-timeout", "0.5"
    )
    ask(proxy.socket, GET_LOGS)
    wait_for(lambda: (folder / "pids").exists(), "the command")
    for _ in range(20):
        assert aws_key(0) in ask(proxy.socket, GET_LOGS).body
    proxy.wait_records("stream_close", 21)
    assert proxy.stop() == 0
    pids = (folder / "pids").read_text().split()
    assert len(pids) == 1  # one process at a time
    wait_for(lambda: not running(int(pids[0])), "the end of the command")
    gap = proxy.records("alert_gap")
    assert {record["reason"] for record in gap} == {"stop"}
    assert sum(record["severities"]["HIGH"] for record in gap) == 2


def test_a_second_signal_ends_the_command_too(
    engine: ScriptedEngine, folder: Path, start_proxy: Callable[..., ProxyProcess]
) -> None:
    script = f"echo $$ > {folder}/part; mv {folder}/part {folder}/pid; sleep 600"
    proxy = start_proxy(engine.path, "--on-finding", f'sh -c "{script}"')
    ask(proxy.socket, GET_LOGS)
    wait_for(lambda: (folder / "pid").exists(), "the command")
    proxy.process.send_signal(signal.SIGTERM)
    wait_for(lambda: not os.path.exists(proxy.socket), "the stop")
    proxy.process.send_signal(signal.SIGTERM)
    assert proxy.process.wait(20) == 128 + signal.SIGTERM
    wait_for(lambda: not running(int((folder / "pid").read_text())), "the end of the command")


def test_a_command_that_is_no_program_is_refused_at_start(folder: Path) -> None:
    wrong = ("--on-finding", "no-such-program --now")
    done = run_program(*wrong, text=True, cwd=folder, env=plain_environment())
    assert done.returncode == 78 and done.stderr.count("\n") == 1
    assert "--on-finding: 'no-such-program' is not a program that can be run" in done.stderr
    assert os.listdir(folder) == []


def on_terminal(folder: Path, engine: ScriptedEngine, *options: str) -> str:
    """What serve says on a terminal of its own, about one request."""
    terminal, stderr = pty.openpty()
    command = ["--listen", f"unix://{folder}/p.sock", *options, "--upstream", engine.path]
    with open(os.devnull, "r+b") as null:
        process = ForkedProgram(
            *command,
            *("--audit-log", folder / "tty.log"),
            stdin=null.fileno(),
            stdout=null.fileno(),
            stderr=stderr,
            env=plain_environment(),
        )
    try:
        os.close(stderr)
        wait_for(lambda: (folder / "p.sock").exists(), "the listener")
        ask(str(folder / "p.sock"), GET_LOGS)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        said = b""
        try:
            while True:
                said += os.read(terminal, 65536)
        except OSError:
            pass  # the other side is closed
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
    return said.decode()


def test_serve_on_a_terminal_says_each_new_high_secret(
    engine: ScriptedEngine, folder: Path
) -> None:
    said = on_terminal(folder, engine)
    lines = [line for line in said.splitlines() if "new HIGH secret" in line]
    others = sum(map(int, re.findall(r"\(and (\d+) other\)", said)))
    assert len(lines) + others == 2 and "in web (stdout, line 1)" in lines[0]
    assert aws_key(0).decode() not in said
    assert "new HIGH" not in on_terminal(folder, engine, "--log-level", "warning")


def test_serve_elsewhere_says_no_secret(
    engine: ScriptedEngine, start_proxy: Callable[..., ProxyProcess]
) -> None:
    proxy = start_proxy(engine.path)
    ask(proxy.socket, GET_LOGS)
    proxy.wait_records("finding", 2)
    proxy.stop()
    assert "new HIGH" not in proxy.errors.read_text()


# ================================================================================================
# the scripts of deploy/
# ================================================================================================

ALERT = {"event": "alert", "text": "HIGH secret X AK***TR in <!channel> & more", "severity": "HIGH"}


@pytest.mark.parametrize(
    "script, program, sent",
    [
        ("alert-mail", "mail", ALERT["text"] + "\n"),
        ("alert-ntfy", "curl", ALERT["text"] + "\n"),
        ("alert-slack", "curl", '{"text": "HIGH secret X AK***TR in &lt;!channel&gt; &amp; more"}'),
    ],
)
def test_a_script_of_deploy_sends_the_text_and_passes_failure_on(
    script: str, program: str, sent: str, folder: Path
) -> None:
    fake = folder / program
    fake.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {folder}/words\ncat > {folder}/sent\n')
    fake.chmod(0o755)
    environ = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    command = AlertCommand([str(ROOT / "deploy" / script), "somebody"], environ)
    assert command.run(json.dumps(ALERT).encode() + b"\n", for_ever) == ("", "")
    assert (folder / "sent").read_text() == sent
    assert "somebody" in (folder / "words").read_text().splitlines()
    fake.write_text("#!/bin/sh\nexit 22\n")
    assert command.run(json.dumps(ALERT).encode() + b"\n", for_ever)[0] == "failed"
