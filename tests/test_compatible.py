"""What the variables of other proxies admit and refuse, as behaviours of those proxies.

How they compare with HAProxy itself, endpoint by endpoint, stands in e2e/test_access.py.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from typing import Any

import pytest

from _dockeraudit.compatible import (
    SWITCHES,
    CompatiblePolicy,
    policy_from_environment,
    switches_of,
)
from _dockeraudit.policy import Decision, PolicyError, native_policy, refusal
from _dockeraudit.routes import classify


def decide(
    environ: Mapping[str, str],
    method: str,
    target: str,
    mode: str = "tecnativa",
    podman: bool = False,
) -> Decision:
    """What the variables decide on a request's target, as it would stand on the wire."""
    chosen, _ = policy_from_environment(environ, mode)
    assert chosen is not None
    route = classify(method.encode(), target.encode())
    version = "" if podman else route.podman_version
    return chosen.decide(method, route.path, version=version, reads_log=route.reads_log)


TECNATIVA = [
    ("", "GET", "/version", True),
    ("", "GET", "/_ping", True),
    ("", "HEAD", "/_ping", True),
    ("", "GET", "/events?since=1", True),
    ("", "GET", "/containers/json", False),
    ("EVENTS=0", "GET", "/events", False),
    ("EVENTS=", "GET", "/events", False),
    ("CONTAINERS=1", "GET", "/containers/x/logs", True),
    ("CONTAINERS=1", "HEAD", "/containers/x/json", True),
    ("CONTAINERS=1", "GET", "/v1.41/containers/x/json", True),
    ("CONTAINERS=1", "GET", "/CONTAINERS/x/json", True),
    ("CONTAINERS=1", "GET", "/containersx/json", True),
    ("CONTAINERS=1", "GET", "/%63ontainers/x/json", True),
    ("CONTAINERS=1", "GET", "http://any/v1.41/containers/json", True),
    ("CONTAINERS=1", "GET", "/images/containers/json", False),
    ("CONTAINERS=1", "GET", "/libpod/containers/json", False),
    ("CONTAINERS=1", "GET", "/v1.41/v1.41/containers/json", False),
    ("CONTAINERS=1", "POST", "/containers/x/wait", False),
    ("CONTAINERS=1", "DELETE", "/containers/x", False),
    ("CONTAINERS=1", "OPTIONS", "/containers/json", False),
    ("POST=1", "POST", "/networks/create", False),
    ("POST=1 NETWORKS=1", "POST", "/networks/create", True),
    ("POST=1 NETWORKS=1", "DELETE", "/networks/n", True),
    ("POST=1 CONTAINERS=1 EXEC=1", "POST", "/exec/x/start", True),
    ("POST=1 CONTAINERS=1", "POST", "/exec/x/start", False),
    ("ALLOW_START=1", "POST", "/containers/x/start", False),
    ("ALLOW_START=1 POST=1", "POST", "/containers/x/start", True),
    ("ALLOW_START=1 POST=1", "POST", "/containers/v1/start", True),
    ("ALLOW_START=1 POST=1", "POST", "/containers/x/stop", False),
    ("ALLOW_STOP=1 POST=1", "POST", "/containers/x/stop", True),
    ("ALLOW_RESTARTS=1 POST=1", "POST", "/containers/x/kill", True),
    ("ALLOW_RESTARTS=1 POST=1", "POST", "/containers/x/pause", False),
]


def variables(words: str) -> dict[str, str]:
    """`A=1 B=0` as an environment."""
    return dict(word.split("=", 1) for word in words.split())


@pytest.mark.parametrize("words, method, target, allowed", TECNATIVA)
def test_tecnativas_variables_admit_and_refuse_as_in_its_proxy(
    words: str, method: str, target: str, allowed: bool
) -> None:
    assert decide(variables(words), method, target).allowed is allowed


