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
pattern is quadratic. Literals are found in the block or in its lower-case copy, and patterns are matched there.
Run as a program, it checks every rule against its own examples.
"""
from __future__ import annotations

import base64
import binascii
import bisect
import json
import math
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
    `service`: the words of which one stands in the key's name. `custom`: a user's rule.
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
    service: str = ""
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
    """What must not follow the shape: one more character of a body that has a fixed length."""
    last = re.search(r"\{([a-zA-Z])\d+(,\d*)?\}$", shape)
    return "" if last is None or last.group(2) == "," else f"(?![{ALPHABETS[last.group(1)]}])"


def shape_sample(shape: str, seed: int = 1) -> str:
    """A made-up text of this shape, always the same one; nothing token-shaped needs to stand in a file."""
    rng = random.Random(f"{shape} {seed}")
    text = ""
    for letter, least, _, _, choice, literal in SHAPE_PART.findall(shape):
        if letter:
            alphabet = re.sub(r"(.)-(.)", lambda m: "".join(map(chr, range(ord(m[1]), ord(m[2]) + 1))), ALPHABETS[letter])
            text += "".join(rng.choice(alphabet.strip("-_=.+/") or alphabet) for _ in range(int(least)))
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
            alphabet = re.sub(r"(.)-(.)", lambda m: "".join(map(chr, range(ord(m[1]), ord(m[2]) + 1))), ALPHABETS[letter])
            options = list(alphabet) if int(least) == 1 or min(map(len, heads)) == 2 else [a + b for a in alphabet for b in alphabet]
        else:
            options = choice.split("|") if choice else [literal]
        heads = [head + option for head in heads for option in options]
    return tuple(sorted({head[:3].encode() for head in heads}))


def keyed(rule_id: str, name: str, service: str, shapes: str, reference: str, severity: str = "MEDIUM") -> Rule:
    """A rule for values that only their key gives away: `service` (choices with |) in the key's name, and a shape."""
    pattern = "|".join(f"(?:{shape_regex(shape)})" for shape in shapes.split())
    word = service.split("|")[0]
    first = shapes.split()[0]
    examples = (f"{word}_api_key = {shape_sample(first)}", f'"{word}-token": "{shape_sample(first, 2)}"')
    negatives = (f"{word}_api_key = {shape_sample(first)[:5]}", f"other_api_page = {shape_sample(first)}")
    keywords = tuple(part.encode() for part in service.split("|"))
    return Rule(rule_id, name, severity, keywords, pattern.encode(), 0, examples, negatives, reference, False, "keyed", service)


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
    token("aws-temporary-key", "AWS temporary access key id", "ASIA{u16} ABIA{u16} ACCA{u16} A3T{u1}{u16}", "docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html"),
    token("aws-bedrock-key", "Amazon Bedrock API key", "ABSK{b109,}", "docs.aws.amazon.com/bedrock/latest/userguide/api-keys.html"),
    token("aws-bedrock-short-key", "Amazon Bedrock short-term API key", "bedrock-api-key-YmVkcm9jay5hbWF6b25hd3MuY29t", "docs.aws.amazon.com/bedrock/latest/userguide/api-keys.html"),
    token("google-api-key", "Google API key", "AIza{w35}", "cloud.google.com/docs/authentication/api-keys"),
    token("google-oauth-token", "Google OAuth access token", "ya29.{w20,}", "developers.google.com/identity/protocols/oauth2"),
    token("google-oauth-secret", "Google OAuth client secret", "GOCSPX-{w28}", "developers.google.com/identity/protocols/oauth2"),
    token("google-bound-key", "Google bound API key", "AQ.Ab8{w40,}", "cloud.google.com/docs/authentication/api-keys"),
    token("google-refresh-token", "Google OAuth refresh token", "1//0{w40,}", "developers.google.com/identity/protocols/oauth2")._replace(find="line", keywords=(b"1//0",)),
    token("alibaba-access-key", "Alibaba Cloud access key id", "LTAI{a12,24}", "www.alibabacloud.com/help/en/ram"),
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
    token("heroku-token", "Heroku API token", "HRKU-AA{w58}", "devcenter.heroku.com/articles/authentication"),
    token("supabase-token", "Supabase access token", "sbp_{h40} sb_secret_{w31,}", "supabase.com/docs/guides/api/api-keys"),
    token("render-key", "Render API key", "rnd_{a32}", "render.com/docs/api"),
    token("planetscale-token", "PlanetScale credential", "[pscale_tkn_|pscale_pw_|pscale_oauth_]{e32,}", "planetscale.com/docs/concepts/service-tokens"),
    token("mongodb-atlas-key", "MongoDB Atlas service account secret", "mdb_sa_sk_{w40,}", "www.mongodb.com/docs/atlas/api"),
    token("neon-key", "Neon API key", "napi_{l64}", "neon.tech/docs/manage/api-keys"),
    token("cratesio-token", "crates.io token", "cio{a32}", "doc.rust-lang.org/cargo/reference/registry-authentication.html"),
)

FORGES = (
    token("github-token", "GitHub token", "[ghp_|gho_|ghu_|ghs_|ghr_]{a36,255}", "docs.github.com/en/authentication/keeping-your-account-and-data-secure/about-authentication-to-github"),
    token("github-fine-grained-token", "GitHub fine-grained token", "github_pat_{v82}", "docs.github.com/en/authentication"),
    token("gitlab-token", "GitLab access token", "[glpat-|gldt-|glft-|glimt-|glsoat-|gloas-|glrt-|glcbt-|glagent-|glffct-|glptt-|glwt-]{w20,300}", "docs.gitlab.com/security/tokens"),
    token("gitlab-runner-registration", "GitLab runner registration token", "GR1348941{w20}", "docs.gitlab.com/security/tokens"),
    token("atlassian-token", "Atlassian API token", "ATATT3xFfGF0{g20,}", "support.atlassian.com/atlassian-account/docs/manage-api-tokens-for-your-atlassian-account"),
    token("bitbucket-app-password", "Bitbucket app password", "ATBB{g24,}", "support.atlassian.com/bitbucket-cloud/docs/app-passwords"),
    token("atlassian-other-token", "Atlassian access token", "ATCTT3xFfGN0{g20,}", "developer.atlassian.com"),
    token("sourcegraph-token", "Sourcegraph token", "sgp_{x40} [sgp_|sgp_local_]{x16}_{x40} slk_{h64}", "sourcegraph.com/docs/cli/how-tos/creating_an_access_token"),
    token("sonar-token", "SonarQube token", "[sqp_|squ_|sqa_]{l40}", "docs.sonarsource.com/sonarqube-server/user-guide/managing-tokens"),
    token("buildkite-token", "Buildkite token", "[bkua_|bkct_|bkat_|bkr_]{l40}", "buildkite.com/docs/apis/managing-api-tokens"),
    token("circleci-token", "CircleCI token", "[CCIPAT_|CCIPRJ_]{a22}_{h40}", "circleci.com/docs/managing-api-tokens"),
    token("harness-token", "Harness token", "[pat|sat].{w22}.{x24}.{a20}", "developer.harness.io/docs/platform/automation/api/add-and-manage-api-keys"),
    token("prefect-token", "Prefect token", "[pnu_|pnb_]{a36}", "docs.prefect.io/v3/manage/cloud/manage-users/api-keys"),
    token("pulumi-token", "Pulumi access token", "pul-{l40}", "www.pulumi.com/docs/pulumi-cloud/accounts"),
    token("terraform-token", "HCP Terraform token", "{a14}.atlasv1.{g60,70}", "developer.hashicorp.com/terraform/cloud-docs/users-teams-organizations/api-tokens")._replace(find="line", keywords=(b".atlasv1.",)),
    token("vault-token", "HashiCorp Vault token", "[hvs.|hvb.|hvr.]{w24,}", "developer.hashicorp.com/vault/docs/concepts/tokens"),
    token("codecov-token", "Codacy or Codecov upload token", "codecov_{a32,}", "docs.codecov.com"),
    token("phabricator-token", "Phabricator Conduit token", "[api-|cli-]{l28}", "secure.phabricator.com/conduit", "MEDIUM"),
)

