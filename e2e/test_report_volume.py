"""A gigabyte of records through `report`: constant memory, and its speed beside json.loads."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import pytest

from _dockeraudit.records import Record, encode_record
from conftest import PROGRAM

pytestmark = pytest.mark.full

GIGABYTE = 1_000_000_000
BLOCK_RECORDS = 30_000
PLAIN = "import sys, json\nfor line in sys.stdin.buffer: json.loads(line)"
USUAL_RATIO = 0.5  # 104 MB/s where a plain json.loads reads 147


def block_of_records():
    """Some megabytes as a busy host writes them.

    2,000 secrets in 200 containers, read by short-lived clients.
    """
    rng = random.Random(7)
    lines = []
    for seq in range(1, BLOCK_RECORDS + 1):
        secret = rng.randrange(2000)
        container = (secret * 7 + rng.randrange(3)) % 200
        client = {
            "listener": "unix:///run/dockeraudit/docker.sock",
            "uid": 1000 + container % 7,
            "gid": 1000,
            "pid": rng.randrange(1, 30000),
            "command": "docker",
        }
        place = {"container_id": f"{container:064x}", "container_name": f"shop-web-{container}"}
        stream = {
            "stream": seq // 20 + 1,
            "endpoint": "logs",
            **place,
            "client": client,
            "follow": True,
            "audited": True,
        }
        what = {
            "stream_type": "stdout",
            "pattern": "AWS Access Key",
            "redacted_match": "AK***LE",
            "severity": ("HIGH", "MEDIUM", "LOW")[secret % 3],
            "rule": "aws-access-key",
        }
        found = {
            **place,
            **what,
            "fingerprint": f"0000{secret:012x}",
            "count": rng.randrange(1, 50),
            "endpoint": "logs",
            "client": client,
            "stream": seq // 20 + 1,
            "line": seq,
        }
        close = {
            "framing": "multiplexed",
            "bytes": 12345,
            "frames": 100,
            "lines": 100,
            "findings": 18,
            "unscanned": 0,
            "reason": "client",
            "seconds": 1.5,
        }
        event, fields = {0: ("stream_open", stream), 19: ("stream_close", {**stream, **close})}.get(
            seq % 20, ("finding", found)
        )
        lines.append(
            encode_record(
                Record(1767300000.0 + seq / 2, event, fields), "0badcafe", seq, "0123456789abcdef"
            )
        )
    return b"".join(lines)


def distinct_blocks(block):
    """The block with other secrets each time, and with as many as it has findings."""
    parts = block.split(b'"fingerprint": "0000')
    for number in range(1_000_000):
        distinct = parts[0] + b"".join(
            b'"fingerprint": "%04x%06x' % (number % 65536, index) + part[6:]
            for index, part in enumerate(parts[1:])
        )
        yield of_run(distinct, number)


def of_run(block, number):
    """The block as another run wrote it, since a record is counted once."""
    return block.replace(b'"run": "0badcafe"', b'"run": "%08x"' % number)


def consume(command, blocks, size):
    """Feed a process: seconds, bytes fed, and its peak memory in MB."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    fed = 0
    for block in blocks:
        if fed >= size:
            break
        process.stdin.write(block)
        fed += len(block)
    process.stdin.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    assert status == 0
    return usage.ru_utime + usage.ru_stime, fed, usage.ru_maxrss / 1024


def repeated(block):
    """The block as one run after the other wrote it."""
    for number in range(1_000_000):
        yield of_run(block, number)


@pytest.mark.parametrize("kind, least", [("usual", USUAL_RATIO), ("distinct", 0.4)])
@pytest.mark.timeout(900)
def test_a_gigabyte_in_constant_memory(kind, least):
    """CPU time of both, since other work on the machine and the feeding are nobody's speed."""
    block = block_of_records()
    blocks = {"usual": repeated, "distinct": distinct_blocks}[kind]
    report = [sys.executable, PROGRAM, "report", "--json", "-"]
    plain, fed, _ = consume([sys.executable, "-c", PLAIN], blocks(block), GIGABYTE // 5)
    plain_speed = fed / plain / 1e6
    _, _, early = consume(report, blocks(block), GIGABYTE // 4)
    spent, fed, peak = consume(report, blocks(block), GIGABYTE)
    speed = fed / spent / 1e6
    print(
        f"{kind}: report {speed:.0f} MB/s, plain json.loads {plain_speed:.0f} MB/s, "
        f"ratio {speed / plain_speed:.2f}; "
        f"peak {peak:.0f} MB after 1 GB, {early:.0f} MB after a quarter"
    )
    assert speed / plain_speed >= least
    assert peak < early * 1.25 + 10