LINUXSERVER = [
    ("ALLOW_RESTARTS=1", "POST", "/containers/x/restart", True),
    ("ALLOW_RESTARTS=1", "POST", "/containers/create", False),
    ("ALLOW_STOP=1", "POST", "/containers/x/stop", True),
    ("ALLOW_STOP=1", "POST", "/containers/x/kill", False),
    ("ALLOW_PAUSE=1", "POST", "/containers/x/pause", True),
    ("ALLOW_PAUSE=1", "POST", "/containers/x/unpause", False),
    ("ALLOW_UNPAUSE=1", "POST", "/v1.41/containers/x/unpause", True),
    ("CONTAINERS=1", "GET", "/containers/x/json", True),
    *[
        (f"CONTAINERS=1 POST=1 ALLOW_{n}=0", "GET", f"/containers/x/{n.lower()}", False)
        for n in ("ARCHIVE", "CHANGES", "EXPORT", "LOGS", "TOP")
    ],
    *[
        (f"CONTAINERS=1 ALLOW_{n}=1", "GET", f"/containers/x/{n.lower()}", True)
        for n in ("ARCHIVE", "CHANGES", "EXPORT", "LOGS", "TOP")
    ],
    ("CONTAINERS=1", "GET", "/containers/x/LOGS", False),
    ("SERVICES=1", "GET", "/services/x/logs", True),
    ("CONTAINERS=1 ALLOW_LOGS=1", "GET", "/libpod/containers/json", False),
    ("LIBPOD_CONTAINERS=1", "GET", "/v4.0.0/libpod/containers/json", True),
    ("LIBPOD_CONTAINERS=1", "GET", "/containers/json", False),
    ("LIBPOD_ALLOW_POD_RESTARTS=1", "POST", "/libpod/pods/x/restart", True),
    ("LIBPOD_ALLOW_POD_RESTARTS=1", "POST", "/libpod/containers/x/restart", False),
    ("LIBPOD_ALLOW_START=1", "POST", "/libpod/containers/x/start", True),
    ("ALLOW_STOP=1", "POST", "/libpod/containers/x/stop", True),
    ("ALLOW_RESTARTS=1", "POST", "/libpod/containers/x/kill", True),
    ("ALLOW_PAUSE=1", "POST", "/libpod/pods/x/pause", True),
    ("ALLOW_START=1", "POST", "/v4.0.0/libpod/pods/x/start", True),
    ("ALLOW_STOP=1", "DELETE", "/libpod/containers/x/stop", False),
    ("LIBPOD_PODS=1", "GET", "/libpod/pods/x/top", False),
    ("LIBPOD_PODS=1 ALLOW_TOP=1", "GET", "/libpod/pods/x/top", True),
    ("", "GET", "/libpod/_ping", True),
    ("", "GET", "/libpod/version", True),
    ("LIBPOD_PING=0", "GET", "/libpod/_ping", False),
    ("PODS=1", "GET", "/libpod/pods/json", False),
    ("LIBPOD_PODS=1", "GET", "/libpod/pods/json", True),
]


@pytest.mark.parametrize("words, method, target, allowed", LINUXSERVER)
def test_linuxservers_variables_admit_and_refuse_as_in_its_proxy(
    words: str, method: str, target: str, allowed: bool
) -> None:
    assert decide(variables(words), method, target, "linuxserver").allowed is allowed


