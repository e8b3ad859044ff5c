"""What the main thread does while the proxy serves: it waits for signals, then stops everything."""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Sequence
from typing import NoReturn, Protocol

from _dockeraudit.admin import AdminServer
from _dockeraudit.errors import defect
from _dockeraudit.proxy import Proxy
from _dockeraudit.reload import Server, reload
from _dockeraudit.report import live_page
from _dockeraudit.sockets import notify_systemd

LOOK_ROUND = 60.0  # seconds between looks at what is due; a denial is counted for a minute


class RunningService(Protocol):
    """The proxy with its servers, as `dockeraudit.py` runs it."""

    proxy: Proxy

    @property
    def servers(self) -> Sequence[Server]: ...
    def alive(self) -> bool:
        """Whether all listeners still accept."""

    def stop(self, timeout: float) -> None:
        """Stop within about so many seconds."""

    def end_at_once(self, status: int) -> NoReturn:
        """End the process."""


SIGNALS = {signal.SIGTERM, signal.SIGINT}
if hasattr(signal, "SIGHUP"):  # not on Windows
    SIGNALS.add(signal.SIGHUP)


def start_admin(proxy: Proxy) -> AdminServer | None:
    """Serve health, metrics and the page, where --admin-listen asks for it; raises ListenError."""
    address = proxy.settings.admin_listen
    if not address:
        return None
    admin = AdminServer(proxy, address, functools.partial(live_page, proxy.settings.audit_log))
    admin.start()
    if not address.loopback:
        text = f"{address.url} tells whoever reaches it the names of containers and clients"
        proxy.diagnostics.say("warning", text)
    return admin


def wait_for_end(service: RunningService, watchdog: float) -> int:
    """Wait for SIGTERM or SIGINT, and return its number.

    SIGHUP reopens the log and reads options and rules again. Each `watchdog` seconds, or sooner,
    systemd is told that the listeners live, and what is due is done.
    """
    while True:
        info = signal.sigtimedwait(SIGNALS, min(watchdog, LOOK_ROUND))
        if info is None:
            service.proxy.do_what_is_due()
            if service.alive():
                notify_systemd("WATCHDOG=1")
        elif info.si_signo == signal.SIGHUP:
            now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            notify_systemd(f"RELOADING=1\nMONOTONIC_USEC={now}")
            service.proxy.log.reopen()
            reload(service.proxy, service.servers, os.environ)
            notify_systemd("READY=1")
        else:
            return info.si_signo


def stop_service(service: RunningService, timeout: float) -> None:
    """Stop within about `timeout` seconds; a second signal ends the process at once."""
    notify_systemd("STOPPING=1")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: service.end_at_once(128 + number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS - {signal.SIGHUP})
    try:
        service.stop(timeout)
    except Exception as error:
        kind, place = defect(error)
        service.proxy.diagnostics.say("error", f"stopping failed by a defect: {kind} at {place}")
