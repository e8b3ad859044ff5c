"""How well and how fast secrets are found: `make bench-detect VECTORS=DIR`.

DIR holds other scanners' test vectors with their scorer (vectors.jsonl.gz, score.py, adapter.py),
lines as containers print them (containers.jsonl.gz) and real logs (logs.tar.gz). Prints one table:
each goal, what was measured, and peers beside it where they are installed. Speeds are medians of
REPEATS runs in CPU time. Exits with 2 if something is missing or cannot run, with 1 if a goal is
missed.
"""

from __future__ import annotations

import base64
import bisect
import gzip
import json
import os
import random
import re
import shutil
import statistics
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from _dockeraudit import streams, textscanner
from _dockeraudit.rules import Rule, shape_sample, token
from _dockeraudit.scanner import Scanner
from patterns import ORIGINAL_RULES, RULES

FILES = (
    "vectors.jsonl.gz", "score.py", "adapter.py", "core.txt", "containers.jsonl.gz", "logs.tar.gz"
)  # fmt: skip
REPEATS = 5
BLOCK = 64 << 10
LINE = 190  # bytes of a line in the one-line measurement
SAMPLE = 400_000  # bytes of each real log that go into the mixed ones
LOG_LINES = 200_000  # of the generated application log
STRINGS = 500_000  # adversarial strings on which the six originals must be plain finditer
MIB = 1 << 20
PLAIN = {rule.name for rule in ORIGINAL_RULES}


class Row(NamedTuple):
    """One line of the table."""

    goal: str
    bar: str
    measured: str
    met: bool
    peers: str = ""


# ==============================================================================
# G1 to G3: other scanners' vectors
# ==============================================================================


def vectors(folder: Path) -> Iterator[Row]:
    """Recall and precision, as the folder's own scorer counts them."""
    with tempfile.TemporaryDirectory() as scratch:
        figures, providers = f"{scratch}/figures.json", f"{scratch}/providers.tsv"
        command = [
            sys.executable,
            str(folder / "score.py"),
            "--json",
            figures,
            "--providers",
            providers,
            "--",
            sys.executable,
            str(folder / "adapter.py"),
        ]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        found = json.loads(Path(figures).read_text())
        weakest = [line.split("\t") for line in Path(providers).read_text().splitlines()]
    core, others, negatives = found["core"], found["not gitleaks kin"], found["negatives"]
    yield Row(
        "G1 core providers",
        ">= 126 of 132",
        f"{core[0]} of {core[1]} with vectors here",
        core[0] >= 126,
        "betterleaks 120, gitleaks 118",
    )
    yield Row(
        "G2 recall, not gitleaks' kin",
        ">= 62 / 65 %",
        f"{others[1]:.1f} / {others[2]:.1f} %",
        others[1] >= 62 and others[2] >= 65,
        "betterleaks 53.5 / 57.0",
    )
    yield Row(
        "G3 negatives flagged",
        "<= 1 / 0.3 %",
        f"{negatives[1]:.2f} / {negatives[2]:.2f} %",
        negatives[1] <= 1 and negatives[2] <= 0.3,
        "gitleaks 0.7, betterleaks 1.3",
    )
    names = set((folder / "core.txt").read_text().split())
    core_weakest = [f"{name} {hit}/{total}" for name, hit, total in weakest if name in names][:20]
    yield Row("   weakest core providers", "", ", ".join(core_weakest), True)


# ==============================================================================
# G4: real logs, and a generated one
# ==============================================================================


# the containers' sample: what images, applications and their crashes print
#: least share found, found at MEDIUM or above, and exact of the found, in percent
CONTAINER_BARS = (95, 88, 99)
#: most shares of look-alikes: flagged by added rules, by the six alone at MEDIUM or above
LOOK_ALIKE_BARS = (1.2, 0)