ALL_OF_A_CONTAINER = (
    "CONTAINERS=1 POST=1 ALLOW_EXEC=1 ALLOW_KILL=1 ALLOW_ATTACH=1 ALLOW_ARCHIVE=1 "
    "ALLOW_EXPORT=1 ALLOW_LOGS=1 DELETE=1 PUT=1 PATCH=1"
)
# Tecnativa's newest configuration: one of its variables closes all of its gates
NEWEST = [
    ("CONTAINERS=1 POST=1 DELETE=0", "POST", "/containers/create", True),
    ("CONTAINERS=1 POST=1 DELETE=0", "DELETE", "/containers/x", False),
    ("CONTAINERS=1 POST=1 DELETE=1", "DELETE", "/containers/x", True),
    ("CONTAINERS=1 POST=0 DELETE=1", "DELETE", "/containers/x", True),
    ("CONTAINERS=1 POST=0 DELETE=1", "POST", "/containers/x/wait", False),
    ("CONTAINERS=1 POST=1 PATCH=0", "DELETE", "/containers/x", False),
    ("CONTAINERS=1 PUT=1", "PUT", "/containers/x/archive", False),
    ("CONTAINERS=1 PUT=1 ALLOW_ARCHIVE=1", "PUT", "/containers/x/archive", True),
    ("CONTAINERS=1 PUT=0 ALLOW_ARCHIVE=1", "PUT", "/containers/x/archive", False),
    ("CONTAINERS=1 PUT=0 ALLOW_ARCHIVE=1", "HEAD", "/containers/x/archive", True),
    ("VOLUMES=1 POST=1 PUT=1", "PUT", "/volumes/v", True),
    ("IMAGES=1 PATCH=1", "PATCH", "/images/x", True),
    ("IMAGES=1 PATCH=1 POST=1", "OPTIONS", "/images/x", False),
    ("CONTAINERS=1 POST=1 ALLOW_EXEC=0", "POST", "/containers/x/exec", False),
    ("CONTAINERS=1 POST=1 ALLOW_EXEC=1", "POST", "/containers/x/exec", True),
    ("CONTAINERS=1 POST=0 ALLOW_EXEC=1", "POST", "/containers/x/exec", False),
    ("EXEC=1 POST=1 ALLOW_EXEC=0", "POST", "/exec/x/start", True),
    ("EXEC=0 POST=1 ALLOW_EXEC=1", "POST", "/exec/x/start", False),
    ("CONTAINERS=1 POST=1 ALLOW_KILL=0", "POST", "/containers/x/kill", False),
    ("CONTAINERS=1 POST=1 ALLOW_KILL=1", "POST", "/v1.51/containers/x/kill", True),
    ("ALLOW_RESTARTS=1 POST=1 ALLOW_KILL=0", "POST", "/containers/x/kill", False),
    ("ALLOW_RESTARTS=1 POST=1 ALLOW_KILL=0", "POST", "/containers/x/restart", True),
    ("ALLOW_RESTARTS=1 POST=1 ALLOW_KILL=1", "POST", "/containers/x/kill", True),
    ("CONTAINERS=1 POST=1 ALLOW_ATTACH=0", "POST", "/containers/x/attach", False),
    ("CONTAINERS=1 POST=1 ALLOW_ATTACH=1", "POST", "/containers/x/attach", True),
    ("CONTAINERS=1 POST=1 ALLOW_ATTACH=1", "POST", "/containers/x/attach?logs=1", False),
    ("CONTAINERS=1 POST=1 ALLOW_ATTACH=1", "POST", "/containers/x/attach?logs=0;logs=1", False),
    ("CONTAINERS=1 POST=1 ALLOW_ATTACH=1", "POST", "/containers/x/attach?stream=1;logs=1", False),
    ("CONTAINERS=1 POST=1 ALLOW_ATTACH=0", "GET", "/containers/x/attach/ws", False),
    ("CONTAINERS=1 ALLOW_ATTACH=1", "GET", "/containers/x/attach/ws", True),
    ("CONTAINERS=1 ALLOW_LOGS=0", "GET", "/containers/x/logs", False),
    ("CONTAINERS=1 ALLOW_LOGS=1", "GET", "/containers/x/logs", True),
    ("CONTAINERS=1 ALLOW_LOGS=1", "GET", "/containers/x/export", False),
    ("CONTAINERS=1 ALLOW_EXPORT=1", "GET", "/containers/x/export", True),
    ("CONTAINERS=1 ALLOW_EXPORT=0", "GET", "/containers/x/top", True),
    ("CONTAINERS=1 ALLOW_EXPORT=0", "GET", "/containers/x/changes", True),
    ("POST=1 ALLOW_PAUSE=1", "POST", "/containers/x/pause", True),
    ("POST=0 ALLOW_PAUSE=1", "POST", "/containers/x/pause", False),
    ("POST=1 ALLOW_UNPAUSE=1", "POST", "/containers/x/unpause", True),
    ("POST=1 ALLOW_UNPAUSE=1", "POST", "/containers/x/pause", False),
    (ALL_OF_A_CONTAINER, "POST", "/containers/x/attach?logs=1", True),
    (ALL_OF_A_CONTAINER, "DELETE", "/images/x", False),
    # as spelled behind a link, where the original looks away
    ("CONTAINERS=1 POST=1 ALLOW_EXEC=0", "POST", "/containers/parent/alias/exec", False),
    ("CONTAINERS=1 POST=1 ALLOW_KILL=0", "POST", "/containers/parent%2Falias/kill", False),
    ("CONTAINERS=1 ALLOW_ATTACH=0", "GET", "/containers/parent/alias/attach/ws", False),
    ("CONTAINERS=1 POST=1 ALLOW_EXEC=0", "POST", "/containers/x//exec", False),
]


