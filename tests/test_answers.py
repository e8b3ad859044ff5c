"""Tests of answertext.py, answerrecords.py and answers.py: what answers and bodies hold."""

from __future__ import annotations

import base64
import http.client
import json
import os
import random
import socket
import threading
import time
import types
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from auditlogs import CLIENT, FULL_ID, KEY, Clock, matches_told, problems, records, written
from scripted import ScriptedEngine, chunk, json_answer

from _dockeraudit import answerrecords, answers, scanning, streamrecords
from _dockeraudit.answers import AnswerAudit, KnownNames, QuietJobs, SeenAnswers
from _dockeraudit.answertext import (
    LONGEST_DATA,
    LONGEST_MESSAGE,
    BuildText,
    DataText,
    JsonText,
    environment_in,
    query_text,
    subject_of,
)
from _dockeraudit.records import Fingerprinter
from _dockeraudit.routes import classify
from _dockeraudit.rules import Match
from _dockeraudit.scanner import Scanner
from _dockeraudit.scanning import ScanBudget
from _dockeraudit.secretsmemory import SecretsMemory
from conftest import DEADLINE, splits, wait_for
from patterns import RULES

FINGERPRINT = Fingerprinter(KEY).of
SECRET = "Zq7x" + "W9mK4pLr2Vt8"  # made here, so that no file holds a password
AWS_KEY = "AKIA" + "QWERTYUIOP234567"
INSPECT = {
    "Id": FULL_ID,
    "Name": "/web",
    "Config": {"Env": [f"DB_PASSWORD={SECRET}", "PATH=/bin"], "Labels": {"key": AWS_KEY}},
}


# =================================================================================================
# which answers
# =================================================================================================

WORDS = [
    ("GET", "/containers/json?all=1", "list", None, ""),
    ("GET", "/services", "list", None, ""),
    ("GET", "/tasks", "list", None, ""),
    ("GET", "/volumes", "list", None, ""),
    ("GET", "/volumes/json", "list", None, ""),
    ("GET", "/configs", "list", "config", ""),
    ("GET", "/images/json", "list", None, ""),
    ("GET", "/system/df", "list", None, ""),
    ("GET", "/events", "events", None, ""),
    ("GET", "/containers/web/top", "top", "container", "web"),
    ("GET", "/images/a/b:1/history", "history", "image", "a/b:1"),
    ("GET", "/containers/web/json", "inspect", "container", "web"),
    ("GET", "/containers/a/b/json", "inspect", "container", "a/b"),
    ("GET", "/exec/e/json", "inspect", "exec", "e"),
    ("GET", "/images/a/b:1/json", "inspect", "image", "a/b:1"),
    ("GET", "/services/s", "inspect", "service", "s"),
    ("GET", "/tasks/t", "inspect", "task", "t"),
    ("GET", "/configs/c", "inspect", "config", "c"),
    ("GET", "/volumes/v", "inspect", "volume", "v"),
    ("POST", "/build?t=x", "build", None, ""),
    ("POST", "/containers/create", "create", "container", ""),
    ("POST", "/containers/create?name=web", "create", "container", "web"),
    ("POST", "/containers/web/exec", "create", "container", "web"),
    ("POST", "/services/create", "create", "service", ""),
    ("POST", "/configs/create", "create", "config", ""),
    ("POST", "/secrets/create", "create", "secret", ""),
    ("POST", "/volumes/create", "create", "volume", ""),
    ("POST", "/containers/web/update", "update", "container", "web"),
    ("POST", "/services/s/update", "update", "service", "s"),
    ("POST", "/configs/c/update", "update", "config", "c"),
    ("PUT", "/volumes/v", "update", "volume", "v"),
    ("GET", "/info", "", None, ""),
    ("GET", "/containers/web/stats", "", None, ""),
    ("POST", "/containers/web/start", "", None, ""),
    ("POST", "/containers/json", "", None, ""),
    ("HEAD", "/containers/json", "", None, ""),
    ("DELETE", "/volumes/v", "", None, ""),
]


@pytest.mark.parametrize("method, target, word, kind, name", WORDS)
@pytest.mark.parametrize("prefix", ["", "/v1.51", "/libpod", "/v4.0.0/libpod"])
def test_an_answer_has_its_word_in_any_version(prefix, method, target, word, kind, name):
    route = classify(method.encode(), (prefix + target).encode())
    assert (route.answer, route.kind, route.name) == (word, kind, name)
    assert route.endpoint == "other" and not route.audited


def test_a_log_is_a_stream_and_no_answer():
    for path in (b"/services/s/logs", b"/tasks/t/logs", b"/containers/c/logs"):
        assert classify(b"GET", path).answer == ""


def test_only_a_builds_query_is_kept_while_it_runs():
    assert classify(b"POST", b"/build?buildargs=x").brief().query == "buildargs=x"
    assert classify(b"GET", b"/containers/json?filters=x").brief().query == ""


# =================================================================================================
# payload to text
# =================================================================================================


