"""Native rules, and what all policies share."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest

from _dockeraudit.policy import PathPattern, PolicyError, native_policy, path_pattern, refusal
from _dockeraudit.routes import classify


def test_the_first_rule_that_matches_decides() -> None:
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
    assert refused == (False, "no rule", ("add `allow = POST /containers/*/kill`",))
    assert rules.decide("GET", "/containers/x/archive").admits[0].endswith("above that one")


def test_logs_can_be_admitted_without_inspect_and_exec_start_without_create() -> None:
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
def test_a_rule_for_a_path_has_wildcards_for_its_names(path: str, pattern: str) -> None:
    assert path_pattern(path) == pattern