@pytest.mark.parametrize("words, method, target, allowed", NEWEST)
def test_tecnativas_newest_variables_admit_and_refuse_as_in_its_proxy(
    words: str, method: str, target: str, allowed: bool
) -> None:
    assert decide(variables(words), method, target).allowed is allowed


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "PATCH", "OPTIONS"])
def test_without_a_newest_variable_post_admits_every_method_as_in_older_releases(
    method: str,
) -> None:
    assert decide({"POST": "1", "CONTAINERS": "1"}, method, "/containers/x/exec").allowed
    assert not decide({"CONTAINERS": "1"}, method, "/containers/x/exec").allowed


def test_a_refusal_names_the_newest_variables_too() -> None:
    on = variables("CONTAINERS=1 DELETE=0 POST=1")
    assert decide(on, "DELETE", "/containers/x") == (False, "DELETE=0", ("DELETE=1",))
    assert decide(on, "POST", "/containers/x/kill") == (False, "ALLOW_KILL=0", ("ALLOW_KILL=1",))
    assert decide(on, "OPTIONS", "/containers/x") == (False, "METHOD=0", ())


# what the originals admit, and should not: each is refused here, and says what it would take
HOLES = [
    ("tecnativa", "ALLOW_START=1 POST=1", "DELETE", "/containers/x/start", "CONTAINERS=1"),
    ("linuxserver", "ALLOW_START=1", "DELETE", "/containers/x/start", "POST=1 CONTAINERS=1"),
    ("linuxserver", "ALLOW_STOP=1", "GET", "/containers/x/stop/json", "CONTAINERS=1"),
    ("tecnativa", "ALLOW_STOP=1 POST=1", "POST", "/containers/x/stop/attach", "CONTAINERS=1"),
    ("tecnativa", "ALLOW_RESTARTS=1 POST=1", "PUT", "/containers/x/kill/archive", "CONTAINERS=1"),
    ("linuxserver", "ALLOW_PAUSE=1", "POST", "/containers/x/pausex", "POST=1 CONTAINERS=1"),
    ("linuxserver", "CONTAINERS=1", "GET", "/containers/parent/alias/logs", "ALLOW_LOGS=1"),
    ("linuxserver", "CONTAINERS=1", "GET", "/containers/parent%2Falias/logs", "ALLOW_LOGS=1"),
    ("linuxserver", "CONTAINERS=1", "GET", "/containers/x%2Flogs", "ALLOW_LOGS=1"),
    ("linuxserver", "CONTAINERS=1", "GET", "/containers/a%0Ab/logs", "ALLOW_LOGS=1"),
    ("linuxserver", "LIBPOD_CONTAINERS=1", "GET", "/libpod/containers/x/logs", "ALLOW_LOGS=1"),
    ("linuxserver", "CONTAINERS=1 POST=1", "POST", "/containers/x/copy", "ALLOW_ARCHIVE=1"),
    ("tecnativa", "CONTAINERS=1", "GET", "/containers/x/attach/ws?stdin=1", "POST=1"),
    ("linuxserver", "CONTAINERS=1", "GET", "/containers/x/attach/ws", "POST=1"),
    ("tecnativa", "", "GET", "/version/../containers/json", "CONTAINERS=1"),
    ("tecnativa", "", "GET", "/version/%2e%2e/containers/json", "CONTAINERS=1"),
    ("linuxserver", "CONTAINERS=1", "GET", "/containers/x//logs", "ALLOW_LOGS=1"),
    ("linuxserver", "CONTAINERS=1", "GET", "/containers/x/./logs", "ALLOW_LOGS=1"),
    ("linuxserver", "CONTAINERS=1 POST=1", "POST", "/containers/x/attach?logs=1", "ALLOW_LOGS=1"),
    ("linuxserver", "CONTAINERS=1 POST=1", "GET", "/containers/x/attach/ws?logs=y", "ALLOW_LOGS=1"),
    (
        "linuxserver",
        "LIBPOD_CONTAINERS=1 POST=1",
        "POST",
        "/libpod/containers/a/b/attach?stream=1&logs=0&Logs=true",
        "ALLOW_LOGS=1",
    ),
]


