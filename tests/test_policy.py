"""What the policies admit and refuse, as behaviours of the proxies whose variables they take.

How they compare with HAProxy itself, endpoint by endpoint, stands in e2e/test_access.py.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Mapping
from typing import Any

import pytest

from _dockeraudit import clients as clients_room
from _dockeraudit.clients import client_filter, read_group, read_network, read_user
from _dockeraudit.compatible import (
    LINUXSERVER_ONLY,
    SWITCHES,
    CompatiblePolicy,
    policy_from_environment,
)
from _dockeraudit.errors import ConfigurationError
from _dockeraudit.learning import learn
from _dockeraudit.listeners import load_listeners
from _dockeraudit.options import load_settings
from _dockeraudit.policy import (
    Decision,
    PathPattern,
    PolicyError,
    native_policy,
    path_pattern,
    refusal,
)
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


# =====================================================================================================================
# compatible
# =====================================================================================================================

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
def test_tecnativa(words: str, method: str, target: str, allowed: bool) -> None:
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
def test_linuxserver(words: str, method: str, target: str, allowed: bool) -> None:
    assert decide(variables(words), method, target, "linuxserver").allowed is allowed


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


def test_a_name_with_a_slash_before_it_is_redirected_as_ever() -> None:
    assert decide({"CONTAINERS": "1"}, "GET", "/containers/%2Fweb/json").allowed


METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE")
PATHS = (
    "/_ping", "/containers/json", "/containers/x/stop", "/containers/x/restart", "/containers/x/logs", "/containers/x/attach/ws",
    "/containers/create", "/exec/x/start", "/images/json", "/libpod/pods/x/stop", "/libpod/containers/x/archive", "/unheard/of",
)  # fmt: skip


@pytest.mark.parametrize("mode", ["tecnativa", "linuxserver"])
def test_each_alternative_of_a_refusal_admits_and_none_of_its_settings_is_idle(mode: str) -> None:
    rng = random.Random(8)
    names = [name for name in SWITCHES if mode == "linuxserver" or name not in LINUXSERVER_ONLY]
    refused = 0
    for _ in range(40):
        on = set(rng.sample(names, rng.randrange(8)))
        chosen = CompatiblePolicy(on, mode == "linuxserver")
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
                assert (
                    CompatiblePolicy(on | added, mode == "linuxserver").decide(method, path).allowed
                )
                for name in added:
                    assert (
                        not CompatiblePolicy(on | added - {name}, mode == "linuxserver")
                        .decide(method, path)
                        .allowed
                    )
    assert refused > 500


def test_a_refusal_names_the_rule_and_every_setting_it_would_take() -> None:
    decision = decide({}, "POST", "/containers/x/restart")
    assert refusal("POST", "/containers/x/restart", decision) == (
        "POST /containers/x/restart is refused by POST=0; it takes POST=1 ALLOW_RESTARTS=1, or POST=1 CONTAINERS=1"
    )
    assert decide({"POST": "1"}, "GET", "/images/json").rule == "IMAGES=0"
    assert refusal("GET", "/unheard", decide({}, "GET", "/unheard")).endswith(
        "no rule; no setting of this policy admits it"
    )


def test_the_table_names_each_variable_once() -> None:
    table = "\n".join(CompatiblePolicy({"CONTAINERS", "ALLOW_LOGS"}, True).table())
    for name in SWITCHES:
        assert ("LIBPOD" in name) or table.count(f" {name}=") >= 1 or name == "ALLOW_LOGS", name
    assert (
        "allow  *             /containers**" in table
        and "CONTAINERS=1" in table
        and "deny   not GET,HEAD" in table
    )


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
    ],
)
def test_auto(words: str, title: Any) -> None:
    chosen, warnings = policy_from_environment(variables(words), "auto")
    assert (chosen and chosen.title) == title
    assert ("everything passes" in "".join(warnings)) is (chosen is None)


def test_off_with_a_variable_warns_once() -> None:
    chosen, warnings = policy_from_environment({"POST": "1", "CONTAINERS": "1"}, "off")
    assert chosen is None and len(warnings) == 1 and "everything passes" in warnings[0]
    assert policy_from_environment({"VERSION": "7.1"}, "off") == (None, [])


def test_words_count_and_warn() -> None:
    for word, on in (("true", True), ("YES", True), ("false", False), ("No", False), (" 1 ", True)):
        chosen, warnings = policy_from_environment({"IMAGES": word}, "auto")
        assert chosen.decide("GET", "/images/json").allowed is on
        assert bool(warnings) is (on and word != " 1 "), word


def test_variables_that_change_nothing_are_named() -> None:
    assert "ALLOW_LOGS" in policy_from_environment({"ALLOW_LOGS": "0"}, "tecnativa")[1][0]
    assert "ALLOW_EXEC" in policy_from_environment({"POST": "1", "ALLOW_EXEC": "0"}, "auto")[1][0]


def test_a_value_that_is_neither_is_refused() -> None:
    with pytest.raises(PolicyError, match="POST='perhaps'"):
        policy_from_environment({"POST": "perhaps"}, "tecnativa")


# =====================================================================================================================
# native rules
# =====================================================================================================================


def test_native_rules_first_match_decides() -> None:
    rules = native_policy(
        [
            "deny = * /containers/*/archive",
            "allow = GET,HEAD /containers/**",
            "allow = POST /exec/*/start",
        ]
    )
    assert not rules.decide("GET", "/containers/x/archive").allowed
    assert rules.decide("HEAD", "/containers/x/y/logs").allowed
    assert rules.decide("POST", "/exec/1/start").allowed
    assert not rules.decide("POST", "/exec/1/2/start").allowed
    refused = rules.decide("POST", "/containers/abc/kill")
    assert refused == (False, "no rule", ("the rule 'allow = POST /containers/*/kill'",))
    assert rules.decide("GET", "/containers/x/archive").admits[0].endswith("above that one")


def test_logs_without_inspect_and_exec_without_create() -> None:
    rules = native_policy(
        [
            "allow = GET /containers/json",
            "allow = GET /containers/*/logs",
            "allow = POST /containers/*/exec",
            "allow = POST /exec/*/start",
        ]
    )
    assert (
        rules.decide("GET", "/containers/web/logs").allowed
        and rules.decide("POST", "/containers/web/exec").allowed
    )
    assert (
        not rules.decide("GET", "/containers/web/json").allowed
        and not rules.decide("POST", "/containers/create").allowed
    )


def test_a_container_named_like_a_version_is_no_way_around_a_rule() -> None:
    rules = native_policy(["allow = GET /containers/json"])
    assert not rules.decide("GET", classify(b"GET", b"/v1.41/containers/v1/json").path).allowed


@pytest.mark.parametrize(
    "target",
    [
        "/containers/../images/json",
        "/containers/x/..%2F..%2F../images/json",
        "/containers//../images/json",
    ],
)
def test_dots_are_no_way_around_a_rule(target: str) -> None:
    rules = native_policy(["allow = GET /containers/**"])
    assert not rules.decide("GET", classify(b"GET", target.encode()).path).allowed


@pytest.mark.parametrize(
    "line",
    [
        "allow GET /x",
        "allow = get /x",
        "permit = * /x",
        "allow = * x",
        "allow = GET",
        "deny = GET /x y",
    ],
)
def test_native_rule_errors_name_the_line(line: str) -> None:
    with pytest.raises(PolicyError, match="is no rule"):
        native_policy([line])


# =====================================================================================================================
# clients
# =====================================================================================================================


def test_a_rules_path_matches_what_its_wildcards_mean() -> None:
    rng = random.Random(11)
    for _ in range(20_000):
        text = "/" + "".join(
            rng.choice(("a", "b", "/", "*", "**")) for _ in range(rng.randrange(7))
        )
        path = "/" + "".join(rng.choice("ab/") for _ in range(rng.randrange(9)))
        regex = re.escape(text).replace(r"\*\*", ".*").replace(r"\*", "[^/]*")
        assert PathPattern(text).match(path) == bool(re.fullmatch(regex, path)), (text, path)


class CountedPath(str):
    """A path that counts how often something is searched in it."""

    searches = 0

    def find(self, *arguments: Any) -> int:
        CountedPath.searches += 1
        return super().find(*arguments)


@pytest.mark.parametrize(
    "text, path",
    [
        ("/**/a/**/b/**/c", "/a/b" * 5000),
        ("/**a**a**a**b", "/" + "a" * 20_000),
        ("/**/*a*b*c/**", "/ab" * 7000),
        ("/**a*a*a*b", "/" + "a" * 20_000),
    ],
)
def test_the_searches_for_a_rules_path_are_as_many_as_its_parts_and_segments(
    text: str, path: str
) -> None:
    CountedPath.searches = 0
    PathPattern(text).match(CountedPath(path))
    assert CountedPath.searches <= 3 * text.count("*") * (path.count("/") + 1)


def test_a_refusal_of_a_long_path_is_short() -> None:
    decision = native_policy(["allow = GET /version"]).decide("GET", "/" + "a" * 1_000_000)
    assert len(refusal("GET", "/", decision)) < 200


def test_client_filter() -> None:
    clients = client_filter([read_network("10.0.0.0/8"), read_network("::1")], [0], [])
    assert (
        clients.admits({"address": "10.1.2.3"}).allowed
        and clients.admits({"address": "::1"}).allowed
    )
    refused = clients.admits({"address": "192.0.2.1"})
    assert refused == (False, "allow-from", ("allow-from = 192.0.2.1",))
    assert clients.admits({"uid": 0, "gid": 5}).allowed
    assert not clients.admits({"uid": 7, "gid": 7}).allowed
    assert client_filter([], [], [0]).admits({"uid": 7, "gid": 0}).allowed
    assert client_filter([], [], []) is None


def test_a_supplementary_group_admits_as_the_primary_one_does() -> None:
    clients = client_filter([], [], [4242])
    assert clients.admits({"uid": 7, "gid": 4242, "groups": ()}).allowed
    assert clients.admits({"uid": 7, "gid": 7, "groups": (4, 4242)}).allowed
    assert not clients.admits({"uid": 4242, "gid": 7, "groups": (4,)}).allowed


def test_the_highest_uid_is_admitted() -> None:
    clients = client_filter([], [read_user(str(2**32 - 2))], [])
    assert clients.admits({"uid": 2**32 - 2, "gid": 0}).allowed


@pytest.mark.parametrize("read", [read_user, read_group])
@pytest.mark.parametrize(
    "name", ["bob-of-nowhere", "-1", "4294967295", "1e3", "\u00b2", "a\0b", ""]
)
def test_an_account_that_does_not_exist_is_an_error(read: Any, name: str) -> None:
    with pytest.raises(ConfigurationError, match="there is no .* give a number or a name"):
        read(name)


def test_an_account_is_known_by_its_name_or_number() -> None:
    assert (read_user("root"), read_group("root"), read_user("007")) == (0, 0, 7)


def test_a_network_that_is_none_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="give an address or a network"):
        read_network("nonsense")


def test_without_the_files_of_accounts_numbers_still_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clients_room, "pwd", None)
    monkeypatch.setattr(clients_room, "grp", None)
    assert (read_user("7"), read_group("8")) == (7, 8)
    for read in (read_user, read_group):
        with pytest.raises(ConfigurationError, match="give a number"):
            read("root")


# =====================================================================================================================
# learning
# =====================================================================================================================


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
    "GET /_ping", "GET /version", "GET /events", "GET /info", "GET /containers/json", "GET /containers/a1/json", "GET /containers/b2/json",
    "POST /containers/a1/stop", "POST /containers/a1/restart", "POST /containers/a1/start", "POST /containers/create", "DELETE /containers/a1",
    "GET /containers/a1/logs", "GET /containers/p/q/logs", "PUT /containers/a1/archive", "POST /containers/a1/exec", "POST /exec/e1/start",
    "GET /exec/e1/json", "GET /images/json", "GET /images/library/busybox/json", "DELETE /images/a/b", "POST /images/create", "POST /build",
    "GET /networks", "POST /networks/n/connect", "GET /distribution/a/b/json", "POST /session", "GET /containers/a1/attach/ws", "POST /commit",
    "GET /libpod/pods/json", "POST /libpod/pods/p/stop", "GET /volumes", "GET /tasks/t/logs", "GET /swarm/unlockkey", "GET /system/df",
]  # fmt: skip


def test_what_is_learned_admits_the_traffic_and_no_line_is_idle() -> None:
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


def test_what_no_variable_admits_is_said() -> None:
    assert "# no variable admits GET /unheard" in learn(would_deny("GET /unheard"))
    assert "allow = GET /unheard" in learn(would_deny("GET /unheard"))


@pytest.mark.parametrize(
    "path, pattern",
    [
        ("/containers/abc/json", "/containers/*/json"),
        ("/containers/json", "/containers/json"),
        ("/containers/abc", "/containers/*"),
        ("/containers/abc/attach/ws", "/containers/*/attach/ws"),
        ("/containers/a/b/logs", "/containers/**/logs"),
        ("/containers/a/checkpoints/b", "/containers/*/checkpoints/*"),
        ("/images/host:5000/a/b/json", "/images/**/json"),
        ("/images/a/b", "/images/**"),
        ("/images/search", "/images/search"),
        ("/plugins/a/b/enable", "/plugins/**/enable"),
        ("/exec/e/start", "/exec/*/start"),
        ("/networks", "/networks"),
        ("/swarm/unlockkey", "/swarm/unlockkey"),
        ("/libpod/pods/p/stop", "/libpod/pods/*/stop"),
        ("/libpod/containers/json", "/libpod/containers/json"),
    ],
)
def test_names_are_generalised(path: str, pattern: str) -> None:
    assert path_pattern(path) == pattern


# =====================================================================================================================
# listeners and their settings, which dockeraudit.py reads
# =====================================================================================================================


def listeners(
    folder: Any, ini: str, environ: Mapping[str, str] = {}, *arguments: str
) -> tuple[list[Any], list[str]]:
    """The listeners of a file, and what was warned of."""
    path = folder / "config.ini"
    path.write_text(ini)
    said: list[str] = []
    settings = load_settings(["--config", str(path), *arguments], environ)
    return load_listeners(settings, environ, lambda level, text: said.append(text)), said


def test_each_listener_has_its_own_policy(folder: Any) -> None:
    found, said = listeners(
        folder,
        "[dockeraudit]\npolicy = tecnativa\n"
        f"[listener traefik]\nlisten = unix://{folder}/a.sock\nallow = GET /containers/json\n"
        f"[listener ci]\nlisten = unix://{folder}/b.sock\npolicy = off\nallow-uid = 0\n"
        f"[listener dozzle]\nlisten = unix://{folder}/c.sock\nCONTAINERS = 1\nALLOW_LOGS = 1\n"
        f"[listener rest]\nlisten = unix://{folder}/d.sock\nsocket-mode = 0600\nsocket-group = 0\n",
        {"IMAGES": "1"},
    )
    traefik, ci, dozzle, rest = found
    assert [listener.name for listener in found] == ["traefik", "ci", "dozzle", "rest"]
    assert (
        traefik.policy.title == "rules" and not traefik.policy.decide("GET", "/images/json").allowed
    )
    assert (
        ci.policy is None
        and ci.clients.admits({"uid": 0}).allowed
        and not ci.clients.admits({"uid": 5, "gid": 5}).allowed
    )
    assert (
        dozzle.policy.title == "linuxserver"
        and dozzle.policy.decide("GET", "/containers/x/logs").allowed
    )
    assert not dozzle.policy.decide("GET", "/images/json").allowed, (
        "its own variables, not the environment's"
    )
    assert rest.policy.title == "tecnativa" and rest.policy.decide("GET", "/images/json").allowed
    assert (rest.socket_mode, rest.socket_group, ci.socket_mode, ci.socket_group) == (
        0o600,
        0,
        0o660,
        None,
    )
    assert len(said) == 1, said


def test_rules_without_a_policy_are_a_policy(folder: Any) -> None:
    ini = f"[dockeraudit]\nlisten = unix://{folder}/a.sock\nallow = GET /version\n"
    assert listeners(folder, ini)[0][0].policy.title == "rules"
    assert listeners(folder, ini, {"DOCKERAUDIT_POLICY": "auto"})[0][0].policy.title == "rules"
    found, said = listeners(folder, ini, {"DOCKERAUDIT_POLICY": "off"})
    assert found[0].policy is None and "do not count" in said[0]
    with pytest.raises(Exception, match="say which counts"):
        listeners(folder, ini, {"DOCKERAUDIT_POLICY": "auto", "CONTAINERS": "1"})


def test_rules_from_the_environment() -> None:
    environ = {
        "DOCKERAUDIT_ACCESS": "allow = GET /version; deny = * /**\nallow = GET /x",
        "DOCKERAUDIT_LISTEN": "unix:///x.sock",
    }
    found = load_listeners(load_settings([], environ), environ, lambda level, text: None)
    assert (
        found[0].policy.decide("GET", "/version").allowed
        and not found[0].policy.decide("GET", "/x").allowed
    )


def test_learn_without_a_policy_measures_by_none(folder: Any) -> None:
    found, _ = listeners(folder, f"[dockeraudit]\nmode = learn\nlisten = unix://{folder}/a.sock\n")
    assert not found[0].policy.decide("GET", "/_ping").allowed


def test_the_originals_other_variables_count() -> None:
    environ = {
        "SOCKET_PATH": "/run/podman.sock",
        "DISABLE_IPV6": "1",
        "LOG_LEVEL": "err",
        "DOCKERAUDIT_LISTEN": "tcp://[::]:2375",
    }
    settings = load_settings([], environ)
    assert settings.upstream == "/run/podman.sock" and settings.log_level == "err"
    assert (
        load_settings([], {**environ, "DOCKERAUDIT_UPSTREAM": "/own.sock"}).upstream == "/own.sock"
    )
    address = load_listeners(settings, environ, lambda level, text: None)[0].address
    assert address.target == ("0.0.0.0", 2375)


@pytest.mark.parametrize(
    "section, problem",
    [
        ("listen = unix:///a\nnonsense = 1", "nonsense"),
        ("allow = GET /x", "has no 'listen"),
        ("listen = unix:///a\nallow = get /x", "is no rule"),
        ("listen = tcp://127.0.0.1:1\ntls-key = /x", "need --tls-cert"),
        ("listen = tcp://127.0.0.1:1\ntls-cert = /nonexistent", "cannot load"),
        ("listen = unix:///a\nallow-uid = nobody-of-this-name", "there is no"),
        ("listen = unix:///a\npolicy = rules", "has no rule"),
        ("listen = unix:///a\ncontainers = perhaps\nimages = 1", "CONTAINERS='perhaps'"),
    ],
)
def test_a_bad_section_is_named(folder: Any, section: str, problem: str) -> None:
    with pytest.raises(Exception, match=problem):
        listeners(folder, f"[listener x]\n{section}\n")