def read(decoder: Any, *blocks: bytes) -> dict[str, bytes]:
    """All texts of a payload, by name."""
    texts: dict[str, bytes] = {}
    pieces = [piece for block in blocks for piece in decoder.feed(block)]
    for name, data in [*pieces, *decoder.end()]:
        texts[name] = texts.get(name, b"") + data
    return texts


def test_escapes_of_json_are_undone_wherever_it_is_cut():
    value = ['a"b\\c/d\n\t\b\f\r', "\\n \\\\u0026", "&<>\u2028é", "\\", "x\\"]
    written = json.dumps(value).replace("&", "\\u0026").replace("/", "\\/").encode()
    assert b"\\u0026" in written
    expected = b'["a"b\\c/d\n\t\b\f\r", "\\n \\\\u0026", "&<>\xe2\x80\xa8\xc3\xa9", "\\", "x\\"]'
    for blocks in splits(written):
        assert read(JsonText("answer"), *blocks) == {"answer": expected}


def test_what_is_no_json_is_read_as_it_is():
    for raw in (b"", b"plain", b"\\u12", b"\\", b'"\\uzzzz"', b"\\\\\\"):
        texts = read(JsonText("body"), raw)
        assert b"".join(texts.values()).replace(b"\\", b"") == raw.replace(b"\\", b"")


@pytest.mark.parametrize("name", ["Data", "data", "DATA"])
def test_data_of_configs_is_decoded_wherever_it_is_cut(name):
    data = f"user=x\npassword={SECRET}\n".encode()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        spec = {"Spec": {"Name": "c", name: encode(data).decode()}, "more": 1}
        for raw_json in (json.dumps(spec).encode(), json.dumps(spec).replace("/", "\\/").encode()):
            for blocks in splits(raw_json):
                text = read(DataText("answer"), *blocks)["answer"]
                assert b"\n" + data + b"\n" in text and text.endswith(b'"more": 1}')


def test_data_that_is_no_base64_or_endless_is_read_as_it_is():
    for data in (b"*****", b"abcde", b"x" * (LONGEST_DATA + 9)):
        text = read(DataText("body"), b'{"Data":"' + data[:9], data[9:], b'"}')["body"]
        assert data in text


def test_a_builds_output_is_joined_to_lines_wherever_it_is_cut():
    said = [
        {"stream": "Step 1/2 : RUN echo\n"},
        {"stream": "pass"},
        {"stream": f"word={SECRET}\nnext"},
        {"aux": {"ID": "sha256:1"}},
        {"stream": " line\n"},
        {"status": "Pulling", "id": "x&y"},
        {"error": "it\nfailed"},
    ]
    written = b"".join(json.dumps(message).encode() + b"\r\n" for message in said)
    written = written.replace(b"&", b"\\u0026")
    output = f"Step 1/2 : RUN echo\npassword={SECRET}\nnext line\n".encode()
    for blocks in splits(written):
        texts = read(BuildText("answer"), *blocks)
        assert texts["answer"] == output
        assert (
            b'"id": "x&y"' in texts["answer messages"] and b"it\nfailed" in texts["answer messages"]
        )


def test_a_builds_line_without_end_is_bounded():
    decoder = BuildText("answer")
    decoder.feed(b'{"stream":"' + b"x" * LONGEST_MESSAGE)
    assert len(decoder._line) <= LONGEST_MESSAGE
    assert read(decoder, b'"}\n{"stream":"y\\n"}\n')["answer"] == b"y\n"


def test_what_looks_like_output_and_is_none_is_a_message():
    for line in (b'{"stream":1}', b'["stream"]', b'{"stream":', b"[" * 100_000 + b'"stream"'):
        assert list(read(BuildText("answer"), line)) == ["answer messages"]


def test_a_query_is_a_line_for_each_parameter():
    route = classify(b"POST", b"/build?t=a%26b&buildargs=%7B%22K%22%3A%22a+b%22%7D&q")
    assert query_text(route) == b't=a&b\nbuildargs={"K":"a b"}\nq=\n'


def test_an_answer_says_what_it_is_about():
    health = {"Health": {"Log": [{"Output": '"Name":"/no"'}]}}
    inspect = {"Id": FULL_ID, "Args": ['"Name":"/no"'], "State": health, "Name": "/web"}
    for raw_json in (json.dumps(inspect), json.dumps(inspect, separators=(",", ":"))):
        assert subject_of("container", raw_json.encode()) == (FULL_ID, "web")
    assert subject_of("exec", json.dumps({"ContainerID": FULL_ID}).encode()) == (FULL_ID, None)
    service = {"ID": "abc123", "Spec": {"Name": "web", "Labels": {"Name": "no"}}}
    assert subject_of("service", json.dumps(service).encode()) == ("abc123", "web")
    assert subject_of("task", json.dumps({"ID": "t1"}).encode()) == ("t1", None)
    assert subject_of("container", b'{"message":"No such container"}') == (None, None)
    assert subject_of(None, b'{"Id":"x"}') == (None, None)


# =================================================================================================
# answers to records
# =================================================================================================


class CountingScanner(Scanner):
    """All rules; counts the blocks that are scanned, and fails where that is asked for."""

    fails = False

    def __init__(self):
        super().__init__(RULES)
        self.blocks = 0

    def scan_lines(self, block):
        self.blocks += 1
        if self.fails:
            raise ValueError(SECRET)
        return super().scan_lines(block)