REGISTRIES = (
    token("npm-token", "npm access token", "npm_{a36}", "docs.npmjs.com/about-access-tokens"),
    token("pypi-token", "PyPI upload token", "pypi-AgEIcHlwaS5vcmc{w50,} pypi-AgENdGVzdC5weXBpLm9yZ{w50,}", "pypi.org/help/#apitoken"),
    token("rubygems-key", "RubyGems API key", "rubygems_{l48}", "guides.rubygems.org/rubygems-org-api"),
    token("nuget-key", "NuGet API key", "oy2{l43}", "learn.microsoft.com/nuget/nuget-org/publish-a-package"),
    token("dockerhub-token", "Docker Hub token", "[dckr_pat_|dckr_oat_]{w27,}", "docs.docker.com/security/access-tokens"),
    token("swarm-token", "Docker Swarm join token or unlock key", "SWMTKN-1-{l50}-{l25} SWMKEY-1-{b40,}", "docs.docker.com/engine/swarm/join-nodes"),
    token("clojars-token", "Clojars deploy token", "CLOJARS_{x60}", "github.com/clojars/clojars-web/wiki/Deploy-Tokens"),
    token("artifactory-key", "JFrog Artifactory API key", "AKCp{a69,} cmVmd{a59,}", "jfrog.com/help/r/jfrog-platform-administration-documentation/api-key"),
    token("artifactory-password", "JFrog Artifactory encrypted password", "AP{x1}{a40,72}", "jfrog.com/help", "MEDIUM"),
    token("hex-key", "JSR or Deno token", "[ddp_|ddw_]{a36}", "docs.deno.com/deploy"),
)

CHAT = (
    token("slack-token", "Slack token", "[xoxb-|xoxp-|xoxa-|xoxr-|xoxo-|xoxs-|xoxe-]{w20,} xoxe.[xoxb-|xoxp-]{w20,}", "api.slack.com/authentication/token-types"),
    token("slack-app-token", "Slack app-level token", "xapp-{d1}-{u8,}-{d8,}-{l32,}", "api.slack.com/authentication/token-types"),
    token("slack-cookie-token", "Slack session token", "[xoxc-|xoxd-]{e40,}", "api.slack.com/authentication/token-types"),
    token("discord-bot-token", "Discord bot token", "[M|N|O]{w23,27}.{w6}.{w27,}", "discord.com/developers/docs/reference#authentication"),
    token("frameio-token", "Frame.io token", "fio-u-{g64}", "developer.frame.io"),
    token("messagebird-live-key", "MessageBird key", "[live_|test_]{a25}", "developers.messagebird.com/api", "MEDIUM"),
    token("twilio-key", "Twilio API key", "SK{x32}", "www.twilio.com/docs/iam/api-keys"),
    token("sendgrid-key", "SendGrid API key", "SG.{g20,24}.{g39,50}", "docs.sendgrid.com/ui/account-and-settings/api-keys"),
    token("sendinblue-key", "Brevo (Sendinblue) API key", "[xkeysib|xsmtpsib]-{h64}-{a16}", "developers.brevo.com/docs/getting-started"),
    token("mailgun-key", "Mailgun key", "[key|pubkey]-{h32}", "documentation.mailgun.com/docs/mailgun/user-manual/api-key-mgmt"),
    token("mailjet-token", "Resend API key", "re_{v24,}", "resend.com/docs/api-reference", "MEDIUM"),
    token("intra42-secret", "42 intra client secret", "[s|u]-s4t2[ud|af]-{h64}", "api.intra.42.fr/apidoc"),
    token("linear-key", "Linear API key", "lin_api_{a40} lin_oauth_{h64}", "linear.app/developers"),
    token("notion-token", "Notion token", "ntn_{d11}{a35} secret_{a43} nrt_{a40,}", "developers.notion.com/docs/authorization"),
    token("typeform-token", "Typeform personal access token", "tfp_{e40,59} tfp{w40,59}", "www.typeform.com/developers/get-started/personal-access-token"),
    token("figma-token", "Figma personal access token", "[figd_|figo_|figu_]{w40,}", "www.figma.com/developers/api#access-tokens"),
    token("airtable-token", "Airtable personal access token", "pat{a14}.{h64}", "airtable.com/developers/web/api/authentication"),
    token("postman-key", "Postman API key", "PMAK-{x24}-{x34}", "learning.postman.com/docs/developer/postman-api/authentication"),
    token("readme-key", "ReadMe API key", "rdme_{l70}", "docs.readme.com/main/reference/authentication"),
    token("beamer-token", "Beamer API key", "b_{g44}", "www.getbeamer.com/api", "MEDIUM"),
    token("telegram-token-url", "Telegram bot token in a URL", "bot{d8,10}:{w35}", "core.telegram.org/bots/api#authorizing-your-bot"),
    token("contentful-token", "Contentful token", "CFPAT-{w43}", "www.contentful.com/developers/docs/references/authentication"),
    token("duffel-token", "Duffel access token", "[duffel_test_|duffel_live_]{g43}", "duffel.com/docs/api/overview/authentication"),
    token("onepassword-token", "1Password service account token", "ops_eyJ{e200,}", "developer.1password.com/docs/service-accounts"),
    token("onepassword-secret-key", "1Password secret key", "A3-{u6}-{u11}-{u5}-{u5}-{u5} A3-{u6}-{u6}-{u5}-{u5}-{u5}-{u5}", "support.1password.com/secret-key-security"),
    token("doppler-token", "Doppler token", "dp.[pt|ct|sa|scim|audit].{a40,44} dp.st.{w2,35}.{a40,44} dp.st.{a40,44}", "docs.doppler.com/docs/token-formats"),
    token("infisical-token", "Infisical service token", "st.{h24}.{h32}.{h32}", "infisical.com/docs/documentation/platform/token"),
    token("age-key", "age secret key", "AGE-SECRET-KEY-1{u58} AGE-PLUGIN-{u4,}-1{u30,}", "age-encryption.org/v1"),
    token("tailscale-key", "Tailscale key", "tskey-{w20,}", "tailscale.com/kb/1085/auth-keys"),
    token("definednetworking-key", "Defined Networking API key", "dnkey-{g26}-{g52}", "docs.defined.net/guides/automating-host-creation"),
    token("dropbox-token", "Dropbox access token", "sl.{g40,} sl.u.{w100,}", "www.dropbox.com/developers/reference/auth-types"),
    token("adobe-secret", "Adobe client secret", "p8e-{w32}", "developer.adobe.com/developer-console/docs/guides/authentication"),
    token("adafruit-key", "Adafruit IO key", "aio_{a28}", "io.adafruit.com/api/docs"),
    token("hubspot-token", "HubSpot private app token", "pat-[na1|na2|eu1]-" + UUID, "developers.hubspot.com/docs/api/private-apps"),
    token("apify-token", "Apify token", "apify_api_{a34,38}", "docs.apify.com/platform/integrations/api"),
    token("databricks-token", "Databricks token", "dapi{x32} dapi{x32}-{d1}", "docs.databricks.com/en/dev-tools/auth/pat.html"),
    token("segment-token", "Segment public API token", "sgp_{a64}", "segment.com/docs/api/public-api"),
    token("launchdarkly-key", "LaunchDarkly key", "[sdk|api|mob]-" + UUID, "docs.launchdarkly.com/home/account/api"),
    token("fullcontact-zapier", "Pipedream or Prefect style workflow token", "pd_{a32}", "pipedream.com/docs", "MEDIUM"),
)