def containers(folder: Path) -> Iterator[Row]:
    """Secrets and look-alikes in lines as containers print them."""
    with gzip.open(folder / "containers.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    scanner = Scanner(RULES)
    found = told = exact = added = publishable = base = 0
    secrets = [row for row in rows if "secret" in row]
    for row in secrets:
        block, secret = f"{row['text']}\n".encode(), row["secret"].encode()
        at = block.find(secret)
        span = (at, at + len(secret))
        hits = [
            match
            for match in scanner.scan(block)
            if match.secret_start < span[1] and span[0] < match.secret_end
        ]
        found += bool(hits)
        told += any(match.rule.severity != "LOW" for match in hits)
        exact += any((match.secret_start, match.secret_end) == span for match in hits)
    for row in rows:
        if "secret" not in row:
            matches = scanner.scan(f"{row['text']}\n".encode())
            ours = [match.rule for match in matches if match.rule.name not in PLAIN]
            named = all("publishable" in rule.name for rule in ours)
            added += bool(ours) and not named
            publishable += bool(ours) and named
            base += any(match.rule.severity != "LOW" for match in matches) and not ours
    shares = [100 * found / len(secrets), 100 * told / len(secrets), 100 * exact / max(1, found)]
    yield Row(
        "containers: found; at MEDIUM or above; exact",
        ">= {}; {}; {} %".format(*CONTAINER_BARS),
        "{:.1f}; {:.1f}; {:.1f} %".format(*shares),
        all(share >= bar for share, bar in zip(shares, CONTAINER_BARS)),
        "CredSweeper 58, detect-secrets 38, gitleaks 33",
    )
    others = len(rows) - len(secrets)
    alarms = 100 * added / others, 100 * base / others
    yield Row(
        "containers: alarms of added rules; of the six",
        "<= {}; {} %".format(*LOOK_ALIKE_BARS),
        f"{alarms[0]:.1f}; {alarms[1]:.1f} %, {publishable} publishable keys told as such",
        all(share <= bar for share, bar in zip(alarms, LOOK_ALIKE_BARS)),
    )


def real_logs(folder: Path) -> dict[str, bytes]:
    """The folder's logs by name."""
    with tarfile.open(folder / "logs.tar.gz") as archive:
        members = [member for member in archive if member.isfile()]
        files = [(member.name, archive.extractfile(member)) for member in members]
        return {name: file.read() for name, file in files if file}


def noise(logs: dict[str, bytes]) -> Iterator[Row]:
    """Findings in real logs, which hold hardly any secrets."""
    scanner = Scanner(RULES)
    lines = alerts = everything = 0
    for data in logs.values():
        lines += data.count(b"\n")
        found = [
            match.rule
            for match in scanner.scan_lines(data)
            if match.rule.id not in ("email-address", "json-web-token")
        ]
        everything += len(found)
        alerts += sum(rule.severity != "LOW" for rule in found)
    per = 10_000 / lines
    yield Row(
        "G4 real logs, MEDIUM and above; all",
        "<= 0.3; <= 3 per 10,000",
        f"{alerts * per:.2f}; {everything * per:.2f}",
        alerts * per <= 0.3 and everything * per <= 3,
        "gitleaks 0.39",
    )


def plants() -> list[tuple[str, str]]:
    """102 secrets as applications log them: (line, secret); the same ones each time."""
    rng = random.Random(102)
    words = ["db", "redis", "smtp", "queue", "billing", "search", "media", "ledger"]

    def made(shape: str) -> str:
        return shape_sample(shape, rng.randrange(1 << 30))

    def password() -> str:
        return made("{U1}{L5}-{a6}{d2}!")

    shapes = [
        rule
        for rule in RULES
        if rule.find == "token"
        and rule.severity == "HIGH"
        and not rule.examples[0].startswith(("1//", ":"))
    ]
    secrets = [(rule.examples[0], rng.choice(CARRIERS)) for rule in rng.sample(shapes, 40)]
    planted = [(carrier.replace("@", secret), secret) for secret, carrier in secrets]
    for number in range(8):
        word, secret = words[number], password()
        planted.append(
            (
                f'{{"level":"debug","msg":"config loaded","{word}":'
                f'{{"user":"app","password":"{secret}"}}}}',
                secret,
            )
        )
        secret = password().replace("!", "")
        planted.append((f"DEBUG env {word.upper()}_PASSWORD={secret}", secret))
        secret = made("{a40}")
        planted.append(
            (f'level=info msg="client ready" service={word} client_secret={secret}', secret)
        )
        secret = made("{a16}")
        planted.append(
            (f"ERROR could not connect to postgres://app:{secret}@{word}.internal:5432/app", secret)
        )
        secret = base64.b64encode(f"{word}:{password()}".encode()).decode()
        planted.append(
            (f"> GET /v1/{word} HTTP/1.1 | Authorization: Basic {secret} | Accept: */*", secret)
        )
    for secret in (made("{h32}"), made("{a32}"), made("{l40}"), made("{h64}")):
        planted.append((f'{{"event":"auth","api_key":"{secret}","ok":true}}', secret))
        planted.append((f'    "name": "SESSION_SECRET", "value": "{secret[::-1]}"', secret[::-1]))
    header, body = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
        for part in ({"alg": "HS256", "typ": "JWT"}, {"sub": "7", "name": "made up"})
    )
    for _ in range(6):
        secret = f"{header}.{body}.{made('{w43}')}"
        planted.append(
            (
                f"time=2026-01-02T03:04:05Z msg=request "
                f'headers="map[Authorization:[Bearer {secret}]]"',
                secret,
            )
        )
    for kind in ("", "RSA ", "EC ", "OPENSSH "):
        secret = f"-----BEGIN {kind}PRIVATE " + "KEY-----"
        planted.append(
            (
                f'{{"msg":"key","pem":"{secret}\\n{made("{a64}")}\\n-----END {kind}PRIVATE '
                + 'KEY-----\\n"}',
                secret,
            )
        )
    secret = "AK" + "IA" + made("{p16}")
    planted.append((f"AWS_ACCESS_KEY_ID={secret}", secret))
    secret = made("{b40}").replace("/", "x")
    planted.append((f"export AWS_SECRET_ACCESS_KEY={secret}", secret))
    secret = made("T{u9}/B{u9}/{a24}")
    planted.append((f"WARN webhook https://hooks.slack.com/services/{secret} answered 404", secret))
    secret = made("{a24}")
    planted.append((f"+ curl -s -u deploy:{secret} https://registry.example.org/v2/", secret))
    assert len(planted) == 102, len(planted)
    return planted