class Audited:
    """An AnswerAudit on a log whose clock stands still."""

    def __init__(self, new_log, folder, **options):
        self.monotonic = Clock()
        self.log = new_log(monotonic=self.monotonic, **options)
        self.path = folder / "audit.log"
        self.budget = ScanBudget()
        self.scanner = CountingScanner()
        self.executor = ThreadPoolExecutor(2)
        self.own = True
        secrets = SecretsMemory(lambda: self.scanner if self.own else None)
        self.audit = AnswerAudit(self.log, self.budget, self.executor, lambda name: name, secrets)
        self.audit.names._clock = self.monotonic
        self.audit.jobs.submit = lambda job: job()  # QuietJobs has tests of its own

    def ask(self, target, answer=b"", *, method="GET", body=b"", client=CLIENT, blocks=1):
        """One request and its answer, as an exchange tells them."""
        route = classify(method.encode(), target.encode()).brief()
        scan = self.audit.open(route, client, self.scanner)
        if isinstance(answer, (dict, list)):
            answer = json.dumps(answer).encode()
        if isinstance(body, dict):
            body = json.dumps(body).encode()
        if body:
            scan.sent(body)
        size = len(answer) // blocks + 1
        for at in range(0, len(answer), size):
            scan.answered(answer[at : at + size])
        scan.close("end")
        return scan

    def minute(self):
        """A minute later."""
        self.monotonic.now += 60
        self.log.tick()

    def finish(self):
        """Stop everything; the log's records."""
        self.executor.shutdown()
        self.log.close("end", 10)
        assert self.budget._left == scanning.TOTAL_SHARE
        found = records(self.path)
        assert not problems(self.path) or any(record["event"] == "gap" for record in found)
        assert matches_told(found) == sum(self.log.counters()["findings"].values())
        assert SECRET not in self.path.read_text() and AWS_KEY not in self.path.read_text()
        return found


@pytest.fixture
def audited(new_log, folder):
    made = Audited(new_log, folder)
    yield made
    made.executor.shutdown()


def of(found, event="finding"):
    return [record for record in found if record["event"] == event]


def test_a_finding_says_where_it_was_seen_and_names_no_stream(audited):
    audited.ask("/v1.51/containers/web/json", INSPECT)
    password, key = sorted(of(audited.finish()), key=lambda record: record["rule"], reverse=True)
    assert password["fingerprint"] == FINGERPRINT(SECRET.encode())
    assert key["fingerprint"] == FINGERPRINT(AWS_KEY.encode())
    for record in (password, key):
        assert record["endpoint"] == "inspect" and record["stream"] is None
        assert record["stream_type"] == "answer" and record["count"] == 1
        assert (record["container_id"], record["container_name"]) == (FULL_ID, "web")
        assert record["client"] == CLIENT and "kind" not in record
    assert list(password)[5:] == [
        "container_id", "container_name", "stream_type", "pattern", "redacted_match", "severity",
        "rule", "fingerprint", "count", "endpoint", "client", "stream", "line", "env",
    ]  # fmt: skip


def test_an_answer_that_is_polled_costs_one_record_and_a_count_a_minute(audited):
    for _ in range(60):
        audited.ask("/containers/web/json", INSPECT)
    audited.minute()
    for _ in range(30):
        audited.ask("/containers/web/json", INSPECT)
    found = [record["count"] for record in of(audited.finish()) if record["rule"] == "password"]
    assert found == [1, 59, 30]


def test_the_same_answer_is_scanned_once(audited):
    audited.own = False
    for _ in range(5):
        audited.ask("/containers/web/json", INSPECT)
    assert audited.scanner.blocks == 1
    audited.ask("/containers/web/json", {**INSPECT, "Status": "Up 2 seconds"})
    audited.ask("/containers/json", [INSPECT])
    assert audited.scanner.blocks == 3
    audited.scanner = CountingScanner()  # SIGHUP brought other rules
    audited.ask("/containers/web/json", INSPECT)
    assert audited.scanner.blocks == 1


def test_a_secret_that_stands_twice_in_an_answer_is_one_record_with_the_count(audited):
    audited.ask("/containers/web/top", {"Processes": [[f"x --password={SECRET}"]] * 3})
    audited.ask("/containers/web/top", {"Processes": [[f"x --password={SECRET}"]] * 3})
    assert [record["count"] for record in of(audited.finish())] == [3, 3]


def test_another_process_of_a_client_is_the_same_client(audited):
    other_user = {**CLIENT, "uid": 7}
    other_command = {**CLIENT, "command": "portainer"}
    for client in (CLIENT, {**CLIENT, "pid": 8}, other_user, other_command):
        audited.ask("/containers/web/json", INSPECT, client=client)
    audited.minute()
    keys = [record for record in of(audited.finish()) if record["rule"] == "password"]
    assert [record["client"] for record in keys] == [CLIENT, other_user, other_command, CLIENT]
    assert [record["count"] for record in keys] == [1, 1, 1, 1]