PAYMENT = (
    token("stripe-key", "Stripe key", "[sk_live_|sk_test_|rk_live_|rk_test_|sk_prod_|rk_prod_]{a10,247} whsec_{b32,}", "docs.stripe.com/keys"),
    token("square-token", "Square token", "EAAA{w56,} sq0atp-{w22,} sq0csp-{w43,}", "developer.squareup.com/docs/build-basics/access-tokens"),
    token("shopify-token", "Shopify token", "[shpat_|shpca_|shppa_|shpss_]{x32}", "shopify.dev/docs/apps/auth"),
    token("shippo-token", "Shippo token", "[shippo_live_|shippo_test_]{h40}", "docs.goshippo.com/docs/guides_general/authentication"),
    token("easypost-key", "EasyPost key", "[EZAK|EZTK]{a54}", "docs.easypost.com/docs/authentication"),
    token("lob-key", "Lob key", "[live_|test_]{h35} [test_pub_|live_pub_]{h31}", "docs.lob.com/#tag/Authentication"),
    token("flutterwave-key", "Flutterwave key", "FLWSECK-{x32}-X FLWSECK_TEST-{x32}-X FLWPUBK_TEST-{x32}-X FLWSECK_TEST-{x12}", "developer.flutterwave.com/docs/authentication"),
    token("paypal-braintree-token", "Braintree access token", "access_token$production${l16}${h32}", "developer.paypal.com/braintree/docs"),
    token("plaid-token", "Plaid access token", "access-[sandbox|development|production]-" + UUID, "plaid.com/docs/api/tokens"),
    token("gocardless-token", "GoCardless token", "live_{g40}", "developer.gocardless.com", "MEDIUM"),
    token("razorpay-key", "Razorpay key", "[rzp_live_|rzp_test_]{a14,}", "razorpay.com/docs/api/authentication"),
    token("adyen-key", "Adyen API key", "AQE{v1}hmfu{b60,}", "docs.adyen.com/development-resources/api-credentials"),
    token("coinbase-cdp-key", "Mollie key", "[live_|test_]{a30}", "docs.mollie.com/overview/authentication", "MEDIUM"),
)

MONITORING = (
    token("grafana-key", "Grafana API key", "eyJrIjoi{b70,400}", "grafana.com/docs/grafana/latest/administration/api-keys"),
    token("grafana-cloud-token", "Grafana Cloud token", "glc_{b32,400}", "grafana.com/docs/grafana-cloud/account-management/authentication-and-permissions/access-policies"),
    token("grafana-service-account", "Grafana service account token", "glsa_{a32}_{x8}", "grafana.com/docs/grafana/latest/administration/service-accounts"),
    token("newrelic-key", "New Relic key", "NRAK-{a27} NRII-{w32} NRJS-{h19} NRRA-{h42} NRIQ-{w32}", "docs.newrelic.com/docs/apis/intro-apis/new-relic-api-keys"),
    token("dynatrace-token", "Dynatrace token", "dt0[c01|s01|s02|s16].{u24}.{u64} dt0c01.{l24}.{l64}", "docs.dynatrace.com/docs/manage/identity-access-management/access-tokens-and-oauth-clients"),
    token("sentry-token", "Sentry token", "sntrys_eyJ{e80,} [sntryu_|sntrya_]{h64}", "docs.sentry.io/account/auth-tokens"),
    token("posthog-key", "PostHog key", "[phx_|phc_|phs_]{w42,}", "posthog.com/docs/api"),
    token("datadog-client-token", "Datadog client token", "pub{h32}", "docs.datadoghq.com/account_management/api-app-keys", "MEDIUM"),
    token("logfire-token", "Logfire token", "pylf_v{d1}_{l2}_{w43}", "logfire.pydantic.dev"),
    token("honeycomb-key", "Honeycomb key", "[hcaik_|hcbik_|hcalk_]{l58}", "docs.honeycomb.io/configure/environments/manage-api-keys"),
    token("rootly-token", "Rootly key", "rootly_{h64}", "rootly.com/api"),
    token("splunk-token", "Splunk session token", "splunkd_{w43,}", "docs.splunk.com", "MEDIUM"),
    token("statuspage-oh-dear", "Better Stack style token", "[uptime_|bstk_]{a32,}", "betterstack.com/docs", "MEDIUM"),
)

