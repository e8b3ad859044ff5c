"""An audit log alone, for the fault tests: accepts records until SIGTERM, then says how many.

    python3 e2e/audit_writer.py LOG [--rate N] [--threads N] [--size N] [--fsync MODE]
        [--state FILE] [--close SECONDS]

SIGHUP reopens the log. The state file holds two 64-bit numbers, which outlive a SIGKILL: accepted
and written records. At the end it prints one line of JSON and exits with the log's own status.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import signal
import struct
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from _dockeraudit.auditlog import AuditLog
from _dockeraudit.errors import AuditLogError

SLICE = 0.002  # seconds between two bursts
STATE = struct.Struct("<QQ")


def main() -> int:
    """Open, feed, close."""
    parser = argparse.ArgumentParser()
    parser.add_argument("log")
    parser.add_argument(
        "--rate", type=int, default=1000, help="records a second and thread; 0: as fast as it goes"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", type=int, default=200, help="bytes of text in a record")
    parser.add_argument("--fsync", default="interval")
    parser.add_argument("--state")
    parser.add_argument("--close", type=float, default=10.0)
    options = parser.parse_args()
    signals = {signal.SIGTERM, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        log = AuditLog(
            options.log,
            bytes(32),
            fsync=options.fsync,
            diagnose=lambda level, text: (
                sys.stderr.write(f"{level}: {text}\n") and sys.stderr.flush()
            ),
        )
        log.open(pid=os.getpid())
    except AuditLogError as error:
        sys.stderr.write(f"{error}\n")
        return error.status
    accepted = feed(log, options, signals)
    status = log.close("SIGTERM", options.close)
    sys.stdout.write(json.dumps({"accepted": accepted, **log.counters(), "findings": None}) + "\n")
    sys.stdout.flush()
    return status


def feed(log: AuditLog, options: argparse.Namespace, signals: set[signal.Signals]) -> int:
    """Accept records in threads until SIGTERM; returns how many."""
    over = threading.Event()
    counts = [0] * options.threads
    state = mmap.mmap(os.open(options.state, os.O_RDWR), STATE.size) if options.state else None
    text = "x" * options.size

    def run(number: int) -> None:
        began = time.monotonic()
        while not over.is_set():
            due = options.rate * (time.monotonic() - began) if options.rate else counts[number] + 20
            while counts[number] < due:
                log.accept("request", {"thread": number, "number": counts[number], "path": text})
                counts[number] += 1
            if state:
                STATE.pack_into(state, 0, sum(counts), log.totals["written"])
            if options.rate:
                time.sleep(SLICE)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(options.threads)]
    for thread in threads:
        thread.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while signal.sigwait(signals) == signal.SIGHUP:
        log.reopen()
    over.set()
    for thread in threads:
        thread.join()
    return sum(counts)


if __name__ == "__main__":
    os._exit(main())
