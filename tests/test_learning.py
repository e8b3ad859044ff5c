"""The least settings that admit recorded traffic."""

from __future__ import annotations

import random
from typing import Any

from _dockeraudit.compatible import policy_from_environment
from _dockeraudit.learning import learn
from _dockeraudit.policy import native_policy


def would_deny(*requests: str) -> list[dict[str, Any]]:
    """Records as --mode learn writes them."""
    return [
        {"event": "would_deny", "method": method, "path": path}
        for method, path in (request.split(" ") for request in requests)
    ]


def learned(lines: list[str]) -> tuple[list[str], list[str]]:
    """The names of the variables and the rules among learn's lines."""
    names = [line.partition("=")[0] for line in lines if line.endswith("=1")]
    return names, [line for line in lines if line.startswith("allow = ")]


def test_a_restarter_gets_containers_allow_restarts_and_no_post() -> None:
    records = would_deny("GET /containers/json", "POST /containers/web/restart") + [
        {"event": "stream_open", "endpoint": "logs"}
    ]
    lines = learn(records)
    assert lines[1] == "DOCKERAUDIT_POLICY=linuxserver"
    assert learned(lines) == (
        ["CONTAINERS", "ALLOW_RESTARTS", "ALLOW_LOGS"],
        [
            "allow = GET /containers/*/logs",
            "allow = POST /containers/*/restart",
            "allow = GET /containers/json",
        ],
    )
    assert learned(learn(records, linuxserver=False))[0] == ["CONTAINERS", "POST"]


TRAFFIC = [
    "GET /_ping", "GET /version", "GET /events", "GET /info", "GET /containers/json",
    "GET /containers/a1/json", "GET /containers/b2/json", "POST /containers/a1/stop",
    "POST /containers/a1/restart", "POST /containers/a1/start", "POST /containers/create",
    "DELETE /containers/a1", "GET /containers/a1/logs", "GET /containers/p/q/logs",
    "PUT /containers/a1/archive", "POST /containers/a1/exec", "POST /exec/e1/start",
    "GET /exec/e1/json", "GET /images/json", "GET /images/library/busybox/json",
    "DELETE /images/a/b", "POST /images/create", "POST /build", "GET /networks",
    "POST /networks/n/connect", "GET /distribution/a/b/json", "POST /session",
    "GET /containers/a1/attach/ws", "POST /commit", "GET /libpod/pods/json",
    "POST /libpod/pods/p/stop", "GET /volumes", "GET /tasks/t/logs", "GET /swarm/unlockkey",
    "GET /system/df",
]  # fmt: skip


def test_learned_settings_admit_the_traffic_and_need_every_line() -> None:
    rng = random.Random(3)
    for _ in range(60):
        requests = [
            tuple(request.split(" ")) for request in rng.sample(TRAFFIC, rng.randrange(1, 9))
        ]
        names, rules = learned(learn(would_deny(*map(" ".join, requests))))

        def admitted(on: set[str], requests: Any = tuple(requests)) -> bool:
            chosen, _ = policy_from_environment(dict.fromkeys(on, "1"), "linuxserver")
            return all(chosen.decide(*request).allowed for request in requests)

        assert admitted(set(names)), (requests, names)
        for name in names:
            assert not admitted(set(names) - {name}), (requests, names, name)
        assert all(native_policy(rules).decide(*request).allowed for request in requests)
        for rule in rules:
            rest = [other for other in rules if other != rule]
            assert not rest or not all(
                native_policy(rest).decide(*request).allowed for request in requests
            ), (rules, rule)


def test_an_action_is_learned_rather_than_post() -> None:
    assert learned(learn(would_deny("POST /containers/a/stop")))[0] == ["ALLOW_STOP"]
    assert learned(learn(would_deny("POST /containers/a/stop", "POST /containers/a/kill")))[0] == [
        "ALLOW_RESTARTS"
    ]
    assert learned(learn(would_deny("POST /containers/a/stop", "POST /containers/create")))[0] == [
        "CONTAINERS",
        "POST",
    ]


def test_requests_that_no_variable_admits_are_named() -> None:
    assert "# no variable admits GET /unheard" in learn(would_deny("GET /unheard"))
    assert "allow = GET /unheard" in learn(would_deny("GET /unheard"))


def test_a_guards_exceptions_are_learned_once_each() -> None:
    create = {"event": "would_deny", "method": "POST", "path": "/containers/create"}
    lines = learn(
        [
            {**create, "rule": "guard:HostConfig.Binds", "admits": "bind = /srv/x"},
            {**create, "rule": "guard:HostConfig.Binds", "admits": "bind = /srv/x"},
            {**create, "rule": "guard:HostConfig.CapAdd", "admits": "capability = NET_ADMIN"},
            {**create, "rule": "guard:json"},
            {**create, "rule": "guard:HostConfig.Binds", "admits": "bind = /x\nbind = /"},
        ]
    )
    assert lines[lines.index("[guard]") + 1 :] == ["bind = /srv/x", "capability = NET_ADMIN"]
    assert "allow = POST /containers/create" in lines


def test_where_no_guard_refused_anything_there_are_no_exceptions() -> None:
    assert "[guard]" not in learn([{"event": "request", "method": "POST", "path": "/auth"}])