def test_each_endpoint_and_container_has_records_of_its_own(audited):
    other = {**INSPECT, "Id": "cd" * 32, "Name": "/db"}
    audited.ask("/containers/web/json", INSPECT)
    audited.ask("/containers/db/json", other)
    audited.ask("/containers/json", [INSPECT, other])
    found = [record for record in of(audited.finish()) if record["rule"] == "password"]
    seen = [(record["endpoint"], record["container_name"], record["count"]) for record in found]
    assert seen == [("inspect", "web", 1), ("inspect", "db", 1), ("list", None, 2)]
    assert found[2]["container_id"] is None
    assert len({record["fingerprint"] for record in found}) == 1


def test_addresses_and_placeholders_in_answers_are_not_recorded(audited):
    audited.ask("/images/x/json", {"Labels": {"maintainer": "someone@mail.example.org"}})
    audited.scanner.scan_lines = lambda block: [own_match(0, 9)._replace(placeholder=True)]
    audited.ask("/images/y/json", {"Labels": {}})
    found = audited.finish()
    assert not of(found) and not of(found, "suppressed")


def test_a_body_and_its_answer_are_scanned_with_the_answers_id(audited):
    body = {"Image": "x", "Env": [f"DB_PASSWORD={SECRET}"]}
    answer = {"Id": FULL_ID, "Warnings": [f"password={AWS_KEY}"]}
    audited.ask("/containers/create?name=web", answer, method="POST", body=body)
    first, *more = of(audited.finish())
    assert (first["stream_type"], first["endpoint"]) == ("body", "create")
    assert {record["stream_type"] for record in more} == {"answer"}
    for record in (first, *more):
        assert (record["container_id"], record["container_name"]) == (FULL_ID, "web")


def test_an_execs_body_is_its_containers_and_not_the_new_execs(audited):
    audited.ask("/containers/web/json", {"Id": FULL_ID, "Name": "/web"})
    body = {"Cmd": ["sh", "-c", f"x --password={SECRET}"]}
    for name in ("web", FULL_ID[:12]):
        audited.ask(f"/containers/{name}/exec", {"Id": "ee" * 32}, method="POST", body=body)
    audited.ask("/exec/" + "ee" * 32 + "/json", {"ContainerID": FULL_ID, **body})
    found = of(audited.finish())
    assert [record["count"] for record in found] == [1, 1, 1]
    assert {record["container_id"] for record in found} == {FULL_ID}
    assert {record["container_name"] for record in found} == {"web"}


def test_a_container_that_nobody_asked_for_of_late_is_named_as_the_client_does(audited):
    audited.ask("/containers/web/json", {"Id": FULL_ID, "Name": "/web"})
    audited.monotonic.now += answers.NAME_AGE
    audited.ask("/containers/web/top", {"Processes": [[f"x --password={SECRET}"]]})
    record = of(audited.finish())[0]
    assert (record["container_id"], record["container_name"]) == ("web", None)


def test_what_is_no_container_says_its_kind(audited):
    image = "sha256:" + "ab" * 32
    audited.ask("/images/x:1/json", {"Id": image, "Config": {"Env": [f"A_PASSWORD={SECRET}"]}})
    audited.ask("/volumes/v", {"Labels": {"password": SECRET}})
    data = base64.b64encode(f"password={SECRET}\n".encode()).decode()
    audited.ask("/configs/c", {"ID": "c1", "Spec": {"Name": "conf", "Data": data}})
    found = of(audited.finish())
    seen = [(each["kind"], each["container_id"], each["container_name"]) for each in found]
    assert seen == [("image", image, "x:1"), ("volume", "v", None), ("config", "c1", "conf")]
    assert {record["fingerprint"] for record in found} == {FINGERPRINT(SECRET.encode())}


def test_an_error_message_is_an_answer_too(audited):
    message = {"message": f'invalid: "--password={SECRET}"'}
    audited.ask("/containers/create?name=web", message, method="POST", body=b"{}")
    record = of(audited.finish())[0]
    assert record["stream_type"] == "answer" and record["container_id"] == "web"


def test_a_builds_output_and_arguments_are_found(audited):
    said = [{"stream": "pass"}, {"stream": f"word={SECRET}\n"}]
    answer = b"".join(json.dumps(message).encode() + b"\r\n" for message in said)
    target = "/build?buildargs=" + f'{{"PASSWORD":"{SECRET}"}}'.replace('"', "%22")
    audited.ask(target, answer, method="POST", blocks=7)
    found = of(audited.finish())
    assert [record["endpoint"] for record in found] == ["build", "build"]
    assert {record["stream_type"] for record in found} == {"answer", "body"}
    assert {record["fingerprint"] for record in found} == {FINGERPRINT(SECRET.encode())}


def test_events_are_scanned_as_they_come(audited):
    route = classify(b"GET", b"/events")
    scan = audited.audit.open(route, CLIENT, audited.scanner)
    event = {"Action": f"exec_create: sh -c x --password={SECRET}", "Type": "container"}
    scan.answered(json.dumps(event).encode() + b"\n")
    written(audited.log, 2)
    assert of(records(audited.path))[0]["endpoint"] == "events"
    scan.answered(json.dumps(event).encode() + b"\n")
    scan.close("client")
    assert [record["count"] for record in of(audited.finish())] == [1, 1]


