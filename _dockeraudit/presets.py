"""Policies of known clients: the least native rules that each of them needs. Performs no I/O.

    --policy preset:traefik ─▶ preset_policy("traefik") ─▶ NativePolicy

The rules come from the client's own source and documentation: each one stands for a request that
the client sends, and what it sends only where a feature beside its purpose is turned on (actions,
shells, hooks) is left out. `tests/test_presets.py` holds both directions. Rules of the user's own
stand above those of the preset, so that one more `allow` or `deny` needs no copy of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from _dockeraudit.policy import NativePolicy, native_clause

PRESET_PREFIX = "preset:"  # what stands before a preset's name in --policy
#: what clients of Docker's own library ask first, to agree on a version of the API
NEGOTIATION = ("allow = GET,HEAD /_ping",)


class Preset(NamedTuple):
    """`summary`: what the client does with the engine, as half a sentence. `rules`: its rules."""

    summary: str
    rules: tuple[str, ...]


PRESETS = {
    "beszel": Preset(
        "lists containers, reads their stats, details and logs",
        (
            "allow = GET /version",
            "allow = GET /info",
            "allow = GET /containers/json",
            "allow = GET /containers/*/stats",
            "allow = GET /containers/*/json",
            "allow = GET /containers/*/logs",
        ),
    ),
    "ci-build": Preset(
        "builds, pulls, tags and pushes images; runs no containers but those of a build",
        (
            *NEGOTIATION,
            "allow = GET /version",
            "allow = GET /info",
            "allow = POST /auth",
            "allow = POST /build",
            "allow = POST /build/cancel",
            "allow = POST /session",
            "allow = POST /grpc",
            "allow = POST /images/create",
            "allow = GET /images/json",
            "allow = GET /images/**/json",
            "allow = POST /images/**/tag",
            "allow = POST /images/**/push",
            "allow = GET /distribution/**/json",
        ),
    ),
    "diun": Preset(
        "looks which images containers and services have, to tell of newer ones",
        (
            *NEGOTIATION,
            "allow = GET /version",
            "allow = GET /containers/json",
            "allow = GET /containers/*/json",
            "allow = GET /images/**/json",
            "allow = GET /services",
        ),
    ),
    "dozzle": Preset(
        "shows containers, their logs and stats; without its actions and its shell",
        (
            *NEGOTIATION,
            "allow = GET /version",
            "allow = GET /info",
            "allow = GET /events",
            "allow = GET /containers/json",
            "allow = GET /containers/*/json",
            "allow = GET /containers/*/logs",
            "allow = GET /containers/*/stats",
        ),
    ),
    "homepage": Preset(
        "shows the state and the stats of containers and services",
        (
            "allow = GET /containers/json",
            "allow = GET /containers/*/json",
            "allow = GET /containers/*/stats",
            "allow = GET /services",
            "allow = GET /tasks",
        ),
    ),
    "netdata": Preset(
        "counts containers and images, and names the containers that use the host",
        (
            *NEGOTIATION,
            "allow = GET /info",
            "allow = GET /containers/json",
            "allow = GET /containers/*/json",
            "allow = GET /images/json",
        ),
    ),
    "portainer-readonly": Preset(
        "shows everything but the swarm's tokens and the files of containers; changes nothing",
        (
            *NEGOTIATION,
            "allow = GET /version",
            "allow = GET /info",
            "allow = GET /events",
            "allow = GET /system/df",
            "allow = GET /containers/json",
            "allow = GET /containers/*/json",
            "allow = GET /containers/*/logs",
            "allow = GET /containers/*/stats",
            "allow = GET /containers/*/top",
            "allow = GET /images/json",
            "allow = GET /images/**/json",
            "allow = GET /images/**/history",
            "allow = GET /networks",
            "allow = GET /networks/*",
            "allow = GET /volumes",
            "allow = GET /volumes/*",
            "allow = GET /plugins",
            "allow = GET /services",
            "allow = GET /services/*",
            "allow = GET /services/*/logs",
            "allow = GET /tasks",
            "allow = GET /tasks/*",
            "allow = GET /tasks/*/logs",
            "allow = GET /nodes",
            "allow = GET /nodes/*",
            "allow = GET /configs",
            "allow = GET /configs/*",
            "allow = GET /secrets",
            "allow = GET /secrets/*",
        ),
    ),
    "prometheus": Preset(
        "finds targets among containers (docker_sd) and in a swarm (dockerswarm_sd)",
        (
            *NEGOTIATION,
            "allow = GET /containers/json",
            "allow = GET /networks",
            "allow = GET /services",
            "allow = GET /tasks",
            "allow = GET /nodes",
        ),
    ),
    "traefik": Preset(
        "finds containers, and in a swarm services, with the labels that route to them",
        (
            *NEGOTIATION,
            "allow = GET /version",
            "allow = GET /events",
            "allow = GET /containers/json",
            "allow = GET /containers/*/json",
            "allow = GET /services",
            "allow = GET /tasks",
            "allow = GET /networks",
            "allow = GET /nodes/*",
        ),
    ),
    "watchtower": Preset(
        "replaces containers whose images are outdated; whoever may create one owns the host",
        (
            *NEGOTIATION,
            "allow = GET /containers/json",
            "allow = GET /containers/*/json",
            "allow = GET /images/**/json",
            "allow = POST /images/create",
            "allow = DELETE /images/**",
            "allow = POST /containers/*/kill",
            "allow = DELETE /containers/*",
            "allow = POST /containers/create",
            "allow = POST /containers/*/rename",
            "allow = POST /containers/*/start",
            "allow = POST /networks/*/connect",
            "allow = POST /networks/*/disconnect",
        ),
    ),
}
#: the presets as values of --policy
PRESET_POLICIES = tuple(PRESET_PREFIX + name for name in PRESETS)


class PresetPolicy(NativePolicy):
    """The rules of a preset below those of the user."""

    def table(self) -> list[str]:
        """The rules, below the preset's name."""
        return [
            f"policy {self.title}: the first line that matches decides, no match denies",
            *super().table()[1:],
        ]


def preset_policy(value: str, own_rules: Sequence[str] = ()) -> PresetPolicy:
    """The policy that `preset:NAME` stands for.

    Raises PolicyError for a wrong rule of the user's, KeyError for an unknown preset.
    """
    rules = PRESETS[value[len(PRESET_PREFIX) :]].rules
    return PresetPolicy(value, [native_clause(line) for line in (*own_rules, *rules)])


def preset_lines(name: str) -> list[str]:
    """A preset as lines for the file of --config; raises KeyError."""
    preset = PRESETS[name]
    return [f"# {PRESET_PREFIX}{name}: {preset.summary}", *preset.rules]
