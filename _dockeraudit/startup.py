"""What commands begin with: the rules, the audit log, and what `serve` checks and says at start."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Callable

from _dockeraudit import __version__
from _dockeraudit.auditlog import QUEUE_LIMIT, AuditLog
from _dockeraudit.baseline import KnownSecrets, read_baseline
from _dockeraudit.diagnostics import Diagnostics
from _dockeraudit.engine import ask_engine, engine_title
from _dockeraudit.errors import ConfigurationError, HTTPError
from _dockeraudit.heap import trim_heap
from _dockeraudit.keyfile import key_file, load_fingerprint_key, refuse_unfit_log
from _dockeraudit.remoteengine import Engine, RemoteEngine
from _dockeraudit.scanner import Scanner
from _dockeraudit.settings import UNIX, Address, Listener, Settings
from _dockeraudit.userrules import RuleError, load_rules, select_rules
from _dockeraudit.workers import worker_kind
from patterns import RULES

MOST_HINTS = 3  # listeners of which the start says how docker reaches them
MOST_INHERITED = 64  # sockets that a supervisor passes; more is a mistake
LARGE_START = 56 << 20  # bytes in memory that only a compiler leaves behind
WATCHDOG_DEFAULT = 3600.0  # seconds between two looks at the listeners where no watchdog is set


def load_scanner(settings: Settings) -> Scanner:
    """The rules that were chosen; raises ConfigurationError."""
    try:
        own = load_rules(settings.rules) if settings.rules else ()
        chosen = select_rules(
            RULES + tuple(own), only=settings.only_rules, disable=settings.disable_rule
        )
        return Scanner(chosen)
    except (RuleError, OSError) as error:
        raise ConfigurationError(str(error)) from None


def load_known(settings: Settings, diagnostics: Diagnostics) -> KnownSecrets:
    """The secrets that are known as harmless; raises ConfigurationError."""
    entries = read_baseline(settings.baseline) if settings.baseline else ()
    return KnownSecrets(settings.allow_secret, entries, diagnostics.say)


def open_log(
    settings: Settings,
    scanner: Scanner,
    listeners: Sequence[Listener],
    diagnostics: Diagnostics,
    write: Callable[[int, bytes], int] = os.write,
    queue_limit: int = QUEUE_LIMIT,
    budgeted: bool = True,
    known: KnownSecrets | None = None,
) -> AuditLog:
    """The audit log, open; raises AuditLogError."""
    refuse_unfit_log(settings.audit_log)  # before a key is made beside it
    key = load_fingerprint_key(settings.fingerprint_key, os.environ)
    if settings.fingerprint_key is None:
        text = "the fingerprints' key lives for this run only; --fingerprint-key FILE keeps it"
        diagnostics.say("notice", text)
    log = AuditLog(
        settings.audit_log,
        key,
        key_path=key_file(settings.fingerprint_key),
        fsync=settings.fsync,
        diagnose=diagnostics.say,
        allow=(known or load_known(settings, diagnostics)).now(),
        write=write,
        queue_limit=queue_limit,
        budgeted=budgeted,
    )
    masks = {listener.name: listener.mask for listener in listeners if listener.mask}
    guards = {
        listener.name: len(listener.guard.exceptions.lines())
        for listener in listeners
        if listener.guard
    }
    log.open(
        version=__version__,
        pid=os.getpid(),
        listen=[listener.address.url for listener in listeners],
        upstream=str(settings.upstream),
        rules=len(scanner.rules),
        **({"workers": settings.workers, "worker_kind": worker_kind()} if listeners else {}),
        **({"mask": masks} if masks else {}),
        **({"guard": guards} if guards else {}),
    )
    return log


# What `serve` needs of the system, and of the supervisor that started it.


def require_linux() -> None:
    """Raise ConfigurationError on a system that lacks what `serve` waits and asks with."""
    if not (hasattr(signal, "sigtimedwait") and hasattr(socket, "SO_PEERCRED")):
        raise ConfigurationError(
            "serve needs Linux (a container will do); scan, report, verify and the other commands "
            "run on this system too"
        )


def watchdog_interval(environ: Mapping[str, str]) -> float:
    """Seconds between two signs of life for systemd's watchdog; raises ConfigurationError."""
    return number_in(environ, "WATCHDOG_USEC", 2**53) / 2e6 or WATCHDOG_DEFAULT


def inherited_count(environ: Mapping[str, str]) -> int:
    """How many sockets a supervisor passed to this process (sd_listen_fds(3)).

    Raises ConfigurationError.
    """
    count = number_in(environ, "LISTEN_FDS", MOST_INHERITED)
    return count if environ.get("LISTEN_PID") == str(os.getpid()) else 0


def number_in(environ: Mapping[str, str], name: str, most: int) -> int:
    """A supervisor's variable as a number; an empty or missing one is 0."""
    text = environ.get(name, "").strip() or "0"
    if not (text.isascii() and text.isdigit() and int(text[:20]) <= most):
        raise ConfigurationError(f"{name}={text!r} is not a number from 0 to {most}")
    return int(text)


def give_back_memory() -> None:
    """Return to the system what compiling the single file has left free: 50 MiB.

    A file that is run by its path is compiled at each start, and Python frees nothing of that
    before the end; `python3 -m dockeraudit` is the better way.
    """
    try:
        with open("/proc/self/statm") as file:
            resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return
    if resident > LARGE_START:
        trim_heap()


def refuse_loop(engine: Engine, listeners: Sequence[Listener]) -> None:
    """Raise ConfigurationError where the engine's address is one of our own listeners."""
    for listener in listeners:
        if isinstance(engine, RemoteEngine) and is_own(engine, listener.address):
            raise ConfigurationError(
                f"--upstream {engine} is the listener {listener.address.url} itself; "
                "give the engine's address, or another --listen"
            )


