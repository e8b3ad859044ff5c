"""patterns: what counts as a secret, and how to find it fast in the middle of a log stream.

    block ─▶ anchors (literals and token runs, a few C-speed passes) ─▶ the rule's own pattern, matched at that place
          ─▶ candidates ─▶ overlap resolved on the secrets' spans (earlier rules of the table win) ─▶ Match

Sections:

    rules            what a rule is, and the shorthand that the tables are written in
    originals        the six patterns that stay exactly as they were given
    tokens           structured tokens of providers, family by family
    keyed secrets    NAME = VALUE, where the name tells the service and the value has its shape
    everything else  keys, URLs, headers, hooks; generic names last
    what is none     placeholders, identifiers, entropy
    scanning         Scanner: how 250 rules cost little more than one
    users' rules     loading, checking, choosing; the table as a document

No pattern is ever searched for: a regex that begins with a class or ignores case walks at 0.1 GB/s, and the e-mail
pattern is quadratic. Words, literals and runs are found, and patterns are matched there.
Run as a program, it checks every rule against its own examples.
"""
from __future__ import annotations

import base64
import binascii
import bisect
import functools
import hashlib
import json
import random
import re
import sys
import time
from collections import Counter
from typing import Any, Callable, Iterable, Iterator, NamedTuple, Optional, Sequence

# =====================================================================================================================
# rules
# =====================================================================================================================


class Rule(NamedTuple):
    """What one kind of secret looks like.

    `keywords`: literals of which one must occur, lower-case where the pattern ignores case. `pattern`: a regex over
    bytes, matched where an anchor was found. `group`: the group that is the secret. `examples` must match, `negatives`
    must not. `multiline`: the match is a header, the secret follows on later lines. `find`: which finder anchors it.
    `custom`: a user's rule.
    """

    id: str
    name: str
    severity: str
    keywords: tuple[bytes, ...]
    pattern: bytes
    group: int
    examples: tuple[str, ...]
    negatives: tuple[str, ...]
    reference: str
    multiline: bool = False
    find: str = "token"
    custom: bool = False


class Match(NamedTuple):
    """Where a rule matched, in byte offsets of the block; the secret is a part of the match."""

    rule: Rule
    start: int
    end: int
    secret_start: int
    secret_end: int


#: alphabets of token bodies, by the letter that names them in a shape
ALPHABETS = {
    "a": "A-Za-z0-9",
    "w": "A-Za-z0-9_-",
    "v": "A-Za-z0-9_",
    "h": "0-9a-f",
    "x": "0-9a-fA-F",
    "u": "A-Z0-9",
    "l": "a-z0-9",
    "d": "0-9",
    "b": "A-Za-z0-9+/",
    "e": "A-Za-z0-9+/=_.-",
    "g": "A-Za-z0-9_=-",
    "L": "a-z",
    "U": "A-Z",
    "p": "A-Z2-7",
    "f": "A-Za-z0-9._",
    "q": "A-Za-z0-9+/=_%-",
}
SHAPE_PART = re.compile(r"\{([a-zA-Z])(\d+)(?:(,)(\d*))?\}|\[([^\]]+)\]|(.)", re.S)
UUID = "{h8}-{h4}-{h4}-{h4}-{h12}"


def shape_regex(shape: str) -> str:
    """A shape as a regex: `{a36}` is 36 of alphabet a, `{a20,}` 20 or more, `[x|y]` a choice, all else is literal."""
    parts = []
    for letter, least, comma, most, choice, literal in SHAPE_PART.findall(shape):
        if letter:
            parts.append(f"[{ALPHABETS[letter]}]{{{least}{comma}{most}}}")
        elif choice:
            parts.append("(?:" + "|".join(re.escape(option) for option in choice.split("|")) + ")")
        else:
            parts.append(re.escape(literal))
    return "".join(parts)


def shape_end(shape: str) -> str:
    """What must not follow a shape of a fixed length: more of a token's characters."""
    last = re.search(r"\{([a-zA-Z])\d+(,\d*)?\}$", shape)
    return "" if last is None or last.group(2) == "," else "(?![A-Za-z0-9_-])" if last.group(1) not in "be" else f"(?![{ALPHABETS[last.group(1)]}])"


@functools.lru_cache(maxsize=None)
def letters(letter: str) -> str:
    """The alphabet that a letter of a shape stands for, ranges spelled out."""
    return re.sub(r"(.)-(.)", lambda m: "".join(map(chr, range(ord(m[1]), ord(m[2]) + 1))), ALPHABETS[letter])


@functools.lru_cache(maxsize=None)
def plain_letters(letter: str) -> str:
    """The same without punctuation, where anything is left then."""
    return letters(letter).translate(str.maketrans("", "", "-_=.+/%")) or letters(letter)


def shape_sample(shape: str, seed: int = 1) -> str:
    """A made-up text of this shape, always the same one; nothing token-shaped needs to stand in a file."""
    rng = random.Random(f"{shape} {seed}")
    text = ""
    for letter, least, _, _, choice, literal in SHAPE_PART.findall(shape):
        if letter:
            alphabet = plain_letters(letter)
            text += "".join(rng.choice(alphabet) for _ in range(int(least)))
        else:
            text += choice.split("|")[0] if choice else literal
    return text