#: how tokens stand in logs
CARRIERS = (
    '{"level":"error","msg":"upstream refused","token":"@"}',
    "2026-01-02 03:04:05 INFO using @ for requests",
    "level=warn msg=retry credential=@ attempt=2",
    '10.0.0.7 - - [02/Jan/2026:03:04:05 +0000] "GET /cb?state=1&code=@ HTTP/1.1" 200 12',
    "    raise ValueError('bad key @')",
    "\x1b[32mINFO\x1b[0m key \x1b[33m@\x1b[0m loaded",
    "      - API_TOKEN=@",
    '{"cmd":["run","--with","@"]}',
    "config: {remote: @, retries: 3}",
    'msg="header X-Auth: @"',
)


def application_log(
    lines: int, planted: list[tuple[str, str]], seed: int = 7
) -> Iterator[tuple[str, str]]:
    """Lines of an ordinary application with the planted ones among them: (line, secret or "")."""
    rng = random.Random(seed)
    where = dict(zip(sorted(rng.sample(range(lines), len(planted))), planted))
    for number in range(lines):
        yield where.get(number) or (filled(rng.choice(ORDINARY), rng), "")


def filled(template: str, rng: random.Random) -> str:
    """A line of a template: @h32 is 32 hex digits, @n9 a number up to 9, @u a UUID, @t a time, …"""

    def made(match: re.Match[str]) -> str:
        kind, size = match.group(1), int(match.group(2) or 0)
        if kind == "h":
            return f"{rng.getrandbits(4 * size):0{size}x}"
        if kind == "n":
            return str(rng.randint(1, size))
        if kind == "k":
            return shape_sample("{a43}", rng.randint(1, 99))
        if kind == "u":
            return str(uuid.UUID(int=rng.getrandbits(128), version=4))
        clock = ":".join(f"{rng.randint(0, 59):02}" for _ in range(2))
        return f"2026-01-{rng.randint(1, 28):02}T{rng.randint(0, 23):02}:{clock}.123Z"

    return re.sub(r"@([hnkut])(\d*)", made, template)