@pytest.mark.parametrize("mode, words, method, target, admitted_by", HOLES)
def test_a_hole_of_the_originals_is_closed(
    mode: str, words: str, method: str, target: str, admitted_by: str
) -> None:
    decision = decide(variables(words), method, target, mode)
    assert decision == (False, decision.rule, (admitted_by,))
    assert decide({**variables(words), **variables(admitted_by)}, method, target, mode).allowed


@pytest.mark.parametrize("logs", ["", "?logs=0", "?logs=false&stream=1", "?stream=1"])
def test_an_attach_without_the_log_needs_no_allow_logs(logs: str) -> None:
    on = variables("CONTAINERS=1 POST=1")
    assert decide(on, "POST", f"/containers/x/attach{logs}", "linuxserver").allowed
    assert decide(on, "POST", "/containers/x/wait?logs=1", "linuxserver").allowed


@pytest.mark.parametrize("mode", ["tecnativa", "linuxserver"])
@pytest.mark.parametrize("version", ["/v4.0.0-rc1", "/v1.41x", "/v1-1"])
def test_a_version_that_only_podman_serves_is_refused_unless_the_engine_is_podman(
    mode: str, version: str
) -> None:
    target = f"{version}/containers/json"
    decision = decide({"CONTAINERS": "1"}, "GET", target, mode)
    assert decision == (False, "version", ())
    assert "only Podman" in refusal("GET", "/containers/json", decision)
    assert decide({"CONTAINERS": "1"}, "GET", target, mode, podman=True).allowed
    assert decide({}, "GET", target, mode, podman=True).rule == "CONTAINERS=0"


def test_a_version_that_only_podman_serves_is_no_way_around_a_rule() -> None:
    chosen = native_policy(["deny = GET /containers/*/logs", "allow = GET /**"])
    path = "/containers/x/logs"
    assert not chosen.decide("GET", path, version="/v4.0.0-rc1").allowed
    assert chosen.decide("GET", "/containers/x/json", version="/v4.0.0-rc1").allowed


def test_a_name_behind_two_slashes_is_admitted_as_the_engine_redirects_it() -> None:
    assert decide({"CONTAINERS": "1"}, "GET", "/containers/%2Fweb/json").allowed


METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE")
PATHS = (
    "/_ping", "/containers/json", "/containers/x/stop", "/containers/x/restart",
    "/containers/x/logs", "/containers/x/attach/ws", "/containers/create", "/exec/x/start",
    "/images/json", "/libpod/pods/x/stop", "/libpod/containers/x/archive", "/unheard/of",
)  # fmt: skip


@pytest.mark.parametrize("mode", ["tecnativa", "newest", "linuxserver"])
def test_each_alternative_that_a_refusal_names_admits_and_needs_all_its_settings(mode: str) -> None:
    rng = random.Random(8)
    kind = (mode == "linuxserver", mode == "newest")
    names = switches_of(*kind)
    refused = 0
    for _ in range(40):
        on = set(rng.sample(names, rng.randrange(8)))
        chosen = CompatiblePolicy(on, *kind)
        for method, path in itertools.product(METHODS, PATHS):
            decision = chosen.decide(method, path)
            if decision.allowed:
                continue
            refused += 1
            assert bool(decision.admits) == (
                path != "/unheard/of" and (mode == "linuxserver" or "libpod" not in path)
            )
            for alternative in decision.admits:
                added = set(variables(alternative))
                assert CompatiblePolicy(on | added, *kind).decide(method, path).allowed
                for name in added:
                    fewer = CompatiblePolicy(on | added - {name}, *kind)
                    assert not fewer.decide(method, path).allowed
    assert refused > 500