def test_a_key_in_an_environment_is_the_key_of_a_log(audited):
    body = "\n".join("A" * 64 for _ in range(4))
    key = f"-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----"
    for _ in range(2):
        audited.ask("/containers/web/json", {**INSPECT, "Config": {"Env": [f"K={key}"]}})
    found = of(audited.finish())
    assert [record["count"] for record in found] == [1, 1]
    assert found[0]["fingerprint"] == FINGERPRINT(body.replace("\n", "").encode())
    assert not of(records(audited.path), "finding_update")


def test_a_key_without_end_is_counted_rather_than_written_again(audited):
    for number in range(4):
        env = [f"N={number}", "K=-----BEGIN PRIVATE KEY-----\n" + "A" * 64]
        audited.ask("/containers/web/json", {**INSPECT, "Config": {"Env": env}})
    found = of(audited.finish())
    assert [record["count"] for record in found] == [1, 3]
    assert found[0]["fingerprint"] is None and found[0]["partial"] is True


def test_five_megabytes_in_one_line_are_scanned_in_windows(audited):
    rng = random.Random(5)
    size, secrets, parts = 5 << 20, [], []
    while sum(map(len, parts)) < size:
        secret = "".join(rng.choices("bcdfghjkmnpqrstvwxyzBCDFGHJKLM23456789", k=16))
        secrets.append(secret)
        parts.append(f'{{"Env":["X_PASSWORD={secret}"],"Pad":"{"lorem " * rng.randrange(3000)}"}},')
    answer = "".join(parts).encode()
    audited.ask("/containers/json", answer, blocks=80)
    audited.ask("/containers/json", answer, blocks=3)
    audited.executor.shutdown()
    found = of(audited.finish())
    assert {FINGERPRINT(secret.encode()) for secret in secrets} == {
        record["fingerprint"] for record in found
    }
    assert sum(record["count"] for record in found) == 2 * len(secrets)


def test_an_answer_that_is_too_long_to_be_kept_is_scanned_as_it_comes(audited, monkeypatch):
    monkeypatch.setattr(answers, "MAX_KEPT", 1 << 20)
    answer = b'{"a":"' + b"lorem " * 400_000 + f'","password":"{SECRET}"}}'.encode()
    for _ in range(2):
        audited.ask("/containers/json", answer, blocks=40)
    found = of(audited.finish())
    assert sum(record["count"] for record in found) == 2
    assert not of(records(audited.path), "scan_gap")


def test_what_finds_no_room_is_counted_and_holds_nobody_up(audited):
    audited.budget.take(scanning.TOTAL_SHARE)
    answer = b'{"a":"' + b"lorem " * 400_000 + b'"}'
    busy = threading.Event()
    for _ in range(2):  # both workers have something else to do
        audited.executor.submit(busy.wait)
    for _ in range(3):
        audited.ask("/containers/json", answer, blocks=40)
    busy.set()
    audited.budget.take(-scanning.TOTAL_SHARE)
    audited.executor.shutdown()
    audited.minute()
    found = audited.finish()
    gaps = of(found, "scan_gap")
    assert len(gaps) == 1 and 0 < gaps[0]["bytes"] <= 3 * len(answer)
    assert gaps[0]["stream"] is None and gaps[0]["endpoint"] == "list"
    assert gaps[0]["client"] == CLIENT
    assert audited.log.counters()["unscanned"] == gaps[0]["bytes"]


def test_a_scan_that_raises_is_recorded_by_its_kind_alone(audited):
    audited.scanner.fails = True
    audited.ask("/containers/web/json", INSPECT)
    audited.ask("/events", json.dumps(INSPECT).encode() + b"\n")
    audited.scanner.fails = False
    audited.ask("/containers/web/json", INSPECT)
    found = audited.finish()
    errors = of(found, "scan_error")
    assert {(each["endpoint"], each["error"]) for each in errors} == {
        ("inspect", "ValueError"),
        ("events", "ValueError"),
    }
    assert {each["endpoint"] for each in of(found, "scan_gap")} == {"inspect", "events"}
    assert len(of(found)) == 2


def test_a_decoder_that_raises_does_not_reach_the_relay(audited):
    route = classify(b"GET", b"/events")
    scan = audited.audit.open(route, CLIENT, audited.scanner)
    scan._answer.decoder = types.SimpleNamespace(feed=lambda block: 1 / 0)
    for _ in range(3):
        scan.answered(b"x")
    scan.close("end")
    errors = of(audited.finish(), "scan_error")
    assert [each["error"] for each in errors] == ["ZeroDivisionError"]


def test_an_allowed_secret_is_no_match(new_log, folder):
    allow = [FINGERPRINT(AWS_KEY.encode()), "web:" + FINGERPRINT(SECRET.encode())]
    audited = Audited(new_log, folder, allow=allow)
    audited.ask("/containers/web/json", INSPECT)
    audited.ask("/containers/json", [INSPECT])
    assert [record["endpoint"] for record in of(audited.finish())] == ["list"]