#: what applications log that is no secret, but looks a little like one
ORDINARY = (
    '{"time":"@t","level":"info","component":"cache","msg":"hit","cache_key":"user:@n9999:@h32",'
    '"trace_id":"@h32","span_id":"@h16"}',
    "time=@t level=info component=cache-key id=@u took=@n99ms",
    'time=@t level=debug msg="token refreshed" token_type=bearer expires_in=3600 token_id=@u',
    '{"level":"debug","msg":"login","user":"u@n999","password":"__REDACTED__","token":"***",'
    '"secret":"[FILTERED]"}',
    '10.0.@n9.@n254 - - [02/Jan/2026:03:04:05 +0000] "GET /api/v1/orders/@u?page_token=@n99'
    '&sort_key=created HTTP/1.1" 200 @n9999 "-" "Mozilla/5.0 (X11; Linux x86_64)"',
    "Pulled image registry.example.org/app@sha256:@h64 digest=sha256:@h64",
    '  File "/usr/lib/python3/site-packages/auth/tokens.py", line @n900, in validate_token',
    "KeyError: 'secret_key'",
    "    raise InvalidTokenError('token expired')",
    'W0102 03:04:05.@n999999 1 reflector.go:@n900] secret "db-credentials-@n9" not found in '
    'namespace "prod"',
    "      DB_PASSWORD_FILE=/run/secrets/db_password REDIS_URL=redis://cache:6379/@n9 "
    "API_KEY=${API_KEY}",
    "    - name: DB_PASSWORD valueFrom: secretKeyRef: {name: db-@n9, key: password}",
    "INFO Hikari pool-@n9 jdbc:postgresql://db.internal:5432/app user=app password=<masked>",
    'etag="@h32" x-request-id: @u idempotency-key: @u correlation_id=@u',
    "kafka consumer group=orders partition_key=@h16 message_key=order-@n99999 offset=@n999999999",
    "java.lang.IllegalStateException: no auth provider for key AuthorizationKey@@h7",
    '{"level":"warn","msg":"invalid password for user","user_id":"@u","attempts":@n9,'
    '"password_policy":"strong","auth_method":"password"}',
    "git: checked out @h40 author=dev-@n9 public_key=ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA@k",
    "SELECT id, password_hash FROM users WHERE api_key_id = '@u' AND token_version = @n9",
    'metrics requests_total{key="value-@n99",secret_name="app-config"} @n9999',
    "csrf_token=ok nonce=@h16 session_state=@h8 signature_version=4 key_id=alias/app-@n9",
    "uploaded s3://bucket-@n9/exports/@u/part-@n999.parquet key=exports/@u",
    "PASS: test_login_@n99 (0.0@n9s)  auth: ok  tokens: @n999",
    "compose env: POSTGRES_USER=app POSTGRES_PASSWORD=${POSTGRES_PASSWORD} "
    "SECRET_KEY_BASE=your-secret-here LOG_LEVEL=info PORT=@n9999",
    "goroutine @n999 [running]: main.(*TokenStore).Get(0xc@h9, {0x@h8, 0x@n99})",
)


def planted_log() -> Iterator[Row]:
    """Findings on and off the plants of the generated log; G9 on what the audit log holds of it."""
    planted = plants()
    lines = list(application_log(LOG_LINES, planted))
    data = "\n".join(line for line, _ in lines).encode() + b"\n"
    hit, off = set(), []
    starts, at = [], 0
    for line, _ in lines:
        starts.append(at)
        at += len(line.encode()) + 1
    for match in Scanner(RULES).scan_lines(data):
        number = bisect.bisect_right(starts, match.start) - 1
        (hit.add(number) if lines[number][1] else off.append((match.rule.id, lines[number][0])))
    wanted = {number for number, (_, secret) in enumerate(lines) if secret}
    for number in sorted(wanted - hit):
        print(f"  missed: {lines[number][0][:150]}", file=sys.stderr)
    for rule, line in off[:20]:
        print(f"  off the plants: {rule}: {line[:150]}", file=sys.stderr)
    per = len(off) * 10_000 / len(lines)
    measured = f"{per:.2f}; {len(hit & wanted)} of {len(wanted)}"
    yield Row(
        "G4 generated log: off the plants; planted found",
        "<= 0.1 per 10,000; all",
        measured,
        per <= 0.1 and hit >= wanted,
        "gitleaks 358; 74 of 102",
    )
    yield windows([secret for _, secret in planted], data)