def is_own(engine: RemoteEngine, address: Address) -> bool:
    """Whether a listener at this address answers where the engine is looked for."""
    if address.family == UNIX or address.target[1] != engine.port:
        return False
    host = "127.0.0.1" if engine.host == "localhost" else engine.host
    return address.target[0] == host or (address.target[0] in ("0.0.0.0", "::") and engine.loopback)


# What `serve` says when it has started.


def announce(settings: Settings, listeners: Sequence[Listener], diagnostics: Diagnostics) -> None:
    """Say what runs, and the line to type next; never waits for the engine."""
    for listener in listeners:
        say_policy(listener, diagnostics)
        say_mask(listener, diagnostics)
        say_scope(listener, diagnostics)
        say_guard(listener, diagnostics)
        diagnostics.say("info", f"listening on {listener.address.url}")
    say_upstream(settings.upstream, diagnostics)
    where = "standard output" if settings.audit_log == "-" else os.path.abspath(settings.audit_log)
    diagnostics.say("info", f"findings go to {where}")
    for number, listener in enumerate(listeners[:MOST_HINTS]):
        diagnostics.say("info", f"{'or' if number else 'next'}: {client_hint(listener)}")
    thread = threading.Thread(
        target=announce_engine,
        name="announce",
        args=(settings.upstream, diagnostics),
        daemon=True,
    )
    try:
        thread.start()
    except RuntimeError as error:
        diagnostics.say("warning", f"the engine was not asked for its version: {error}")


def say_upstream(engine: Engine, diagnostics: Diagnostics) -> None:
    """Warn of an engine on another host without TLS."""
    if isinstance(engine, RemoteEngine) and engine.tls is None and not engine.loopback:
        text = "is plain TCP to another host: whoever is on the way reads and changes everything"
        diagnostics.say("warning", f"{engine} {text}; --upstream-tls FOLDER encrypts it")


def announce_engine(engine: Engine, diagnostics: Diagnostics) -> None:
    """Say which engine answers, or why none does."""
    try:
        title = engine_title(ask_engine(engine, "/version"))
        diagnostics.say("info", f"the engine at {engine} is {title}")
    except (HTTPError, OSError, ValueError) as error:
        if isinstance(error, HTTPError) and error.status == 400:  # it has answered
            diagnostics.say("warning", str(error))
            return
        why = f"{error}" if str(error).endswith("?") else f"{error};"
        diagnostics.say("warning", f"{why} requests get 502 until it answers")


def say_policy(listener: Listener, diagnostics: Diagnostics) -> None:
    """The table that decides at a listener."""
    for line in listener.policy.table() if listener.policy else ():
        diagnostics.say("info", f"{listener.name}: {line}")


def say_mask(listener: Listener, diagnostics: Diagnostics) -> None:
    """What a listener's clients do not get to see."""
    if listener.mask:
        above = "" if listener.mask == "HIGH" else " and above"
        passed = ", ".join(sorted(listener.mask_pass))
        text = f"{listener.name}: masks secrets of severity {listener.mask}{above}"
        diagnostics.say("info", text + (f"; lets pass unmasked: {passed}" if passed else ""))


def say_scope(listener: Listener, diagnostics: Diagnostics) -> None:
    """Which containers a listener's clients get, and what of the host they get besides."""
    if listener.scope:
        text = (
            f"{listener.name}: clients get only containers in scope ({listener.scope.scope.text})"
        )
        scopes = listener.scope.objects.scopes
        parts = [f"{kind} in scope ({scope.text})" for kind, scope in scopes.items()]
        free = [kind for kind in ("images", "networks", "volumes") if kind not in scopes]
        parts += [f"{', '.join(free)} of the whole host"] if free else []
        diagnostics.say("info", "; ".join([text, *parts]))


def say_guard(listener: Listener, diagnostics: Diagnostics) -> None:
    """What a listener's clients cannot have, and the exceptions."""
    if listener.guard:
        lines = listener.guard.exceptions.lines()
        text = f"{listener.name}: the guard refuses what gives clients the host"
        diagnostics.say("info", text + (", and admits:" if lines else ""))
        for line in lines:
            diagnostics.say("info", f"{listener.name}:   {line}")


def client_hint(listener: Listener) -> str:
    """What to type so that docker uses a listener."""
    line = f"export DOCKER_HOST={client_url(listener.address)}"
    if listener.tls is None:
        return line
    mutual = listener.tls.verify_mode == ssl.CERT_REQUIRED
    files = "ca.pem, cert.pem and key.pem" if mutual else "ca.pem"
    return f"{line} DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH=FOLDER (it holds {files})"


def client_url(address: Address) -> str:
    """What a client on this host puts into DOCKER_HOST."""
    if address.family == UNIX:
        return address.url
    host = {"0.0.0.0": "127.0.0.1", "::": "127.0.0.1"}.get(address.target[0], address.target[0])
    host = f"[{host}]" if ":" in host else host
    return f"tcp://{host}:{address.target[1]}"


def raise_descriptor_limit(connections: int) -> None:
    """Allow as many descriptors as the connections take, where the hard limit allows it."""
    import resource  # here, since only Unix has it, and other commands run elsewhere too

    needed = 3 * connections + 128  # two and a look-up each; the log, the listeners, others
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def replace_closed_streams() -> None:
    """Give closed standard streams a descriptor that fails, so that no file of ours gets theirs."""
    streams = (
        ("stdin", os.O_WRONLY, "r"),
        ("stdout", os.O_RDONLY, "w"),
        ("stderr", os.O_WRONLY, "w"),
    )
    for number, (name, flags, mode) in enumerate(streams):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)  # takes the lowest free number, which is this one
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