def test_what_finds_no_room_in_a_budget_is_counted_as_suppressed(audited, monkeypatch):
    monkeypatch.setattr(
        "_dockeraudit.budgets.CONTAINER_BURST", dict.fromkeys(("MEDIUM", "HIGH"), 3)
    )
    for number in range(9):
        env = [f"DB_PASSWORD={SECRET}{number}"]
        audited.ask("/containers/web/json", {**INSPECT, "Config": {"Env": env}})
    audited.minute()
    found = audited.finish()
    suppressed = of(found, "suppressed")
    assert len(of(found)) == 3 and sum(suppressed[0]["counts"].values()) == 6
    assert suppressed[0]["stream"] is None and suppressed[0]["endpoint"] == "inspect"
    assert suppressed[0]["container_id"] == FULL_ID


OPAQUE = "correct horse" + " battery"  # of no shape that a rule knows
OWN = {"Id": FULL_ID, "Name": "/web", "Config": {"Env": [f"DB_PASSWORD={OPAQUE}", "PATH=/bin"]}}


def test_an_inspect_shows_the_containers_own_secrets_in_any_form(audited):
    encoded = base64.b64encode(f"user:{OPAQUE}!".encode()).decode()
    health = {"Health": {"Log": [{"Output": f"sent {encoded}\n"}]}}
    audited.ask("/containers/web/json", {**OWN, "State": health})
    found = of(audited.finish())
    own = next(record for record in found if record["rule"] == "container-env")
    assert (own["severity"], own["redacted_match"]) == ("HIGH", "***")
    assert sum(record["count"] for record in found) == 2
    for record in found:
        assert record["env"] == "DB_PASSWORD"
        assert record["fingerprint"] == FINGERPRINT(OPAQUE.encode())
    assert OPAQUE not in audited.path.read_text()


def test_what_an_inspect_has_told_is_found_in_the_containers_other_answers(audited):
    top = {"Processes": [[f"mysql {OPAQUE}"]]}
    audited.ask("/containers/web/top", top)
    audited.ask("/containers/web/json", OWN)
    audited.ask("/containers/web/top", top)
    audited.ask("/containers/web/exec", {"Id": "ee" * 32}, method="POST", body={"Cmd": [OPAQUE]})
    audited.ask("/containers/json", [{"Command": OPAQUE}])
    audited.ask("/containers/" + "cd" * 32 + "/top", top)
    found = of(audited.finish())
    assert [record["endpoint"] for record in found] == ["inspect", "top", "create"]
    assert {record["container_id"] for record in found} == {FULL_ID}


def test_an_inspect_is_scanned_once_though_it_tells_secrets(audited):
    for _ in range(3):
        audited.ask("/containers/web/json", OWN)
    assert [record["count"] for record in of(audited.finish())] == [1, 2]
    assert len(audited.audit.seen._found) == 1


SETTING = [
    ("/containers/create", {"Env": [f"DB_PASSWORD={OPAQUE}"]}),
    ("/libpod/containers/create", {"env": {"DB_PASSWORD": OPAQUE}}),
    ("/containers/web/exec", {"Env": [f"DB_PASSWORD={OPAQUE}"], "Cmd": ["true"]}),
    (
        "/services/create",
        {"TaskTemplate": {"ContainerSpec": {"Env": [f"DB_PASSWORD={OPAQUE}"]}}},
    ),
    ("/commit?container=web", {"Env": [f"DB_PASSWORD={OPAQUE}"]}),
]


@pytest.mark.parametrize("target, body", SETTING)
def test_a_secret_of_no_known_shape_is_found_where_it_is_set(audited, target, body):
    audited.ask(target, {"Id": "ee" * 32}, method="POST", body=body)
    record = of(audited.finish())[0]
    assert (record["env"], record["stream_type"]) == ("DB_PASSWORD", "body")
    assert record["fingerprint"] == FINGERPRINT(OPAQUE.encode())


def test_an_exec_is_searched_for_its_own_secrets_and_its_containers(audited):
    audited.ask("/containers/web/json", OWN)
    body = {"Env": ["API_PASSWORD=" + OPAQUE[::-1]], "Cmd": [OPAQUE]}
    audited.ask("/containers/web/exec", {}, method="POST", body=body)
    found = [record["env"] for record in of(audited.finish()) if record["endpoint"] == "create"]
    assert sorted(found) == ["API_PASSWORD", "DB_PASSWORD"]


@pytest.mark.parametrize("kind", ["image", "service", "task"])
def test_what_runs_in_containers_shows_its_secrets_too(audited, kind):
    spec = {"ContainerSpec": {"Env": [f"DB_PASSWORD={OPAQUE}"]}}
    answer = {
        "image": {"Id": FULL_ID, "Config": spec["ContainerSpec"]},
        "service": {"ID": "s1", "Spec": {"Name": "web", "TaskTemplate": spec}},
        "task": {"ID": "t1", "Spec": spec},
    }[kind]
    target = {"image": "/images/x/json", "service": "/services/s1", "task": "/tasks/t1"}[kind]
    audited.ask(target, answer)
    record = of(audited.finish())[0]
    assert (record["kind"], record["env"]) == (kind, "DB_PASSWORD")