AI = (
    token("openai-key", "OpenAI key", "sk-[proj|svcacct|admin|None]-{w40,} sk-{a20}T3BlbkFJ{a20}", "platform.openai.com/docs/api-reference/authentication"),
    token("anthropic-key", "Anthropic key", "sk-ant-[api|admin|sid|oat]{d2,3}-{w40,}", "docs.anthropic.com/en/api/getting-started"),
    token("openrouter-key", "OpenRouter key", "sk-or-v1-{h64}", "openrouter.ai/docs/api-reference/authentication"),
    token("deepseek-key", "DeepSeek key", "sk-{l32}", "api-docs.deepseek.com", "MEDIUM"),
    token("huggingface-token", "Hugging Face token", "hf_{a34,37} api_org_{a34}", "huggingface.co/docs/hub/security-tokens"),
    token("groq-key", "Groq key", "gsk_{a52}", "console.groq.com/docs/api-keys"),
    token("perplexity-key", "Perplexity key", "pplx-{a48}", "docs.perplexity.ai"),
    token("replicate-token", "Replicate token", "r8_{w37}", "replicate.com/docs/topics/security/api-tokens"),
    token("xai-key", "xAI key", "xai-{w70,}", "docs.x.ai"),
    token("elevenlabs-key", "ElevenLabs key", "sk_{h48} sk_{h40}", "elevenlabs.io/docs/api-reference/authentication"),
    token("wandb-key", "Weights & Biases key", "wandb_v1_{v40,}", "docs.wandb.ai"),
    token("nvidia-key", "NVIDIA API key", "nvapi-{w60,70}", "docs.nvidia.com"),
    token("langsmith-key", "LangSmith key", "[lsv2_pt_|lsv2_sk_]{h32}_{h10}", "docs.smith.langchain.com"),
    token("pinecone-key", "Pinecone key", "pcsk_{v60,80}", "docs.pinecone.io"),
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

KEYED = (
    keyed("aws-secret-key", "AWS secret access key", "aws|secret_access|secretaccess|s3|amazon", "{b40}", "docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_access-keys.html", "HIGH"),
    keyed("azure-client-secret", "Azure client secret", "azure|client_secret|aad|arm_client", "{w3}{d1}Q~{e31,34}", "learn.microsoft.com/entra/identity-platform/quickstart-register-app", "HIGH"),
    keyed("adafruit-io-key", "Adafruit IO key", "adafruit", "{w32}", "io.adafruit.com/api/docs"),
    keyed("adobe-client-secret", "Adobe client id or secret", "adobe", "{x32}", "developer.adobe.com"),
    keyed("airtable-key", "Airtable key", "airtable", "{a17} {w1,20}.v1.{w5,}", "airtable.com/developers"),
    keyed("aiven-token", "Aiven token", "aiven", "{b372} {b32,}=", "docs.aiven.io"),
    keyed("algolia-key", "Algolia key", "algolia", "{a32} {u10}", "www.algolia.com/doc/guides/security/api-keys"),
    keyed("alibaba-secret", "Alibaba Cloud secret", "alibaba|aliyun|alicloud|alipay|oss", "{a30}", "www.alibabacloud.com/help/en/ram"),
    keyed("apify-legacy-token", "Apify token", "apify", "{a30,40}", "docs.apify.com"),
    keyed("artifactory-token", "JFrog token", "artifactory|jfrog|bintray|xray", "{a73} {a64} {b40,}", "jfrog.com/help"),
    keyed("asana-secret", "Asana secret", "asana", "{a32,} {d1}/{d16}:{x32} {d16}", "developers.asana.com/docs/authentication"),
    keyed("assemblyai-key", "AssemblyAI key", "assembly", "{a32}", "www.assemblyai.com/docs"),
    keyed("atlassian-key", "Atlassian key", "atlassian|confluence|jira|bitbucket", "{a20,64} {g24,64}", "support.atlassian.com"),
    keyed("beamer-key", "Beamer key", "beamer", "{g44,46} {b45,46}=", "www.getbeamer.com/api"),
    keyed("circleci-key", "CircleCI token", "circle", "{x40}", "circleci.com/docs/managing-api-tokens"),
    keyed("cloudflare-key", "Cloudflare key", "cloudflare|cf_api|cf_key|cf_token", "{h37} {w40} {h32}", "developers.cloudflare.com/fundamentals/api"),
    keyed("codeclimate-token", "Code Climate token", "codeclimate|cc_test_reporter|code_climate", "{h64} {h40}", "docs.codeclimate.com"),
    keyed("codecov-upload-token", "Codecov token", "codecov", "{a32} " + UUID, "docs.codecov.com"),
    keyed("coinbase-token", "Coinbase key", "coinbase", "{w64} {a32} {a16} {b86,88}", "docs.cdp.coinbase.com"),
    keyed("confluent-key", "Confluent key", "confluent|kafka", "{a16} {b64}", "docs.confluent.io/cloud/current/access-management"),
    keyed("contentful-key", "Contentful key", "contentful", "{g43} {g64}", "www.contentful.com/developers/docs/references/authentication"),
    keyed("coveralls-token", "Coveralls token", "coveralls", "{w37}", "docs.coveralls.io"),
    keyed("datadog-key", "Datadog key", "datadog|dd_api|dd_app|dogapi", "{a40} {h32} {a32}", "docs.datadoghq.com/account_management/api-app-keys"),
    keyed("datagov-key", "api.data.gov key", "data.gov|datagov|data_gov", "{a40}", "api.data.gov/docs"),
    keyed("deepgram-key", "Deepgram key", "deepgram", "{a40}", "developers.deepgram.com"),
    keyed("discord-secret", "Discord secret", "discord", "{h64} {d17,19} {w32} {e59,72}", "discord.com/developers/docs"),
    keyed("disqus-key", "Disqus key", "disqus", "{a64}", "disqus.com/api/docs"),
    keyed("dockerhub-password", "Docker Hub credential", "docker", "{x8}-{x4}-{x4}-{x4}-{x12}", "docs.docker.com"),
    keyed("droneci-token", "Drone token", "drone", "{a32}", "docs.drone.io"),
    keyed("dropbox-secret", "Dropbox secret", "dropbox", "{a15} {a11}AAAAAAAAAA{g43}", "www.dropbox.com/developers"),
    keyed("etsy-key", "Etsy token", "etsy", "{a24}", "developers.etsy.com"),
    keyed("facebook-secret", "Facebook secret", "facebook|fb_", "{x32} {d13,17}|{w20,40}", "developers.facebook.com/docs/facebook-login"),
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
    keyed("honeycomb-legacy-key", "Honeycomb key", "honeycomb|x-honeycomb", "{h32} {a22}", "docs.honeycomb.io"),
    keyed("hubspot-key", "HubSpot key", "hubspot|hapikey", "{x8}-{x4}-{x4}-{x4}-{x12}", "developers.hubspot.com"),
    keyed("ibm-key", "IBM Cloud key", "ibm|bluemix|cloudant|softlayer|watson", "{w44} {h64} {a24} {w43}", "cloud.ibm.com/docs/account"),
    keyed("intercom-token", "Intercom token", "intercom", "{b58,60}= {b60}", "developers.intercom.com"),
    keyed("jumpcloud-key", "JumpCloud key", "jumpcloud|x-api-key", "{a40}", "docs.jumpcloud.com"),
    keyed("kraken-token", "Kraken key", "kraken", "{b80,90}= {b80,90}", "docs.kraken.com"),
    keyed("kucoin-token", "KuCoin secret", "kucoin", "{h8}-{h4}-{h4}-{h4}-{h12} {h24}", "www.kucoin.com/docs"),
    keyed("launchdarkly-token", "LaunchDarkly token", "launchdarkly|ld_", "{g40} {w40} {l3}-{a8}-{a4}-{a4}-{a4}-{a12}", "docs.launchdarkly.com"),
    keyed("linear-secret", "Linear secret", "linear", "{x32}", "linear.app/developers"),
    keyed("linkedin-secret", "LinkedIn secret", "linkedin", "{a16} {a14}", "learn.microsoft.com/linkedin"),
    keyed("lob-api-key", "Lob key", "lob_", "[test|live]_{h35}", "docs.lob.com"),
    keyed("mailchimp-key", "Mailchimp key", "mailchimp|mandrill", "{h32}-us{d1,2} {w22}", "mailchimp.com/developer"),
    keyed("mailgun-signing-key", "Mailgun key", "mailgun", "{h32}-{h8}-{h8} {h32} {h72}", "documentation.mailgun.com"),
    keyed("mapbox-secret", "Mapbox token", "mapbox", "{w60,}.{w22,}", "docs.mapbox.com"),
    keyed("mattermost-token", "Mattermost token", "mattermost", "{l26}", "developers.mattermost.com"),
    keyed("messagebird-key", "MessageBird key", "messagebird|message_bird|message-bird", "{a25} {x8}-{x4}-{x4}-{x4}-{x12}", "developers.messagebird.com"),
    keyed("netlify-key", "Netlify token", "netlify", "{g40,46} {x64}", "docs.netlify.com"),
    keyed("newrelic-user-key", "New Relic key", "new-relic|newrelic|new_relic|nr_", "{h40} {a64} {h36}NRAL {w32}", "docs.newrelic.com"),
    keyed("npm-legacy-token", "npm token", "npm|_authtoken", UUID + " {x8}-{x4}-{x4}-{x4}-{x12}", "docs.npmjs.com"),
    keyed("nuget-password", "NuGet password", "nuget|cleartextpassword", "{l46}", "learn.microsoft.com/nuget"),
    keyed("nytimes-key", "New York Times key", "nytimes|new-york-times|newyorktimes", "{g32}", "developer.nytimes.com"),
    keyed("okta-token", "Okta token", "okta|ssws", "00{g40}", "developer.okta.com/docs/guides/create-an-api-token"),
    keyed("openai-keyed", "OpenAI key", "openai|gpt", "sk-{w20,}", "platform.openai.com"),
    keyed("paypal-secret", "PayPal secret", "paypal", "{w50,80}", "developer.paypal.com"),
    keyed("plaid-secret", "Plaid secret", "plaid", "{a24} {a30}", "plaid.com/docs"),
    keyed("postmark-token", "Postmark token", "postmark|x-postmark", "{l8}-{l4}-{l4}-{l4}-{l12}", "postmarkapp.com/developer"),
    keyed("rapidapi-key", "RapidAPI key", "rapidapi|rapid_api|x-rapidapi", "{w50}", "docs.rapidapi.com"),
    keyed("salesforce-secret", "Salesforce secret", "salesforce|sfdc", "{u64} {a85} {a24,25}", "help.salesforce.com"),
    keyed("segment-key", "Segment key", "segment", "{w43}.{w43}", "segment.com/docs"),
    keyed("sendbird-token", "Sendbird token", "sendbird", "{h40} {x8}-{x4}-{x4}-{x4}-{x12}", "sendbird.com/docs"),
    keyed("sentry-key", "Sentry token", "sentry", "{h64}", "docs.sentry.io"),
    keyed("shodan-key", "Shodan key", "shodan", "{a32}", "developer.shodan.io"),
    keyed("sidekiq-secret", "Sidekiq credential", "bundle_enterprise|bundle_gems|sidekiq", "{h8}:{h8}", "github.com/sidekiq/sidekiq/wiki"),
    keyed("snyk-token", "Snyk token", "snyk", "{x8}-{x4}-{x4}-{x4}-{x12}", "docs.snyk.io"),
    keyed("sonar-key", "SonarQube token", "sonar", "{a40} {g40}", "docs.sonarsource.com"),
    keyed("square-secret", "Square secret", "square", "{g22,64}", "developer.squareup.com"),
    keyed("squarespace-token", "Squarespace token", "squarespace", "{x8}-{x4}-{x4}-{x4}-{x12}", "developers.squarespace.com"),
    keyed("sslmate-key", "SSLMate key", "sslmate", "{a36}", "sslmate.com/help/reference/api"),
    keyed("sumologic-key", "Sumo Logic key", "sumo", "su{a12} {a64}", "help.sumologic.com"),
    keyed("telegram-token", "Telegram token", "telegr|tgbot", "{d8,10}:{w34,36}", "core.telegram.org/bots/api", "HIGH"),
    keyed("travisci-token", "Travis CI token", "travis", "{a22} {w44}", "docs.travis-ci.com"),
    keyed("trello-token", "Trello token", "trello", "{a32} {h64} ATTA{h72}", "developer.atlassian.com/cloud/trello"),
    keyed("twilio-token", "Twilio token", "twilio", "{x32}", "www.twilio.com/docs"),
    keyed("twitch-token", "Twitch token", "twitch", "{a30} live_{d6,}_{a30}", "dev.twitch.tv/docs/authentication"),
    keyed("twitter-secret", "Twitter secret", "twitter", "{a25} {a45} {a50} {d15,20}-{a20,40} A{e80,120}", "developer.x.com"),
    keyed("vault-keyed-token", "Vault token", "vault", "s.{a24} {l8}-{l4}-{l4}-{l4}-{l12}", "developer.hashicorp.com/vault"),
    keyed("wandb-legacy-key", "Weights & Biases key", "wandb|weightsandbiases|weights_and_biases", "{x40}", "docs.wandb.ai"),
    keyed("yandex-token", "Yandex key", "yandex", "{w39,40} {w42,100}", "yandex.cloud/en/docs"),
    keyed("zendesk-key", "Zendesk secret", "zendesk", "{a40}", "developer.zendesk.com"),
    keyed("azure-storage-key", "Azure storage key", "accountkey|account_key|azure|storage", "{b86}== {b43}=", "learn.microsoft.com/azure/storage/common/storage-account-keys-manage", "HIGH"),
    keyed("django-secret-key", "Django secret key", "django", "{w30,60}", "docs.djangoproject.com/en/stable/ref/settings/#secret-key"),
    keyed("github-legacy-token", "GitHub token", "github|ghe_|gh_token", "{h40} {a35,40}", "docs.github.com"),
    keyed("gitlab-legacy-token", "GitLab token", "gitlab|gl_token", "{w20}", "docs.gitlab.com"),
    keyed("gcp-key", "Google secret", "google|gcp|gcm|firebase|fcm", "{w24} {w35,40} AAAA{w7}:{w140}", "cloud.google.com/docs"),
    keyed("kubernetes-token", "Kubernetes secret", "kube|k8s|bootstrap", "{l6}.{l16}", "kubernetes.io/docs/reference/access-authn-authz"),
    keyed("slack-signing-secret", "Slack signing secret", "slack", "{h32}", "api.slack.com/authentication/verifying-requests-from-slack"),
    keyed("stripe-keyed", "Stripe key", "stripe", "[sk|pk|rk]_[live|test]_{a10,}", "docs.stripe.com/keys"),
    keyed("harness-key", "Harness key", "harness", "{w40,}", "developer.harness.io"),
    keyed("hashicorp-password", "HCP Terraform token", "terraform|tfe_|atlas", "{a14}.atlasv1.{g60,}", "developer.hashicorp.com"),
    keyed("spotify-secret", "Spotify secret", "spotify", "{h32}", "developer.spotify.com"),
    keyed("zoom-secret", "Zoom secret", "zoom", "{a32} {a22}", "developers.zoom.us"),
    keyed("mongodb-password", "MongoDB Atlas key", "mongo|atlas", UUID, "www.mongodb.com/docs/atlas"),
    keyed("pagerduty-key", "PagerDuty key", "pagerduty|pager_duty|pd_api", "{w20} {h32}", "support.pagerduty.com"),
    keyed("rollbar-token", "Rollbar token", "rollbar", "{h32} {h64}", "docs.rollbar.com"),
    keyed("opsgenie-key", "Opsgenie key", "opsgenie|ops_genie", UUID, "support.atlassian.com/opsgenie"),
    keyed("bugsnag-key", "Bugsnag key", "bugsnag", "{h32}", "docs.bugsnag.com"),
    keyed("amplitude-key", "Amplitude key", "amplitude", "{h32}", "amplitude.com/docs"),
    keyed("mixpanel-secret", "Mixpanel secret", "mixpanel", "{h32}", "developer.mixpanel.com"),
    keyed("bitly-token", "Bitly token", "bitly|bit_ly", "{h40}", "dev.bitly.com"),
    keyed("vultr-key", "Vultr key", "vultr", "{u36}", "www.vultr.com/api"),
    keyed("linode-token", "Linode token", "linode", "{h64}", "techdocs.akamai.com/linode-api"),
    keyed("hetzner-token", "Hetzner token", "hetzner|hcloud", "{a64}", "docs.hetzner.cloud"),
    keyed("openweather-key", "OpenWeather key", "openweather|owm", "{h32}", "openweathermap.org/appid"),
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
    rb"-----BEGIN (?:(?:EC|DSA|OPENSSH|ENCRYPTED|PGP|SSH2 ENCRYPTED|ANY|PKCS8|X25519|ED25519) ){1,2}PRIVATE KEY(?: BLOCK)?-----", 0,
    (PEM_LINE.format("EC ", ""), PEM_LINE.format("OPENSSH ", ""), PEM_LINE.format("PGP ", " BLOCK")), ("-----BEGIN PGP PUBLIC KEY BLOCK-----",),
    "RFC 7468; RFC 5958; openssh PROTOCOL.key; RFC 9580", multiline=True, find="pem",
)  # fmt: skip
PEM_BASE64 = token("private-key-base64", "Private key, base64 of PEM", "LS0tLS1CRUdJTi{b40,}", "RFC 7468 inside RFC 4648")
JSON_WEB_TOKEN = Rule(
    "json-web-token", "JSON Web Token", "MEDIUM", (b"eyJ",), rb"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{0,2048}", 0,
    ("eyJ" + "hbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9" + ".eyJ" + "zdWIiOiIxMjM0NTY3ODkwIn0" + ".dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",),
    ("eyJub3QiOiJhIGp3dCJ9",), "RFC 7519",
)  # fmt: skip
JSON_WEB_TOKEN_LOOSE = Rule(
    "json-web-encryption", "JSON Web Token, encrypted", "MEDIUM", (b"eyJ",), rb"eyJ[A-Za-z0-9_-]{16,}(?:\.[A-Za-z0-9_-]{0,2048}){4}", 0,
    ("eyJ" + "hbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ" + ".a1b2.c3d4.e5f6.g7h8",), ("eyJhbGciOiJIUzI1NiJ9.x",), "RFC 7516",
)  # fmt: skip
MAPBOX_TOKEN = token("mapbox-token", "Mapbox token", "[sk|pk|tk].eyJ{w50,}.{w20,} pk.{l60}.{l22}", "docs.mapbox.com/help/glossary/access-token")
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
    hook("slack-webhook", "Slack webhook", "hooks.slack.com", r"/(?:services|workflows|triggers)/[A-Za-z0-9+/]{30,80}", "/services/" + shape_sample("T{u8}/B{u8}/{a24}"), "api.slack.com/messaging/webhooks"),
    hook("discord-webhook", "Discord webhook", "discord.com", r"/api/(?:v\d+/)?webhooks/[0-9]{15,20}/[A-Za-z0-9_-]{60,80}", "/api/webhooks/" + shape_sample("{d18}/{w68}"), "discord.com/developers/docs/resources/webhook"),
    hook("discordapp-webhook", "Discord webhook", "discordapp.com", r"/api/(?:v\d+/)?webhooks/[0-9]{15,20}/[A-Za-z0-9_-]{60,80}", "/api/webhooks/" + shape_sample("{d18}/{w68}"), "discord.com/developers/docs/resources/webhook"),
    hook("teams-webhook", "Microsoft Teams webhook", "webhook.office.com", r"/webhookb2/[a-f0-9-]{36}@[a-f0-9-]{36}/IncomingWebhook/[a-f0-9]{32}/[a-f0-9-]{36}", "/webhookb2/" + shape_sample(f"{UUID}@{UUID}/IncomingWebhook/{{h32}}/{UUID}"), "learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors"),
    hook("zapier-webhook", "Zapier webhook", "hooks.zapier.com", r"/hooks/(?:catch|standard)/[A-Za-z0-9]{6,}/[A-Za-z0-9]{6,}", "/hooks/catch/" + shape_sample("{d7}/{l8}"), "help.zapier.com"),
    hook("telegram-bot-url", "Telegram bot token in a URL", "api.telegram.org", r"/(?:file/)?bot[0-9]{8,10}:[A-Za-z0-9_-]{35}", "/bot" + shape_sample("{d10}:{w35}"), "core.telegram.org/bots/api"),
    hook("google-chat-webhook", "Google Chat webhook", "chat.googleapis.com", r"/v1/spaces/[A-Za-z0-9_-]{8,}/messages\?key=[A-Za-z0-9_-]{20,}(?:&|\\u0026)token=[A-Za-z0-9_%-]{20,}", "/v1/spaces/" + shape_sample("{a11}/messages?key={w39}&token={w43}"), "developers.google.com/workspace/chat/quickstart/webhooks"),
    hook("sentry-dsn", "Sentry DSN with secret", "sentry.io", r"/[0-9]{1,20}\?key=[a-f0-9]{32}", "/" + shape_sample("{d6}?key={h32}"), "docs.sentry.io/concepts/key-terms/dsn-explainer"),
    hook("azure-sas", "Azure shared access signature", "core.windows.net", r"/[^\s\"'<>]{0,200}[?&]sig=[A-Za-z0-9%+/]{40,100}", "/c/b?sv=2022-11-02&sig=" + shape_sample("{a44}"), "learn.microsoft.com/azure/storage/common/storage-sas-overview"),
    hook("aws-presigned-url", "AWS presigned URL", "amazonaws.com", r"/[^\s\"'<>]{0,600}[?&]X-Amz-Signature=[a-f0-9]{64}", "/o?X-Amz-Signature=" + shape_sample("{h64}"), "docs.aws.amazon.com/AmazonS3/latest/userguide/ShareObjectPreSignedURL.html"),
)  # fmt: skip

