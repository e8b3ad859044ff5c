"""Presets beside the requests of their clients, and beside what each of them must refuse.

e2e/test_client_presets.py has the same on real engines, and the clients that run there.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from presetrequests import CLIENT_REQUESTS, ELSE, NEVER, requests_in
from test_listeners import listeners

from _dockeraudit.commands import command_policy
from _dockeraudit.errors import ConfigurationError
from _dockeraudit.options import load_settings
from _dockeraudit.policy import Decision, Policy, PolicyError, native_policy
from _dockeraudit.presets import PRESET_POLICIES, PRESETS, preset_lines, preset_policy
from _dockeraudit.routes import classify


def decide(policy: Policy, method: str, target: str) -> Decision:
    """What a policy decides on a target as it stands on the wire."""
    route = classify(method.encode(), target.encode())
    return policy.decide(
        method, route.path, version=route.podman_version, reads_log=route.reads_log
    )


def test_every_preset_has_the_requests_of_its_client() -> None:
    assert list(CLIENT_REQUESTS) == sorted(PRESETS) == list(PRESETS)
    assert PRESET_POLICIES[0] == "preset:beszel"


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_admits_what_its_client_asks_for(name: str) -> None:
    policy = preset_policy(f"preset:{name}")
    for method, target in requests_in(CLIENT_REQUESTS[name]):
        assert decide(policy, method, target).allowed, (method, target)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_holds_no_rule_that_its_client_does_not_need(name: str) -> None:
    for rule in PRESETS[name].rules:
        rest = [other for other in PRESETS[name].rules if other != rule]
        policy = native_policy(rest)
        assert not all(
            decide(policy, *request).allowed for request in requests_in(CLIENT_REQUESTS[name])
        ), f"no request of {name} needs {rule}"


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_refuses_what_its_client_does_not_ask_for(name: str) -> None:
    policy = preset_policy(f"preset:{name}")
    for method, target in requests_in(NEVER):
        assert not decide(policy, method, target).allowed, (method, target)
    asked = {
        (method, classify(method.encode(), target.encode()).path)
        for method, target in requests_in(CLIENT_REQUESTS[name])
    }
    others = [
        (method, target)
        for method, target in requests_in(ELSE)
        if (method, target.partition("?")[0]) not in asked
    ]
    assert others
    for method, target in others:
        assert not decide(policy, method, target).allowed, (method, target)


def test_only_the_presets_of_those_who_write_admit_writes() -> None:
    writers = {name for name, preset in PRESETS.items() if "POST" in "".join(preset.rules)}
    assert writers == {"ci-build", "watchtower"}


def test_rules_of_the_user_stand_above_those_of_the_preset(folder: Path) -> None:
    found, said = listeners(
        folder,
        f"[listener a]\nlisten = unix://{folder}/a.sock\npolicy = preset:dozzle\n"
        "deny = GET /containers/*/json\nallow = POST /containers/*/restart\n"
        f"[listener b]\nlisten = unix://{folder}/b.sock\n",
        {"DOCKERAUDIT_POLICY": "preset:Traefik", "CONTAINERS": "1"},
    )
    dozzle, traefik = (listener.policy for listener in found)
    assert dozzle.title == "preset:dozzle" and traefik.title == "preset:traefik"
    assert decide(dozzle, "POST", "/containers/x/restart").allowed
    assert decide(dozzle, "GET", "/containers/x/logs").allowed
    assert decide(dozzle, "GET", "/containers/x/json").rule == "deny = GET /containers/*/json"
    assert not decide(traefik, "POST", "/containers/x/restart").allowed
    assert decide(traefik, "GET", "/containers/x/logs").admits == (
        "add `allow = GET /containers/*/logs`",
    )
    assert said == [
        "CONTAINERS is a variable of another proxy and changes nothing under preset:traefik"
    ]
    assert dozzle.table()[0].startswith("policy preset:dozzle: the first line")
    assert dozzle.table()[1] == "deny = GET /containers/*/json"


def test_an_unknown_preset_and_a_wrong_rule_beside_one_are_errors(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="'preset:treafik' is not one of .*preset:traefik"):
        load_settings(["--policy", "preset:treafik"], {})
    with pytest.raises(PolicyError, match="'allow = x' is no rule"):
        preset_policy("preset:diun", ["allow = x"])


def test_the_command_prints_the_rules_ready_for_the_file(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_policy(["traefik"]) == 0
    text = capsys.readouterr().out
    assert text.splitlines() == preset_lines("traefik")
    ini = f"[listener a]\nlisten = unix://{folder}/a.sock\n{text}"
    policy = listeners(folder, ini)[0][0].policy
    assert policy.title == "rules" and decide(policy, "GET", "/v1.24/version").allowed


def test_the_command_lists_the_presets(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_policy([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(PRESETS)
    assert "owns the host" in lines[-1]
    with pytest.raises(ConfigurationError, match="treafik"):
        command_policy(["treafik"])