def test_own_secrets_can_be_left_alone(audited):
    audited.own = False
    audited.ask("/containers/web/json", OWN)
    audited.ask("/containers/create", {}, method="POST", body={"Env": [f"A_PASSWORD={OPAQUE}"]})
    assert not [record for record in of(audited.finish()) if "env" in record]


def test_an_environment_that_is_none_is_read_as_it_is():
    route = classify(b"GET", b"/containers/web/json")
    for payload in (
        b"",
        b"[1]",
        b'{"Config":[]}',
        b'{"Config":{"Env":"x"}}',
        b"env{",
        b"[" * 99999,
    ):
        assert environment_in(route, payload + b" env") == []
    assert environment_in(route, b'{"Config":{"Env":["A=1",2]}}') == ["A=1"]


def test_a_job_waits_for_a_quiet_moment(monkeypatch):
    monkeypatch.setattr(answers, "LONGEST_WAIT", 1000.0)
    monkeypatch.setattr(answers, "QUIET_TIME", 1000.0)
    jobs, done = QuietJobs(), []
    jobs.asked = time.monotonic()
    for number in range(3):
        jobs.submit(lambda number=number: done.append(number))
    assert not done
    jobs.stop(time.monotonic() + DEADLINE)
    assert done == [0, 1, 2] and not jobs._thread.is_alive()
    jobs.submit(lambda: done.append(3))
    assert done == [0, 1, 2, 3]


@pytest.mark.parametrize("limit", ["LONGEST_WAIT", "QUIET_TIME"])
def test_a_job_is_done_when_it_is_quiet_and_in_time_if_it_never_is(monkeypatch, limit):
    monkeypatch.setattr(answers, "LONGEST_WAIT", 1000.0)
    monkeypatch.setattr(answers, "QUIET_TIME", 1000.0)
    monkeypatch.setattr(answers, limit, 0.0)
    jobs, done = QuietJobs(), threading.Event()
    jobs.asked = time.monotonic()
    jobs.submit(done.set)
    assert done.wait(DEADLINE)
    jobs.stop(time.monotonic() + DEADLINE)
    assert not jobs._thread.is_alive()