KEYED_PASSWORD = Rule(
    "keyed-password", "Password in a key-value pair", "MEDIUM", (b"passw", b"pwd", b"passphrase"), rb"[^\s\"']{4,256}", 0,
    ('{"password": "' + "tr0ub4dor&3" + '"}', "DB_PASSWORD=" + "kX9vQ2mL"), ('{"password": "__REDACTED__"}', "password_file=/run/secrets/x"),
    "assignments in logs, JSON and YAML", find="keyed",
)  # fmt: skip
KEYED_SECRET = Rule(
    "keyed-secret", "Secret in a key-value pair", "MEDIUM", (b"secret", b"token", b"key", b"auth", b"cred"), rb"[^\s\"']{8,512}", 0,
    ('"client_secret": "' + shape_sample("{a40}") + '"', "access_token=" + shape_sample("{a32}")),
    ("component=cache-key id=" + shape_sample(UUID), "token_type=bearer", "public_key=" + shape_sample("{a40}")),
    "assignments in logs, JSON and YAML", find="keyed",
)  # fmt: skip
WEAK_SECRET = Rule(
    "keyed-secret-weak", "Possible secret in a key-value pair", "LOW", (b"secret", b"token", b"key", b"auth", b"cred"), rb"[^\s\"']{8,512}", 0,
    ("api_secret: 'open-sesame-7now'",), ("secret_name=my-database-secret",), "assignments in logs, JSON and YAML", find="keyed",
)  # fmt: skip