def token(rule_id: str, name: str, shapes: str, reference: str, severity: str = "HIGH") -> Rule:
    """A rule for tokens that begin with a public prefix; `shapes` are separated by spaces."""
    parts = [shape_regex(shape) + shape_end(shape) for shape in shapes.split()]
    pattern = parts[0] if len(parts) == 1 else "|".join(parts)
    examples = tuple(shape_sample(shape) for shape in shapes.split())
    heads = tuple(head for shape in shapes.split() for head in shape_heads(shape))
    negatives = tuple(example[: len(example) // 2] for example in examples)
    return Rule(rule_id, name, severity, heads, pattern.encode(), 0, examples, negatives, reference)


def shape_heads(shape: str) -> tuple[bytes, ...]:
    """The three-byte beginnings of a shape, for the scanner's table."""
    heads = [""]
    for letter, least, _, _, choice, literal in SHAPE_PART.findall(shape):
        if min(map(len, heads)) >= 3:
            break
        if letter:
            alphabet = letters(letter)
            options = list(alphabet) if int(least) == 1 or min(map(len, heads)) == 2 else [a + b for a in alphabet for b in alphabet]
        else:
            options = choice.split("|") if choice else [literal]
        heads = [head + option for head in heads for option in options]
    return tuple(sorted({head[:3].encode() for head in heads}))


def behind(before: str, rule: Rule) -> Rule:
    """The rule, where something stands before its token that is no part of it."""
    return rule._replace(pattern=f"(?<={re.escape(before)})".encode() + rule.pattern, examples=tuple(before + e for e in rule.examples), negatives=rule.examples)


def keyed(rule_id: str, name: str, service: str, shapes: str, reference: str, severity: str = "MEDIUM") -> Rule:
    """A rule for values that only their key gives away: one of the `service` words in the key's name, and a shape."""
    pattern = "|".join(f"(?:{shape_regex(shape)})" for shape in shapes.split())
    word, first = service.split()[0], shapes.split()[0]
    examples = (f"{word}_api_key = {shape_sample(first)}", f'"{word}-token": "{shape_sample(first, 2)}"')
    negatives = (f"{word}_api_key = {shape_sample(first)[:5]}", f"other_api_page = {shape_sample(first)}")
    return Rule(rule_id, name, severity, tuple(service.encode().split()), pattern.encode(), 0, examples, negatives, reference, find="service")


# =====================================================================================================================
# originals
# =====================================================================================================================

AWS_EXAMPLE = "AK" + "IA" + "IOSFODNN7EXAMPLE"
KEY_HEADER = "-----BEGIN {}PRIVATE " + "KEY-----"

AWS_ACCESS_KEY = Rule(
    "aws-access-key", "AWS Access Key", "HIGH", (b"AKIA",), rb"AKIA[0-9A-Z]{16}", 0,
    (AWS_EXAMPLE,), ("AKIA1234", "akia" + "iosfodnn7example"),
    "https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html", find="aws",
)  # fmt: skip
GENERIC_API_KEY = Rule(
    "generic-api-key", "Generic API Key", "HIGH", (b"api",),
    rb"""(?i)api[_-]?key[_-]?[:=]\s*['"]?([a-zA-Z0-9_\-]{20,})['"]?""", 1,
    ("api_key=" + "a1B2" * 6, "API-KEY: '" + "x9Y8" * 5 + "'"), ("api_key=short", "apikeys are secret"),
    "the original's pattern", find="api",
)  # fmt: skip
PRIVATE_KEY = Rule(
    "private-key", "Private Key", "HIGH", (b"-----BEGIN",), rb"-----BEGIN\s+(?:RSA\s+)?PRIVATE\s+KEY-----", 0,
    (KEY_HEADER.format(""), KEY_HEADER.format("RSA ")), ("-----BEGIN CERTIFICATE-----", "-----BEGIN PUBLIC KEY-----"),
    "RFC 7468, section 10; RFC 8017, appendix A.1.2", multiline=True, find="pem",
)  # fmt: skip
EMAIL_ADDRESS = Rule(
    "email-address", "Email Address", "LOW", (b"@",), rb"[a-zA-Z0-9._%+-]+@[a-zA-Z0-9.-]+\.[a-zA-Z]{2,}", 0,
    ("user@example.com", "first.last+tag@mail.example.org"), ("user@localhost", "@example.com"), "RFC 5322, section 3.4.1", find="email",
)  # fmt: skip
BEARER_TOKEN = Rule(
    "bearer-token", "Bearer Token", "HIGH", (b"bearer",), rb"(?i)bearer\s+[a-zA-Z0-9_\-\.]{20,}", 0,
    ("Authorization: Bearer " + "a1b2c3d4" * 3,), ("bearer of news", "Bearer short"), "RFC 6750, section 2.1", find="bearer",
)  # fmt: skip
PASSWORD = Rule(
    "password", "Password", "HIGH", (b"password",), rb"""(?i)password[_-]?[:=]\s*['"]?([a-zA-Z0-9_\-!@#$%^&*]{8,})['"]?""", 1,
    ("password=hunter2hunter2", "PASSWORD: 'correct-horse'"), ("password=short", "password reset"), "the original's pattern", find="password",
)  # fmt: skip

ORIGINAL_RULES = (AWS_ACCESS_KEY, GENERIC_API_KEY, PRIVATE_KEY, EMAIL_ADDRESS, BEARER_TOKEN, PASSWORD)

# =====================================================================================================================
# tokens
# =====================================================================================================================

CLOUDS = (
    token("aws-temporary-key", "AWS temporary access key id", "ASIA{p16} ABIA{p16} ACCA{p16} A3T{p1}{p16}", "docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html"),
    token("aws-bedrock-key", "Amazon Bedrock API key", "ABSK{b109,}", "docs.aws.amazon.com/bedrock/latest/userguide/api-keys.html"),
    token("aws-bedrock-short-key", "Amazon Bedrock short-term API key", "bedrock-api-key-{b32,}", "docs.aws.amazon.com/bedrock/latest/userguide/api-keys.html"),
    token("google-api-key", "Google API key", "AIza{w35}", "cloud.google.com/docs/authentication/api-keys"),
    token("google-oauth-token", "Google OAuth access token", "ya29.{w20,}", "developers.google.com/identity/protocols/oauth2"),
    token("google-oauth-secret", "Google OAuth client secret", "GOCSPX-{w28}", "developers.google.com/identity/protocols/oauth2"),
    token("google-bound-key", "Google bound API key", "AQ.Ab8{w47}", "cloud.google.com/docs/authentication/api-keys"),
    behind("1//", token("google-refresh-token", "Google OAuth refresh token", "0{w40,}", "developers.google.com/identity/protocols/oauth2")),
    token("alibaba-access-key", "Alibaba Cloud access key id", "LTAI{a16,24}", "www.alibabacloud.com/help/en/ram"),
    token("alibaba-sts-token", "Alibaba Cloud STS key id", "STS.N{a20,}", "www.alibabacloud.com/help/en/ram"),
    token("digitalocean-token", "DigitalOcean token", "[dop|doo|dor]_v1_{h64}", "docs.digitalocean.com/reference/api/create-personal-access-token"),
    token("cloudflare-origin-ca-key", "Cloudflare Origin CA key", "v1.0-{h24}-{h146}", "developers.cloudflare.com/ssl/origin-configuration/origin-ca"),
    token("tencent-secret-id", "Tencent Cloud secret id", "AKID{a32}", "www.tencentcloud.com/document/product/598"),
    token("yandex-iam-token", "Yandex Cloud IAM token", "t1.{w1,}.{w80,}", "yandex.cloud/en/docs/iam/concepts/authorization/iam-token"),
    token("yandex-api-key", "Yandex Cloud API key", "AQVN{w35,38}", "yandex.cloud/en/docs/iam/concepts/authorization/api-key"),
    token("yandex-access-token", "Yandex Cloud static key", "YC{w38}", "yandex.cloud/en/docs/iam/concepts/authorization/access-key"),
    token("flyio-token", "Fly.io token", "[fm1r_|fm1a_|fm2_]{b100,} fo1_{w43}", "fly.io/docs/security/tokens"),
    token("scaleway-key", "Scaleway access key", "SCW{u17}", "www.scaleway.com/en/docs/iam"),
    token("vercel-token", "Vercel token", "[vcp_|vci_|vca_|vcr_|vck_]{w56}", "vercel.com/docs/rest-api"),
    token("netlify-token", "Netlify personal access token", "nfp_{a36}", "docs.netlify.com/api/get-started"),
    token("heroku-token", "Heroku API token", "HRKU-{w60}", "devcenter.heroku.com/articles/authentication"),
    token("supabase-token", "Supabase access token", "sbp_{l40} sb_secret_{w31,}", "supabase.com/docs/guides/api/api-keys"),
    token("render-key", "Render API key", "rnd_{a28,32}", "render.com/docs/api"),
    token("planetscale-token", "PlanetScale credential", "[pscale_tkn_|pscale_pw_|pscale_oauth_]{e32,}", "planetscale.com/docs/concepts/service-tokens"),
    token("mongodb-atlas-key", "MongoDB Atlas service account secret", "mdb_sa_sk_{w40,}", "www.mongodb.com/docs/atlas/api"),
    token("cloudflare-token", "Cloudflare API token", "[cfat|cfut]_{a48} cfk_{a48}", "developers.cloudflare.com/fundamentals/api"),
    token("aws-mws-key", "Amazon MWS auth token", "amzn.mws.{l8}-{l4}-{l4}-{l4}-{l12}", "developer-docs.amazon.com/sp-api"),
    token("aws-appsync-key", "AWS AppSync API key", "da2-{l26}", "docs.aws.amazon.com/appsync/latest/devguide/security-authz.html"),
    token("cockroach-key", "CockroachDB Cloud key", "CCDB1_{a22}_{a40}", "www.cockroachlabs.com/docs/cockroachcloud"),
    token("elastic-cloud-key", "Elastic Cloud API key", "essu_{w70,90}", "www.elastic.co/docs/deploy-manage/api-keys"),
    token("scalingo-token", "Scalingo API token", "tk-us-{w48}", "developers.scalingo.com"),
    token("alchemy-key", "Alchemy key", "alcht_{a30}", "www.alchemy.com/docs"),
    token("neon-key", "Neon API key", "napi_{l64}", "neon.tech/docs/manage/api-keys"),
    token("cratesio-token", "crates.io token", "cio{a32}", "doc.rust-lang.org/cargo/reference/registry-authentication.html"),
)

FORGES = (
    token("github-token", "GitHub token", "[ghp_|gho_|ghu_|ghs_|ghr_]{a36,255} ghs_{d1,12}_eyJ{e100,}", "docs.github.com/en/authentication/keeping-your-account-and-data-secure/about-authentication-to-github"),
    token("github-fine-grained-token", "GitHub fine-grained token", "github_pat_{v82}", "docs.github.com/en/authentication"),
    token("gitlab-token", "GitLab access token", "[glpat-|gldt-|glft-|glsoat-|glrt-|glffct-]{w20} [glpat-|glrt-]{w27,300}.{l2}.{l7} glrt-t{d1}_{w27,300}.{l9} glrt-t{d1}_{w20} glrtr-{w40} glimt-{w25} glptt-{w40} glagent-{w50} gloas-{w64} glcbt-{a1,5}_{w20} glwt-{w32,34}", "docs.gitlab.com/security/tokens"),
    token("gitlab-runner-registration", "GitLab runner registration token", "GR1348941{w20}", "docs.gitlab.com/security/tokens"),
    token("atlassian-token", "Atlassian API token", "ATATT3xFfGF0{g20,}", "support.atlassian.com/atlassian-account/docs/manage-api-tokens-for-your-atlassian-account"),
    token("bitbucket-app-password", "Bitbucket app password", "ATBB{g24,}", "support.atlassian.com/bitbucket-cloud/docs/app-passwords"),
    token("atlassian-other-token", "Atlassian access token", "ATCTT3xFfGN0{g20,}", "developer.atlassian.com"),
    token("sourcegraph-token", "Sourcegraph token", "sgp_{x40} sgp_{x16}_{x40} sgp_local_{x40} slk_{h64}", "sourcegraph.com/docs/cli/how-tos/creating_an_access_token"),
    token("sonar-token", "SonarQube token", "[sqp_|squ_|sqa_]{a40}", "docs.sonarsource.com/sonarqube-server/user-guide/managing-tokens"),
    token("buildkite-token", "Buildkite token", "[bkua_|bkct_|bkat_|bkr_]{l40}", "buildkite.com/docs/apis/managing-api-tokens"),
    token("circleci-token", "CircleCI token", "[CCIPAT_|CCIPRJ_]{a22,24}_{a40}", "circleci.com/docs/managing-api-tokens"),
    token("harness-token", "Harness token", "[pat|sat].{w22}.{x24}.{a20}", "developer.harness.io/docs/platform/automation/api/add-and-manage-api-keys"),
    token("prefect-token", "Prefect token", "[pnu_|pnb_]{a36}", "docs.prefect.io/v3/manage/cloud/manage-users/api-keys"),
    token("pulumi-token", "Pulumi access token", "pul-{l40}", "www.pulumi.com/docs/pulumi-cloud/accounts"),
    token("terraform-token", "HCP Terraform token", "{a14}.atlasv1.{g60,70}", "developer.hashicorp.com/terraform/cloud-docs/users-teams-organizations/api-tokens")._replace(find="inside", keywords=(b".atlasv1.",)),
    token("vault-token", "HashiCorp Vault token", "[hvs.|hvb.|hvr.]{w24,}", "developer.hashicorp.com/vault/docs/concepts/tokens"),
    token("phabricator-token", "Phabricator Conduit token", "[api-|cli-]{l28}", "secure.phabricator.com/conduit", "MEDIUM"),
    token("bitbucket-data-center-token", "Bitbucket Data Center access token", "BBDC-{b43,45}", "confluence.atlassian.com/bitbucketserver/http-access-tokens-939515499.html"),
    token("octopus-key", "Octopus Deploy API key", "API-{u25,36}", "octopus.com/docs/octopus-rest-api/how-to-create-an-api-key", "MEDIUM")._replace(
        pattern=rb"(?<![/.])API-[A-Z0-9]{25,36}(?![A-Za-z0-9_-])"  # a page's name may look so
    ),
    token("dependency-track-key", "Dependency-Track API key", "odt_{a32,41}", "docs.dependencytrack.org/integrations/rest-api"),
    token("spectral-key", "Spectral key", "sp[u|c]-{h32}", "guides.spectralops.io"),
    token("coderabbit-key", "CodeRabbit key", "cr-{h58}", "docs.coderabbit.ai"),
    token("cursor-key", "Cursor or Retell API key", "key_{h64} key_{h128} key_{h28}", "docs.cursor.com; docs.retellai.com", "MEDIUM"),
    token("infracost-key", "Infracost API key", "ico-{a32}", "www.infracost.io/docs"),
    token("devin-key", "Devin key", "cog_{l52}", "docs.devin.ai"),
)

REGISTRIES = (
    token("npm-token", "npm access token", "npm_{a36}", "docs.npmjs.com/about-access-tokens"),
    token("pypi-token", "PyPI upload token", "pypi-AgEIcHlwaS5vcmc{w50,} pypi-AgENdGVzdC5weXBpLm9yZ{w50,}", "pypi.org/help/#apitoken"),
    token("rubygems-key", "RubyGems API key", "rubygems_{l48}", "guides.rubygems.org/rubygems-org-api"),
    token("nuget-key", "NuGet API key", "oy2{l43}", "learn.microsoft.com/nuget/nuget-org/publish-a-package"),
    token("dockerhub-token", "Docker Hub token", "[dckr_pat_|dckr_oat_]{w27,}", "docs.docker.com/security/access-tokens"),
    token("swarm-token", "Docker Swarm join token or unlock key", "SWMTKN-1-{l50}-{l25} SWMKEY-1-{b40,}", "docs.docker.com/engine/swarm/join-nodes"),
    token("clojars-token", "Clojars deploy token", "CLOJARS_{x60}", "github.com/clojars/clojars-web/wiki/Deploy-Tokens"),
    token("artifactory-key", "JFrog Artifactory API key", "AKCp{a69,} cmVmdGtuOjA{a53,}", "jfrog.com/help/r/jfrog-platform-administration-documentation/api-key"),
    token("artifactory-password", "JFrog Artifactory encrypted password", "AP{x1}{a40,72}", "jfrog.com/help", "MEDIUM"),
    token("deno-token", "Deno Deploy token", "[ddp_|ddw_]{a36}", "docs.deno.com/deploy"),
    token("cloudsmith-key", "Cloudsmith API key", "csa_{h30}{a6}", "help.cloudsmith.io"),
)

CHAT = (
    token("slack-token", "Slack token", "xoxb-{d9,14}-{w16,} [xoxp|xoxe]-{d9,14}-{d9,14}-{d9,14}-{h28,34} [xoxa|xoxr|xoxo|xoxs]-{w20,} xoxe.[xoxb|xoxp]-{d1}-{w100,} [xoxe|xoxp]-{d1}-{w100,}", "api.slack.com/authentication/token-types"),
    token("slack-app-token", "Slack app-level token", "xapp-{d1}-{u8,}-{d8,}-{l32,}", "api.slack.com/authentication/token-types"),
    token("slack-cookie-token", "Slack session token", "xoxc-{d9,14}-{d9,14}-{d9,14}-{h64} xoxd-{q100,}", "api.slack.com/authentication/token-types"),
    token("discord-bot-token", "Discord bot token", "[M|N|O]{w23,25}.{w6}.{w27,38}", "discord.com/developers/docs/reference#authentication"),
    token("frameio-token", "Frame.io token", "fio-u-{g64}", "developer.frame.io"),
    token("live-or-test-key", "Key of MessageBird or Mollie", "[live_|test_]{a25} [live_|test_]{a30}", "developers.messagebird.com/api; docs.mollie.com", "MEDIUM"),
    token("twilio-account", "Twilio account id", "AC{h32}", "www.twilio.com/docs/iam/api", "LOW"),
    token("pubnub-key", "PubNub key", "[pub|sub|sec]-c-{l8}-{l4}-{l4}-{l4}-{l12}", "www.pubnub.com/docs/general/setup/account-setup", "MEDIUM"),
    token("riot-key", "Riot Games API key", "RGAPI-{l8}-{l4}-{l4}-{l4}-{l12}", "developer.riotgames.com/docs/portal"),
    token("coze-token", "Coze token", "pat_{a64}", "www.coze.com/docs"),
    token("clickup-token", "ClickUp personal token", "pk_{d6,9}_{u32}", "developer.clickup.com/docs/authentication"),
    token("teamwork-token", "Teamwork token", "tkn.v1_{b71}=", "apidocs.teamwork.com"),
    token("voiceflow-key", "Voiceflow key", "VF.[DM|WS].{x24}.{a16}", "docs.voiceflow.com", "MEDIUM"),
    token("zoho-token", "Zoho OAuth token", "1000.{h32}.{h32}", "www.zoho.com/accounts/protocol/oauth.html"),
    token("ramp-secret", "Ramp client secret", "ramp_sec_{a48}", "docs.ramp.com"),
    token("branch-key", "Branch key", "key_[live|test]_{a32}", "help.branch.io", "MEDIUM"),
    token("ionic-token", "Ionic token", "ion_{a42}", "ionic.io/docs/appflow"),
    token("nightfall-key", "Nightfall key", "NF-{a32}", "docs.nightfall.ai", "MEDIUM"),
    token("scrapfly-key", "Scrapfly key", "scp-[live|test]-{l32}", "scrapfly.io/docs"),
    token("ubidots-token", "Ubidots token", "[BBFF|BBUS]-{a30,36}", "docs.ubidots.com"),
    token("fullstory-key", "FullStory key", "[na1|eu1].{b100}", "developer.fullstory.com"),
    token("pganalyze-key", "pganalyze key", "pga[r|w|t|a]_{a27}", "pganalyze.com/docs"),
    token("fcm-token", "Firebase Cloud Messaging key or token", "APA91b{w120,150}", "firebase.google.com/docs/cloud-messaging", "MEDIUM"),
    token("twilio-key", "Twilio API key", "SK{x32}", "www.twilio.com/docs/iam/api-keys"),
    token("sendgrid-key", "SendGrid API key", "SG.{g20,24}.{g39,50}", "docs.sendgrid.com/ui/account-and-settings/api-keys"),
    token("sendinblue-key", "Brevo (Sendinblue) API key", "[xkeysib|xsmtpsib]-{h64}-{a16}", "developers.brevo.com/docs/getting-started"),
    token("mailgun-key", "Mailgun key", "[key|pubkey]-{h32}", "documentation.mailgun.com/docs/mailgun/user-manual/api-key-mgmt"),
    token("resend-key", "Resend API key", "re_{v24,}", "resend.com/docs/api-reference", "MEDIUM"),
    token("intra42-secret", "42 intra client secret", "[s|u]-s4t2[ud|af]-{h64}", "api.intra.42.fr/apidoc"),
    token("linear-key", "Linear API key", "lin_api_{a40} lin_oauth_{h64}", "linear.app/developers"),
    token("notion-token", "Notion token", "ntn_{d11}{a35} secret_{a43} nrt_{a40,}", "developers.notion.com/docs/authorization"),
    token("typeform-token", "Typeform personal access token", "tfp_{e40,59} tfp{w40,59}", "www.typeform.com/developers/get-started/personal-access-token"),
    token("figma-token", "Figma personal access token", "[figd_|figo_|figu_]{w40}", "www.figma.com/developers/api#access-tokens"),
    token("airtable-token", "Airtable personal access token", "pat{a14}.{h64}", "airtable.com/developers/web/api/authentication"),
    token("postman-key", "Postman API key", "PMAK-{x24}-{x34} PMAT-{u26}", "learning.postman.com/docs/developer/postman-api/authentication"),
    token("readme-key", "ReadMe API key", "rdme_{l70}", "docs.readme.com/main/reference/authentication"),
    token("beamer-token", "Beamer API key", "b_{g44}", "www.getbeamer.com/api", "MEDIUM"),
    behind(":", token("telegram-bot-token", "Telegram bot token", "AA{w33}", "core.telegram.org/bots/api#authorizing-your-bot")),
    token("contentful-token", "Contentful token", "CFPAT-{w43}", "www.contentful.com/developers/docs/references/authentication"),
    token("duffel-token", "Duffel access token", "[duffel_test_|duffel_live_]{g43}", "duffel.com/docs/api/overview/authentication"),
    token("onepassword-token", "1Password service account token", "ops_eyJ{e200,}", "developer.1password.com/docs/service-accounts"),
    token("onepassword-secret-key", "1Password secret key", "A3-{u6}-{u11}-{u5}-{u5}-{u5} A3-{u6}-{u6}-{u5}-{u5}-{u5}-{u5}", "support.1password.com/secret-key-security"),
    token("doppler-token", "Doppler token", "dp.[pt|ct|sa|scim|audit].{a40,44} dp.st.{w2,35}.{a40,44} dp.st.{a40,44}", "docs.doppler.com/docs/token-formats"),
    token("infisical-token", "Infisical service token", "st.{h24}.{h32}.{h32}", "infisical.com/docs/documentation/platform/token"),
    token("age-key", "age secret key", "AGE-SECRET-KEY-1{u58} AGE-PLUGIN-{u4,}-1{u30,}", "age-encryption.org/v1"),
    token("tailscale-key", "Tailscale key", "tskey-[auth|api|client|scim|webhook]-{a9,}-{a22,}", "tailscale.com/kb/1085/auth-keys"),
    token("definednetworking-key", "Defined Networking API key", "dnkey-{g26}-{g52}", "docs.defined.net/guides/automating-host-creation"),
    token("dropbox-token", "Dropbox access token", "sl.{g40,} sl.u.{w100,}", "www.dropbox.com/developers/reference/auth-types"),
    token("adobe-secret", "Adobe client secret", "p8e-{w32}", "developer.adobe.com/developer-console/docs/guides/authentication"),
    token("adafruit-key", "Adafruit IO key", "aio_{a28}", "io.adafruit.com/api/docs"),
    token("hubspot-token", "HubSpot private app token", "pat-[na1|na2|eu1]-" + UUID, "developers.hubspot.com/docs/api/private-apps"),
    token("apify-token", "Apify token", "apify_api_{a36}", "docs.apify.com/platform/integrations/api"),
    token("databricks-token", "Databricks token", "dapi{x32} dapi{x32}-{d1}", "docs.databricks.com/en/dev-tools/auth/pat.html"),
    token("segment-token", "Segment public API token", "sgp_{a64}", "segment.com/docs/api/public-api"),
    token("launchdarkly-key", "LaunchDarkly key", "[sdk|api|mob]-" + UUID, "docs.launchdarkly.com/home/account/api"),
    token("pipedream-key", "Pipedream key", "pd_{a32}", "pipedream.com/docs", "MEDIUM"),
)

PAYMENT = (
    token("stripe-key", "Stripe key", "[sk_live_|sk_test_|rk_live_|rk_test_|sk_prod_|rk_prod_]{a16,247} whsec_{b32,}", "docs.stripe.com/keys"),
    token("square-token", "Square token", "EAAA{w56,} sq0atp-{w22,} sq0csp-{w43,}", "developer.squareup.com/docs/build-basics/access-tokens"),
    token("square-application-id", "Square application id", "sq0[idp|ige|idb]-{w22,}", "developer.squareup.com/docs/build-basics/access-tokens", "LOW"),
    token("shopify-token", "Shopify token", "[shpat_|shpca_|shppa_|shpss_]{x32}", "shopify.dev/docs/apps/auth"),
    token("shippo-token", "Shippo token", "[shippo_live_|shippo_test_]{h40}", "docs.goshippo.com/docs/guides_general/authentication"),
    token("easypost-key", "EasyPost key", "[EZAK|EZTK]{a54}", "docs.easypost.com/docs/authentication"),
    token("lob-key", "Lob key", "[live_|test_]{h35} [test_pub_|live_pub_]{h31}", "docs.lob.com/#tag/Authentication"),
    token("flutterwave-key", "Flutterwave key", "FLWSECK-{x32}-X FLWSECK_TEST-{x32}-X FLWPUBK_TEST-{x32}-X FLWSECK_TEST-{x12}", "developer.flutterwave.com/docs/authentication"),
    Rule(
        "braintree-token", "Braintree access token", "HIGH", (b"$pr", b"$sa"), rb"(?<=access_token)\$(?:production|sandbox)\$[a-z0-9]{16}\$[0-9a-f]{32}", 0,
        (shape_sample("access_token$production${l16}${h32}"),), ("access_token$production$short",), "developer.paypal.com/braintree/docs", find="mark",
    ),
    token("salesforce-token", "Salesforce session or access token", "00D{a12,15}!{f80,120}", "help.salesforce.com/s/articleView?id=sf.remoteaccess_access_tokens.htm"),
    token("pagarme-key", "Pagar.me key", "ak_[live|test]_{a30}", "docs.pagar.me"),
    token("besttime-key", "BestTime key", "[pri|pub]_{h32}", "documentation.besttime.app", "MEDIUM"),
    token("plaid-token", "Plaid access token", "access-[sandbox|development|production]-" + UUID, "plaid.com/docs/api/tokens"),
    token("gocardless-token", "GoCardless token", "live_{g40}", "developer.gocardless.com", "MEDIUM"),
    token("razorpay-key", "Razorpay key", "[rzp_live_|rzp_test_]{a14,}", "razorpay.com/docs/api/authentication"),
    token("adyen-key", "Adyen API key", "AQE{v1}hmfu{b60,}", "docs.adyen.com/development-resources/api-credentials"),
)

MONITORING = (
    token("grafana-key", "Grafana API key", "eyJrIjoi{b70,400}", "grafana.com/docs/grafana/latest/administration/api-keys")._replace(
        pattern=rb"(?<!\?r=)eyJrIjoi[A-Za-z0-9+/]{70,400}"  # ?r= is Power BI's, whose reports begin so too
    ),
    token("grafana-cloud-token", "Grafana Cloud token", "glc_{b32,400}", "grafana.com/docs/grafana-cloud/account-management/authentication-and-permissions/access-policies"),
    token("grafana-service-account", "Grafana service account token", "glsa_{a32}_{x8}", "grafana.com/docs/grafana/latest/administration/service-accounts"),
    token("newrelic-key", "New Relic key", "NRAK-{a27} NRII-{w32} NRJS-{h19} NRRA-{h42} NRAA-{h27} NRIQ-{w32}", "docs.newrelic.com/docs/apis/intro-apis/new-relic-api-keys"),
    token("dynatrace-token", "Dynatrace token", "dt0[c01|s01|s02|s16].{u24}.{u64} dt0c01.{l24}.{l64}", "docs.dynatrace.com/docs/manage/identity-access-management/access-tokens-and-oauth-clients"),
    token("sentry-token", "Sentry token", "sntrys_eyJ{b80,600}_{b43} sntrys_eyJ{b80,600}=_{b43} sntrys_eyJ{b80,600}==_{b43} [sntryu_|sntrya_]{h64}", "docs.sentry.io/account/auth-tokens"),
    token("posthog-key", "PostHog key", "[phc|phx|phs|phr|pha]_{w39,64}", "posthog.com/docs/api"),
    token("datadog-client-token", "Datadog client token", "pub{h32}", "docs.datadoghq.com/account_management/api-app-keys", "MEDIUM"),
    token("logfire-token", "Logfire token", "pylf_v{d1}_{l2}_{w43}", "logfire.pydantic.dev"),
    token("honeycomb-key", "Honeycomb key", "[hcaik_|hcbik_|hcalk_]{l58}", "docs.honeycomb.io/configure/environments/manage-api-keys"),
    token("rootly-token", "Rootly key", "rootly_{h64}", "rootly.com/api"),
)

AI = (
    token("openai-key", "OpenAI key", "sk-[proj|svcacct|admin|None]-{w40,} sk-{a20}T3BlbkFJ{a20} sk-{w40,80}T3BlbkFJ{w40,80}", "platform.openai.com/docs/api-reference/authentication"),
    token("anthropic-key", "Anthropic key", "sk-ant-[api|admin|sid|oat]{d2}-{w88,100}AA", "docs.anthropic.com/en/api/getting-started"),
    token("openrouter-key", "OpenRouter key", "sk-or-v1-{h64}", "openrouter.ai/docs/api-reference/authentication"),
    token("deepseek-key", "DeepSeek key", "sk-{l32}", "api-docs.deepseek.com", "MEDIUM"),
    token("huggingface-token", "Hugging Face token", "hf_{a34,37} api_org_{a34}", "huggingface.co/docs/hub/security-tokens"),
    token("groq-key", "Groq key", "gsk_{a52}", "console.groq.com/docs/api-keys"),
    token("perplexity-key", "Perplexity key", "pplx-{a48}", "docs.perplexity.ai"),
    token("replicate-token", "Replicate token", "r8_{w37}", "replicate.com/docs/topics/security/api-tokens"),
    token("xai-key", "xAI key", "xai-{w70,}", "docs.x.ai"),
    token("elevenlabs-key", "ElevenLabs key", "sk_{h48} sk_{h40}", "elevenlabs.io/docs/api-reference/authentication"),
    token("wandb-key", "Weights & Biases key", "wandb_v1_{v77}", "docs.wandb.ai"),
    token("nvidia-key", "NVIDIA API key", "nvapi-{w60,70}", "docs.nvidia.com"),
    token("langsmith-key", "LangSmith key", "[lsv2_pt_|lsv2_sk_]{h32}_{h10}", "docs.smith.langchain.com"),
    token("pinecone-key", "Pinecone key", "pcsk_{a5,6}_{a63}", "docs.pinecone.io"),
    token("tavily-key", "Tavily or Firecrawl key", "[tvly-|fc-]{a32}", "docs.tavily.com"),
    token("jina-key", "Jina key", "jina_{a32}{w20,}", "jina.ai"),
    token("fal-cerebras-key", "Cerebras key", "csk-{l48}", "inference-docs.cerebras.ai"),
    token("voyage-key", "Voyage AI key", "pa-{w43}", "docs.voyageai.com"),
    token("fireworks-key", "Fireworks AI key", "fw_{a22,}", "docs.fireworks.ai", "MEDIUM"),
    token("together-key", "Together or E2B key", "[tgp_v1_|e2b_]{w40,}", "docs.together.ai"),
)

# =====================================================================================================================
# keyed secrets
# =====================================================================================================================

#: names of services that hand out keys: one of them before `key`, `token` or `secret` makes a random value a secret
SERVICES = frozenset(
    b"""
    abstract abstractapi abuseipdb accuweather adafruit adobe adyen adzuna aeroworkflow agora aha aikido airbrake airship airtable airvisual aiven
    akamai alchemy alconost alegra aletheia aletheiaapi algolia alibaba alienvault aliyun allsports alphavantage amadeus amazon ambee amplitude
    anthropic anypoint apacta api2cart apideck apidog apiflash apifonica apify apilayer apimatic apimetrics apiscience apitemplate apollo appcenter
    appcues appfollow appoptics appsflyer appsynergy apptivo artifactory artsy asaas asana assembly assemblyai atera atlassian audd auth0 authress
    autodesk autoklose autopilot avaza aviationstack aws axiom axonaut aylien ayrshare azure backblaze bamboohr bannerbear baremetrics baseapi
    basecamp beamer beebole besnappy besttime betterstack billomat binance bing bitbar bitbucket bitcoinaverage bitfinex bitly bitmex bitrise bittrex
    blazemeter blitapp blockfrost blocknative blogger bluemix blynk bombbomb boostnote borgbase box boxcom braintree braintrust branchio brandfetch
    brave brevo browserless browserstack browshot bscscan buddyns budibase bugherd bugsnag buildkite bulbul bulksms bunnycdn buttercms bybit caflou
    calendarific calendly calorieninja campayn cannyio canva capsulecrm captaindata carboninterface cashboard caspio censys centralstationcrm cerebras
    cexio chargebee chargify chartmogul chatbot chatfule chatwork checio checkly checklyhq checkvist cicero circle circleci civo clarifai clay
    clearbit clearout clerk clickhelp clickhouse clicksend clickup cliengo clientary clinchpad clockify clockwork clockworksms clojars closecrm
    cloudant cloudconvert cloudelements cloudflare cloudimage cloudinary cloudmersive cloudplan cloudsight cloudsmith cloudways cloverly cloze
    clustdoc cockroach cockroachdb cockroachlabs coda codacy codeclimate codecov codemagic codequiry coderabbit cohere coinapi coinbase coinbasepro
    coingecko coinlayer coinlib coinmarketcap collect2 commercejs commercetools commodities companyhub composio configcat confluence confluent
    contentful contentstack conversiontools convertapi convertkit convier copper copyscape coralogix countly countrylayer courier coveralls coze
    craftmypdf crowdin cryptocompare currencycloud currencyfreaks currencylayer currencyscoop currentsapi cursor customerguru customerio d7network
    daily dailyco dandelion dareboost databox databricks datadog datagov datarobot deadmanssnitch debounce deepai deepgram deepl deepseek deezer
    delighted demio deno dependencytrack deputy detectify detectlanguage devcycle deviantart devin dfuse dialpad dictionaryapi diffbot diggernaut
    digicert digitalocean directus discord discourse disqus ditto dixa dnscheck dnsimple docker dockerhub docparser docsumo documo docusign doppler
    dotdigital dotmailer dovico dronahq drone droneci dropbox duffel duo duply dwolla dynalist dynatrace dyspatch eagleeyenetworks easyinsight
    easypost ecostruxureit edamam edenai eightxeight elastic elasticemail elasticsearch elevenlabs emailoctopus enablex endor endorlabs enigma envoy
    equinix eraser eraserio etherscan ethplorer etsy eventbrite everflow everhour exa exchangerate exchangerateapi exchangeratesapi exoscale expo
    exportsdk extractorapi facebook faceplusplus facepp fal fastforex fastly fastspring fauna faunadb feedier fetchrss fibery figma fileio filestack
    fillout finage financialmodelingprep findl finicity finnhub firebase firecrawl fireworks firstpromoter fivetran fixer fixerio flagsmith flatio
    fleetbase flexport flickr flightapi flightaware flightlabs flightstats flowdash flowflu flutterwave flyio fmfw followupboss formbucket formcraft
    formio formsite formspree foursquare fourthwall frameio freemius freshbooks freshdesk freshservice freshworks fulcrum fullcontact fullstory
    fxmarket gcp geckoboard gemini gengo geoapify geocod geocode geocodify geocodio geoipifi geoipify getemail getemails getgeoapi getgist getresponse
    getsandbox ghost giphy gitbook gitea github gitlab gitter glassnode gnews gocanvas gocardless godaddy goodday google googlemaps gorgias gotify
    grafana graphcms graphhopper greenhouse groove groovehq groq gtmetrix guardian guardianapi gumroad guru gyazo hackerone happi happyscribe harness
    harvest hashnode hellosign helpcrunch helpscout hereapi heroku hetzner hibob highlevel hive hiveage holidayapi holistic honeybadger honeycomb
    hootsuite hotjar html2pdf hubspot huggingface humanity humanloop hunter hunterio hybiscus hyperbolic hypertrack ibm iconfinder iex iexapis
    iexcloud imagekit imagga imgbb imgix imgur impala infisical influx influxdb infobip infomaniak infracost infura insightly instabot instagram
    instamojo intercom interseller intrinio invoiced invoiceocean ionic ip2location ipapi ipdata ipgeolocation ipifi ipify ipinfo ipinfodb ipquality
    ipqualityscore ipregistry ipstack iterable jenkins jfrog jina jira jotform jumio jumpcloud jumpseller jupiterone juro kagi kaleyra kanban
    kanbanflow kanbantool karmacrm keen keenio kickbox kickserv klarna klaviyo klipfolio knapsackpro knock kontent kraken kucoin kustomer kylas
    langchain langfuse langsmith languagelayer lark larksuite lastfm lattice launchdarkly leadfeeder lemlist lemonsqueezy lendflow less
    lessannoyingcrm lexigram lighton lightspeed linear linemessaging linenotify linkedin linkpreview linode litellm liveagent livechat livekit
    livestorm llamacloud loadmill lob locationiq logdna loggly loginradius logrocket logzio lokalise looker loops loyverse lunchmoney luno lytics
    madkudu magento magicbell magiceden magnetic mailboxlayer mailboxvalidator mailchimp mailerlite mailersend mailgun mailjet mailjetsms mailmodo
    mailsac mailtrap mandrill mapbox mapquest maptiler marketo marketstack matomo mattermost mavenlink maxio maxmind meaningcloud mediastack
    meilisearch meistertask mem0 memberstack meraki mercury mergify mesibo messagebird metaapi metabase metrilo midtrans mindmeister mindsdb miro
    mistral mite mixcloud mixmax mixpanel mockaroo modal moderation mollie momento monday mondaycom moneybird mongo mongodb monkeylearn moonclerk
    moosend moralis motherduck mrticktock muapi mux mysql nango nasa nasdaq neon neptune netcore nethunt netlify netsuite neutrinoapi newrelic newsapi
    newscatcher nexmo nftport ngc ngrok nicereply nightfall nimble noticeable notion novita novu nozbe npm nuget numverify nutritionix nvidia nylas
    nytimes oanda octoai octopus octopusdeploy oddsapi okta olark omnisend onboardbase onedesk onelogin onepagecrm onesignal onfido onfleet onwater
    oopspam openai openaq opencage opencagedata openfigi opengraphr openrouter opensea openuv openvpn openweather openweathermap opsgenie optimizely
    oracle orbit originality ory oura outreach overloop ovh owlbot owm oxylabs packagecloud packagist paddle pagarme pagerduty palantir pandadoc
    pandascore paperform paralleldots parsehub parseur particle partnerstack passbase pastebin patreon paydirtapp paymo paymoapp paymongo payoneer
    paypal paystack paytm pdfco pdflayer pdfshift pendo peopledatalabs pepipost percy perigon perplexity persona pexels picatic pinata pinecone
    pingdom pingone pinterest pipedream pipedrive piwik pixabay plaid planetscale planview planviewleankit planyo plesk plivo podio polar pollsapi
    poloniex polygon polymarket portainer portkey positionstack postageapi postageapp postbacks posthog postman postmark powrbot predicthq prefect
    prerender printful printify privacy privateai productboard producthunt prospect prospectcrm prospectio protocolsio proxycrawl pubnub pulumi
    purestake pushbullet pusher pushover pypi qase qdrant qualaroo qualtrics qubole questdb quickbooks quickmetrics quicknode quip railway ramp
    rapidapi raven rawg razorpay rb2b reachmail readme readwise rebrandly recaptcha recombee reddit redirectpizza redis refiner reka relevanceai
    removebg render rentman reoon repairshopr replicate replit replyio requestfinance resend restpack retell retellai retool revai revampcrm
    revenuecat ringcentral riot ritekit roaring robinhood rocketreach rockset rollbar ronin roninapp rootly route4me rownd rubygems rudderstack runpod
    runrunit runway runwayml salesblink salescookie salesflare salesforce salesloft salesmate samsara sanity satismeter sauce saucelabs scale scaleway
    scalingo scalr scrapeowl scraperapi scraperbox scrapersite scrapestack scrapfly scrapingant scrapingbee scrapinghub screenshotapi screenshotlayer
    scrutinizer scrutinizerci seatgeek securitytrails segment selectpdf semaphore sendbird sendfox sendgrid sendinblue sendpulse sentiment sentry
    serpapi serper serphouse serpstack servicenow sessionize settlemint sheety sherpadesk shipbob shipday shipengine shippo shipstation shodan shopify
    shortcut shotstack shutterstock sift siftscience sightengine signable signalwire signaturit signupgenius signwell sigopt simfin similarweb
    simplesat simplisafe simplynoted simvoly sinch sinchmessage sirv siteleaf skrappio skybiometry slack slite smartlook smartsheet smartsheets
    smartystreets smooch smtp2go snipcart snowflake snyk socialdata solarwinds sonar sonarcloud sonarqube sourcegraph spaceship sparkpost spectral
    spectralops speechmatics speechtext speechtextai splunk spoonacular sportmonks sportradar sportsmonk spotify square squarespace squareup sslmate
    stability stackhawk stackoverflow starton statsig statuscake statuspage statuspal steam stitch stitchdata stockdata storecove stormboard
    stormglass storyblok storychief strapi strava streak stripe stripo stytch sugester sumologic sumsub supabase supernotes surveyanyplace surveybot
    surveymonkey surveysparrow survicate swell swiftype synthesia tableau tailscale tallyfy tatum tatumio tavily taxjar teamcity teamgate teamwork
    teamworkcrm teamworkdesk teamworkspaces technicalanalysisapi tefter telegram telesign teletype telnyx tencent terraform testingbot testingfarm
    testrail textmagic theoddsapi thingsboard thinkific thousandeyes thunderstore ticketmaster tickettailor tiingo tiktok timecamp timezoneapi tines
    tinybird tinypng tmdb tmetric todoist together togetherai toggl toggltrack tokeet tolgee tomba tomorrow tomorrowio tomtom tradier transferwise
    travelpayouts travis travisci trello triggerdev truelayer truenas trufflehog trustpilot twelvedata twelvelabs twilio twist twitch twitter tyntec
    typeform typesense typetalk ubidots uclassify ultravox unifyid unleash unplugg unsplash upcdatabase upcloud uplead uploadcare upollo upstage
    upstash uptimerobot upwave upwork urlscan userflow userlist usersnap userstack vapi vatlayer vbout vercel veriff verimail veriphone versioneye
    viewneo vimeo virustotal visualcrossing vmware voiceflow voicegain voicemaker vonage voodoosms vouchery voyage voyageai vpnapi vultr vyte wakatime
    walkscore wandb watchtower weatherapi weatherbit weatherstack weaviate web3 web3storage webex webflow webscraper webscraping webshare wechat
    weightsandbiases wepay whatsapp whoisxml whoxy windmill wise wistia wit wiz wordpress workable workato workos worksnaps workstack worldcoinindex
    worldtides worldweather wpengine wrike writer xai xendit xero yahoo yandex yelp ynab youneedabudget yousign youtube zai zapier zapsign zendesk
    zenhub zenkit zenrows zenscrape zenserp zeplin zerobounce zerossl zerotier zhipu zilliz zipapi zipbooks zipcodeapi zipcodebase zoho zohocrm
    zonkafeedback zoom zoominfo zulip zulipchat zuora zuplo
    """.split()
)

KEYED = (
    keyed("aws-secret-key", "AWS secret access key", "aws secretaccess amazon", "{b40}", "docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_access-keys.html", "HIGH"),
    Rule(
        "azure-entra-secret", "Microsoft Entra client secret", "HIGH", (b"Q~",), rb"(?<![A-Za-z0-9_~.-])[A-Za-z0-9_~.-]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,34}(?![A-Za-z0-9_~.-])", 0,
        (shape_sample("{a3}8Q~{a34}"),), ("~/.ssh/config and 8Q~",), "learn.microsoft.com/entra/identity-platform/quickstart-register-app", find="mark",
    ),
    token("azure-devops-token", "Azure DevOps personal access token", "{a52}JQQJ99{a7}AAA{a8,14}AZDO{a4}", "learn.microsoft.com/azure/devops/organizations/accounts/use-personal-access-tokens-to-authenticate")._replace(
        find="inside", keywords=(b"JQQJ9",)
    ),
    keyed("adafruit-io-key", "Adafruit IO key", "adafruit", "{w32}", "io.adafruit.com/api/docs"),
    keyed("adobe-client-secret", "Adobe client id or secret", "adobe", "{x32}", "developer.adobe.com"),
    keyed("airtable-key", "Airtable key", "airtable", "{a17} {w1,20}.v1.{w5,}", "airtable.com/developers"),
    keyed("aiven-token", "Aiven token", "aiven", "{b372} {b32,}=", "docs.aiven.io"),
    keyed("algolia-key", "Algolia key", "algolia", "{a32} {u10}", "www.algolia.com/doc/guides/security/api-keys"),
    keyed("alibaba-secret", "Alibaba Cloud secret", "alibaba aliyun alicloud alipay oss", "{a30}", "www.alibabacloud.com/help/en/ram"),
    keyed("apify-legacy-token", "Apify token", "apify", "{a30,40}", "docs.apify.com"),
    keyed("artifactory-token", "JFrog token", "artifactory jfrog bintray xray", "{a73} {a64} {b40,}", "jfrog.com/help"),
    keyed("asana-secret", "Asana secret", "asana", "{a32,} {d1}/{d16}:{x32} {d16}", "developers.asana.com/docs/authentication"),
    keyed("assemblyai-key", "AssemblyAI key", "assembly", "{a32}", "www.assemblyai.com/docs"),
    keyed("atlassian-key", "Atlassian key", "atlassian confluence jira bitbucket", "{a20,64} {g24,64}", "support.atlassian.com"),
    keyed("beamer-key", "Beamer key", "beamer", "{g44,46} {b45,46}=", "www.getbeamer.com/api"),
    keyed("circleci-key", "CircleCI token", "circle", "{x40}", "circleci.com/docs/managing-api-tokens"),
    keyed("cloudflare-key", "Cloudflare key", "cloudflare cfapi cfkey cftoken", "{h37} {w40} {h32}", "developers.cloudflare.com/fundamentals/api"),
    keyed("codeclimate-token", "Code Climate token", "codeclimate cctestreporter", "{h64} {h40}", "docs.codeclimate.com"),
    keyed("codecov-upload-token", "Codecov token", "codecov", "{a32} " + UUID, "docs.codecov.com"),
    keyed("coinbase-token", "Coinbase key", "coinbase", "{w64} {a32} {a16} {b86,88}", "docs.cdp.coinbase.com"),
    keyed("confluent-key", "Confluent key", "confluent kafka", "{a16} {b64}", "docs.confluent.io/cloud/current/access-management"),
    keyed("contentful-key", "Contentful key", "contentful", "{g43} {g64}", "www.contentful.com/developers/docs/references/authentication"),
    keyed("coveralls-token", "Coveralls token", "coveralls", "{w37}", "docs.coveralls.io"),
    keyed("datadog-key", "Datadog key", "datadog ddapi ddapp dogapi", "{a40} {h32} {a32}", "docs.datadoghq.com/account_management/api-app-keys"),
    keyed("datagov-key", "api.data.gov key", "datagov", "{a40}", "api.data.gov/docs"),
    keyed("deepgram-key", "Deepgram key", "deepgram", "{a40}", "developers.deepgram.com"),
    keyed("discord-secret", "Discord secret", "discord", "{h64} {d17,19} {w32} {e59,72}", "discord.com/developers/docs"),
    keyed("disqus-key", "Disqus key", "disqus", "{a64}", "disqus.com/api/docs"),
    keyed("dockerhub-password", "Docker Hub credential", "docker", "{x8}-{x4}-{x4}-{x4}-{x12}", "docs.docker.com"),
    keyed("droneci-token", "Drone token", "drone", "{a32}", "docs.drone.io"),
    keyed("dropbox-secret", "Dropbox secret", "dropbox", "{a15} {a11}AAAAAAAAAA{g43}", "www.dropbox.com/developers"),
    keyed("etsy-key", "Etsy token", "etsy", "{a24}", "developers.etsy.com"),
    keyed("facebook-secret", "Facebook secret", "facebook fb", "{x32} {d13,17}|{w20,40}", "developers.facebook.com/docs/facebook-login"),
    keyed("fastly-token", "Fastly token", "fastly", "{g32}", "www.fastly.com/documentation/reference/api/auth-tokens"),
    keyed("figma-key", "Figma token", "figma", "{d4}-" + UUID + " {x4}-{x8}-{x4}-{x4}-{x4}-{x12}", "www.figma.com/developers/api"),
    keyed("finicity-key", "Finicity key", "finicity", "{h32} {a20}", "developer.mastercard.com/open-finance-us"),
    keyed("finnhub-token", "Finnhub token", "finnhub", "{a20}", "finnhub.io/docs/api"),
    keyed("flickr-token", "Flickr key", "flickr", "{a32} {h16}", "www.flickr.com/services/api"),
    keyed("freshbooks-token", "FreshBooks token", "freshbooks", "{a64}", "www.freshbooks.com/api"),
    keyed("gitter-token", "Gitter token", "gitter", "{w40}", "developer.gitter.im"),
    keyed("gocardless-key", "GoCardless token", "gocardless", "live_{g40}", "developer.gocardless.com"),
    keyed("gumroad-token", "Gumroad token", "gumroad", "{w43}", "gumroad.com/api"),
    keyed("heroku-key", "Heroku API key", "heroku", UUID + " {x8}-{x4}-{x4}-{x4}-{x12}", "devcenter.heroku.com"),
    keyed("honeycomb-legacy-key", "Honeycomb key", "honeycomb xhoneycomb", "{h32} {a22}", "docs.honeycomb.io"),
    keyed("hubspot-key", "HubSpot key", "hubspot hapikey", "{x8}-{x4}-{x4}-{x4}-{x12}", "developers.hubspot.com"),
    keyed("ibm-key", "IBM Cloud key", "ibm bluemix cloudant softlayer watson", "{w44} {h64} {a24} {w43}", "cloud.ibm.com/docs/account"),
    keyed("intercom-token", "Intercom token", "intercom", "{b58,60}= {b60}", "developers.intercom.com"),
    keyed("jumpcloud-key", "JumpCloud key", "jumpcloud xapikey", "{a40}", "docs.jumpcloud.com"),
    keyed("kraken-token", "Kraken key", "kraken", "{b80,90}= {b80,90}", "docs.kraken.com"),
    keyed("kucoin-token", "KuCoin secret", "kucoin", "{h8}-{h4}-{h4}-{h4}-{h12} {h24}", "www.kucoin.com/docs"),
    keyed("launchdarkly-token", "LaunchDarkly token", "launchdarkly ld", "{g40} {w40} {l3}-{a8}-{a4}-{a4}-{a4}-{a12}", "docs.launchdarkly.com"),
    keyed("linear-secret", "Linear secret", "linear", "{x32}", "linear.app/developers"),
    keyed("linkedin-secret", "LinkedIn secret", "linkedin", "{a16} {a14}", "learn.microsoft.com/linkedin"),
    keyed("lob-api-key", "Lob key", "lob", "[test|live]_{h35}", "docs.lob.com"),
    keyed("mailchimp-key", "Mailchimp key", "mailchimp mandrill", "{h32}-us{d1,2} {w22}", "mailchimp.com/developer"),
    keyed("mailgun-signing-key", "Mailgun key", "mailgun", "{h32}-{h8}-{h8} {h32} {h72}", "documentation.mailgun.com"),
    keyed("mapbox-secret", "Mapbox token", "mapbox", "{w60,}.{w22}", "docs.mapbox.com"),
    keyed("mattermost-token", "Mattermost token", "mattermost", "{l26}", "developers.mattermost.com"),
    keyed("messagebird-key", "MessageBird key", "messagebird", "{a25} {x8}-{x4}-{x4}-{x4}-{x12}", "developers.messagebird.com"),
    keyed("netlify-key", "Netlify token", "netlify", "{g40,46} {x64}", "docs.netlify.com"),
    keyed("newrelic-user-key", "New Relic key", "newrelic nr", "{h40} {a64} {h36}NRAL {w32}", "docs.newrelic.com"),
    keyed("npm-legacy-token", "npm token", "npm authtoken", UUID + " {x8}-{x4}-{x4}-{x4}-{x12}", "docs.npmjs.com"),
    keyed("nuget-password", "NuGet password", "nuget cleartextpassword", "{l46}", "learn.microsoft.com/nuget"),
    keyed("nytimes-key", "New York Times key", "nytimes newyorktimes", "{g32}", "developer.nytimes.com"),
    keyed("okta-token", "Okta token", "okta ssws", "00{g40}", "developer.okta.com/docs/guides/create-an-api-token"),
    keyed("openai-keyed", "OpenAI key", "openai gpt", "sk-{w20,}", "platform.openai.com"),
    keyed("paypal-secret", "PayPal secret", "paypal", "{w50,80}", "developer.paypal.com"),
    keyed("plaid-secret", "Plaid secret", "plaid", "{a24} {a30}", "plaid.com/docs"),
    keyed("postmark-token", "Postmark token", "postmark xpostmark", "{l8}-{l4}-{l4}-{l4}-{l12}", "postmarkapp.com/developer"),
    keyed("rapidapi-key", "RapidAPI key", "rapidapi xrapidapi", "{w50}", "docs.rapidapi.com"),
    keyed("salesforce-secret", "Salesforce secret", "salesforce sfdc", "{u64} {a85} {a24,25}", "help.salesforce.com"),
    keyed("segment-key", "Segment key", "segment", "{w43}.{w43}", "segment.com/docs"),
    keyed("sendbird-token", "Sendbird token", "sendbird", "{h40} {x8}-{x4}-{x4}-{x4}-{x12}", "sendbird.com/docs"),
    keyed("sentry-key", "Sentry token", "sentry", "{h64}", "docs.sentry.io"),
    keyed("shodan-key", "Shodan key", "shodan", "{a32}", "developer.shodan.io"),
    keyed("sidekiq-secret", "Sidekiq credential", "bundleenterprise bundlegems sidekiq", "{h8}:{h8}", "github.com/sidekiq/sidekiq/wiki"),
    keyed("snyk-token", "Snyk token", "snyk", "{x8}-{x4}-{x4}-{x4}-{x12}", "docs.snyk.io"),
    keyed("sonar-key", "SonarQube token", "sonar", "{a40} {g40}", "docs.sonarsource.com"),
    keyed("square-secret", "Square secret", "square", "{g22,64}", "developer.squareup.com"),
    keyed("squarespace-token", "Squarespace token", "squarespace", "{x8}-{x4}-{x4}-{x4}-{x12}", "developers.squarespace.com"),
    keyed("sslmate-key", "SSLMate key", "sslmate", "{a36}", "sslmate.com/help/reference/api"),
    keyed("sumologic-key", "Sumo Logic key", "sumo", "su{a12} {a64}", "help.sumologic.com"),
    keyed("telegram-token", "Telegram token", "telegr tgbot", "{d8,10}:{w34,36}", "core.telegram.org/bots/api", "HIGH"),
    keyed("travisci-token", "Travis CI token", "travis", "{a22} {w44}", "docs.travis-ci.com"),
    keyed("trello-token", "Trello token", "trello", "{a32} {h64} ATTA{h72}", "developer.atlassian.com/cloud/trello"),
    keyed("twilio-token", "Twilio token", "twilio", "{x32}", "www.twilio.com/docs"),
    keyed("twitch-token", "Twitch token", "twitch", "{a30} live_{d6,}_{a30}", "dev.twitch.tv/docs/authentication"),
    keyed("twitter-secret", "Twitter secret", "twitter", "{a25} {a45} {a50} {d15,20}-{a20,40} A{e80,120}", "developer.x.com"),
    keyed("vault-keyed-token", "Vault token", "vault", "s.{a24} {l8}-{l4}-{l4}-{l4}-{l12}", "developer.hashicorp.com/vault"),
    keyed("wandb-legacy-key", "Weights & Biases key", "wandb weightsandbiases", "{x40}", "docs.wandb.ai"),
    keyed("yandex-token", "Yandex key", "yandex", "{w39,40} {w42,100}", "yandex.cloud/en/docs"),
    keyed("zendesk-key", "Zendesk secret", "zendesk", "{a40}", "developer.zendesk.com"),
    keyed("azure-storage-key", "Azure storage key", "accountkey azure storage", "{b86}== {b43}=", "learn.microsoft.com/azure/storage/common/storage-account-keys-manage", "HIGH"),
    keyed("django-secret-key", "Django secret key", "django", "{w30,60}", "docs.djangoproject.com/en/stable/ref/settings/#secret-key"),
    keyed("github-legacy-token", "GitHub token", "github ghe ghtoken", "{h40} {a35,40}", "docs.github.com"),
    keyed("gitlab-legacy-token", "GitLab token", "gitlab gltoken", "{w20}", "docs.gitlab.com"),
    keyed("gcp-key", "Google secret", "google gcp gcm firebase fcm", "{w24} {w35,40} AAAA{w7}:{w140}", "cloud.google.com/docs"),
    keyed("kubernetes-token", "Kubernetes secret", "kube k8s bootstrap", "{l6}.{l16}", "kubernetes.io/docs/reference/access-authn-authz"),
    keyed("slack-signing-secret", "Slack signing secret", "slack", "{h32}", "api.slack.com/authentication/verifying-requests-from-slack"),
    keyed("stripe-keyed", "Stripe key", "stripe", "[sk|pk|rk]_[live|test]_{a10,}", "docs.stripe.com/keys"),
    keyed("harness-key", "Harness key", "harness", "{w40,}", "developer.harness.io"),
    keyed("hashicorp-password", "HCP Terraform token", "terraform tfe atlas", "{a14}.atlasv1.{g60,}", "developer.hashicorp.com"),
    keyed("spotify-secret", "Spotify secret", "spotify", "{h32}", "developer.spotify.com"),
    keyed("zoom-secret", "Zoom secret", "zoom", "{a32} {a22}", "developers.zoom.us"),
    keyed("mongodb-password", "MongoDB Atlas key", "mongo atlas", UUID, "www.mongodb.com/docs/atlas"),
    keyed("pagerduty-key", "PagerDuty key", "pagerduty pdapi", "{w20} {h32}", "support.pagerduty.com"),
    keyed("rollbar-token", "Rollbar token", "rollbar", "{h32} {h64}", "docs.rollbar.com"),
    keyed("opsgenie-key", "Opsgenie key", "opsgenie", UUID, "support.atlassian.com/opsgenie"),
    keyed("bugsnag-key", "Bugsnag key", "bugsnag", "{h32}", "docs.bugsnag.com"),
    keyed("amplitude-key", "Amplitude key", "amplitude", "{h32}", "amplitude.com/docs"),
    keyed("mixpanel-secret", "Mixpanel secret", "mixpanel", "{h32}", "developer.mixpanel.com"),
    keyed("bitly-token", "Bitly token", "bitly", "{h40}", "dev.bitly.com"),
    keyed("vultr-key", "Vultr key", "vultr", "{u36}", "www.vultr.com/api"),
    keyed("linode-token", "Linode token", "linode", "{h64}", "techdocs.akamai.com/linode-api"),
    keyed("hetzner-token", "Hetzner token", "hetzner hcloud", "{a64}", "docs.hetzner.cloud"),
    keyed("openweather-key", "OpenWeather key", "openweather owm", "{h32}", "openweathermap.org/appid"),
)

# =====================================================================================================================
# everything else
# =====================================================================================================================

PEM_LINE = "-----BEGIN {0}PRIVATE " + "KEY{1}-----"
INLINE_KEY = Rule(
    "private-key-inline", "Private key on one line", "HIGH", (b"-----BEGIN",),
    rb"-----BEGIN[ A-Z0-9]{1,32}PRIVATE KEY(?: BLOCK)?-----((?:\\[nrt]|\\\\n|\\u000[aAdD]|[A-Za-z0-9+/=:, ]|-(?!----)){40,16384}?)-----END[ A-Z0-9]{1,32}KEY(?: BLOCK)?-----", 0,
    (PEM_LINE.format("EC ", "") + "\\n" + "MHcCAQEE" * 10 + "\\n-----END EC PRIVATE KEY-----",), ("-----BEGIN CERTIFICATE-----\\nMIIB",),
    "RFC 7468, in a JSON string", find="pem",
)  # fmt: skip
OTHER_PRIVATE_KEY = Rule(
    "private-key-other", "Private key (EC, DSA, OpenSSH, encrypted, PGP)", "HIGH", (b"-----BEGIN",),
    rb"-----BEGIN (?:(?:EC|DSA|OPENSSH|ENCRYPTED|PGP|SSH2 ENCRYPTED|ANY|PKCS8|X25519|ED25519) ){1,2}PRIVATE KEY(?: BLOCK)?-----(?!-----END)", 0,
    (PEM_LINE.format("EC ", ""), PEM_LINE.format("OPENSSH ", ""), PEM_LINE.format("PGP ", " BLOCK")), ("-----BEGIN PGP PUBLIC KEY BLOCK-----",),
    "RFC 7468; RFC 5958; openssh PROTOCOL.key; RFC 9580", multiline=True, find="pem",
)  # fmt: skip
PEM_BASE64 = token("private-key-base64", "Private key, base64 of PEM", "LS0tLS1CRUdJTi{b40,}", "RFC 7468 inside RFC 4648")
JWT_BASE64 = token("json-web-token-base64", "JSON Web Token, base64", "ZXlK{b60,}", "RFC 7519 inside RFC 4648", "MEDIUM")._replace(
    examples=(base64.b64encode(b"eyJ" + b"hbGciOiJIUzI1NiJ9.eyJ" + b"zdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N").decode(),),
    negatives=("ZXlK" + "a2" * 40,),
)
JSON_WEB_TOKEN = Rule(
    "json-web-token", "JSON Web Token", "MEDIUM", (b"eyJ",), rb"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{0,2048}", 0,
    ("eyJ" + "hbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9" + ".eyJ" + "zdWIiOiIxMjM0NTY3ODkwIn0" + ".dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",),
    ("eyJub3QiOiJhIGp3dCJ9",), "RFC 7519",
)  # fmt: skip
JSON_WEB_ENCRYPTION = Rule(
    "json-web-encryption", "JSON Web Token, encrypted", "MEDIUM", (b"eyJ",), rb"eyJ[A-Za-z0-9_-]{16,}(?:\.[A-Za-z0-9_-]{0,2048}){4}", 0,
    ("eyJ" + "hbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ" + ".a1b2.c3d4.e5f6.g7h8",), ("eyJhbGciOiJIUzI1NiJ9.x",), "RFC 7516",
)  # fmt: skip
MAPBOX_TOKEN = token("mapbox-token", "Mapbox token", "[sk|pk|tk].eyJ{w50,}.{w20,} pk.{l60}.{l22}", "docs.mapbox.com/help/glossary/access-token")
PASSWORD_HASH = Rule(
    "password-hash", "Hash of a password (crypt)", "MEDIUM", tuple(b"$2a $2b $2x $2y $1$ $ap $5$ $6$ $y$ $ar $8$ $9$".split()),
    rb"\$(?:2[abxy]?\$\d\d\$[./A-Za-z0-9]{53}|(?:1|apr1)\$[./A-Za-z0-9]{1,8}\$[./A-Za-z0-9]{22}|[56]\$(?:rounds=\d{1,9}\$)?[./A-Za-z0-9]{1,16}\$[./A-Za-z0-9]{43,86}"
    rb"|y\$[./A-Za-z0-9]{1,12}\$[./A-Za-z0-9]{1,86}\$[./A-Za-z0-9]{43}|argon2(?:id|i|d)\$v=\d{1,3}\$[a-z0-9=,]{4,40}\$[A-Za-z0-9+/]{8,88}\$[A-Za-z0-9+/]{16,172}"
    rb"|[89]\$[./A-Za-z0-9]{14}\$[./A-Za-z0-9]{43})(?![./A-Za-z0-9])", 0,
    ("admin:" + shape_sample("$2y$10${a53}") + ":1:", shape_sample("$6${a16}${a86}")), ("cost $2.50 and $1", "$6$" + "x" * 12 + "$" + "a" * 86),
    "crypt(5); RFC 9106", find="mark",
)  # fmt: skip
URL_CREDENTIALS = Rule(
    "url-credentials", "Credentials in a URL", "HIGH", (b"://",),
    rb"://(?:[^\s:/?#@\"'<>`\\(){}]{0,128}):([^\s/?#\"'<>`\\]{3,256})@[A-Za-z0-9\[.\-]{1,255}", 1,
    ("postgres://app:" + "s3cr3t-Pass9" + "@db.internal:5432/app", "https://robot:" + "Zq8xW2" + "@example.org/x"),
    ("https://example.org/a:b@c", "http://host:8080/path", "postgres://user:${PASSWORD}@db"), "RFC 3986, section 3.2.1", find="url",
)  # fmt: skip
BASIC_AUTH = Rule(
    "basic-auth", "Basic authentication", "HIGH", (b"basic ",), rb"(?i)basic[ ]{1,4}([A-Za-z0-9+/]{8,512}={0,2})(?![A-Za-z0-9+/=])", 1,
    ("Authorization: Basic " + base64.b64encode(b"robot:correct-horse-7").decode(),), ("basic training", "Basic aGVsbG93b3JsZA=="), "RFC 7617", find="basic",
)  # fmt: skip
CURL_USER = Rule(
    "curl-user", "User and password of curl", "MEDIUM", (b"curl",), rb"curl[ ][^\r\n]{0,200}?[ ](?:-u|--user)[ =]?[\"']?([^\s:\"']{1,64}:[^\s\"'$<{]{3,128})", 1,
    ("curl -s -u robot:hunter2hunter2 https://example.org",), ("curl -u $USER:$PASS https://x",), "curl(1)", find="curl",
)  # fmt: skip


def hook(rule_id: str, name: str, host: str, path: str, example: str, reference: str) -> Rule:
    """A rule for a URL that is itself the credential: found at ://, matched from its host."""
    pattern = rb"://((?:[a-z0-9-]{1,63}\.){0,3}" + re.escape(host.encode()) + path.encode() + rb")"
    return Rule(rule_id, name, "HIGH", (host.encode(),), pattern, 1, ("https://" + host + example,), ("https://" + host + "/",), reference, False, "hook")


HOOKS = (
    hook("slack-webhook", "Slack webhook", "hooks.slack.com", r"/(?:services/T[A-Z0-9]{7,12}/B[A-Z0-9]{7,12}/[A-Za-z0-9]{20,32}|(?:services|workflows|triggers)/[A-Za-z0-9+/]{43,100})(?![A-Za-z0-9])", "/services/" + shape_sample("T{u8}/B{u8}/{a24}"), "api.slack.com/messaging/webhooks"),
    hook("discord-webhook", "Discord webhook", "discord.com", r"/api/(?:v\d+/)?webhooks/[0-9]{15,20}/[A-Za-z0-9_-]{60,80}", "/api/webhooks/" + shape_sample("{d18}/{w68}"), "discord.com/developers/docs/resources/webhook"),
    hook("discordapp-webhook", "Discord webhook", "discordapp.com", r"/api/(?:v\d+/)?webhooks/[0-9]{15,20}/[A-Za-z0-9_-]{60,80}", "/api/webhooks/" + shape_sample("{d18}/{w68}"), "discord.com/developers/docs/resources/webhook"),
    hook("teams-webhook", "Microsoft Teams webhook", "office.com", r"/webhook(?:b2)?/[a-z0-9-]{36}@[a-z0-9-]{36}/IncomingWebhook/[a-z0-9]{32}/[a-z0-9-]{36}", "/webhookb2/" + shape_sample(f"{UUID}@{UUID}/IncomingWebhook/{{h32}}/{UUID}"), "learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors"),
    hook("tines-webhook", "Tines webhook", "tines.com", r"/webhook/[a-z0-9]{32}/[a-z0-9]{32}", "/webhook/" + shape_sample("{l32}/{l32}"), "www.tines.com/docs"),
    hook("zapier-webhook", "Zapier webhook", "hooks.zapier.com", r"/hooks/(?:catch|standard)/[0-9]{6,9}/[A-Za-z0-9]{6,8}(?![A-Za-z0-9])", "/hooks/catch/" + shape_sample("{d7}/{l8}"), "help.zapier.com"),
    hook("telegram-bot-url", "Telegram bot token in a URL", "api.telegram.org", r"/(?:file/)?bot[0-9]{8,10}:[A-Za-z0-9_-]{35}", "/bot" + shape_sample("{d10}:{w35}"), "core.telegram.org/bots/api"),
    hook("google-chat-webhook", "Google Chat webhook", "chat.googleapis.com", r"/v1/spaces/[A-Za-z0-9_-]{8,}/messages\?key=[A-Za-z0-9_-]{20,}(?:&|\\u0026)token=[A-Za-z0-9_%-]{20,}", "/v1/spaces/" + shape_sample("{a11}/messages?key={w39}&token={w43}"), "developers.google.com/workspace/chat/quickstart/webhooks"),
    hook("sentry-dsn", "Sentry DSN with secret", "sentry.io", r"/[0-9]{1,20}\?key=[a-f0-9]{32}", "/" + shape_sample("{d6}?key={h32}"), "docs.sentry.io/concepts/key-terms/dsn-explainer"),
    hook("azure-sas", "Azure shared access signature", "core.windows.net", r"/[^\s\"'<>:]{0,200}[?&]sig=[A-Za-z0-9%+/]{40,100}", "/c/b?sv=2022-11-02&sig=" + shape_sample("{a44}"), "learn.microsoft.com/azure/storage/common/storage-sas-overview"),
    hook("aws-presigned-url", "AWS presigned URL", "amazonaws.com", r"/[^\s\"'<>:]{0,600}[?&]X-Amz-Signature=[a-f0-9]{64}", "/o?X-Amz-Signature=" + shape_sample("{h64}"), "docs.aws.amazon.com/AmazonS3/latest/userguide/ShareObjectPreSignedURL.html"),
)  # fmt: skip

KEYED_PASSWORD = Rule(
    "keyed-password", "Password in a key-value pair", "MEDIUM", (b"passw", b"pwd", b"passphrase"), rb"[^\s\"']{4,256}", 0,
    ('{"password": "' + "tr0ub4dor&3" + '"}', "DB_PASSWORD=" + "kX9vQ2mL"), ('{"password": "__REDACTED__"}', "password_file=/run/secrets/x"),
    "assignments in logs, JSON and YAML", find="keyed",
)  # fmt: skip
KEYED_SECRET = Rule(
    "keyed-secret", "Secret in a key-value pair", "MEDIUM", (b"secret", b"token", b"key", b"auth", b"cred"), rb"[^\s\"']{8,512}", 0,
    ('"client_secret": "' + shape_sample("{a40}") + '"', "access_token=" + shape_sample("{a40}")),
    ("component=cache-key id=" + shape_sample(UUID), "token_type=bearer", "public_key=" + shape_sample("{a40}")),
    "assignments in logs, JSON and YAML", find="keyed",
)  # fmt: skip
WEAK_SECRET = Rule(
    "keyed-secret-weak", "Possible secret in a key-value pair", "LOW", (b"secret", b"token", b"key", b"auth", b"cred"), rb"[^\s\"']{8,512}", 0,
    ("api_secret: 'open-sesame-7Now'", "weatherstack_key=" + shape_sample("{l32}"), "todoist SECRET " + shape_sample("{h40}"), "clockify-token-" + shape_sample(UUID)),
    ("secret_name=my-database-secret", "unheard_of_key=" + shape_sample("{l32}"), "todoist tokens " + shape_sample("{d40}")), "assignments in logs, JSON and YAML", find="keyed",
)  # fmt: skip

#: The table. Where two matches overlap in their secrets, the earlier rule reports.
RULES: tuple[Rule, ...] = (
    *HOOKS, AWS_ACCESS_KEY, PEM_BASE64, JWT_BASE64, INLINE_KEY, PRIVATE_KEY, OTHER_PRIVATE_KEY,
    *CLOUDS, *FORGES, *REGISTRIES, *CHAT, *PAYMENT, *MONITORING, *AI, MAPBOX_TOKEN, JSON_WEB_TOKEN, JSON_WEB_ENCRYPTION,
    *KEYED, URL_CREDENTIALS, PASSWORD_HASH, BASIC_AUTH, CURL_USER,
    GENERIC_API_KEY, BEARER_TOKEN, PASSWORD, KEYED_PASSWORD, KEYED_SECRET, WEAK_SECRET, EMAIL_ADDRESS,
)  # fmt: skip

# =====================================================================================================================
# what is none
# =====================================================================================================================

#: values, in lower case, that stand for a secret: whole
PLACEHOLDER = re.compile(
    rb"[*x.\-_#?0]{3,}|null|nil|none|true|false|empty|unset|unknown|undefined|default|n/a|void|string|str|text|bytes|bool|int|tests?|user|admin|"
    rb"passw(?:or)?d?s?\d?|secrets?|tokens?|keys?|required|failed|failure|success|accepted|optional|auth|basic|bearer|digest|enabled|disabled|"
    rb"%\(?[a-z_]*\)?[sdv]?|\$[a-z_]\w*|[\[<({@%#].*|(?:some|any|my|your|the|our|new|old|enter|super|top)[-_ ]?(?:secret)?[-_ ]?(?:secret|password|passwd|pass|token|api[-_ ]?key|key)s?\W*"
)
#: what inside a value, in lower case, tells that it stands for one
FILLERS = tuple(
    b"redacted filtered *** xxxxx &lt; &gt; ${ $( {{ #{ placeholder changeme change-me change_me example your- your_ dummy sample masked hidden removed "
    b"secret_here secrethere insert- insert_ replace undefined required incorrect invalid expired missing fake not-set not_set not-found not_found".split()
) + (b"your ", b"not set", b"not a ", b"not found", b"not valid", b"not shown")
#: runs that people type to show a shape
FILLED_IN = tuple(b"xxxxxx *** .... #### my-token example abcdefghijklmnopqrst placeholder your- your_ redacted dummy fake_ fake- 000000000000".split())
SAME = re.compile(rb"([^A])\1{5}")  # generators hardly ever repeat one character so often (A is zero in base64)
#: keys that their owners publish in widely used software (the Firebase samples, YouTube's own clients): first 12 hex of the SHA-256
PUBLISHED = frozenset(
    """
    01b6940ca381 0b476bdf9acf 2037abcaffb2 27a9a42931df 31043aae8be2 37f8f09bdf12 3a8b61d0f636 3f370c9dd822 49f777db995e 4c98242dcadc 8731261cb72d
    961991da3ab8 a19f89ab3555 a6c814bc555a dc0fcf046c61 e4a5542bb7fd ea9bb1082cf9 eb540d2b6ee2 f56e323494a6
    """.split()
)
#: code and references instead of values: a call, a member, a variable, an object's print, an encrypted value, a path
CODE = re.compile(
    rb"[A-Za-z_][\w.:]*[({\[]|(?:var|env|os|config|process|settings|secrets|self|this|data|local|module)\.|ENC\[|vault:|arn:|[./~]*/[\w.\-/]*$|"
    rb"[a-z][A-Za-z_$]*(?:\.[A-Za-z_$]+)+$|[\w.$]+@[0-9a-f]{5,8}$|\$\w|[A-Za-z_]\w*\(|[a-z]+://[^:@]*$|--?[a-z]|#[\w\-]+$|\w+->|[A-Z][A-Z]+(?:_[A-Z]+)+$"
)
#: names of what is no secret, whatever word stands in them
NO_SECRET_NAME = re.compile(
    rb"public|pubkey|primary|foreign|sort|partition|cache|idempot|correlation|trace|span|etag|nonce|csrf|xsrf|keyboard|keyword|monkey|author(?!iz)|"
    rb"cursor|next|page[_\-]|index|i18n|object|bucket|row|group|hash|unique|tokeniz|routing|composite|lookup|registry_key|ssh_host|[_.\-]map|mapp|sha\d|md5|"
    rb"translation|issuekey|keyframe|hotkey|turkey|donkey|jockey|hockey|keynote|keyspace|keystore|key_?id|keyid|dedup|shard|pagination|continuation|"
    rb"kms|thumb|finger|digest|algorithm|issuer|passive|passed|passing|passenger|compass|bypass|passthrough|passport"
)


def is_placeholder(value: bytes) -> bool:
    """Whether a value stands for a secret rather than being one."""
    value = value[:128].strip(b"\"'")
    if len(set(value)) <= max(2, len(value) // 12) or CODE.match(value):
        return True
    value = value.lower()
    for filler in FILLERS:
        if filler in value:
            return True
    return PLACEHOLDER.fullmatch(value) is not None


def is_filled_in(value: bytes) -> bool:
    """Whether a token of the right shape was written by hand to show the shape."""
    if len(set(value)) < 11 or SAME.search(value):
        return True
    value = value.lower()
    for filler in FILLED_IN:  # a fifth of what one regex with all of them costs
        if filler in value:
            return True
    return value.endswith(b"here")


def is_random(value: bytes) -> bool:
    """Whether a value looks made by a generator: of a key's alphabet, long, mixed, and no word, path or number."""
    if len(value) < 12 or len(set(value[:64])) < LEAST_VARIETY or not KEY_ALPHABET.fullmatch(value):
        return False
    return MIXED_PIECE.search(value, 0, RANDOM_SIZE) is not None or HEX_OR_UUID.fullmatch(value) is not None or len(value) >= 24 and is_many_cased(value + b"0")


def is_mixed(value: bytes) -> bool:
    """Whether a short value has digits or signs among letters, as passwords have and words do not."""
    return not value.isalpha() and not value.isdigit() and b" " not in value and any(48 <= byte <= 57 or byte in b"!@#$%^&*" for byte in value)


def is_many_cased(value: bytes) -> bool:
    """Whether a value mixes capitals, small letters and digits as generators do, and people's names for things do not."""
    capitals = len(value) - len(value.translate(None, CAPITALS))
    small = len(value) - len(value.translate(None, CAPITALS.lower()))
    return len(value) >= 20 and 3 * capitals >= small and 3 * small >= capitals and len(value) > capitals + small


def is_typed(value: bytes) -> bool:
    """Whether hands typed a value to fill a shape: sequences, or a group again and again."""
    value = value[:64].lower()
    for sequence in SEQUENCES:
        if sequence in value:
            return True
    return value.count(value[4:8]) >= 3 or value.count(value[12:16]) >= 3


def is_strong(value: bytes) -> bool:
    """Whether a generic value is random beyond doubt: long, of many cases, without a sequence."""
    return len(value) >= 32 and is_many_cased(value) and BASE64.fullmatch(value) is not None and len(set(value[:64])) >= 2 * LEAST_VARIETY and not is_typed(value)


def is_words(value: bytes) -> bool:
    """Whether a value is a name: small words and numbers, joined."""
    return JOINED_WORDS.fullmatch(value) is not None


URL_SAFE = bytes.maketrans(b"-_", b"+/")  # RFC 4648 §5


def decoded(text: bytes) -> bytes:
    """What base64 text holds, of either alphabet and without its padding too; nothing if it is none."""
    text = text.rstrip(b"=").translate(URL_SAFE)
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return b""


def decodes_to_pair(text: bytes) -> bool:
    """Whether base64 text holds a printable `user:password` (RFC 7617) that is no placeholder."""
    raw = decoded(text)
    password = raw.partition(b":")[2]
    return bool(password) and raw.isascii() and raw.decode("ascii").isprintable() and not is_placeholder(password)


def is_jwt(text: bytes) -> bool:
    """Whether the first part of a JSON Web Token decodes to a header with an algorithm (RFC 7515 §4.1)."""
    raw = decoded(text.partition(b".")[0])
    return raw.startswith(b"{") and (b'"alg"' in raw or b'"typ"' in raw or b'"enc"' in raw)


# =====================================================================================================================
# scanning
# =====================================================================================================================

CAPITALS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
LETTERS = CAPITALS + CAPITALS.lower()
KEY_ALPHABET = re.compile(rb"[A-Za-z0-9_\-+/=.:~]+")
LEAST_VARIETY = 9  # different characters in a random value: 12 random ones nearly always have as many
RUN_CHARACTERS = bytes(120 if chr(c).isalnum() and c < 128 or c in b"_-" else 32 for c in range(256))
AWS_HEAD = b"AKIA"
RUN_LEAST = b"x" * 20  # no prefixed token is shorter; runs of 12 are five times as many
#: what may stand before a run and yet belong to its token, or to an escape that is glued to it
GLUE = frozenset(b".!\\%[")
TOKEN_START = 32  # bytes before a run in which its token may begin: pat.XXXXXXXXXXXXXXXXXXXXXX.
LONG_RUN = 3  # times that length: tokens that only an inner literal gives away have a run of 60 or more
TOKEN_SIGNS = LETTERS + b"0123456789._-!"
LOCAL_PART = LETTERS + b"0123456789._%+-"
#: rules matched where a word stands, in any case, by their finder; words are visited in this order, then SECRET_WORDS'
WORD_ANCHORS = {"pem": b"-----begin", "password": b"pass", "bearer": b"bearer", "basic": b"basic ", "curl": b"curl ", "api": b"key"}
#: All words are looked for in one pass over a copy in which b, c, p, u are k and a, r, t, w are e: each of them then holds
#: a `ke`, which `re` finds by its first letter. That costs as much as to find three words one after the other.
WORD_LETTERS = bytes.maketrans(CAPITALS + b"bcpuBCPUartwARTW", CAPITALS.lower() + b"kkkkkkkkeeeeeeee")
WORD_PAIR = b"ke"
DOMAIN = re.compile(rb"@[a-zA-Z0-9.-]+\.[a-zA-Z]{2,}")
MARK_WINDOW = 4096  # bytes in which, after a mark that was none, the next real one is searched at C speed: texts full of them
MARK_LONGEST = 512  # bytes of the longest token that a mark gives away
MARK_OFFSET = 5  # bytes before the ~ in a Microsoft Entra secret
URL_AUTHORITY = 400  # bytes behind a :// in which its host ends
HOST_TAIL = 8  # bytes of a host's end by which rules for it are looked up
NAME_CHARACTERS = b"abcdefghijklmnopqrstuvwxyz0123456789_.-"
#: the words that make a name a secret's, and what may follow them at once: `author` and `keyboard` are sorted out here
NAME_GOES_ON = b"_-.\"'`]:=,>| \t\\%\x1b0123456789"
SECRET_WORDS = {
    b"key": b"to te va pl pro pas ph da de li", b"token": b"key va pl pro pas da de", b"secret": b"key va pl pro pas da de to te",
    b"pass": b"word wd phrase code", b"pwd": b"", b"auth": b"or",
}  # fmt: skip
SPACED_WORDS = (b"key", b"token", b"secret")
PASSWORD_NAME = re.compile(rb"pass(?:w|phrase|code|$|\d|[_.\-])|pwd|pswd")
BEFORE_SIZE = 96  # bytes before the secret word in which the name begins, and in which a service's word counts
#: from behind the secret word: the name's rest, what closes it, the operator, what opens the value
ASSIGNMENT = re.compile(
    rb"(?=([\w.\-]{0,48}))\1(?=[=:\"'`\]\\,>| \t!%\x1b])(?:"  # the name's rest, taken whole: a lookahead gives nothing back
    rb"(?:\\{0,2}[\"'`]|\x1b\[[\d;]{0,8}m)?\]?[ \t]{0,16}(?P<assigned>=>|:=|===?|!=|==?|:(?![:/])|\|\||%3[ad])[ \t]{0,16}(?:\x1b\[[\d;]{0,8}m)?"  # name = value
    rb"|\\{0,2}[\"'][ \t]{0,4},?[ \t]{0,4}(?:\\{0,2}[\"'])?value(?:\\{0,2}[\"'])?[ \t]{0,4}(?P<member>[:=])[ \t]{0,4}(?=\\{0,2}[\"'])"  # "name", "value": "value"
    rb"|\\{0,2}[\"'][ \t]{0,4}(?P<listed>,)[ \t]{0,16}(?=\\{0,2}[\"'`])"  # ("name", "value")
    rb"|(?P<element>>)(?=[^<>\s])"  # <name>value</name>
    rb"|[ \t]{1,3}-?[ \t]{0,3}(?=[\"'])"  # name 'value', name - 'value'
    rb")(?P<quote>\\{0,2}(?:\"{3}|'{3}|[\"'`])|)"
)
#: what assignments have behind their secret word, as far as it can be seen where letters stand for others
OPERATOR_AHEAD = rb"(?=([\w.\-]{0,48}))\%d(?:[=:\"'`\\|!%%\x1b]|>[^<>\s]|\][ \t]{0,16}[=:|!%%]|[ \t]{1,16}[=:|!%%\-\"'])"
#: `SERVICE KEY value`, `service-secret-value`: what stands between the secret word and a value, where a service is named
SPACED_REST = rb"(?:[ _\-]?(?:access|secret|private|api|token|key|pat)(?![a-z]))?(?:[ \t_\-.:]{1,3}|[ ](?:is|was|=)[ ])[\"']?"
SPACED = re.compile(SPACED_REST + rb"([a-z0-9_\-+/=.]{12,512})")
#: what follows secret words that more follows, as far as it can be seen where letters stand for others
SPACED_AHEAD = re.sub(rb"(?<!\\)[a-z]{2,}", lambda word: word.group().translate(WORD_LETTERS), SPACED_REST) + rb"(?=[a-z_\-+/=.]{0,24}[0-9]|[a-z0-9_\-+/=.]{24})[a-z0-9_\-+/=.]{12}"
BARE_VALUE = re.compile(rb"[^\s\"'`,;<>&)}\]\\\x1b]{4,512}")
NEXT_NAME = re.compile(rb"\\{0,2}[\"'][ \t]{0,4}:")  # behind `"password", "name` it was a list, or the next member
QUOTED_VALUE = {quote: re.compile(rb"[^\r\n\\" + quote + rb"]{4,512}(?=[\\" + quote + rb"])") for quote in (b'"', b"'", b"`")}
ENCODED_VALUE = re.compile(rb"[A-Za-z0-9_.~\-]{4,512}")  # as far as percent-encoding leaves it as it is
ELEMENT_VALUE = re.compile(rb"[^\r\n<>]{4,512}(?=</)")
VALUES = {b">": ELEMENT_VALUE, b"%3d": ENCODED_VALUE, b"%3a": ENCODED_VALUE}
#: what may follow a secret word in a name that still names a secret
NAME_REST = re.compile(
    rb"(?:ord|d|wd|word|code|phrase|ential|entials|orization)?s?(?:[_.\-]?(?:key|token|secret|value|val|base64|base|b64|text|string|plain|data|prod|live|dev|test|"
    rb"main|old|new|default|current|input|field|pass|phrase|[0-9]{1,4}))*(?:[_.\-][a-z])?[_.\-]?"
)
#: a bare "key" is a cache's, a map's, a row's; these make it a secret
KEY_OWNER = re.compile(
    rb"(?:api|access|secret|private|priv|auth|encrypt\w{0,4}|encryption|signing|sign|master|account|storage|service|client|session|ssh|licen[cs]e|app|application|"
    rb"consumer|shared|subscription|write|admin|server|deploy|rsa|aes|hmac|jwt|cookie|webhook|developer|dev|user|team|project|integration|bot|security|activation|"
    rb"hub|function|host|read|publish|instrumentation|push|send|rest|root|device|provision\w{0,7}|merchant|payment|sandbox|prod|production|live)[_.\- ]?$"
)
RANDOM_SIZE = 256  # bytes of a value in which a mixed piece is looked for
#: eight letters and digits in a row that are both: what generated keys have and names, dates and paths do not
MIXED_PIECE = re.compile(rb"(?=[A-Za-z]*\d[A-Za-z]*\d|\d+[A-Za-z]+\d)(?=\d*[A-Za-z])[A-Za-z0-9]{8,}")
BASE64 = re.compile(rb"[A-Za-z0-9+/_-]+=*")
#: what hands type, in lower case: the alphabet, numbers in order
SEQUENCES = tuple(b"abcdef bcdefg ghijkl klmnop mnopqr uvwxyz 123456 987654 000000 111111 aaaaaa".split())
JOINED_WORDS = re.compile(rb"(?:[A-Z]?[a-z]+|[A-Z]+|\d{1,4})(?:[-_. ](?:[A-Z]?[a-z]+|[A-Z]+|\d{1,4}))*")
HEX_OR_UUID = re.compile(rb"[0-9a-fA-F]{24,}|[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
WORD = re.compile(rb"[a-z0-9]+")
#: what stands beside a service's name in one word: hubspotapi, awssecretaccess
NAME_AFFIX = re.compile(rb"^(?:x|my)(?=[a-z]{4})|(?:api|app|client|access|secret|private|auth|oauth|prod|live|test|dev|admin|user|server|account|service|refresh|personal|bot|sms|io|sdk|crm|write|read)+$")
NO_WORD = re.compile(rb"[0-9!@#$%^&*]")
NAMES_SECRET = re.compile(rb"secret|token")
CURL_WINDOW = 128  # bytes behind curl in which a URL begins
#: finders of rules whose matches may be placeholders; the six originals report whatever they match
ADDED_FINDS = frozenset(("token", "inside", "mark", "url", "curl", "basic", "hook"))
LINE_SPACE = rb"[^\S\n]"  # white space that keeps a match on its line
USER_WINDOW = 4096  # bytes around a keyword in which a user's pattern is searched, where lines are endless

Candidate = tuple[int, Match]


class Anchored(NamedTuple):
    """A rule ready to be matched: its place in the table and its compiled pattern, whole and kept on one line."""

    rank: int
    rule: Rule
    whole: Any
    on_line: Any


class Key(NamedTuple):
    """What stands before a value: the line before, the name (before, in and behind the secret word), the operator.

    `taken`: one of the originals has the value already, so that only a service's rule can have it instead.
    """

    context: bytes
    prefix: bytes
    word: bytes
    rest: bytes
    operator: bytes
    quoted: bool
    taken: bool

    @property
    def name(self) -> bytes:
        """The whole name, in lower case."""
        return self.prefix + self.word + self.rest


class Found(list):  # type: ignore[type-arg]
    """The candidates found so far in one block, how far each visitor of a shared literal has come, which values were judged."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: dict[Any, int] = {}
        self.lower = b""  # the block's lower-case copy, once a secret word is in it
        self.values: set[int] = set()  # where keyed values that were reported begin: names may hold several words
        self.judged: dict[Any, Optional[Anchored]] = {}  # logs repeat themselves; judging costs 10 µs


#: (block, where the anchor is, whether lines stand for themselves, what is found) → where to go on
Visitor = Callable[[bytes, int, bool, Found], int]


class Scanner:
    """Finds every secret that its rules describe, in one block of bytes.

    Example: `Scanner(rules=select_rules(RULES, disable=["email-address"])).scan(block)`
    """

    def __init__(self, rules: Sequence[Rule] = RULES) -> None:
        self.rules = tuple(rules)
        self._by_find: dict[str, list[Anchored]] = {}
        self._heads: dict[bytes, list[Anchored]] = {}
        self._services: dict[bytes, list[Anchored]] = {}
        self._hosts: dict[bytes, list[Anchored]] = {}
        self._marks: dict[bytes, list[Anchored]] = {}
        for rank, rule in enumerate(self.rules):
            on_line = rule.pattern.replace(rb"\s*", LINE_SPACE + b"*").replace(rb"\s+", LINE_SPACE + b"+")
            anchored = Anchored(rank, rule, re.compile(rule.pattern), re.compile(on_line))
            self._by_find.setdefault(rule.find, []).append(anchored)
            table = {"token": self._heads, "service": self._services, "hook": self._hosts, "mark": self._marks}.get(rule.find, {})
            for keyword in rule.keywords:
                table.setdefault(keyword[-HOST_TAIL:] if rule.find == "hook" else keyword, []).append(anchored)
        self._names = SERVICES.union(self._services)
        self._generic = {anchored.rule.id: anchored for anchored in self._by_find.get("keyed", ())}
        self._in_block, self._in_lower = self._literals()
        self._at_words = self._words()
        self._word = word_finder([word for word, _, _ in self._at_words])
        self._url = url_finder(self._hosts)

    def _literals(self) -> tuple[list[tuple[bytes, Visitor]], list[tuple[bytes, Visitor]]]:
        """The literals to look for, in the block and in its lower-case copy, each with what to do there."""
        in_block: dict[bytes, list[Visitor]] = {}
        in_lower: dict[bytes, list[Visitor]] = {}
        if "mark" in self._by_find:
            in_block.update({b"~": [self._mark(1, 1)], b"$": [self._mark(0, 3)]})
        for anchored in self._by_find.get("email", ()):
            in_block.setdefault(b"@", []).append(self._email(anchored))
        for anchored in self._by_find.get("line", ()):
            for keyword in anchored.rule.keywords:
                in_lower.setdefault(keyword.lower(), []).append(self._in_line(anchored))
        return [(literal, together(visits)) for literal, visits in in_block.items()], [(literal, together(visits)) for literal, visits in in_lower.items()]

    def _words(self) -> list[tuple[bytes, int, Visitor]]:
        """The words to look for, each with where its pair of letters stands and what to do there."""
        words: dict[bytes, list[Visitor]] = {}
        visitors = {"api": self._api, "curl": self._curl}
        for find, word in WORD_ANCHORS.items():
            for anchored in self._by_find.get(find, ()):
                words.setdefault(word, []).append(visitors.get(find, self._literal)(anchored))
        if "keyed" in self._by_find or "service" in self._by_find:
            for word in SECRET_WORDS:
                words[word] = [self._keyed(word, words.get(word, ()))]
        return [(word, word.translate(WORD_LETTERS).index(WORD_PAIR), together(visits)) for word, visits in words.items()]

    def scan(self, block: bytes) -> list[Match]:
        """All matches in the block, sorted by start, no two secrets overlapping."""
        return self._scan(block, False)

    def scan_lines(self, block: bytes) -> list[Match]:
        """What scanning each line of the block on its own would give, with offsets in the block."""
        return self._scan(block, True)

    def _scan(self, block: bytes, lines: bool) -> list[Match]:
        found = Found()
        for literal, visit in self._in_block:
            at = block.find(literal)
            while at >= 0:
                at = block.find(literal, visit(block, at, lines, found))
        if self._at_words:
            self._find_words(block, lines, found)
        if self._in_lower:
            self._find_keywords(block, lines, found)
        if "url" in self._by_find or self._hosts:
            for match in self._url.finditer(block):
                self._visit_url(block, match.start(), found)
        if self._heads or "inside" in self._by_find:
            self._find_tokens(block, found)
        else:
            self._find_aws(block, 0, len(block), found)
        return without_overlaps(found) if found else []

    # ---- words ----

    def _find_words(self, block: bytes, lines: bool, found: Found) -> None:
        """Visit each word where it stands, word by word: a name may hold several, and their order decides."""
        places: dict[int, list[int]] = {}
        for match in self._word.finditer(block.translate(WORD_LETTERS)):
            places.setdefault(match.lastindex, []).append(match.start())
        for group in sorted(places):
            word, before, visit = self._at_words[group // 2 - 1]
            go_on = 0
            for start in places[group]:
                at = start - before
                if at >= go_on and block[at : at + len(word)].lower() == word:
                    found.lower = found.lower or block.lower()
                    go_on = visit(block, at, lines, found)

    def _find_keywords(self, block: bytes, lines: bool, found: Found) -> None:
        """Visit the keywords of users' rules."""
        lower = found.lower or block.lower()
        for literal, visit in self._in_lower:
            at = lower.find(literal)
            while at >= 0:
                at = lower.find(literal, visit(block, at, lines, found))

    # ---- prefixed tokens ----

    def _find_tokens(self, block: bytes, found: Found) -> None:
        """Prefixed tokens: jump from run to run of token characters, look the first three bytes up."""
        heads, infixes = self._heads, "inside" in self._by_find
        runs = block.translate(RUN_CHARACTERS)
        at, seen, pieces = runs.find(RUN_LEAST), -1, 0
        while at >= 0:
            pieces = pieces + 1 if at == seen else 1  # of the length that is looked for, in this run
            seen = at + len(RUN_LEAST)
            if pieces == 1:
                before = block[at - 1] if at else 32
                if before in GLUE:
                    start = glued_start(block, at, before)
                    if block[start : start + 3] in heads:
                        self._token(block, start, found)
                if block[at : at + 3] in heads and before not in b".!":
                    self._token(block, at, found)
            elif pieces == LONG_RUN and infixes:
                end = runs.find(b" ", seen)
                seen = end if end >= 0 else len(block)
                self._infixed(block, max(0, at - LONG_RUN * len(RUN_LEAST) - TOKEN_START), seen + TOKEN_START, found)
            if block.find(AWS_HEAD, at, seen + len(AWS_HEAD) - 1) >= 0:
                self._find_aws(block, at, seen + len(RUN_LEAST) - 1, found)
            at = runs.find(RUN_LEAST, seen)

    def _find_aws(self, block: bytes, at: int, end: int, found: Found) -> None:
        """The original's keys. Each is a run of the least length: where runs are looked for anyway, only these are searched."""
        for anchored in self._by_find.get("aws", ()):
            for match in anchored.whole.finditer(block, max(at, found.ends.get(anchored.rank, 0)), end):
                found.ends[anchored.rank] = match.end()
                accept(anchored, block, match, found)

    def _infixed(self, block: bytes, at: int, end: int, found: Found) -> None:
        """Match the rules whose literal stands inside a long token."""
        for anchored in self._by_find["inside"]:
            for keyword in anchored.rule.keywords:
                if block.find(keyword, at, end) >= 0:
                    for match in anchored.whole.finditer(block, at, end):
                        accept(anchored, block, match, found)

    def _token(self, block: bytes, at: int, found: Found) -> None:
        """Match the rules whose tokens begin so."""
        for anchored in self._heads.get(block[at : at + 3], ()):
            if at < found.ends.get(anchored.rank, 0):
                continue  # inside the rule's own last match: never retried there, which would be quadratic
            match = anchored.whole.match(block, at)
            if match:
                found.ends[anchored.rank] = match.end()
                accept(anchored, block, match, found)

    # ---- literals ----

    def _literal(self, anchored: Anchored) -> Visitor:
        """A visitor for a rule whose pattern begins with the literal: what a plain finditer gives."""
        whole, on_line = anchored.whole.match, anchored.on_line.match

        def visit(block: bytes, at: int, lines: bool, found: Found) -> int:
            match = (on_line if lines else whole)(block, at)
            if match is None:
                return at + 1
            accept(anchored, block, match, found)
            return match.end()

        return visit

    def _mark(self, before: int, after: int) -> Visitor:
        """A visitor for a byte that is rare in logs and stands in some tokens: looked up with its neighbours."""
        marks = self._marks

        def visit(block: bytes, at: int, lines: bool, found: Found) -> int:
            rules = marks.get(block[at - before : at + after])
            if not rules:
                return at + 1
            for anchored in rules:
                match = anchored.whole.match(block, max(0, at - MARK_OFFSET * before))
                if match:
                    accept(anchored, block, match, found)
                    return int(match.end())
            nearby = (anchored.whole.search(block, at + 1, at + MARK_WINDOW) for anchored in self._by_find["mark"])
            return min((match.start() for match in nearby if match), default=at + MARK_WINDOW - MARK_LONGEST)

        return visit

    def _api(self, anchored: Anchored) -> Visitor:
        """A visitor at `key` for the pattern that begins with `api`: the rarer half is looked for."""
        match_here = self._literal(anchored)

        def visit(block: bytes, at: int, lines: bool, found: Found) -> int:
            start = found.lower.rfind(b"api", max(0, at - 4), at)
            if start < 0 or at - start == 4 and block[at - 1] not in b"_-":
                return at + 1
            return max(at + 1, match_here(block, start, lines, found))

        return visit

    def _email(self, anchored: Anchored) -> Visitor:
        """A visitor for e-mail addresses, from each @ outwards: the pattern itself is quadratic under `re`."""

        def visit(block: bytes, at: int, lines: bool, found: Found) -> int:
            low = 0  # set by the last match of this block, which the next local part may not reach into
            domain = DOMAIN.search(block, at)
            while domain:
                at = domain.start()
                before = block[max(low, at - 1024) : at]
                size = len(before) - len(before.rstrip(LOCAL_PART))
                if size == 1024:
                    size = at - low - len(block[low:at].rstrip(LOCAL_PART))
                if size:
                    found.append((anchored.rank, Match(anchored.rule, at - size, domain.end(), at - size, domain.end())))
                    low = domain.end()
                domain = DOMAIN.search(block, domain.end() if size else at + 1)
            return len(block)

        return visit

    def _in_line(self, anchored: Anchored) -> Visitor:
        """A visitor for users' rules: the pattern is searched for in the line that holds the keyword."""

        def visit(block: bytes, at: int, lines: bool, found: Found) -> int:
            start = max(block.rfind(b"\n", 0, at) + 1, at - USER_WINDOW)
            end = block.find(b"\n", at)
            end = min(at + USER_WINDOW, len(block) if end < 0 else end)
            for match in anchored.whole.finditer(block, start, end):
                accept(anchored, block, match, found)
            return max(end, at + 1)

        return visit

    # ---- URLs ----

    def _visit_url(self, block: bytes, at: int, found: Found) -> None:
        """At a :// that the finder took: credentials in the URL, URLs that are credentials."""
        host_end = block.find(b"/", at + 3, at + URL_AUTHORITY)
        for anchored in (*self._by_find.get("url", ()), *self._hosts.get(block[host_end - HOST_TAIL : host_end], ())):
            match = anchored.whole.match(block, at)
            if match:
                accept(anchored, block, match, found)

    def _curl(self, anchored: Anchored) -> Visitor:
        """A visitor at `curl ` for the credentials among its options, if it has a URL."""
        match_here = self._literal(anchored)

        def visit(block: bytes, at: int, lines: bool, found: Found) -> int:
            url = block.find(b"://", at, at + CURL_WINDOW)
            if url < 0 or found.lower.find(b"curl ", at + 1, url) >= 0:
                return at + 1
            return match_here(block, at, lines, found)

        return visit

    # ---- keyed secrets ----

    def _keyed(self, word: bytes, others: Sequence[Visitor]) -> Visitor:
        """A visitor for NAME = VALUE, where the name holds this word; `others` share the literal and the first look behind it."""

        goes_on, spaced, size = name_goes_on(word), word in SPACED_WORDS, len(word)

        def visit(block: bytes, at: int, lines: bool, found: Found) -> int:
            lower, behind = found.lower, at + size
            if lower[behind : behind + 1] not in goes_on:
                return behind
            assignment = ASSIGNMENT.match(lower, behind)
            if assignment is None:
                return self._spaced(block, at, behind, found) if spaced else behind
            taken = False  # by one of the originals, which come before the rules for names of every kind
            rest, operator, member, listed, element, quote = assignment.groups()
            if operator and others and lower[behind + len(rest)] in b":=":  # the originals take no quote before it
                for other in others:
                    if found.ends.get(other, 0) <= at:
                        end = found.ends[other] = other(block, at, lines, found)
                        taken = taken or end > behind
                        if taken and word == b"pass":
                            return end
            if rest and word in rest:  # the word stands twice in the name: the last one counts
                inner = rest.rfind(word)
                at, rest = behind + inner, rest[inner + size :]
            start = assignment.end()
            if start in found.values:
                return behind
            if operator is None:  # <add key="Password" value="x"/> is configuration, seldom in use
                operator = b"value=" if member == b"=" else member or listed or element or b" "
            value = (VALUES.get(operator) or (QUOTED_VALUE[quote[-1:]] if quote else BARE_VALUE)).match(block, start)
            if value is None or operator == b"," and NEXT_NAME.match(block, value.end()):
                return behind
            end = int(value.end())
            if operator == b":" and not quote and block[start:end].isalpha():
                return end  # prose: the commonest case, and never a secret
            self._assigned(block, at, (word, rest, operator, bool(quote), taken), start, end, found)
            return end

        return visit

    def _assigned(self, block: bytes, at: int, key: tuple[bytes, bytes, bytes, bool, bool], start: int, end: int, found: Found) -> None:
        """Report an assignment whose value, from `start` to `end`, is a secret; `key`: the last five of a Key."""
        value_start = start
        if key[2] == b">" and block[start : start + 1] == b"{":  # <secret>{AQAAABAAA value}</secret>
            start, end = block.rfind(b" ", start, end) + 1 or start + 1, end - 1
        before = line_before(found.lower, at)
        case = (before, key, block[start:end])
        try:
            anchored = found.judged[case]
        except KeyError:
            anchored = found.judged[case] = self._judge(Key(*split_name(before), *key), case[2])
        if anchored:
            found.values.add(value_start)
            found.append((anchored.rank, Match(anchored.rule, at - len(split_name(before)[1]), end, start, end)))

    def _spaced(self, block: bytes, at: int, behind: int, found: Found) -> int:
        """`SERVICE KEY value` without an operator: only where a known service is named before it."""
        spaced = SPACED.match(found.lower, behind)
        if spaced is None:
            return behind
        start, end = spaced.span(1)
        value = block[start:end]
        context, prefix = split_name(line_before(found.lower, at))
        anchored = self._service(context + prefix, value, random=True) if is_random(value) else None
        if anchored and not is_placeholder(value) and not NO_SECRET_NAME.search(prefix):
            found.append((anchored.rank, Match(anchored.rule, at - len(prefix), end, start, end)))
        return int(end)

    def _judge(self, key: Key, value: bytes) -> Optional[Anchored]:
        """The rule under which this value is a secret, or None."""
        kind = name_kind(key.prefix, key.word, key.rest)
        if kind == "none" or key.context.endswith(b"/") or key.operator == b">" and not key.context.endswith(b"<"):
            return None
        if kind == "password":
            return None if is_placeholder(value) else self._generic.get(password_rule(key, value))
        if key.operator == b" " or len(value) < 8 or len(value) < 24 and not NO_WORD.search(value):
            return None
        if key.taken:
            shaped = self._service(key.context + key.prefix, value, random=False)
            return shaped if shaped and not is_placeholder(value) else None
        if is_placeholder(value):
            return None
        if key.word == b"auth" and decodes_to_pair(value):  # Docker's config.json, .npmrc
            return self._generic.get("keyed-secret")
        random = is_random(value)
        return self._service(key.context + key.prefix, value, random) or self._generic.get(secret_rule(kind, key, value, random))

    def _service(self, before: bytes, value: bytes, random: bool) -> Optional[Anchored]:
        """The rule of a service that is named before a value of its shape, or of any random value behind a known name.

        Names are looked for backwards: each word, joined with the one before it, and bare of what stands beside names.
        """
        known, services = False, self._services
        words = WORD.findall(before)
        if self._names.isdisjoint([*words, *map(bytes.__add__, words, words[1:]), *map(bare_name, words)]):
            return None  # as nearly always, at a third of the time
        for number in range(len(words) - 1, -1, -1):
            word = words[number]
            for name in (word, words[number - 1] + word, bare_name(word)) if number else (word, bare_name(word)):
                known = known or name in SERVICES
                if name in services:
                    known = True
                    for anchored in services[name]:
                        if anchored.whole.fullmatch(value):
                            return self._generic.get("keyed-secret-weak") if is_typed(value) else anchored
        if known and random:
            return self._generic.get("keyed-secret" if is_strong(value) else "keyed-secret-weak")
        return None


@functools.lru_cache(maxsize=4096)
def bare_name(word: bytes) -> bytes:
    """A word without the api, key and the like that are written together with a service's name."""
    return NAME_AFFIX.sub(b"", word)


def line_before(lower: bytes, at: int) -> bytes:
    """What stands before a secret word on its line, as far as it is looked at."""
    return lower[at - BEFORE_SIZE if at > BEFORE_SIZE else 0 : at].rpartition(b"\n")[2]


def split_name(before: bytes) -> tuple[bytes, bytes]:
    """What stands before the name that holds a secret word, and the name's beginning."""
    context = before.rstrip(NAME_CHARACTERS)
    return context, before[len(context) :]


def password_rule(key: Key, value: bytes) -> str:
    """The id of the rule under which a password's value counts, or nothing."""
    assigned = key.quoted or key.operator != b":" or not key.context.strip(b" \t-")
    if key.word + key.rest == b"pass" and key.operator == b":" and not key.quoted and not key.prefix:
        return ""  # a test that passed
    if value.isalpha() or value.isdigit():
        return "keyed-secret-weak" if assigned and len(value) >= 6 and key.operator != b" " else ""
    if b" " in value and not key.quoted:
        return ""
    return "keyed-password" if assigned and key.operator not in (b" ", b"value=") and is_mixed(value) and len(value) >= 6 else "keyed-secret-weak"


def secret_rule(kind: str, key: Key, value: bytes, random: bool) -> str:
    """The id of the rule under which a generic secret's value counts, or nothing."""
    if kind == "bare":
        return "keyed-secret-weak" if random and is_many_cased(value) and not HEX_OR_UUID.fullmatch(value) else ""
    if random:
        return "keyed-secret" if is_strong(value) else "keyed-secret-weak"
    return "keyed-secret-weak" if (key.quoted or key.operator != b":") and is_mixed(value) and not is_words(value) else ""


@functools.lru_cache(maxsize=4096)
def name_kind(prefix: bytes, word: bytes, rest: bytes) -> str:
    """What a name that holds a secret word is the name of: a password, a secret, a bare key, or none of these."""
    if NAME_REST.fullmatch(rest) is None or NO_SECRET_NAME.search(prefix + word + rest):
        return "none"
    if PASSWORD_NAME.match(word + rest):
        return "password"
    if word == b"pass":
        return "none"
    if word == b"auth" and not rest or rest == b"s":
        return "bare"
    return "bare" if word == b"key" and not NAMES_SECRET.search(prefix + rest) and not KEY_OWNER.search(prefix) else "secret"


def together(visits: Sequence[Visitor]) -> Visitor:
    """One visitor for all that share a literal, each going on where it said."""
    if len(visits) == 1:
        return visits[0]

    def visit(block: bytes, at: int, lines: bool, found: Found) -> int:
        ends = found.ends
        for one in visits:
            if ends.get(one, 0) <= at:
                ends[one] = one(block, at, lines, found)
        return at + 1

    return visit


def name_goes_on(word: bytes) -> bytes:
    """The characters that may follow a secret word in a name."""
    return NAME_GOES_ON + b"s" + bytes({more[0] for more in SECRET_WORDS[word].split()})


def word_finder(words: Iterable[bytes]) -> Any:
    """A regex for the copy in WORD_LETTERS: matches at each word's pair of letters; the last group is twice the word's number, from 1."""
    parts = []
    for number, word in enumerate(words):
        text = word.translate(WORD_LETTERS)
        at = text.index(WORD_PAIR) + len(WORD_PAIR)
        part = re.escape(text[at:]) + b"(?<=" + re.escape(text) + b")"  # a literal first: `re` then tries it without a call
        if word in SECRET_WORDS:
            goes_on = b"|".join((b"s?[" + re.escape(NAME_GOES_ON) + b"]", *SECRET_WORDS[word].translate(WORD_LETTERS).split()))
            ahead = OPERATOR_AHEAD % (2 * number + 1)
            part += b"(?=" + goes_on + b")(?=" + (ahead + b"|" + SPACED_AHEAD if word in SPACED_WORDS else ahead) + b")()"
        else:
            part += b"()()"
        parts.append(part)
    return re.compile(WORD_PAIR + b"(?:" + b"|".join(parts) + b")")


def url_finder(host_tails: Iterable[bytes]) -> Any:
    """A regex for URLs that may hold credentials, or whose host ends so."""
    tails = b"|".join(map(re.escape, host_tails))
    host = rb"[a-z0-9.\-]{0,%d}(?<=%s)/|" % (URL_AUTHORITY, tails) if tails else b""
    return re.compile(rb"://(?=" + host + rb"[^\s/?#\"'<>`\\]{0,%d}@)" % URL_AUTHORITY)


def glued_start(block: bytes, at: int, before: int) -> int:
    """Where the token of a run begins: before a dot, or behind the escape that is glued to it: JSON's \\n, %3A, an ANSI colour."""
    if before in b".!":
        lead = block[max(0, at - TOKEN_START) : at]
        return at - len(lead) + len(lead.rstrip(TOKEN_SIGNS))
    if before == 92:
        return at + (5 if block[at] == 117 else 1)
    return at + 2 if before == 37 else block.find(b"m", at, at + 12) + 1


def accept(anchored: Anchored, block: bytes, match: Any, found: Found) -> None:
    """Take the match as a candidate, if it is no placeholder; the six originals report whatever they match."""
    rule = anchored.rule
    start, end = match.span(rule.group)
    if rule.find in ADDED_FINDS and not rule.custom and not stands_up(rule, block[start:end]):
        return
    found.append((anchored.rank, Match(rule, match.start(), match.end(), start, end)))


def stands_up(rule: Rule, secret: bytes) -> bool:
    """Whether an added rule's secret is more than a placeholder of the right shape."""
    if rule.find in ("url", "curl"):
        return not is_placeholder(secret)
    if rule.find == "basic":
        return decodes_to_pair(secret)
    if rule in (JSON_WEB_TOKEN, JSON_WEB_ENCRYPTION):
        return is_jwt(secret)
    if rule is JWT_BASE64:
        return is_jwt(decoded(secret))
    return not is_filled_in(secret) and (rule.id != "google-api-key" or hashlib.sha256(secret).hexdigest()[:12] not in PUBLISHED)


def without_overlaps(candidates: list[Candidate]) -> list[Match]:
    """The candidates whose secrets do not overlap one of an earlier rule, sorted by start."""
    kept: list[Candidate] = []
    crowd: list[Candidate] = []  # candidates of which each overlaps another
    reach = -1
    for candidate in sorted(candidates, key=SECRET_START):
        if crowd and candidate[1].secret_start >= reach:
            kept += crowd if len(crowd) == 1 else first_ranked(crowd)
            crowd = []
        crowd.append(candidate)
        reach = max(reach, candidate[1].secret_end)
    kept += first_ranked(crowd)
    return sorted((match for _, match in kept), key=MATCH_START)


def first_ranked(crowd: list[Candidate]) -> list[Candidate]:
    """Of candidates that overlap, those of the earlier rules of the table, and of one rule the first."""
    taken: list[Candidate] = []
    starts: list[int] = []
    for candidate in sorted(crowd, key=lambda candidate: (candidate[0], candidate[1].start)):
        match = candidate[1]
        at = bisect.bisect_left(starts, match.secret_start)
        if at < len(taken) and starts[at] < match.secret_end or at and taken[at - 1][1].secret_end > match.secret_start:
            continue
        starts.insert(at, match.secret_start)
        taken.insert(at, candidate)
    return taken


SECRET_START: Callable[[Candidate], int] = lambda candidate: candidate[1].secret_start
MATCH_START: Callable[[Match], int] = lambda match: match.start


DEFAULT_SCANNER = Scanner()


def scan(block: bytes) -> list[Match]:
    """All secrets in the block under the whole table."""
    return DEFAULT_SCANNER.scan(block)


def redact(text: str) -> str:
    """The text with every secret's match shown as `AB***YZ`, or `***` where it has six characters or fewer."""
    block = text.encode("utf-8", "surrogateescape")
    parts, at = [], 0
    for match in scan(block):
        if match.start < at:
            continue
        whole = block[match.start : match.end].decode("utf-8", "surrogateescape")
        parts += [block[at : match.start].decode("utf-8", "surrogateescape"), f"{whole[:2]}***{whole[-2:]}" if len(whole) > 6 else "***"]
        at = match.end
    return "".join(parts) + block[at:].decode("utf-8", "surrogateescape")


# =====================================================================================================================
# users' rules
# =====================================================================================================================

SEVERITIES = ("HIGH", "MEDIUM", "LOW")
PROBE_SIZES = (*range(8, 48), 56, 64, 80, 96, 200, 800, 3000, 8192, 16384, 24576, 32768, 65536)
PROBE_LIMIT = 0.25  # CPU seconds for one probe of at most 64 KiB; an honest pattern takes a few milliseconds
SHORT_PROBE = 100  # bytes: a text so short takes microseconds, so the pattern is told before a longer one would take minutes
SHORT_PROBE_LIMIT = 0.02


class RuleError(ValueError):
    """A rule, or a choice of rules, that cannot be used; the message says which and why."""


def load_rules(path: str) -> list[Rule]:
    """The rules of a JSON file: a list of objects with id, name, severity, keywords, regex, examples, and maybe group.

    Raises RuleError for a file that cannot be read and for a rule that is wrong, misses its examples or is slow.
    """
    try:
        with open(path, encoding="utf-8") as file:
            rows = json.load(file)
    except (OSError, ValueError) as error:
        raise RuleError(f"rules file {path} cannot be read: {error}") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise RuleError(f"rules file {path} must hold a JSON list of objects")
    return [user_rule(row, f"{path}: rule {row.get('id', number)!r}") for number, row in enumerate(rows, 1)]


def user_rule(row: dict[str, Any], where: str) -> Rule:
    """One user's rule, checked; raises RuleError."""
    texts = [row.get(key) for key in ("id", "name", "severity", "regex")]
    if not all(isinstance(text, str) and text for text in texts):
        raise RuleError(f"{where} needs the texts id, name, severity and regex")
    rule_id, name, severity, regex = (str(text) for text in texts)
    keywords, examples, group = row.get("keywords"), row.get("examples", []), row.get("group", 0)
    if not (isinstance(keywords, list) and keywords and all(isinstance(word, str) and len(word) > 1 for word in keywords)):
        raise RuleError(f"{where} needs keywords: literals of two or more characters of which one is in every match")
    if not (isinstance(examples, list) and examples and all(isinstance(example, str) for example in examples)):
        raise RuleError(f"{where} needs examples: a list of one or more texts that it finds, each with one of the keywords")
    if severity not in SEVERITIES or rule_id in {rule.id for rule in RULES}:
        raise RuleError(f"{where}: severity must be HIGH, MEDIUM or LOW, and the id must not be one of ours")
    try:
        compiled = re.compile(regex.encode())
    except re.error as error:
        raise RuleError(f"{where}: the regex is wrong: {error}") from None
    if not isinstance(group, int) or not 0 <= group <= compiled.groups:
        raise RuleError(f"{where}: group {group!r} is none of the regex's {compiled.groups} groups")
    rule = Rule(rule_id, name, severity, tuple(w.encode() for w in keywords), regex.encode(), group, tuple(examples), (), path_of(where), find="line", custom=True)
    missed = [problem for problem in rule_problems(rule)]
    if missed or slow_on(compiled, rule):
        raise RuleError(f"{where}: " + (missed[0] if missed else "the regex is too slow on some inputs; write it without nested repetition"))
    return rule


def path_of(where: str) -> str:
    """The file's part of a place, as the reference of a user's rule."""
    return where.partition(":")[0]


def slow_on(compiled: Any, rule: Rule) -> bool:
    """Whether the pattern takes too long on growing texts made to be nearly matched."""
    seeds = {example.encode() for example in rule.examples} | {b"a", b"0", b" ", b"a1", *rule.keywords}
    for seed in sorted(seeds):
        for size in PROBE_SIZES:
            text = (seed * (size // len(seed) + 1))[:size] + b"\x00"
            began = time.thread_time()
            for _ in compiled.finditer(text):
                pass
            if time.thread_time() - began > (SHORT_PROBE_LIMIT if size < SHORT_PROBE else PROBE_LIMIT):
                return True
    return False


def select_rules(rules: Sequence[Rule], *, only: Iterable[str] = (), disable: Iterable[str] = ()) -> list[Rule]:
    """The rules by id: all or those of `only`, without those of `disable`; raises RuleError for an unknown id."""
    known = {rule.id for rule in rules}
    wanted, unwanted = set(only), set(disable)
    for rule_id in sorted((wanted | unwanted) - known):
        raise RuleError(f"there is no rule {rule_id!r}; `dockeraudit rules` lists them")
    return [rule for rule in rules if (not wanted or rule.id in wanted) and rule.id not in unwanted]


RULES_PAGE = """# What dockeraudit finds

{count} rules, in the order in which they win where the secrets of two overlap; the one that wins reports, once. Generated from
the table in `patterns.py` (`dockeraudit rules --markdown`); `dockeraudit rules` lists the rules of a configuration.

- **HIGH**: a provider's token by its documented shape, a private key, a credential in a URL, and what the six original
  patterns match, whatever it is. **MEDIUM**: a value of a service's shape behind that service's name, a password behind
  a password's name, a random value beyond doubt behind a secret's name, a token that decodes. **LOW**: what may well be a
  secret but has no shape of its own, and e-mail addresses.
- A secret's name is one with *key*, *token*, *secret*, *pass*, *pwd* or *auth* right before the operator: `client_secret=`,
  `"password": `, `--token `, `<secret>`, `{{"name": "DB_PASSWORD", "value": `. Names of identifiers are none (`token_id`,
  `cache_key`, `public_key`, `password_hash`), nor are placeholders (`REDACTED`, `****`, `<...>`, `${{...}}`, `changeme`), paths, code,
  and words. A bare `key` counts behind what owns keys (`api_key`) or one of {services} known services (`weatherstack_key`).
- Escapes are seen through where they are glued to a secret: JSON's, percent-encoding, colours, and base64 of private keys,
  JSON Web Tokens and `user:password`.
- `--rules FILE` adds your own: a JSON list of objects with `id`, `name`, `severity`, `keywords` (literals of which one is in every
  match), `regex` (Python's, over bytes), `examples` (texts that it finds) and maybe `group` (which of the regex's groups is
  the secret). A rule that misses its examples, or is slow on some input, is refused at start with a sentence.
  `--disable-rule ID`, `--only-rules ID,...` choose; `--allow-secret FINGERPRINT` silences one known secret.

| id | name | severity | reference |
|---|---|---|---|
"""


def rules_markdown(rules: Sequence[Rule]) -> str:
    """The table as a document."""
    rows = "".join(f"| `{rule.id}` | {rule.name} | {rule.severity} | {rule.reference} |\n" for rule in rules)
    return RULES_PAGE.format(count=len(rules), services=len(SERVICES)) + rows


def rule_problems(rule: Rule) -> Iterator[str]:
    """What is wrong with a rule by its own examples and negatives."""
    scanner = Scanner([rule])
    for example in rule.examples:
        if not any(keyword.lower() in example.lower().encode() for keyword in rule.keywords):
            yield f"{rule.id}: example {example!r} holds none of the keywords"
        elif not scanner.scan(example.encode()):
            yield f"{rule.id}: example {example!r} is not found"
    for negative in rule.negatives:
        if scanner.scan(negative.encode()):
            yield f"{rule.id}: negative {negative!r} is found"


def check(rules: Sequence[Rule] = RULES) -> list[str]:
    """What is wrong with the table: one sentence for each problem, none if all is well."""
    problems = [problem for rule in rules for problem in rule_problems(rule)]
    twice = [rule_id for rule_id, count in Counter(rule.id for rule in rules).items() if count > 1]
    return problems + [f"{rule_id}: the id is used twice" for rule_id in twice]


if __name__ == "__main__":
    FAILURES = check()
    for failure in FAILURES:
        print(failure, file=sys.stderr)
    print(f"{len(RULES)} rules, {len(FAILURES)} problems")
    sys.exit(1 if FAILURES else 0)