def test_where_no_thread_can_start_a_job_is_done_at_once(monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    done = []
    QuietJobs().submit(lambda: done.append(1))
    assert done == [1]


def test_a_known_answer_is_counted_at_once_and_a_new_one_left_for_later(audited):
    later = []
    audited.audit.jobs.submit = later.append
    for _ in range(2):
        audited.ask("/containers/web/json", INSPECT)
    assert len(later) == 2 and audited.budget._left == scanning.TOTAL_SHARE
    for job in later:
        job()
    audited.ask("/containers/web/json", INSPECT)
    assert len(later) == 2
    counts = [each["count"] for each in of(audited.finish()) if each["rule"] == "password"]
    assert counts == [1, 2]


def own_match(start, end):
    """A match of a HIGH rule whose secret is all of it."""
    rule = next(rule for rule in RULES if rule.severity == "HIGH" and not rule.multiline)
    return Match(rule, start, end, start, end)


# =================================================================================================
# bounded memory
# =================================================================================================


def sighting(**changes):
    rule = types.SimpleNamespace(id="r", name="R", severity="HIGH")
    fields = {
        "rule": rule,
        "stream_type": "answer",
        "redacted": "***",
        "fingerprint": "f",
        "line": 1,
    }
    return answerrecords.Sighting(**{**fields, **changes})


def test_answers_that_were_seen_are_remembered_within_bounds():
    seen = SeenAnswers(10)
    for number in range(9):
        seen.put(bytes([number]), ())
    assert seen.get(b"\0") == ()
    seen.put(b"two", (sighting(),))
    assert seen.get(b"\1") is None and seen.get(b"\0") == ()
    assert seen.get(b"two") == (sighting(),)
    seen.put(b"many", (sighting(),) * 5)
    assert seen.get(b"many") is None and seen._size <= 10


def test_names_are_remembered_within_bounds_and_for_a_while(monkeypatch):
    monkeypatch.setattr(answers, "NAMES_KEPT", 2)
    clock = Clock()
    names = KnownNames(clock)
    for number in range(4):
        names.note(str(number) * 64, f"name{number}")
    assert names.find("name3") == names.find("3" * 12) == ("3" * 64, "name3")
    assert names.find("name0") == (None, None) and len(names._known) <= 6
    clock.now += answers.NAME_AGE
    assert names.find("name3") == (None, None)


def test_places_beyond_the_limit_write_what_they_have_counted(audited, monkeypatch):
    monkeypatch.setattr(answerrecords, "PLACES_KEPT", 2)
    for number in range(4):
        inspect = {**INSPECT, "Id": f"{number:064x}", "Config": {"Env": [f"A_PASSWORD={SECRET}"]}}
        for _ in range(3):
            audited.ask("/containers/x/json", inspect)
    found = of(audited.finish())
    assert sorted(record["count"] for record in found) == [1, 1, 1, 1, 2, 2, 2, 2]


def test_findings_beyond_the_limit_of_all_are_suppressed_with_what_was_counted(
    audited, monkeypatch
):
    monkeypatch.setattr(streamrecords, "KNOWN_FINDINGS", 2)
    for number in range(4):
        inspect = {**INSPECT, "Config": {"Env": [f"A_PASSWORD={SECRET}{number}"]}}
        for _ in range(3):
            audited.ask("/containers/x/json", inspect)
    found = audited.finish()
    assert len([each for each in of(found) if each["count"] == 1]) == 4
    assert sum(sum(each["counts"].values()) for each in of(found, "suppressed")) == 4


# =================================================================================================
# through the proxy
# =================================================================================================


def raw(proxy, request):
    """All bytes that come back for a request, up to the connection's end."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(proxy.socket)
    with sock:
        sock.sendall(request)
        blocks = []
        while True:
            block = sock.recv(65536)
            if not block:
                return b"".join(blocks)
            blocks.append(block)


def get(target, extra=""):
    return f"GET {target} HTTP/1.1\r\nHost: docker\r\n{extra}Connection: close\r\n\r\n".encode()


@pytest.fixture
def engine(folder):
    with ScriptedEngine(str(folder / "engine.sock")) as engine:
        engine.routes["/containers/web/json"] = json_answer(INSPECT)
        yield engine


def findings(proxy, count):
    return proxy.wait_records("finding", count)


def test_answers_pass_byte_for_byte_and_are_looked_at_behind(engine, start_proxy):
    payload = json.dumps(INSPECT).encode()
    answer = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"".join(chunk(payload[at : at + 7]) for at in range(0, len(payload), 7))
        + b"0\r\nX-Trailer: x\r\n\r\n"
    )
    engine.routes["/containers/web/json"] = lambda sock, head: sock.sendall(answer)
    proxy = start_proxy(engine.path)
    got = raw(proxy, get("/containers/web/json"))
    assert got.partition(b"\r\n\r\n")[2] == answer.partition(b"\r\n\r\n")[2]
    assert {record["endpoint"] for record in findings(proxy, 2)} == {"inspect"}
    assert len(engine.requests) <= 2  # ours, and the question at the start


def test_a_body_reaches_the_engine_whole_and_is_found(engine, start_proxy):
    engine.routes["/containers/create"] = json_answer({"Id": FULL_ID}, b"201 Created")
    proxy = start_proxy(engine.path)
    body = json.dumps({"Env": [f"DB_PASSWORD={SECRET}"]}).encode()
    connection = http.client.HTTPConnection("docker")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(proxy.socket)
    connection.request("POST", "/containers/create?name=web", body)
    assert connection.getresponse().read() == json.dumps({"Id": FULL_ID}).encode()
    connection.close()
    record = findings(proxy, 1)[0]
    assert (record["stream_type"], record["container_id"]) == ("body", FULL_ID)
    assert body in [received for _, received in engine.requests]


def test_answers_can_be_left_alone(engine, start_proxy):
    proxy = start_proxy(engine.path, "--answers", "off")
    raw(proxy, get("/containers/web/json"))
    assert proxy.stop() == 0
    assert not proxy.records("finding")


def test_head_and_compressed_answers_are_left_aside(engine, start_proxy):
    payload = json.dumps(INSPECT).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    answer = head % len(payload) + payload
    engine.routes["/images/x/json"] = lambda sock, request: sock.sendall(answer)
    proxy = start_proxy(engine.path)
    raw(proxy, get("/images/x/json"))
    raw(proxy, get("/containers/web/json").replace(b"GET", b"HEAD"))
    assert proxy.stop() == 0
    assert not proxy.records("finding") and not proxy.records("scan_error")


def test_with_deny_answers_pass_while_the_log_fails(engine, start_proxy):
    proxy = start_proxy(engine.path, "--on-audit-failure", "deny")
    os.unlink(proxy.log)
    proxy.log.mkdir()  # where the log was
    log_path = "/containers/web/logs?stdout=1"
    wait_for(lambda: raw(proxy, get(log_path)).startswith(b"HTTP/1.1 503 "), "the refusal")
    assert raw(proxy, get("/containers/web/json")).startswith(b"HTTP/1.1 200 ")
    proxy.log.rmdir()
    wait_for(lambda: not raw(proxy, get(log_path)).startswith(b"HTTP/1.1 503 "), "the recovery")


def test_a_stop_writes_what_was_counted(engine, start_proxy):
    proxy = start_proxy(engine.path)
    for _ in range(5):
        raw(proxy, get("/containers/web/json"))
    assert proxy.stop() == 0
    counts = [each["count"] for each in proxy.records("finding") if each["rule"] == "password"]
    assert counts == [1, 4]


def test_pipelined_requests_are_each_looked_at(engine, start_proxy):
    proxy = start_proxy(engine.path)
    one = get("/containers/web/json").replace(b"Connection: close\r\n", b"")
    raw(proxy, one + one + get("/containers/web/json"))
    assert proxy.stop() == 0
    found = proxy.records("finding")
    assert sum(each["count"] for each in found if each["rule"] == "password") == 3
    wait_for(lambda: proxy.process.poll() is not None, "its end")