def windows(secrets: list[str], data: bytes) -> Row:
    """G9: six bytes in a row of any planted secret, in the audit log that `scan` writes."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "application.log")
        path.write_bytes(data)
        run = subprocess.run(
            [sys.executable, str(ROOT / "dockeraudit.py"), "scan", str(path)],
            capture_output=True,
            check=False,
            cwd=scratch,
        )
    public = b"".join(rule.name.encode() + rule.id.encode() for rule in RULES)
    leaked = 0
    for secret in secrets:
        raw = secret.encode()
        pieces = {raw[i : i + 6] for i in range(len(raw) - 5)}
        leaked += (
            sum(piece in run.stdout and piece not in public for piece in pieces)
            if not secret.startswith("-----BEGIN")
            else 0
        )
    ended = run.returncode == 1 and run.stdout.count(b'"event":"finding"') + run.stdout.count(
        b'"event": "finding"'
    ) >= len(secrets)
    return Row(
        "G9 six-byte windows of secrets in the audit log",
        "0",
        f"{leaked} in {len(run.stdout):,} bytes",
        ended and not leaked,
    )


# ==============================================================================
# G5 and G6: speed
# ==============================================================================


def median_seconds(work: Callable[[], Any]) -> float:
    """CPU seconds of some work: the median of several runs."""
    seconds = []
    for _ in range(REPEATS):
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)
    return statistics.median(seconds)


def mixed(logs: dict[str, bytes]) -> bytes:
    """The real logs' lines, shuffled together."""
    lines = [line for name in sorted(logs) for line in logs[name][:SAMPLE].split(b"\n")]
    random.Random(1).shuffle(lines)
    return b"\n".join(lines)


def speed(logs: dict[str, bytes]) -> Iterator[Row]:
    """Throughput on blocks and on single lines, and what a hundred more rules cost."""
    data = mixed(logs)
    blocks = [data[i : i + BLOCK] for i in range(0, len(data), BLOCK)]
    lines = [line[:LINE].ljust(LINE) + b"\n" for line in data.split(b"\n")[:20_000]]
    scanner = Scanner(RULES)
    whole = median_seconds(lambda: [scanner.scan_lines(block) for block in blocks])
    single = median_seconds(lambda: [scanner.scan_lines(line) for line in lines])
    rate, line_rate = len(data) / whole / 1e6, sum(map(len, lines)) / single / 1e6
    yield Row(
        "G5 64 KiB blocks of mixed logs, all rules",
        ">= 70 MB/s",
        f"{rate:.0f} MB/s",
        rate >= 70,
        "; ".join(peer_speeds(data)),
    )
    yield Row(
        "G5 one 190-byte line at a time", ">= 20 MB/s", f"{line_rate:.0f} MB/s", line_rate >= 20
    )
    more = [
        token(f"more-{n}", "More", shape_sample("{l3}", n) + f"{n}_{{a36}}", "none")
        for n in range(100)
    ]
    grown = Scanner([*RULES, *more])
    pairs = [
        (
            median_seconds(lambda: [scanner.scan_lines(b) for b in blocks]),
            median_seconds(lambda: [grown.scan_lines(b) for b in blocks]),
        )
        for _ in range(3)
    ]
    slower = 100 * (statistics.median(after / before for before, after in pairs) - 1)
    yield Row("G6 100 more prefixed rules", "< 10 % slower", f"{slower:+.1f} %", slower < 10)


#: other scanners on a file, on one core, asking no provider; and how often they get the bytes
SCANNERS = {
    "rg": (["-c", "-j1", "|".join(f"(?:{rule.pattern.decode()})" for rule in ORIGINAL_RULES)], 8),
    "kingfisher": (["scan", "--no-validate", "--no-update-check", "--jobs", "1"], 8),
    "detect-secrets": (["scan"], 0.1),
    "gitleaks": (["detect", "--no-git", "-s"], 1),
    "betterleaks": (["dir"], 1),
    "trufflehog": (["filesystem"], 1),
}


def peer_speeds(data: bytes) -> Iterator[str]:
    """Peers' throughput on the same bytes, wall time less their start; or that they are missing."""
    with tempfile.TemporaryDirectory() as scratch:
        for name, (arguments, times) in SCANNERS.items():
            if not shutil.which(name):
                yield f"{name}: not installed"
                continue
            text = data * times if times >= 1 else data[: int(len(data) * times)]
            Path(scratch, "large.log").write_bytes(text)
            Path(scratch, "small.log").write_bytes(data[: data.find(b"\n") + 1])
            small, large = (
                seconds([name, *arguments, file], scratch) for file in ("small.log", "large.log")
            )
            rate = len(text) / max(0.001, large - small) / 1e6
            yield f"{'ripgrep, the six' if name == 'rg' else name} {rate:.1f} MB/s"