#: The table. Where two matches overlap in their secrets, the earlier rule reports.
RULES: tuple[Rule, ...] = (
    *HOOKS, AWS_ACCESS_KEY, PEM_BASE64, INLINE_KEY, PRIVATE_KEY, OTHER_PRIVATE_KEY,
    *CLOUDS, *FORGES, *REGISTRIES, *CHAT, *PAYMENT, *MONITORING, *AI, MAPBOX_TOKEN, JSON_WEB_TOKEN, JSON_WEB_TOKEN_LOOSE,
    *KEYED, URL_CREDENTIALS, BASIC_AUTH, CURL_USER,
    GENERIC_API_KEY, BEARER_TOKEN, PASSWORD, KEYED_PASSWORD, KEYED_SECRET, WEAK_SECRET, EMAIL_ADDRESS,
)  # fmt: skip

# =====================================================================================================================
# what is none
# =====================================================================================================================

PLACEHOLDER = re.compile(
    rb"(?i)[*x.\-_#?0]{4,}|.*(?:redacted|filtered|\*{3}|xxxx|<[^>]*>|\$\{|\{\{|\$\(|placeholder|changeme|change[-_]?me|example|your[-_]|"
    rb"dummy|sample|masked|hidden|removed|secret_?here|insert|replace|undefined|required|incorrect|invalid|expired|missing|not[-_ ]).*|"
    rb"%\(?[a-z]*\)?s?|\$[a-z_]\w*|null|none|nil|true|false|empty|unset|unknown|default|n/a|test|password\d?|passw|secret|token|string|user|admin|root|"
    rb"required|failed|failure|success|accepted|auth|\[.*|<.*|\(.*|@.*|%.*"
)
#: ends of names that are no secrets, whatever word stands in them
IDENTIFIER_END = re.compile(
    rb"(?:id|name|names|type|hash|file|path|url|uri|version|expires|expiry|ttl|count|policy|size|len|length|algorithm|alg|label|prefix|suffix|"
    rb"digest|fingerprint|arn|format|field|provider|server|host|port|time|date|at|in|mode|status|state|scope|usage|limit|index|class|env|ref|"
    rb"method|enabled|required|valid|code|endpoint|dir|location|sha\d*|md5|checksum|sum|number|kind|event|reason|error|map|space|store|ring|chain)"
    rb"[\"'\]) ]*"
)
NO_SECRET_NAME = re.compile(
    rb"public|pubkey|primary|foreign|sort|partition|cache|idempot|correlation|trace|span|etag|nonce|csrf|xsrf|keyboard|keyword|monkey|author|"
    rb"cursor|next|page[_\-]|index|i18n|license|object|bucket|row|group|hash|unique|tokeniz|routing|composite|lookup|registry|ssh_host|"
    rb"_key_|[_\-]map|translation|issuekey|keyframe|hotkey|turkey|donkey|jockey|hockey|keynote|keyspace|keystore|accesskeyid|access_key_id"
)


#: a token that stands for a token: documentation's and people's fill-ins
FILLED_IN = re.compile(rb"(?i)x{6}|abcdefgh|hijklmno|here$|my-token|\*{3}|example|placeholder|your[-_]|redacted|0{12}|12345678901234")
#: code and references instead of values: a call, a constructor's print, a variable, an encrypted value
CODE = re.compile(rb"[A-Za-z_][\w.]*[({\[]|(?:var|env|os|config|process|settings|secrets|self|this)\.|ENC\[|vault:|arn:|/")