def test_a_refusal_names_the_rule_and_every_setting_it_would_take() -> None:
    decision = decide({}, "POST", "/containers/x/restart")
    assert refusal("POST", "/containers/x/restart", decision) == (
        "POST /containers/x/restart is refused by POST=0; "
        "it takes POST=1 ALLOW_RESTARTS=1, or POST=1 CONTAINERS=1"
    )
    assert decide({"POST": "1"}, "GET", "/images/json").rule == "IMAGES=0"
    assert refusal("GET", "/unheard", decide({}, "GET", "/unheard")).endswith(
        "no rule; no setting of this policy admits it"
    )


def test_the_table_names_each_variable_once() -> None:
    table = "\n".join(CompatiblePolicy({"CONTAINERS", "ALLOW_LOGS"}, True).table())
    for name in switches_of(linuxserver=True):
        assert ("LIBPOD" in name) or table.count(f" {name}=") >= 1 or name == "ALLOW_LOGS", name
    assert (
        "allow  *             /containers**" in table
        and "CONTAINERS=1" in table
        and "deny   not GET,HEAD" in table
    )


def test_the_table_of_the_newest_gates_names_each_variable() -> None:
    table = "\n".join(CompatiblePolicy({"CONTAINERS", "POST"}, False, gates=True).table())
    for name in switches_of(linuxserver=False, gates=True):
        assert f" {name}=" in table or name == "POST", name
    assert "deny   DELETE " in table and "/containers/**/exec" in table
    assert not set(switches_of(linuxserver=False)) & {"DELETE", "ALLOW_EXEC", "ALLOW_LOGS"}
    assert {*switches_of(linuxserver=True), "DELETE", "ALLOW_EXEC"} <= set(SWITCHES)


# -- which policy the environment means


@pytest.mark.parametrize(
    "words, title",
    [
        ("LOG_LEVEL=info DISABLE_IPV6=1 SOCKET_PATH=/x", None),
        ("VERSION=1.2.3 BUILD=release-7", None),
        ("EVENTS=", None),
        ("CONTAINERS=0", "tecnativa"),
        ("POST=no", "tecnativa"),
        ("ALLOW_START=1", "tecnativa"),
        ("CONTAINERS=1 ALLOW_TOP=0", "linuxserver"),
        ("LIBPOD_PODS=TRUE", "linuxserver"),
        ("ALLOW_LOGS=1", "linuxserver"),
        ("ALLOW_EXEC=0", "tecnativa"),
        ("DELETE=1", "tecnativa"),
        ("ALLOW_LOGS=1 PUT=0", "tecnativa"),
        ("ALLOW_TOP=1 PUT=0", "linuxserver"),
    ],
)
def test_the_variables_that_are_set_choose_the_policy_under_auto(words: str, title: Any) -> None:
    chosen, warnings = policy_from_environment(variables(words), "auto")
    assert (chosen and chosen.title) == title
    assert ("everything passes" in "".join(warnings)) is (chosen is None)


def test_a_variable_without_a_policy_gives_one_warning() -> None:
    chosen, warnings = policy_from_environment({"POST": "1", "CONTAINERS": "1"}, "off")
    assert chosen is None and len(warnings) == 1 and "everything passes" in warnings[0]
    assert policy_from_environment({"VERSION": "7.1"}, "off") == (None, [])


def test_true_and_yes_count_as_one_and_give_a_warning() -> None:
    for word, on in (("true", True), ("YES", True), ("false", False), ("No", False), (" 1 ", True)):
        chosen, warnings = policy_from_environment({"IMAGES": word}, "auto")
        assert chosen.decide("GET", "/images/json").allowed is on
        assert bool(warnings) is (on and word != " 1 "), word


def test_variables_that_change_nothing_are_named() -> None:
    for name, mode in (("ALLOW_TOP", "tecnativa"), ("ALLOW_EXEC", "linuxserver")):
        warning = policy_from_environment({name: "0"}, mode)[1][0]
        assert (
            warning.startswith(f"{name} is a variable of ") and f"nothing under {mode}" in warning
        )
    assert policy_from_environment({"POST": "1", "ALLOW_EXEC": "0"}, "auto")[1] == []
    assert policy_from_environment({"ALLOW_LOGS": "0"}, "tecnativa")[1] == []


def test_a_value_that_is_neither_yes_nor_no_is_an_error() -> None:
    with pytest.raises(PolicyError, match="POST='perhaps'"):
        policy_from_environment({"POST": "perhaps"}, "tecnativa")