def seconds(command: list[str], folder: str) -> float:
    """Wall seconds of a command in a folder: the median of three runs."""
    taken = []
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run(
            command,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
            timeout=300,
        )
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


# ==============================================================================
# G7 and G8: any input, any cut
# ==============================================================================


def storms() -> Iterator[bytes]:
    """Texts that rules match nearly, or again and again: keywords, examples, these cut short."""
    yield from (
        b"a",
        b"0",
        b" ",
        b"\n",
        b"A1",
        b"a.",
        b"a-",
        b"_",
        b"=",
        b":",
        b"'",
        b'"',
        b"\\",
        b"%41",
        b"\x1b[31m",
        b"key",
        b"key=",
        b"key:",
        b"token = '",
        b"a@",
        b"@a.bc",
        b"a@b.cd ",
    )
    yield from (
        b"://",
        b"://a:b@",
        b"://:",
        b"eyJ",
        b"eyJhbGciOiJIUzI1NiJ9.",
        b"$2a$10$",
        b"Q~",
        b"-----BEGIN",
        b"-----BEGIN RSA " + b"PRIVATE KEY-----",
        b"pass",
        b"password=",
        b"api_key=",
        b"bearer ",
        b"basic ",
    )
    yield from (
        b"secret key token ",
        b'"secret": "',
        b"<token>",
        b"todoist token ",
        b"curl -u a:",
        b"key=" + b"a1" * 40 + b" ",
        b"aws_secret_key=",
        b"AKIA",
        b"sk-proj-",
        b"_sk-proj-",
        b".",
    )
    for rule in RULES:
        yield from rule.keywords[:2]
        for example in rule.examples[:2]:
            yield from (
                example.encode(),
                example.encode() + b" ",
                example.encode()[: len(example) // 2],
            )


def worst_input() -> Row:
    """The slowest of all storms, in seconds a MiB; inputs full of matches have their own bar."""
    scanner = Scanner(RULES)

    def cost(seed: bytes, size: int) -> tuple[float, bool]:
        text = (seed * (size // len(seed) + 1))[:size]
        began = time.process_time()
        found = scanner.scan_lines(text)
        return (time.process_time() - began) * MIB / size, len(found) * max(
            len(seed), 16
        ) * 4 > size

    rough = sorted(
        ((cost(seed, 64 << 10), seed) for seed in set(storms())),
        key=lambda item: item[0][0],
        reverse=True,
    )
    slowest = [item for item in rough if item[0][1]][:12] + [
        item for item in rough if not item[0][1]
    ][:12]
    exact = [(min(cost(seed, MIB) for _ in range(2)), seed) for _, seed in slowest]
    plain = max((s for (s, full), _ in exact if not full), default=0.0)
    full = max((s for (s, full), _ in exact if full), default=0.0)
    for (s, is_full), seed in sorted(exact, key=lambda item: item[0][0], reverse=True)[:6]:
        print(
            f"  slow: {s:.3f} s/MiB{' (matches)' if is_full else ''} {seed[:60]!r}", file=sys.stderr
        )
    return Row(
        "G7 worst input; where every token matches",
        "<= 0.2; 0.5 s/MiB",
        f"{plain:.2f}; {full:.2f} of {len(rough)} inputs",
        plain <= 0.2 and full <= 0.5,
        "the six by re: minutes",
    )


PIECES = [
    b"AKIA",
    b"api",
    b"_key",
    b"=",
    b":",
    b" ",
    b'"',
    b"'",
    b"-----BEGIN",
    b" PRIVATE",
    b" KEY-----",
    b" RSA",
    b"@",
    b".",
    b"a",
    b"com",
    b"bearer",
    b"Password",
]
PIECES += [
    b"x" * 20,
    b"ABCDEFGHIJKLMNOP",
    b"\n",
    b"-",
    b"\t",
    b"key",
    b"api_key",
    b"API-KEY",
    b"password_",
    b"Bearer ",
    b"%",
    b"+",
    b"_",
    b"9",
    b"\r",
    b"\x0b",
    b"\xff",
]


def differences() -> Row:
    """How often one of the six differs from plain finditer on adversarial strings."""
    rng = random.Random(6)
    pairs = [(Scanner([rule]), re.compile(rule.pattern), rule.group) for rule in ORIGINAL_RULES]
    wrong = 0
    for _ in range(STRINGS):
        text = b"".join(rng.choice(PIECES) for _ in range(rng.randint(2, 14)))
        for scanner, plain, group in pairs:
            wrong += [m[1:5] for m in scanner.scan(text)] != [
                m.span() + m.span(group) for m in plain.finditer(text)
            ]
    return Row(
        "G7 the six against plain finditer",
        "0 different",
        f"{wrong} of {STRINGS:,} strings",
        wrong == 0,
    )


class Heard:
    """Stands in for a stream's audit: counts what is reported."""

    def __init__(self) -> None:
        self.findings: list[tuple[str, Any]] = []

    def finding(
        self,
        stream_type: str,
        rule: Rule,
        match: bytes,
        secret: Any,
        line: int,
        partial: bool = False,
        placeholder: bool = False,
        env: Any = None,
    ) -> int:
        """A finding; its handle is its number."""
        self.findings.append((rule.id, match))
        return len(self.findings) - 1

    def update(
        self,
        handle: int,
        rule: Any,
        match: bytes,
        secret: Any,
        lines: int,
        complete: bool,
        env: Any = None,
    ) -> None:
        """A partial finding's end."""


def heard(scanner: Scanner, parts: list[bytes], stamped: bool) -> list[tuple[str, Any]]:
    """What a stream in these frames reports; `stamped` as with timestamps=1."""
    audit = Heard()
    text = textscanner.TextScanner(scanner, audit, "stdout")  # type: ignore[arg-type]
    demuxer = streams.StreamDemuxer("multiplexed", 1 if stamped else 0)
    for part in parts:
        payload = b"2026-01-02T03:04:05.678901234Z " + part if stamped else part
        for _, run in demuxer.feed(struct.pack(">B3xI", 1, len(payload)) + payload):
            text.feed(run)
    text.end()
    return audit.findings


def cuts() -> Row:
    """Each rule's example in two frames, cut at every byte."""
    scanner = Scanner(RULES)
    total = lost = doubled = 0
    for rule in [rule for rule in RULES if rule.examples]:
        text = b"before\n" + rule.examples[0].encode() + b"\nafter\n"
        for stamped in (False, True):
            expected = heard(scanner, [text], stamped)
            for cut in range(1, len(text)):
                got = heard(scanner, [text[:cut], text[cut:]], stamped)
                total += 1
                lost += any(item not in got for item in expected)
                doubled += len(got) > len(expected)
    return Row(
        "G8 a secret cut at every byte, also with timestamps",
        "100 %, 0 twice",
        f"{100 * (total - lost) / total:.2f} % of {total:,}, {doubled} twice",
        not lost and not doubled,
        "22 % found",
    )


# ==============================================================================
# the table
# ==============================================================================


def rows(folder: Path) -> Iterator[Row]:
    """All measurements, in the order of the goals."""
    yield from vectors(folder)
    yield from containers(folder)
    logs = real_logs(folder)
    yield from noise(logs)
    yield from planted_log()
    yield from speed(logs)
    yield worst_input()
    yield differences()
    yield cuts()


def main() -> int:
    """Measure and print; the exit status tells."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1]).resolve()
    missing = [name for name in FILES if not (folder / name).exists()]
    if missing:
        print(
            f"bench-detect: {folder} lacks {', '.join(missing)}; give the folder with the vectors",
            file=sys.stderr,
        )
        return 2
    print(f"{len(RULES)} rules, Python {sys.version.split()[0]}, {os.cpu_count()} cores\n")
    missed = 0
    for row in rows(folder):
        missed += not row.met
        mark = "   " if not row.bar else "ok " if row.met else "NO "
        print(
            f"{mark} {row.goal:52} {row.bar:26} {row.measured}"
            + (f"   [{row.peers}]" if row.peers else ""),
            flush=True,
        )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