def is_placeholder(value: bytes) -> bool:
    """Whether a value stands for a secret rather than being one."""
    value = value[:128]
    return PLACEHOLDER.fullmatch(value) is not None or FILLED_IN.search(value) is not None or CODE.match(value) is not None or len(set(value)) <= max(2, len(value) // 12)


def entropy(value: bytes) -> float:
    """Shannon entropy in bits a byte: 32 random hex digits have about 3.6, words about 3."""
    size = len(value)
    return -sum(count / size * math.log2(count / size) for count in Counter(value).values())


def looks_random(value: bytes) -> bool:
    """Whether a generic value is worth a finding above LOW: long, mixed, and no word, path, number or sentence."""
    if len(value) < 12 or value.isdigit() or b"/" in value[:1] or b"::" in value or value.count(b".") > 3:
        return False
    digits = sum(48 <= byte <= 57 for byte in value)
    letters = sum(65 <= byte <= 90 or 97 <= byte <= 122 for byte in value)
    if digits < 2 or letters < 2:
        return False
    return entropy(value) >= 3.0


def decodes_to_pair(text: bytes) -> bool:
    """Whether base64 text holds printable `user:password` (RFC 7617)."""
    try:
        raw = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return False
    return b":" in raw and raw.isascii() and raw.decode("ascii").isprintable() and len(raw) > 3


def is_jwt(text: bytes) -> bool:
    """Whether the first part of a JSON Web Token decodes to a header with an algorithm (RFC 7515 §4.1)."""
    head = text.partition(b".")[0]
    try:
        raw = base64.urlsafe_b64decode(head + b"=" * (-len(head) % 4))
    except (binascii.Error, ValueError):
        return False
    return raw.startswith(b"{") and (b'"alg"' in raw or b'"typ"' in raw or b'"enc"' in raw)


def is_filled_in(value: bytes) -> bool:
    """Whether a token of the right shape was written by hand to show the shape."""
    return FILLED_IN.search(value) is not None or len(set(value)) < 6


# =====================================================================================================================
# scanning
# =====================================================================================================================

TOKEN_CHARACTERS = bytes(120 if chr(c).isalnum() and c < 128 or c in b"_.-" else 32 for c in range(256))
TOKEN_RUN = re.compile(rb"x{10,}")
LOCAL_PART = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._%+-"
DOMAIN = re.compile(rb"[a-zA-Z0-9.-]+\.[a-zA-Z]{2,}")
NAME_CHARACTERS = b"abcdefghijklmnopqrstuvwxyz0123456789_.-"
SECRET_WORDS = (b"key", b"token", b"secret", b"passw", b"pwd", b"passphrase", b"auth", b"cred", b"dsn", b"signature")
PASSWORD_WORDS = (b"passw", b"pwd", b"passphrase")
NAME_SIZE = 48  # bytes of a key's name that are looked at, to each side of the secret word
CONTEXT_SIZE = 24  # bytes before the name in which a service's word counts
#: from behind the secret word: the name's rest, what closes it, the operator, what opens the value
ASSIGNMENT = re.compile(rb"([\w.\-]{0,48})(?:\\{0,2}[\"'`])?\]?[ \t]{0,8}(=>|:=|==?|:|\|\|)[ \t]{0,8}(\\{0,2}[\"'`]{1,3}|)")
BARE_VALUE = re.compile(rb"[^\s\"'`,;<>&)}\]\\]{4,512}")
QUOTED_VALUE = {quote: re.compile(rb"[^\r\n\\" + quote + rb"]{4,512}(?=[\\" + quote + rb"])") for quote in (b'"', b"'", b"`")}
#: what may follow a secret word in a name that still names a secret
NAME_REST = re.compile(rb"s|(?:ord|d|word|code|phrase)?s?(?:[_.\-]?(?:key|token|secret|value|base64|b64|text|string|plain|data|prod|live|dev|main|old|new|entials|ential|[0-9]{1,4}))*")
#: a bare "key" is a cache's, a map's, a row's; these make it a secret
KEY_OWNER = re.compile(
    rb"(?:api|access|secret|private|auth|encrypt\w{0,4}|encryption|signing|sign|master|account|storage|service|client|session|ssh|licen[cs]e|app|application|"
    rb"consumer|shared|subscription|write|admin|server|deploy|rsa|aes|hmac|jwt|cookie|webhook|developer|user|team|project|integration|bot)[_.\- ]?$"
)
HEX_OR_UUID = re.compile(rb"[0-9a-fA-F]{32,}|[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
LINE_SPACE = rb"[^\S\n]"  # white space that keeps a match on its line
USER_WINDOW = 4096  # bytes around a keyword in which a user's pattern is searched, where lines are endless

Candidate = tuple[int, Match]


class Anchored(NamedTuple):
    """A rule ready to be matched: its place in the table and its compiled pattern, whole and kept on one line."""

    rank: int
    rule: Rule
    whole: Any
    on_line: Any

    def match(self, block: bytes, at: int, lines: bool) -> Optional[Any]:
        """The pattern's match at this place, or None."""
        return (self.on_line if lines else self.whole).match(block, at)


class Scanner:
    """Finds every secret that its rules describe, in one block of bytes.

    Example: `Scanner(rules=select_rules(RULES, disable=["email-address"])).scan(block)`
    """

    def __init__(self, rules: Sequence[Rule] = RULES) -> None:
        self.rules = tuple(rules)
        self._by_find: dict[str, list[Anchored]] = {}
        self._heads: dict[bytes, list[Anchored]] = {}
        self._services: dict[bytes, list[Anchored]] = {}
        for rank, rule in enumerate(self.rules):
            pattern = rule.pattern
            on_line = re.compile(pattern.replace(rb"\s", LINE_SPACE)) if rb"\s*" in pattern or rb"\s+" in pattern else None
            whole = re.compile(pattern)
            anchored = Anchored(rank, rule, whole, on_line or whole)
            self._by_find.setdefault("service" if rule.service else rule.find, []).append(anchored)
            table = self._services if rule.service else self._heads if rule.find == "token" else {}
            for keyword in rule.keywords:
                table.setdefault(keyword, []).append(anchored)
        words = sorted(self._services, key=len, reverse=True)
        self._service_word = re.compile(b"|".join(map(re.escape, words))) if words else None
        self._finders = [finder for find, finder in self._all_finders().items() if find in self._by_find]

    def _all_finders(self) -> dict[str, Callable[[bytes, bytes, bool], Iterator[Candidate]]]:
        finders: dict[str, Callable[[bytes, bytes, bool], Iterator[Candidate]]] = {
            "token": self._find_tokens, "email": self._find_emails, "hook": self._find_hooks, "line": self._find_in_lines,
        }  # fmt: skip
        literals = {"aws": b"AKIA", "api": b"api", "pem": b"-----BEGIN", "bearer": b"bearer", "password": b"password"}
        literals.update({"url": b"://", "basic": b"basic ", "curl": b"curl "})
        for find, literal in literals.items():
            finders[find] = self._literal_finder(find, literal)
        finders["service" if "service" in self._by_find else "keyed"] = self._find_keyed
        return finders

    def scan(self, block: bytes) -> list[Match]:
        """All matches in the block, sorted by start, no two secrets overlapping."""
        return self._scan(block, False)

    def scan_lines(self, block: bytes) -> list[Match]:
        """What scanning each line of the block on its own would give, with offsets in the block."""
        return self._scan(block, True)

    def _scan(self, block: bytes, lines: bool) -> list[Match]:
        lower = block.lower()
        found = [candidate for finder in self._finders for candidate in finder(block, lower, lines)]
        return without_overlaps(found)

    # ---- finders: anchor, match, accept ----

    def _literal_finder(self, find: str, literal: bytes) -> Callable[[bytes, bytes, bool], Iterator[Candidate]]:
        """A finder of rules whose pattern begins with a literal: what a plain finditer gives."""

        def finder(block: bytes, lower: bytes, lines: bool) -> Iterator[Candidate]:
            haystack = block if literal.isupper() else lower
            for anchored in self._by_find[find]:
                at = haystack.find(literal)
                while at >= 0:
                    match = anchored.match(block, at, lines)
                    if match:
                        yield from accepted(anchored, block, match)
                    at = haystack.find(literal, match.end() if match else at + 1)

        return finder

    def _find_tokens(self, block: bytes, lower: bytes, lines: bool) -> Iterator[Candidate]:
        """Prefixed tokens: jump from run to run, look the first three bytes up."""
        ends: dict[int, int] = {}
        heads = self._heads
        for run in TOKEN_RUN.finditer(block.translate(TOKEN_CHARACTERS)):
            start = run.start()
            for at in (start,) if not start or block[start - 1] not in b"\\%[" else glued_starts(block, start):
                for anchored in heads.get(block[at : at + 3], ()):
                    if at < ends.get(anchored.rank, 0):
                        continue  # inside the rule's own last match: never retried there, which would be quadratic
                    match = anchored.whole.match(block, at)
                    if match:
                        ends[anchored.rank] = match.end()
                        yield from accepted(anchored, block, match)

    def _find_emails(self, block: bytes, lower: bytes, lines: bool) -> Iterator[Candidate]:
        """E-mail addresses, from each @ outwards: the pattern itself is quadratic under `re`."""
        anchored = self._by_find["email"][0]
        low, at = 0, block.find(b"@")
        while at >= 0:
            local = block[low:at]
            start = low + len(local.rstrip(LOCAL_PART))
            domain = DOMAIN.match(block, at + 1) if start < at else None
            if domain:
                yield anchored.rank, Match(anchored.rule, start, domain.end(), start, domain.end())
            low = domain.end() if domain else at + 1
            at = block.find(b"@", low)

    def _find_hooks(self, block: bytes, lower: bytes, lines: bool) -> Iterator[Candidate]:
        """URLs that are credentials: from their host back to ://."""
        for anchored in self._by_find["hook"]:
            at = lower.find(anchored.rule.keywords[0])
            while at >= 0:
                scheme = block.rfind(b"://", max(0, at - 200), at)
                match = anchored.whole.match(block, scheme) if scheme >= 0 else None
                if match:
                    yield from accepted(anchored, block, match)
                at = lower.find(anchored.rule.keywords[0], max(match.end() if match else 0, at + 1))

    def _find_in_lines(self, block: bytes, lower: bytes, lines: bool) -> Iterator[Candidate]:
        """Users' rules, and those whose literal stands inside: searched in the lines that hold a keyword."""
        for anchored in self._by_find["line"]:
            done = 0
            for keyword in anchored.rule.keywords:
                at = lower.find(keyword.lower())
                while at >= 0:
                    start = max(done, block.rfind(b"\n", 0, at) + 1, at - USER_WINDOW)
                    end = block.find(b"\n", at)
                    end = min(at + USER_WINDOW, len(block) if end < 0 else end)
                    for match in anchored.whole.finditer(block, start, end):
                        done = max(done, match.end())
                        yield from accepted(anchored, block, match)
                    at = lower.find(keyword.lower(), max(at + 1, done))

    def _find_keyed(self, block: bytes, lower: bytes, lines: bool) -> Iterator[Candidate]:
        """NAME = VALUE, where the name holds a word for a secret."""
        seen: set[int] = set()
        for word in SECRET_WORDS:
            at = lower.find(word)
            while at >= 0:
                behind = at + len(word)
                assignment = ASSIGNMENT.match(lower, behind)
                if assignment and assignment.end() not in seen:
                    start = assignment.end()
                    seen.add(start)
                    quote = assignment.group(3)
                    value = (QUOTED_VALUE[quote[-1:]] if quote else BARE_VALUE).match(block, start)
                    if value:
                        behind = value.end()  # a value is looked at once, however many words it holds
                        yield from self._keyed_value(block, lower, at, word, assignment, value)
                at = lower.find(word, behind)

    def _keyed_value(self, block: bytes, lower: bytes, at: int, word: bytes, assignment: Any, value: Any) -> Iterator[Candidate]:
        before = lower[max(0, at - NAME_SIZE) : at]
        prefix = before[len(before.rstrip(NAME_CHARACTERS)) :]
        anchored = self._service_rule(lower[max(0, at - NAME_SIZE - CONTEXT_SIZE) : assignment.end(1)], value.group())
        if anchored is None:
            anchored = self._generic_rule(prefix, word, assignment.group(1), value.group(), bool(assignment.group(3)))
        if anchored and not is_placeholder(value.group()):
            name_start = at - len(prefix)
            yield anchored.rank, Match(anchored.rule, name_start, value.end(), value.start(), value.end())

    def _service_rule(self, context: bytes, value: bytes) -> Optional[Anchored]:
        """The rule whose service the key names and whose shape the value has."""
        if self._service_word is None or NO_SECRET_NAME.search(context.rpartition(b" ")[2]):
            return None
        for word in self._service_word.findall(context.rpartition(b"\n")[2]):
            for anchored in self._services[word]:
                if anchored.whole.fullmatch(value):
                    return anchored
        return None

    def _generic_rule(self, prefix: bytes, word: bytes, rest: bytes, value: bytes, quoted: bool) -> Optional[Anchored]:
        """One of the generic rules, or None where the name or the value is that of an identifier."""
        generic = {anchored.rule.id: anchored for anchored in self._by_find.get("keyed", ())}
        if NAME_REST.fullmatch(rest) is None or NO_SECRET_NAME.search(prefix + word + rest):
            return None
        if word in PASSWORD_WORDS:
            telling = quoted or not value.isalpha()
            return generic.get("keyed-password") if telling and not value.startswith((b"/", b"$")) else None
        if word == b"key" and not rest.endswith((b"secret", b"token")) and KEY_OWNER.search(prefix) is None:
            return None
        if word in (b"auth", b"cred", b"dsn", b"signature") and not rest:
            return None
        if HEX_OR_UUID.fullmatch(value) and rest:
            return None
        if looks_random(value):
            return generic.get("keyed-secret")
        return generic.get("keyed-secret-weak") if quoted and len(value) >= 8 and is_mixed(value) else None


def is_mixed(value: bytes) -> bool:
    """Whether a short value has digits among letters and no space, as passwords have and words do not."""
    return b" " not in value and not value.isalpha() and not value.isdigit() and any(48 <= byte <= 57 for byte in value)


def glued_starts(block: bytes, start: int) -> Iterator[int]:
    """Where a token may begin in a run that begins with an escape's end: JSON's \\n, percent-encoding, an ANSI colour."""
    yield start
    before = block[start - 1 : start]
    if before == b"\\":
        yield start + 1
    elif before == b"%":
        yield start + 2
    elif block[start - 2 : start] == b"\x1b[":
        yield block.find(b"m", start) + 1


def accepted(anchored: Anchored, block: bytes, match: Any) -> Iterator[Candidate]:
    """The match as a candidate, if it is no placeholder; the six originals report whatever they match."""
    rule = anchored.rule
    start, end = match.span(rule.group)
    if rule not in ORIGINAL_RULES and not rule.custom:
        secret = block[start:end]
        if rule.find in ("url", "curl", "basic") and is_placeholder(secret) or rule.find in ("token", "line") and is_filled_in(secret):
            return
        if rule.find == "basic" and not decodes_to_pair(secret):
            return
        if rule in (JSON_WEB_TOKEN, JSON_WEB_TOKEN_LOOSE) and not is_jwt(secret):
            return
    yield anchored.rank, Match(rule, match.start(), match.end(), start, end)


def without_overlaps(candidates: list[Candidate]) -> list[Match]:
    """The candidates whose secrets do not overlap one of an earlier rule, sorted by start."""
    starts: list[int] = []
    taken: list[tuple[int, int, Match]] = []
    for _, match in sorted(candidates, key=lambda candidate: (candidate[0], candidate[1].start)):
        at = bisect.bisect_left(starts, match.secret_start)
        if at < len(taken) and taken[at][0] < match.secret_end or at and taken[at - 1][1] > match.secret_start:
            continue
        starts.insert(at, match.secret_start)
        taken.insert(at, (match.secret_start, match.secret_end, match))
    return sorted((match for _, _, match in taken), key=lambda match: match.start)


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
PROBE_SIZES = (8, 12, 16, 18, 20, 22, 24, 28, 40, 80, 200, 800, 3000, 16384, 65536)
PROBE_LIMIT = 0.25  # seconds for one probe of at most 64 KiB; an honest pattern takes a few milliseconds


class RuleError(ValueError):
    """A rule, or a choice of rules, that cannot be used; the message says which and why."""


def load_rules(path: str) -> list[Rule]:
    """The rules of a JSON file: a list of objects with id, name, severity, keywords, regex, and maybe group, examples.

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
    if not (isinstance(examples, list) and all(isinstance(example, str) for example in examples)):
        raise RuleError(f"{where}: examples must be a list of texts")
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
            began = time.perf_counter()
            for _ in compiled.finditer(text):
                pass
            if time.perf_counter() - began > PROBE_LIMIT:
                return True
    return False


def select_rules(rules: Sequence[Rule], *, only: Iterable[str] = (), disable: Iterable[str] = ()) -> list[Rule]:
    """The rules by id: all or those of `only`, without those of `disable`; raises RuleError for an unknown id."""
    known = {rule.id for rule in rules}
    wanted, unwanted = set(only), set(disable)
    for rule_id in sorted((wanted | unwanted) - known):
        raise RuleError(f"there is no rule {rule_id!r}; `dockeraudit rules` lists them")
    return [rule for rule in rules if (not wanted or rule.id in wanted) and rule.id not in unwanted]


def rules_markdown(rules: Sequence[Rule]) -> str:
    """The table as a document."""
    lines = ["# What dockeraudit finds", "", f"{len(rules)} rules, in the order in which they win where two overlap.", ""]
    lines += ["| id | name | severity | reference |", "|---|---|---|---|"]
    lines += [f"| `{rule.id}` | {rule.name} | {rule.severity} | {rule.reference} |" for rule in rules]
    return "\n".join(lines) + "\n"


def rule_problems(rule: Rule) -> Iterator[str]:
    """What is wrong with a rule by its own examples and negatives."""
    scanner = Scanner([rule])
    for example in rule.examples:
        if not scanner.scan(example.encode()):
            yield f"{rule.id}: example {example!r} is not found"
        if not any(keyword.lower() in example.lower().encode() for keyword in rule.keywords):
            yield f"{rule.id}: example {example!r} holds none of the keywords"
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
