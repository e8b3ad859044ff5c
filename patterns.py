"""patterns: what counts as a secret.

Sections:

    originals        the six patterns that stay exactly as they were given
    tokens           structured tokens of providers, family by family
    keyed secrets    NAME = VALUE, where the name tells the service and the value has its shape
    everything else  keys, URLs, headers, hooks; generic names last
    in use           scan, redact, check

How the rules are applied is `_dockeraudit/scanner.py`'s concern; what is no secret, `_dockeraudit/plausibility.py`'s.
Run as a program, it checks every rule against its own examples.
"""
from __future__ import annotations

import base64
import hashlib
import re
import sys
from collections import Counter
from collections.abc import Sequence

from _dockeraudit.rules import (
    CONTAINER_ENV,
    UUID,
    Match,
    Rule,
    base64_head,
    behind,
    keyed,
    mixed,
    shape_sample,
    token,
)
from _dockeraudit.scanner import Scanner, rule_problems
from _dockeraudit.wallets import WORD_NUMBERS

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
    ("user@example.com", "first.last+tag@mail.example.org"), ("user@localhost", "@example.com"),
        "RFC 5322, section 3.4.1", find="email",
)  # fmt: skip
BEARER_TOKEN = Rule(
    "bearer-token", "Bearer Token", "HIGH", (b"bearer",), rb"(?i)bearer\s+[a-zA-Z0-9_\-\.]{20,}", 0,
    ("Authorization: Bearer " + "a1b2c3d4" * 3,), ("bearer of news", "Bearer short"), "RFC 6750, section 2.1",
        find="bearer",
)  # fmt: skip
PASSWORD = Rule(
    "password", "Password", "HIGH", (b"password",),
        rb"""(?i)password[_-]?[:=]\s*['"]?([a-zA-Z0-9_\-!@#$%^&*]{8,})['"]?""", 1,
    ("password=hunter2hunter2", "PASSWORD: 'correct-horse'"), ("password=short", "password reset"),
        "the original's pattern", find="password",
)  # fmt: skip
ORIGINAL_RULES = (AWS_ACCESS_KEY, GENERIC_API_KEY, PRIVATE_KEY, EMAIL_ADDRESS, BEARER_TOKEN, PASSWORD)
CLOUDS = (
    Rule(
        "astra-token", "DataStax Astra token", "HIGH", (b"AstraCS:",),
        rb"AstraCS:[A-Za-z0-9]{20,32}:[0-9a-f]{60,64}", 0,
        (shape_sample("AstraCS:{a24}:{h64}"),), (shape_sample("AstraCS:{a24}"),),
        "docs.datastax.com", find="inside",
    ),
    token("aws-temporary-key", "AWS temporary access key id", "ASIA{p16} ABIA{p16} ACCA{p16} A3T{p1}{p16}",
          "docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html"),
    token("aws-bedrock-key", "Amazon Bedrock API key", "ABSK{b109,}",
          "docs.aws.amazon.com/bedrock/latest/userguide/api-keys.html"),
    token("aws-bedrock-short-key", "Amazon Bedrock short-term API key", "bedrock-api-key-{b32,}",
          "docs.aws.amazon.com/bedrock/latest/userguide/api-keys.html"),
    token("google-api-key", "Google API key", "AIza{w35}", "cloud.google.com/docs/authentication/api-keys"),
    token("google-oauth-token", "Google OAuth access token", "ya29.{w20,}",
          "developers.google.com/identity/protocols/oauth2"),
    token("google-oauth-secret", "Google OAuth client secret", "GOCSPX-{w28}",
          "developers.google.com/identity/protocols/oauth2"),
    token("google-bound-key", "Google bound API key", "AQ.Ab8{w47}", "cloud.google.com/docs/authentication/api-keys"),
    behind("1//", token("google-refresh-token", "Google OAuth refresh token", "0{w40,}",
                        "developers.google.com/identity/protocols/oauth2")),
    token("alibaba-access-key", "Alibaba Cloud access key id", "LTAI{a16,24}", "www.alibabacloud.com/help/en/ram"),
    token("alibaba-sts-token", "Alibaba Cloud STS key id", "STS.{a20,64}", "www.alibabacloud.com/help/en/ram"),
    token("digitalocean-token", "DigitalOcean token", "[dop|doo|dor]_v1_{h64}",
          "docs.digitalocean.com/reference/api/create-personal-access-token"),
    token("cloudflare-origin-ca-key", "Cloudflare Origin CA key", "v1.0-{h24}-{h146}",
          "developers.cloudflare.com/ssl/origin-configuration/origin-ca"),
    token("tencent-secret-id", "Tencent Cloud secret id", "AKID{a32}", "www.tencentcloud.com/document/product/598"),
    token("yandex-iam-token", "Yandex Cloud IAM token", "t1.{w1,}.{w80,}",
          "yandex.cloud/en/docs/iam/concepts/authorization/iam-token"),
    token("yandex-api-key", "Yandex Cloud API key", "AQVN{w35,38}",
          "yandex.cloud/en/docs/iam/concepts/authorization/api-key"),
    token("yandex-access-token", "Yandex Cloud static key", "YC{w38}",
          "yandex.cloud/en/docs/iam/concepts/authorization/access-key"),
    token("flyio-token", "Fly.io token", "[fm1r_|fm1a_|fm2_]{b100,} fo1_{w43}", "fly.io/docs/security/tokens"),
    token("scaleway-key", "Scaleway access key", "SCW{u17}", "www.scaleway.com/en/docs/iam"),
    token("vercel-token", "Vercel token", "[vcp_|vci_|vca_|vcr_|vck_]{w56}", "vercel.com/docs/rest-api"),
    token("netlify-token", "Netlify personal access token", "nfp_{a36}", "docs.netlify.com/api/get-started"),
    token("heroku-token", "Heroku API token", "HRKU-{w60}", "devcenter.heroku.com/articles/authentication"),
    token("supabase-token", "Supabase access token", "sbp_{l40} sb_secret_{w31,}",
          "supabase.com/docs/guides/api/api-keys"),
    token("render-key", "Render API key", "rnd_{a28,32}", "render.com/docs/api"),
    token("planetscale-token", "PlanetScale credential", "[pscale_tkn_|pscale_pw_|pscale_oauth_]{e32,}",
          "planetscale.com/docs/concepts/service-tokens"),
    token("mongodb-atlas-key", "MongoDB Atlas service account secret", "mdb_sa_sk_{w40,}",
          "www.mongodb.com/docs/atlas/api"),
    token("cloudflare-token", "Cloudflare API token", "[cfat|cfut]_{a48} cfk_{a48}",
          "developers.cloudflare.com/fundamentals/api"),
    token("aws-mws-key", "Amazon MWS auth token", "amzn.mws.{l8}-{l4}-{l4}-{l4}-{l12}",
          "developer-docs.amazon.com/sp-api"),
    token("aws-appsync-key", "AWS AppSync API key", "da2-{l26}",
          "docs.aws.amazon.com/appsync/latest/devguide/security-authz.html"),
    token("cockroach-key", "CockroachDB Cloud key", "CCDB1_{a22}_{a40}", "www.cockroachlabs.com/docs/cockroachcloud"),
    token("elastic-cloud-key", "Elastic Cloud API key", "essu_{w60,200}", "www.elastic.co/docs/deploy-manage/api-keys"),
    token("scalingo-token", "Scalingo API token", "tk-us-{w48}", "developers.scalingo.com"),
    token("alchemy-key", "Alchemy key", "alcht_{a30}", "www.alchemy.com/docs"),
    token("neon-key", "Neon API key", "napi_{a64}", "neon.tech/docs/manage/api-keys"),
    token("cratesio-token", "crates.io token", "cio{a32}",
          "doc.rust-lang.org/cargo/reference/registry-authentication.html"),
    token("aws-session-token", "AWS session token", "[IQoJb3JpZ2lu|FwoGZXIvYXdz]{b100,}[==|=|]",
          "docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_temp.html"),
    token("amazon-oauth-secret", "Login with Amazon client secret", "amzn1.oa2-cs.v1.{h64}",
          "developer.amazon.com/docs/login-with-amazon"),
    token("gcs-hmac-key", "Google Cloud Storage HMAC access id", "GOOG1E{u55,57} GOOG{u20}",
          "cloud.google.com/storage/docs/authentication/hmackeys", "MEDIUM"),
    token("aiven-password", "Aiven service password", "AVNS_{w19}", "aiven.io/docs"),
    token("baidu-key", "Baidu Cloud API key", "ALTAK-{a21}/{h40}", "cloud.baidu.com/doc"),
    token("naver-key", "Naver Cloud access key id", "ncp_iam_{a32,40}", "guide.ncloud-docs.com/docs/en/iam", "MEDIUM"),
    token("tencent-intl-id", "Tencent Cloud International secret id", "IKID{a32}",
          "www.tencentcloud.com/document/product/598"),
    token("volcengine-key", "Volcengine access key id", "AKLT{w40,80}", "www.volcengine.com/docs", "MEDIUM"),
    token("digitalocean-spaces-key", "DigitalOcean Spaces access key id", "DO00{u16}",
          "docs.digitalocean.com/products/spaces/how-to/manage-access", "MEDIUM"),
    token("cloudflare-tunnel-token", "Cloudflare Tunnel token", "eyJhIjoi{b120,}[==|=|]",
          "developers.cloudflare.com/cloudflare-one/connections/connect-networks"),
    token("yandex-passport-token", "Yandex OAuth token", "y[0|1|2|3]_{w50,}", "yandex.com/dev/id/doc/en"),
    token("yandex-captcha-key", "Yandex SmartCaptcha server key", "ysc2_{a40,}", "yandex.cloud/en/docs/smartcaptcha"),
    token("upcloud-token", "UpCloud API token", "ucat_{a24,32}", "developers.upcloud.com"),
    token("exoscale-key", "Exoscale API key", "EXO{h24}", "community.exoscale.com/product/iam", "MEDIUM"),
    token("clickhouse-key", "ClickHouse Cloud key secret", "4b1d{a38}", "clickhouse.com/docs/cloud/manage/openapi"),
    token("confluent-secret", "Confluent Cloud API secret", "cflt{b60}", "docs.confluent.io/cloud/current/security"),
    token("xata-key", "Xata API key", "xau_{a30,}", "xata.io/docs"),
    token("tinybird-token", "Tinybird token", "p.eyJ{w40,}.{w20,}", "www.tinybird.co/docs"),
    token("appwrite-key", "Appwrite API key", "standard_{h128,}", "appwrite.io/docs/advanced/platform/api-keys"),
    token("k3s-token", "k3s or RKE2 cluster token", "K10{h64}::{l4,16}:{a16,}", "docs.k3s.io/cli/token"),
    token("netbird-token", "NetBird access token", "nbp_{a36}", "docs.netbird.io"),
    token("headscale-key", "Headscale key", "hskey-[auth|api|reg]-{w20,}", "headscale.net"),
    token("portainer-token", "Portainer access token", "ptr_{b40,44}", "docs.portainer.io/api/access"),
    token("konnect-token", "Kong Konnect access token", "[kpat_|spat_]{a40,}", "docs.konghq.com/konnect"),
    token("localstack-token", "LocalStack auth token", "ls-{a8}-{a4}-{a4}-{a4}-{a12}", "docs.localstack.cloud"),
)
FORGES = (
    token("github-token", "GitHub token", "[ghp_|gho_|ghu_|ghs_|ghr_]{a36,255} ghs_{d1,12}_eyJ{e100,}",
          "docs.github.com/en/authentication/keeping-your-account-and-data-secure/about-authentication-to-github"),
    token("github-fine-grained-token", "GitHub fine-grained token", "github_pat_{v82}",
          "docs.github.com/en/authentication"),
    token("gitlab-token", "GitLab access token",
          "[glpat-|gldt-|glft-|glsoat-|glrt-|glffct-]{w20} [glpat-|glrt-|gldt-]{w27,300}.{l2}.{l7} "
          "[glpat-|glrt-|gldt-]{w27,300}.{l2}.{l9} [glpat-|glrt-|gldt-]{w27,300}.{l9} glrt-t{d1}_{w27,300}.{l9} "
          "glrt-t{d1}_{w20} glrtr-{w20,40} glimt-{w25} glptt-{w40} glagent-{w50} gloas-{w64} glcbt-{a1,5}_{w20} "
          "glwt-{w32,34}", "docs.gitlab.com/security/tokens"),
    token("gitlab-runner-registration", "GitLab runner registration token", "GR1348941{w20}",
          "docs.gitlab.com/security/tokens"),
    token("atlassian-token", "Atlassian API token", "ATATT3{g50,}",
          "support.atlassian.com/atlassian-account/docs/manage-api-tokens-for-your-atlassian-account"),
    token("bitbucket-app-password", "Bitbucket app password", "ATBB{g24,}",
          "support.atlassian.com/bitbucket-cloud/docs/app-passwords"),
    token("atlassian-other-token", "Atlassian access token", "[ATCTT3xF|ATSTT3xF]{g24,}", "developer.atlassian.com"),
    token("sourcegraph-token", "Sourcegraph token",
          "sgp_{x40} sgp_sgp_{x40} sgp_{x16}_{x40} sgp_{x16}_local_{x40} sgp_local_{x40} [slk_|sgd_]{h64}",
          "sourcegraph.com/docs/cli/how-tos/creating_an_access_token"),
    token("sonar-token", "SonarQube token", "[sqp_|squ_|sqa_]{a40}",
          "docs.sonarsource.com/sonarqube-server/user-guide/managing-tokens"),
    token("buildkite-token", "Buildkite token",
          "[bkua_|bkct_|bkat_|bkr_]{l40} bkua_{l53} bkpat_{w54} bkps_{w64} [bkct_|bkar_]{w73} bkaa_{w75} bkpt_{w199} "
          "bkaj_{w333}", "buildkite.com/docs/apis/managing-api-tokens"),
    token("circleci-token", "CircleCI token", "[CCIPAT_|CCIPRJ_]{a22,24}_{a40}",
          "circleci.com/docs/managing-api-tokens"),
    token("harness-token", "Harness token", "[pat|sat].{w22}.{x24}.{a20}",
          "developer.harness.io/docs/platform/automation/api/add-and-manage-api-keys"),
    token("prefect-token", "Prefect token", "[pnu_|pnb_]{a36}",
          "docs.prefect.io/v3/manage/cloud/manage-users/api-keys"),
    token("pulumi-token", "Pulumi access token", "pul-{l40}", "www.pulumi.com/docs/pulumi-cloud/accounts"),
    token("terraform-token", "HCP Terraform token", "{a14}.atlasv1.{g60,70}",
          "developer.hashicorp.com/terraform/cloud-docs/users-"
          "teams-organizations/api-tokens")._replace(find="inside", keywords=(b".atlasv1.",)),
    token("vault-token", "HashiCorp Vault token", "[hvs.|hvb.|hvr.]{w24,}",
          "developer.hashicorp.com/vault/docs/concepts/tokens"),
    token("phabricator-token", "Phabricator Conduit token", "[api-|cli-]{l28}", "secure.phabricator.com/conduit",
          "MEDIUM"),
    token("bitbucket-data-center-token", "Bitbucket Data Center access token", "BBDC-{b43,45}",
          "confluence.atlassian.com/bitbucketserver/http-access-tokens-939515499.html"),
    token("octopus-key", "Octopus Deploy API key", "API-{u25,36}",
          "octopus.com/docs/octopus-rest-api/how-to-create-an-api-key", "MEDIUM")._replace(
        pattern=rb"(?<![/.])API-[A-Z0-9]{25,36}(?![A-Za-z0-9_-])"  # a page's name may look so
    ),
    token("dependency-track-key", "Dependency-Track API key", "odt_{a32,41}",
          "docs.dependencytrack.org/integrations/rest-api"),
    token("spectral-key", "Spectral key", "sp[u|c]-{h32}", "guides.spectralops.io"),
    token("coderabbit-key", "CodeRabbit key", "cr-{h58}", "docs.coderabbit.ai"),
    token("cursor-key", "Cursor or Retell API key", "key_{h64} key_{h128} key_{h28}",
          "docs.cursor.com; docs.retellai.com", "MEDIUM"),
    token("infracost-key", "Infracost API key", "ico-{a32}", "www.infracost.io/docs"),
    token("devin-key", "Devin key", "cog_{l52} apk_user_{b120,180} apk_{b80,100}", "docs.devin.ai"),
    token("bitwarden-token", "Bitwarden Secrets Manager token", "0.{h8}-{h4}-{h4}-{h4}-{h12}.{a30}:{b22}==",
          "bitwarden.com/help/access-tokens"),
    token("gitpod-token", "Gitpod access token", "gitpod_pat_{w20,}", "www.gitpod.io/docs"),
    token("snyk-access-token", "Snyk access token", "snyk_[uat|sat].{a8}.{w20,}",
          "docs.snyk.io/snyk-api/authentication-for-api"),
    token("deepsource-token", "DeepSource token", "dsp_{a40}", "docs.deepsource.com"),
    token("depot-token", "Depot token", "depot_[org|project|user]_{a40,}", "depot.dev/docs"),
    token("workato-token", "Workato token", "[wrka|wrkaus|wrkaeu|wrkajp|wrkasg|wrkaau]-eyJ{w14,}.{w16,}.{w40,}",
          "docs.workato.com"),
    token("iterative-token", "DVC Studio access token", "isat_{a30,}", "dvc.org/doc/studio"),
    token("mergify-key", "Mergify application key", "mka_{w30,}", "docs.mergify.com", "MEDIUM"),
    token("aikido-secret", "Aikido secret", "AIK_SECRET_{a64} AIK_CI_{a20,44}", "help.aikido.dev"),
    token("stackhawk-key", "StackHawk API key", "hawk.{w20}.{w20}", "docs.stackhawk.com"),
    token("raycast-token", "Raycast access token", "rca_{h64}", "developers.raycast.com"),
    token("zenhub-key", "ZenHub API key", "zh_{h64}", "developers.zenhub.com"),
    token("dbt-token", "dbt Cloud token", "[dbtc_|dbtu_|dbts_]{w40,}",
          "docs.getdbt.com/docs/dbt-cloud-apis/authentication"),
    token("inngest-key", "Inngest signing key", "signkey-[prod|test|branch]-{h40,}", "www.inngest.com/docs"),
    token("trigger-key", "Trigger.dev key", "tr_[dev|prod|stg|preview|pat]_{a20,}", "trigger.dev/docs"),
    token("jenkins-token", "Jenkins API token", "11{h32}",
          "www.jenkins.io/doc/book/system-administration/authenticating-scripted-clients", "MEDIUM"),
    token("coveo-key", "Coveo API key", "xx{h8}-{h4}-{h4}-{h4}-{h12}", "docs.coveo.com", "MEDIUM"),
    token("block-protocol-key", "Block Protocol API key", "b10ck5.{h32}.{h8}-{h4}-{h4}-{h4}-{h12}",
          "blockprotocol.org/docs"),
    token("val-town-token", "Val Town API token", "vtwn_{w20,80}", "docs.val.town"),
    token("unkey-key", "Unkey root key", "unkey_{a20,}", "www.unkey.com/docs"),
    token("zuplo-key", "Zuplo API key", "zpka_{l32}_{h8}", "zuplo.com/docs"),
    token("authress-key", "Authress access key",
          "[sc_|ext_|scauth_|authress_]{l5,30}.{l4,6}.acc[_|-]{w10,32}.{q30,120}", "authress.io/knowledge-base"),
    token("devcycle-key", "DevCycle server key", "[dvc_server_|server-]{x8}-{x4}-{x4}-{x4}-{x12} dvc_server_{w20,}",
          "docs.devcycle.com"),
    token("growthbook-key", "GrowthBook secret key", "secret_[admin|readonly|user]_{a20,}", "docs.growthbook.io"),
    token("flagsmith-key", "Flagsmith server key", "ser.{a22}", "docs.flagsmith.com", "MEDIUM"),
    token("statsig-key", "Statsig key", "[secret|console]-{a43}", "docs.statsig.com", "MEDIUM"),
)
REGISTRIES = (
    token("npm-token", "npm access token", "npm_{a36}", "docs.npmjs.com/about-access-tokens"),
    token("pypi-token", "PyPI upload token", "pypi-AgEIcHlwaS5vcmc{w50,} pypi-AgENdGVzdC5weXBpLm9yZ{w50,}",
          "pypi.org/help/#apitoken"),
    token("rubygems-key", "RubyGems API key", "rubygems_{l48}", "guides.rubygems.org/rubygems-org-api"),
    token("nuget-key", "NuGet API key", "oy2{l43}", "learn.microsoft.com/nuget/nuget-org/publish-a-package"),
    token("dockerhub-token", "Docker Hub token", "[dckr_pat_|dckr_oat_]{w27,}",
          "docs.docker.com/security/access-tokens"),
    token("swarm-token", "Docker Swarm join token or unlock key", "SWMTKN-1-{l50,60}-{l24,30} SWMKEY-1-{b40,}",
          "docs.docker.com/engine/swarm/join-nodes"),
    token("clojars-token", "Clojars deploy token", "CLOJARS_{a60}",
          "github.com/clojars/clojars-web/wiki/Deploy-Tokens"),
    token("artifactory-key", "JFrog Artifactory API key", "AKCp{a60,} cmVmdGtuOjA{a53,}",
          "jfrog.com/help/r/jfrog-platform-administration-documentation/api-key"),
    token("artifactory-password", "JFrog Artifactory encrypted password", "AP{x1}{a40,72}", "jfrog.com/help", "MEDIUM"),
    token("deno-token", "Deno Deploy token", "[ddp_|ddw_]{a36}", "docs.deno.com/deploy"),
    token("cloudsmith-key", "Cloudsmith API key", "csa_{h30}{a6}", "help.cloudsmith.io"),
    token("packagist-token", "Private Packagist token", "packagist_{L3}_{h60,}", "packagist.com/docs"),
    token("open-vsx-token", "Open VSX access token", "ovsxat_{h8}-{h4}-{h4}-{h4}-{h12}",
          "github.com/eclipse/openvsx/wiki"),
    token("thunderstore-token", "Thunderstore API token", "tss_{a30,80}", "thunderstore.io/api/docs"),
)
CHAT = (
    Rule(
        "fcm-server-key", "Firebase Cloud Messaging server key", "HIGH", (b":APA91b",),
        rb"AAAA[A-Za-z0-9_-]{7}:APA91b[A-Za-z0-9_-]{120,150}", 0,
        (shape_sample("AAAA{w7}:APA91b{w134}"),), (shape_sample("AAAA{w7}:APA91b{w34}"),),
        "firebase.google.com/docs/cloud-messaging", find="inside",
    ),
    token("slack-token", "Slack token",
          "xoxb-{d9,14}-{w16,} [xoxp|xoxe]-{d9,14}-{d9,14}-{d9,14}-{a28,34} [xoxa|xoxr|xoxo|xoxs]-{w20,} "
          "xoxe.[xoxb|xoxp]-{d1}-{w100,} [xoxe|xoxp]-{d1}-{w100,}", "api.slack.com/authentication/token-types"),
    token("slack-app-token", "Slack app-level token", "xapp-{d1}-{u8,}-{d8,}-{l32,}",
          "api.slack.com/authentication/token-types"),
    token("slack-cookie-token", "Slack session token", "xoxc-{d9,14}-{d9,14}-{d9,14}-{h64} xoxd-{q100,}",
          "api.slack.com/authentication/token-types"),
    token("discord-bot-token", "Discord bot token", "[M|N|O]{w23,25}.{w6}.{w27,38}",
          "discord.com/developers/docs/reference#authentication"),
    token("frameio-token", "Frame.io token", "fio-u-{g64}", "developer.frame.io"),
    token("live-or-test-key", "Key of MessageBird or Mollie", "[live_|test_]{a25} [live_|test_]{a30}",
          "developers.messagebird.com/api; docs.mollie.com", "MEDIUM"),
    token("twilio-account", "Twilio account id", "AC{h32}", "www.twilio.com/docs/iam/api", "LOW"),
    token("pubnub-key", "PubNub secret key", "sec-c-{a36,}", "www.pubnub.com/docs/general/setup/account-setup"),
    token("riot-key", "Riot Games API key", "RGAPI-{l8}-{l4}-{l4}-{l4}-{l12}", "developer.riotgames.com/docs/portal"),
    token("coze-token", "Coze token", "pat_{a64}", "www.coze.com/docs"),
    token("clickup-token", "ClickUp personal token", "pk_{d6,9}_{u32}", "developer.clickup.com/docs/authentication"),
    token("teamwork-token", "Teamwork token", "tkn.v1_{b71}=", "apidocs.teamwork.com"),
    token("voiceflow-key", "Voiceflow key", "VF.[DM|WS].{x24}.{a16} VF.{x24}.{a16}", "docs.voiceflow.com", "MEDIUM"),
    token("zoho-token", "Zoho OAuth token", "1000.{h32}.{h32}", "www.zoho.com/accounts/protocol/oauth.html"),
    token("ramp-secret", "Ramp client secret", "ramp_sec_{a48}", "docs.ramp.com"),
    token("branch-key", "Branch key (publishable)", "key_[live|test]_{a32}", "help.branch.io", "LOW"),
    token("ionic-token", "Ionic token", "ion_{a42}", "ionic.io/docs/appflow"),
    token("nightfall-key", "Nightfall key", "NF-{a32}", "docs.nightfall.ai", "MEDIUM"),
    token("scrapfly-key", "Scrapfly key", "scp-[live|test]-{l32}", "scrapfly.io/docs"),
    token("ubidots-token", "Ubidots token", "[BBFF|BBUS]-{a30,36}", "docs.ubidots.com"),
    token("fullstory-key", "FullStory key", "[na1|eu1].{b100}", "developer.fullstory.com"),
    token("pganalyze-key", "pganalyze key", "pga[r|w|t|a]_{a27}", "pganalyze.com/docs"),
    token("fcm-token", "Firebase Cloud Messaging registration token", "APA91b{w120,150}",
          "firebase.google.com/docs/cloud-messaging", "MEDIUM"),
    token("twilio-key", "Twilio API key", "SK{x32}", "www.twilio.com/docs/iam/api-keys"),
    token("sendgrid-key", "SendGrid API key", "SG.{g20,24}.{g39,50}",
          "docs.sendgrid.com/ui/account-and-settings/api-keys"),
    token("sendinblue-key", "Brevo (Sendinblue) API key", "[xkeysib|xsmtpsib]-{x64}-{a16}",
          "developers.brevo.com/docs/getting-started"),
    token("mailgun-key", "Mailgun key", "key-{h32}", "documentation.mailgun.com/docs/mailgun/user-manual/api-key-mgmt"),
    token("resend-key", "Resend API key", "re_{v24,}", "resend.com/docs/api-reference", "MEDIUM"),
    token("intra42-secret", "42 intra client secret", "[s|u]-s4t2[ud|af]-{h64}", "api.intra.42.fr/apidoc"),
    token("linear-key", "Linear API key", "lin_api_{a40} lin_oauth_{h64}", "linear.app/developers"),
    token("notion-token", "Notion token", "ntn_{d11}{a35} secret_{a43} nrt_{a40,}",
          "developers.notion.com/docs/authorization"),
    token("typeform-token", "Typeform personal access token", "tfp_{e40,59} tfp{w40,59}",
          "www.typeform.com/developers/get-started/personal-access-token"),
    token("figma-token", "Figma token", "[figd_|figo_|figu_|figs_]{w38,42}",
          "www.figma.com/developers/api#access-tokens"),
    token("airtable-token", "Airtable personal access token", "pat{a14}.{h64}",
          "airtable.com/developers/web/api/authentication"),
    token("postman-key", "Postman API key", "PMAK-{x24}-{x34} PMAT-{u26}",
          "learning.postman.com/docs/developer/postman-api/authentication"),
    token("readme-key", "ReadMe API key", "rdme_{l70}", "docs.readme.com/main/reference/authentication"),
    token("beamer-token", "Beamer API key", "b_{g44}", "www.getbeamer.com/api", "MEDIUM"),
    token("telegram-bot-token", "Telegram bot token", "{d8,10}:AA{w33}",
        "core.telegram.org/bots/api#authorizing-your-bot")._replace(
        keywords=tuple(b"%03d" % number for number in range(1000))
    ),
    token("contentful-token", "Contentful token", "CFPAT-{w43}",
          "www.contentful.com/developers/docs/references/authentication"),
    token("duffel-token", "Duffel access token", "[duffel_test_|duffel_live_]{g43}",
          "duffel.com/docs/api/overview/authentication"),
    token("onepassword-token", "1Password service account token", "ops_eyJ{e200,}",
          "developer.1password.com/docs/service-accounts"),
    token("onepassword-secret-key", "1Password secret key",
          "A3-{u6}-{u11}-{u5}-{u5}-{u5} A3-{u6}-{u6}-{u5}-{u5}-{u5}-{u5}", "support.1password.com/secret-key-security"),
    token("doppler-token", "Doppler token", "dp.[pt|ct|sa|scim|audit].{a40,44} dp.st.{w2,35}.{a40,44} dp.st.{a40,44}",
          "docs.doppler.com/docs/token-formats"),
    token("infisical-token", "Infisical service token", "st.{h24}.{h32}.{h32}",
          "infisical.com/docs/documentation/platform/token"),
    token("age-key", "age secret key", "AGE-SECRET-KEY-1{u58} AGE-PLUGIN-{u4,}-1{u30,}", "age-encryption.org/v1"),
    token("tailscale-key", "Tailscale key", "tskey-[auth|api|client|scim|webhook]-{a9,}-{a22,} tskey-api-{w20,}",
          "tailscale.com/kb/1085/auth-keys"),
    token("definednetworking-key", "Defined Networking API key", "dnkey-{g26}-{g52}",
          "docs.defined.net/guides/automating-host-creation"),
    token("dropbox-token", "Dropbox access token", "sl.{g40,} sl.u.{w100,}",
          "www.dropbox.com/developers/reference/auth-types"),
    token("adobe-secret", "Adobe client secret", "p8e-{w32}",
          "developer.adobe.com/developer-console/docs/guides/authentication"),
    token("adafruit-key", "Adafruit IO key", "aio_{a28}", "io.adafruit.com/api/docs"),
    token("hubspot-token", "HubSpot private app token", "pat-[na1|na2|na3|eu1|ap1]-{x8}-{x4}-{x4}-{x4}-{x12}",
          "developers.hubspot.com/docs/api/private-apps"),
    token("apify-token", "Apify token", "[apify_api_|apify_proxy_|apify_ui_]{a34,38}",
          "docs.apify.com/platform/integrations/api"),
    token("databricks-token", "Databricks token", "[dapi|dkea|dose]{x32} dapi{x32}-{d1}",
          "docs.databricks.com/en/dev-tools/auth/pat.html"),
    token("segment-token", "Segment public API token", "sgp_{a64}", "segment.com/docs/api/public-api"),
    token("launchdarkly-key", "LaunchDarkly key", "[sdk|api]-{h8}-{h4}-{h4}-{h4}-{h12}",
          "docs.launchdarkly.com/home/account/api"),
    token("pipedream-key", "Pipedream key", "pd_{a32}", "pipedream.com/docs", "MEDIUM"),
    token("matrix-token", "Matrix access token", "syt_{w4,}_{a20}_{a6} [mat_|mct_|mcr_]{a30,}_{a6}",
          "spec.matrix.org/latest/client-server-api/#client-authentication"),
    token("ntfy-token", "ntfy access token", "tk_{l29}", "docs.ntfy.sh/publish/#access-tokens"),
    token("pushbullet-token", "Pushbullet access token", "o.{a32}", "docs.pushbullet.com", "MEDIUM"),
    token("facebook-token", "Facebook access token", "EAA{U1}{a100,}",
          "developers.facebook.com/docs/facebook-login/guides/access-tokens"),
    token("intercom-access-token", "Intercom access token", "dG9rO{b54}=", "developers.intercom.com"),
    token("pinterest-token", "Pinterest token", "pina_{w30,} pinr.{w30,}", "developers.pinterest.com/docs"),
    token("lark-session", "Lark user session", "XN0YXJ0-{w20,}-WVuZA", "open.larksuite.com/document"),
    token("lichess-token", "Lichess token", "[lip_|lio_]{a20,}", "lichess.org/api"),
    token("cfxre-key", "Cfx.re server key", "cfxk_{a15,30}_{a5,7}", "docs.fivem.net"),
    token("wakatime-token", "WakaTime key or token",
          "waka_{h8}-{h4}-{h4}-{h4}-{h12} waka_[sec|tok|ref]_{a40,} waka_{l36,64}", "wakatime.com/developers"),
    mixed(token("mandrill-key", "Mandrill API key", "md-{w22}", "mailchimp.com/developer/transactional", "MEDIUM")),
    token("mailersend-token", "MailerSend API token", "mlsn.{h64}", "developers.mailersend.com"),
    token("smtp2go-key", "SMTP2GO API key", "api-{u32}", "developers.smtp2go.com"),
    token("klaviyo-key", "Klaviyo private key", "pk_{h34}", "developers.klaviyo.com/en/docs/authenticate_"),
    token("notify-key", "Canadian Digital Service Notify key",
          "gcntfy-{w1,40}-{h8}-{h4}-{h4}-{h4}-{h12}-{h8}-{h4}-{h4}-{h4}-{h12}", "documentation.notification.canada.ca"),
    token("onesignal-key", "OneSignal API key", "os_v2_[app|org]_{l90,110}",
          "documentation.onesignal.com/docs/keys-and-ids"),
    token("telnyx-key", "Telnyx API key", "KEY{x32}_{w22}", "developers.telnyx.com"),
    token("canva-secret", "Canva client secret", "cnvca{w51}", "www.canva.dev/docs/connect"),
    token("hcaptcha-secret", "hCaptcha secret", "ES_{h32}", "docs.hcaptcha.com", "MEDIUM"),
    token("planning-center-token", "Planning Center token", "[pco_pat_|pco_app_|pco_tok_]{a40,}",
          "developer.planning.center"),
    token("samsara-token", "Samsara token", "samsara_[api|oauth]_{a26,}", "developers.samsara.com"),
    token("retool-token", "Retool access token", "retool_{a26,}", "docs.retool.com"),
    token("n8n-key", "n8n API key", "n8n_api_{h60,}", "docs.n8n.io/api/authentication"),
    token("redirect-pizza-token", "redirect.pizza API token", "rpa_{a30}", "redirect.pizza/docs"),
    token("fleetbase-key", "Fleetbase or Flexport key", "flb_live_{a20} shltm_{w40}",
          "docs.fleetbase.io; developers.flexport.com"),
    token("settlemint-token", "SettleMint access token", "[sm_aat_|sm_pat_|sm_sat_]{a16}",
          "console.settlemint.com/documentation"),
    token("databento-key", "Databento API key", "db-{a29}", "databento.com/docs"),
    token("limbar-token", "Limbar token", "lim_{h64}", "limbar.io"),
)
PAYMENT = (
    token("workos-key", "WorkOS or Highnote key", "[sk|rk]_[live|test]_a2V5Xz{b60,}[==|=|]", "workos.com/docs"),
    token("stripe-key", "Stripe key",
          "[sk_live_|sk_test_|rk_live_|rk_test_|sk_prod_|rk_prod_]{a16,247} sk_org_[live|test]_{a16,247} whsec_{b32,}",
          "docs.stripe.com/keys"),
    token("square-token", "Square token", "EAAA{w56,} [sq0atp-|sandbox-sq0atb-]{w22,} [sq0csp-|sandbox-sq0csb-]{w40,}",
          "developer.squareup.com/docs/build-basics/access-tokens"),
    token("square-application-id", "Square application id (publishable)",
          "[sq0idp|sq0ige|sq0idb]-{w22,} sandbox-sq0idb-{w22,}",
          "developer.squareup.com/docs/build-basics/access-tokens", "LOW"),
    token("shopify-token", "Shopify token", "[shpat_|shpca_|shppa_|shpss_|shptka_|prtapi_]{x32}",
          "shopify.dev/docs/apps/auth"),
    token("shippo-token", "Shippo token", "[shippo_live_|shippo_test_]{x40}",
          "docs.goshippo.com/docs/guides_general/authentication"),
    token("easypost-key", "EasyPost key", "[EZAK|EZTK]{a54}", "docs.easypost.com/docs/authentication"),
    token("lob-key", "Lob key", "[live_|test_]{h35}", "docs.lob.com/#tag/Authentication"),
    token("flutterwave-key", "Flutterwave key",
          "[FLWSECK|FLWSECK_TEST]-{x32}-X [FLWSECK|FLWSECK_TEST]-{l32}-X FLWSECK_TEST-{l12}",
          "developer.flutterwave.com/docs/authentication"),
    Rule(
        "braintree-token", "Braintree access token", "HIGH", (b"$pr", b"$sa"),
        rb"(?<=access_token)\$(?:production|sandbox)\$[a-z0-9]{16}\$[0-9a-f]{32}", 0,
        (shape_sample("access_token$production${l16}${h32}"),), ("access_token$production$short",),
        "developer.paypal.com/braintree/docs", find="mark",
    ),
    token("salesforce-token", "Salesforce session or access token", "00D{a12,15}!{f80,120}",
          "help.salesforce.com/s/articleView?id=sf.remoteaccess_access_tokens.htm"),
    token("pagarme-key", "Pagar.me key", "ak_[live|test]_{a30}", "docs.pagar.me"),
    token("besttime-key", "BestTime key", "pri_{h32}", "documentation.besttime.app", "MEDIUM"),
    token("plaid-token", "Plaid access token", "access-[sandbox|development|production]-" + UUID,
          "plaid.com/docs/api/tokens"),
    token("gocardless-token", "GoCardless token", "live_{g40}", "developer.gocardless.com", "MEDIUM"),
    token("razorpay-key", "Razorpay key", "[rzp_live_|rzp_test_]{a14,}", "razorpay.com/docs/api/authentication"),
    token("adyen-key", "Adyen API key", "AQE{v1}hmfu{b60,}", "docs.adyen.com/development-resources/api-credentials"),
    token("checkout-key", "Checkout.com secret key", "[sk_|sk_test_|sk_sbox_]{h8}-{h4}-{h4}-{h4}-{h12} sk_sbox_{l26}",
          "www.checkout.com/docs"),
    token("paddle-key", "Paddle API key", "pdl_[live|sdbx]_apikey_{l26}_{a22}_{a3}",
          "developer.paddle.com/api-reference/about/authentication"),
    token("mercado-pago-token", "Mercado Pago access token", "[APP_USR|TEST]-{d15,16}-{d6}-{h32}-{d8,10}",
          "www.mercadopago.com/developers"),
    token("xendit-key", "Xendit secret key", "xnd_[production|development]_{a40,}", "docs.xendit.co"),
    token("omise-key", "Omise secret key", "[skey_|skey_test_]{l19}", "docs.opn.ooo"),
    token("cashfree-key", "Cashfree secret key", "cfsk_ma_[prod|test]_{h32}_{h8}", "www.cashfree.com/docs"),
    token("klarna-key", "Klarna API key", "klarna_[live|test]_api_{b40,}", "docs.klarna.com"),
    token("brex-token", "Brex user token", "bxt_{a40}", "developer.brex.com"),
    token("mercury-token", "Mercury API token", "mercury_production_{L3,6}_{a40,50}_yrucrem", "docs.mercury.com"),
    token("mercury-sandbox-token", "Mercury sandbox token", "mercury_sandbox_{L3,6}_{a40,50}_yrucrem",
          "docs.mercury.com", "LOW"),
    token("midtrans-key", "Midtrans server key", "[Mid|SB-Mid]-server-{w16,32}", "docs.midtrans.com"),
    token("polar-token", "Polar token", "polar_[at|oat|pat|rt|ac|cs|cst|crt|us]_{w20,100}", "polar.sh/docs"),
    token("rainforest-key", "Rainforest Pay API key", "[apikey_|sbx_apikey_]{h64}", "docs.rainforestpay.com"),
    token("persona-key", "Persona API key", "persona_[production|sandbox]_{w36,80}", "docs.withpersona.com"),
    token("onfido-token", "Onfido API token",
          "api_[live|sandbox].{w4,20}.{w20,80} api_[live|sandbox]_[us|ca].{w4,20}.{w20,80} "
          "api_[live|live_us|live_ca|sandbox].{w20,80}", "documentation.onfido.com"),
    token("woocommerce-key", "WooCommerce REST key", "[ck_|cs_]{h40}",
          "woocommerce.github.io/woocommerce-rest-api-docs"),
    token("ebay-secret", "eBay client secret",
          "[PRD|SBX]-{h12}-{h4}-{h4}-{h4}-{h4} [PRD|SBX]-{h8}-{h4}-{h4}-{h4}-{h4,12}", "developer.ebay.com"),
    token("shopee-key", "Shopee partner key", "shpk{h60}", "open.shopee.com/documents"),
    token("proof-key", "Proof API key", "[prf_|prf_cli_]{a30,80}", "dev.proof.com", "MEDIUM"),
    token("pangea-token", "Pangea token", "pts_{l32}", "pangea.cloud/docs"),
    Rule(
        "asaas-key", "Asaas API key", "HIGH", (b"$aa",),
        rb"\$aact_(?:prod|hmlg)_[A-Za-z0-9_-]{20,300}(?![A-Za-z0-9_-])", 0,
        (shape_sample("$aact_prod_{a160}"),), ("$aact_prod_x",), "docs.asaas.com", find="mark",
    ),
)
MONITORING = (
    token("grafana-key", "Grafana API key", "eyJrIjoi{b70,400}",
          "grafana.com/docs/grafana/latest/administration/api-keys")._replace(
        pattern=rb"(?<!\?r=)eyJrIjoi[A-Za-z0-9+/]{70,400}"  # ?r= is Power BI's, whose reports begin so too
    ),
    token("grafana-cloud-token", "Grafana Cloud token", "glc_{b32,400}",
          "grafana.com/docs/grafana-cloud/account-management/authentication-and-permissions/access-policies"),
    token("grafana-service-account", "Grafana service account token", "glsa_{a32}_{x8}",
          "grafana.com/docs/grafana/latest/administration/service-accounts"),
    token("newrelic-key", "New Relic key",
          "NRAK-{a27} NRII-{w32} NRJS-{h19} NRRA-{h42} NRAA-{h27} NRIQ-{w32} eu01xx{h30}NRAL",
          "docs.newrelic.com/docs/apis/intro-apis/new-relic-api-keys"),
    token("dynatrace-token", "Dynatrace token", "dt0{a1}{d2}.{u24}.{u64} dt0c01.{l24}.{l64}",
          "docs.dynatrace.com/docs/manage/identity-access-management/access-tokens-and-oauth-clients"),
    token("sentry-token", "Sentry token",
          "sntrys_eyJ{b40,600}_{b43} sntrys_eyJ{b40,600}=_{b43} sntrys_eyJ{b40,600}==_{b43} [sntryu_|sntrya_]{h64}",
          "docs.sentry.io/account/auth-tokens"),
    token("posthog-key", "PostHog key", "[phx|phs|phr|pha]_{w39,64}", "posthog.com/docs/api"),
    token("datadog-client-token", "Datadog client token (publishable)", "pub{h32}",
          "docs.datadoghq.com/account_management/api-app-keys", "LOW"),
    token("logfire-token", "Logfire token", "pylf_v{d1}_{l2}_{w43}", "logfire.pydantic.dev"),
    token("honeycomb-key", "Honeycomb key", "[hcaik_|hcbik_|hcalk_]{l58}",
          "docs.honeycomb.io/configure/environments/manage-api-keys"),
    token("rootly-token", "Rootly key", "rootly_{h64}", "rootly.com/api"),
    token("datadog-key-token", "Datadog application key or access token", "ddapp_{a34} ddpat_{w30,} DDRCM_{w30,}",
          "docs.datadoghq.com/account_management/api-app-keys"),
    token("axiom-token", "Axiom token", "[xaat-|xapt-]{h8}-{h4}-{h4}-{h4}-{h12}", "axiom.co/docs"),
    token("coralogix-key", "Coralogix key", "[cxtp_|cxup_|cxth_]{a30}", "coralogix.com/docs"),
    token("logicmonitor-token", "LogicMonitor token", "[lmb_|lma_]{b40,}", "www.logicmonitor.com/support"),
    token("checkly-key", "Checkly API key", "cu_{h32}", "www.checklyhq.com/docs"),
    token("uptimerobot-key", "UptimeRobot API key", "[u|m]{d6,9}-{h24}", "uptimerobot.com/api", "MEDIUM"),
    token("elastic-service-token", "Elasticsearch service token", "AAEAAWVsYXN0aWMv{w40,}",
          "www.elastic.co/docs/deploy-manage/users-roles/cluster-or-deployment-auth/service-accounts"),
    token("elastic-enrollment-token", "Elasticsearch enrollment token", "eyJ2ZXIiOi{b100,}[==|=|]",
          "www.elastic.co/docs/deploy-manage/deploy/self-managed"),
)
AI = (
    token("openai-key", "OpenAI key",
          "sk-[proj|svcacct|admin|None]-{w40,} sk-{a20}T3BlbkFJ{a20} sk-{w40,80}T3BlbkFJ{w40,80}",
          "platform.openai.com/docs/api-reference/authentication"),
    token("anthropic-key", "Anthropic key", "sk-ant-[api|admin|sid|oat|ort]{d2,4}-{w80,120}AA",
          "docs.anthropic.com/en/api/getting-started"),
    token("openrouter-key", "OpenRouter key", "sk-or-v1-{h64}", "openrouter.ai/docs/api-reference/authentication"),
    token("deepseek-key", "DeepSeek key", "sk-{l32}", "api-docs.deepseek.com", "MEDIUM"),
    token("huggingface-token", "Hugging Face token", "hf_{a34,37} api_org_{a34}",
          "huggingface.co/docs/hub/security-tokens"),
    token("groq-key", "Groq key", "gsk_{a52}", "console.groq.com/docs/api-keys"),
    token("perplexity-key", "Perplexity key", "pplx-{a48}", "docs.perplexity.ai"),
    token("replicate-token", "Replicate token", "r8_{w37}", "replicate.com/docs/topics/security/api-tokens"),
    token("xai-key", "xAI key", "xai-{w70,}", "docs.x.ai"),
    token("elevenlabs-key", "ElevenLabs key", "sk_{h48} sk_{h40}", "elevenlabs.io/docs/api-reference/authentication"),
    token("wandb-key", "Weights & Biases key", "wandb_v1_{v77}", "docs.wandb.ai"),
    token("nvidia-key", "NVIDIA API key", "nvapi-{w60,70}", "docs.nvidia.com"),
    token("langsmith-key", "LangSmith key", "[lsv2_pt_|lsv2_sk_|lsv2_scim_]{x32}_{x10} ls__{h32}",
          "docs.smith.langchain.com"),
    token("pinecone-key", "Pinecone key", "pcsk_{a5,6}_{a63}", "docs.pinecone.io"),
    token("tavily-key", "Tavily or Firecrawl key", "[tvly-|fc-]{a32}", "docs.tavily.com"),
    token("jina-key", "Jina key", "jina_{a32}{w20,}", "jina.ai"),
    token("voyage-key", "Voyage AI key", "pa-{w43}", "docs.voyageai.com"),
    token("fireworks-key", "Fireworks AI key", "fw_{a22,}", "docs.fireworks.ai", "MEDIUM"),
    token("together-key", "Together or E2B key", "[tgp_v1_|e2b_]{w40,}", "docs.together.ai"),
    token("sk-key", "Key of OpenAI, Stability AI or Moonshot", "sk-{a48}",
          "platform.openai.com/docs/api-reference/authentication"),
    token("minimax-key", "MiniMax key", "sk-api-{w100,}", "platform.minimaxi.com"),
    token("langfuse-key", "Langfuse secret key", "sk-lf-{h8}-{h4}-{h4}-{h4}-{h12}", "langfuse.com/docs"),
    mixed(token("brave-key", "Brave Search API key", "BSA{w24,40}", "api-dashboard.search.brave.com")),
    mixed(token("composio-key", "Composio API key", "ak_{w20}", "docs.composio.dev", "MEDIUM")),
    token("cerebras-key", "Cerebras key", "csk-{l48}", "inference-docs.cerebras.ai"),
    token("helicone-key", "Helicone key", "sk-helicone-{w25,}", "docs.helicone.ai"),
    token("cartesia-key", "Cartesia key", "sk_car_{a20,}", "docs.cartesia.ai"),
    token("llamacloud-key", "LlamaCloud key", "llx-{a48}", "docs.cloud.llamaindex.ai"),
    token("browserbase-key", "Browserbase key", "bb_[live|test]_{w27}", "docs.browserbase.com"),
    token("mem0-key", "Mem0 key", "m0-{a40}", "docs.mem0.ai"),
    token("chroma-key", "Chroma Cloud key", "ck-{a44}", "docs.trychroma.com"),
    token("nomic-key", "Nomic key", "nk-{w43}", "docs.nomic.ai", "MEDIUM"),
    token("featherless-key", "Featherless key", "rc_{h64}", "featherless.ai/docs"),
    token("chutes-key", "Chutes key", "cpk_{h32}.{h32}.{a32}", "chutes.ai/docs"),
    token("anyscale-key", "Anyscale key", "[esecret_|aph0_]{l26}", "docs.anyscale.com"),
    token("modal-token", "Modal token", "[ak-|as-]{a22}", "modal.com/docs", "MEDIUM"),
    token("runpod-key", "RunPod key", "rpa_{u40}{a6}", "docs.runpod.io"),
    token("hackclub-key", "Hack Club AI key", "sk-hc-v1-{h64}", "ai.hackclub.com"),
    token("sindri-key", "Sindri API key", "sindri_{a32}", "sindri.app/docs"),
)
#: Keys that stand in web pages: they name an account and open nothing.
PUBLISHABLE = (
    token("stripe-publishable-key", "Stripe publishable key", "pk_[live|test]_{a16,247}", "docs.stripe.com/keys",
          "LOW"),
    token("mapbox-public-token", "Mapbox public token (publishable)", "pk.eyJ{w50,}.{w20,} pk.{l60}.{l22}",
          "docs.mapbox.com/help/glossary/access-token", "LOW"),
    token("posthog-project-key", "PostHog project key (publishable)", "phc_{w39,64}", "posthog.com/docs/api", "LOW"),
    token("supabase-publishable-key", "Supabase publishable key", "sb_publishable_{w22,40}",
          "supabase.com/docs/guides/api/api-keys", "LOW"),
    token("langfuse-public-key", "Langfuse public key (publishable)", "pk-lf-" + UUID, "langfuse.com/docs", "LOW"),
    token("pubnub-public-key", "PubNub publish or subscribe key (publishable)",
          "[pub|sub]-c-{l8}-{l4}-{l4}-{l4}-{l12}", "www.pubnub.com/docs/general/setup/account-setup", "LOW"),
    token("launchdarkly-mobile-key", "LaunchDarkly mobile key (publishable)", "mob-" + UUID,
          "docs.launchdarkly.com/home/account/api", "LOW"),
    token("lob-publishable-key", "Lob publishable key", "[test_pub_|live_pub_]{h31}",
          "docs.lob.com/#tag/Authentication", "LOW"),
    token("flutterwave-public-key", "Flutterwave public key (publishable)", "[FLWPUBK|FLWPUBK_TEST]-{a32}-X",
          "developer.flutterwave.com/docs/authentication", "LOW"),
    token("mailgun-public-key", "Mailgun public key (publishable)", "pubkey-{h32}",
          "documentation.mailgun.com/docs/mailgun/user-manual/api-key-mgmt", "LOW"),
    token("besttime-public-key", "BestTime public key (publishable)", "pub_{h32}", "documentation.besttime.app", "LOW"),
    token("devcycle-client-key", "DevCycle client or mobile key (publishable)", "dvc_[client|mobile]_{w16,}",
          "docs.devcycle.com", "LOW"),
    token("firebase-web-key", "Firebase web key (publishable)", "AIza{w35}",
          "firebase.google.com/docs/projects/api-keys", "LOW")._replace(
        pattern=rb"AIza[A-Za-z0-9_-]{35}(?=\\{0,2}[\"']\s{0,4},\s{0,16}\\{0,2}[\"']?authDomain)",
        examples=('{apiKey: "' + shape_sample("AIza{w35}") + '", authDomain: "app.example.com"}',),
        negatives=(shape_sample("AIza{w35}"),),
    ),
    token("recaptcha-site-key", "reCAPTCHA site key (publishable)", "6L{w38}",
          "developers.google.com/recaptcha/docs/display", "LOW")._replace(
        pattern=rb"(?i:" + b"|".join(rb"(?<=site%skey%s)" % (gap, sign) for gap in (rb"", rb"[ _-]")
                                     for sign in (rb"[ =:]", rb"[=:\"'][ \"']", rb"[\"' ][=:][\"' ]",
                                                  rb"[\"'][=:] [\"']")) + rb")6L[A-Za-z0-9_-]{38}(?![A-Za-z0-9_-])",
        examples=tuple(head + shape_sample("6L{w38}") for head in
                       ('data-sitekey="', "site key ", "SITE_KEY=", '"siteKey": "', "site-key: ")),
        negatives=("RECAPTCHA_SECRET_KEY=" + shape_sample("6L{w38}"),),
    ),
    Rule(
        "sentry-dsn-publishable", "Sentry DSN (publishable)", "LOW", (b"://",),
        rb"://([0-9a-f]{32})@[A-Za-z0-9.:\[\]-]{1,255}(?:/[A-Za-z0-9_.-]{1,64}){0,4}/[0-9]{1,20}(?![0-9A-Za-z])", 1,
        ("https://" + shape_sample("{h32}@o{d6}.ingest.sentry.io/{d7}"),),
        ("https://" + shape_sample("{h32}@git.example.org/app"),), "docs.sentry.io/concepts/key-terms/dsn-explainer",
        find="url",
    ),
)
KEYED = (
    keyed("aws-secret-key", "AWS secret access key", "aws secretaccess amazon", "{b40}",
          "docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_access-keys.html", "HIGH"),
    Rule(
        "azure-entra-secret", "Microsoft Entra client secret", "HIGH", (b"Q~",),
        rb"(?<![A-Za-z0-9_~.-])[A-Za-z0-9_~.-]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,34}(?![A-Za-z0-9_~.-])", 0,
        (shape_sample("{a3}8Q~{a34}"),), ("~/.ssh/config and 8Q~",),
        "learn.microsoft.com/entra/identity-platform/quickstart-register-app", find="mark",
    ),
    token("azure-devops-token", "Azure key of 84 characters (DevOps, AI services)", "{a52}JQQJ9{a27}",
          "learn.microsoft.com/azure/devops/organizations/accounts")._replace(find="inside", keywords=(b"JQQJ9",)),
    keyed("adafruit-io-key", "Adafruit IO key", "adafruit", "{w32}", "io.adafruit.com/api/docs"),
    keyed("adobe-client-secret", "Adobe client id or secret", "adobe", "{x32}", "developer.adobe.com"),
    keyed("airtable-key", "Airtable key", "airtable", "{a17} {w1,20}.v1.{w5,}", "airtable.com/developers"),
    keyed("aiven-token", "Aiven token", "aiven", "{b372} {b32,}=", "docs.aiven.io"),
    keyed("algolia-key", "Algolia key", "algolia", "{a32} {u10}", "www.algolia.com/doc/guides/security/api-keys"),
    keyed("alibaba-secret", "Alibaba Cloud secret", "alibaba aliyun alicloud alipay oss", "{a30}",
          "www.alibabacloud.com/help/en/ram"),
    keyed("apify-legacy-token", "Apify token", "apify", "{a30,40}", "docs.apify.com"),
    keyed("artifactory-token", "JFrog token", "artifactory jfrog bintray xray", "{a73} {a64} {b40,}", "jfrog.com/help"),
    keyed("asana-secret", "Asana secret", "asana", "{a32,} {d1}/{d16}:{x32} {d1}/{d16}/{d16}:{x32} {d16}",
          "developers.asana.com/docs/authentication"),
    keyed("assemblyai-key", "AssemblyAI key", "assembly", "{a32}", "www.assemblyai.com/docs"),
    keyed("atlassian-key", "Atlassian key", "atlassian confluence jira bitbucket", "{a20,64} {g24,64}",
          "support.atlassian.com"),
    keyed("beamer-key", "Beamer key", "beamer", "{g44,46} {b45,46}=", "www.getbeamer.com/api"),
    keyed("circleci-key", "CircleCI token", "circle", "{x40}", "circleci.com/docs/managing-api-tokens"),
    keyed("cloudflare-key", "Cloudflare key", "cloudflare cfapi cfkey cftoken", "{h37} {w40} {h32}",
          "developers.cloudflare.com/fundamentals/api"),
    keyed("codeclimate-token", "Code Climate token", "codeclimate cctestreporter", "{h64} {h40}",
          "docs.codeclimate.com"),
    keyed("codecov-upload-token", "Codecov token", "codecov", "{a32} " + UUID, "docs.codecov.com"),
    keyed("coinbase-token", "Coinbase key", "coinbase", "{w64} {a32} {a16} {b86,88}", "docs.cdp.coinbase.com"),
    keyed("confluent-key", "Confluent key", "confluent kafka", "{a16} {b64}",
          "docs.confluent.io/cloud/current/access-management"),
    keyed("contentful-key", "Contentful key", "contentful", "{g43} {g64}",
          "www.contentful.com/developers/docs/references/authentication"),
    keyed("coveralls-token", "Coveralls token", "coveralls", "{w37}", "docs.coveralls.io"),
    keyed("datadog-key", "Datadog key", "datadog ddapi ddapp dogapi", "{a40} {h32} {a32}",
          "docs.datadoghq.com/account_management/api-app-keys"),
    keyed("datagov-key", "api.data.gov key", "datagov", "{a40}", "api.data.gov/docs"),
    keyed("deepgram-key", "Deepgram key", "deepgram", "{a40}", "developers.deepgram.com"),
    keyed("discord-secret", "Discord secret", "discord", "{h64} {d17,19} {w32} {e59,72}",
          "discord.com/developers/docs"),
    keyed("disqus-key", "Disqus key", "disqus", "{a64}", "disqus.com/api/docs"),
    keyed("dockerhub-password", "Docker Hub credential", "docker", "{x8}-{x4}-{x4}-{x4}-{x12}", "docs.docker.com"),
    keyed("droneci-token", "Drone token", "drone", "{a32}", "docs.drone.io"),
    keyed("dropbox-secret", "Dropbox secret", "dropbox", "{a15} {a11}AAAAAAAAAA{g43}", "www.dropbox.com/developers"),
    keyed("etsy-key", "Etsy token", "etsy", "{a24}", "developers.etsy.com"),
    keyed("facebook-secret", "Facebook secret", "facebook fb", "{x32} {d13,17}|{w20,40}",
          "developers.facebook.com/docs/facebook-login"),
    keyed("fastly-token", "Fastly token", "fastly", "{g32}", "www.fastly.com/documentation/reference/api/auth-tokens"),
    keyed("figma-key", "Figma token", "figma", "{d4}-" + UUID + " {x4}-{x8}-{x4}-{x4}-{x4}-{x12}",
          "www.figma.com/developers/api"),
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
    keyed("ibm-key", "IBM Cloud key", "ibm bluemix cloudant softlayer watson", "{w44} {h64} {a24} {w43}",
          "cloud.ibm.com/docs/account"),
    keyed("intercom-token", "Intercom token", "intercom", "{b58,60}= {b60}", "developers.intercom.com"),
    keyed("jumpcloud-key", "JumpCloud key", "jumpcloud xapikey", "{a40}", "docs.jumpcloud.com"),
    keyed("kraken-token", "Kraken key", "kraken", "{b80,90}= {b80,90}", "docs.kraken.com"),
    keyed("kucoin-token", "KuCoin secret", "kucoin", "{h8}-{h4}-{h4}-{h4}-{h12} {h24}", "www.kucoin.com/docs"),
    keyed("launchdarkly-token", "LaunchDarkly token", "launchdarkly ld", "{g40} {w40} {l3}-{a8}-{a4}-{a4}-{a4}-{a12}",
          "docs.launchdarkly.com"),
    keyed("linear-secret", "Linear secret", "linear", "{x32}", "linear.app/developers"),
    keyed("linkedin-secret", "LinkedIn secret", "linkedin", "{a16} {a14} WPL_AP[0|1].{w16}.{b8}==",
          "learn.microsoft.com/linkedin"),
    keyed("lob-api-key", "Lob key", "lob", "[test|live]_{h35}", "docs.lob.com"),
    keyed("mailchimp-key", "Mailchimp key", "mailchimp mandrill", "{h32}-us{d1,2} {w22}", "mailchimp.com/developer"),
    keyed("mailgun-signing-key", "Mailgun key", "mailgun", "{h32}-{h8}-{h8} {h32} {h72}", "documentation.mailgun.com"),
    keyed("mapbox-secret", "Mapbox token", "mapbox", "{w60,}.{w22}", "docs.mapbox.com"),
    keyed("mattermost-token", "Mattermost token", "mattermost", "{l26}", "developers.mattermost.com"),
    keyed("messagebird-key", "MessageBird key", "messagebird", "{a25} {x8}-{x4}-{x4}-{x4}-{x12}",
          "developers.messagebird.com"),
    keyed("netlify-key", "Netlify token", "netlify", "{g40,46} {x64}", "docs.netlify.com"),
    keyed("newrelic-user-key", "New Relic key", "newrelic nr", "{h40} {a64} {h36}NRAL {w32}", "docs.newrelic.com"),
    keyed("npm-legacy-token", "npm token", "npm authtoken", UUID + " {x8}-{x4}-{x4}-{x4}-{x12}", "docs.npmjs.com"),
    keyed("nuget-password", "NuGet password", "nuget cleartextpassword", "{l46}", "learn.microsoft.com/nuget"),
    keyed("nytimes-key", "New York Times key", "nytimes newyorktimes", "{g32}", "developer.nytimes.com"),
    keyed("okta-token", "Okta token", "okta ssws", "00{g40}", "developer.okta.com/docs/guides/create-an-api-token"),
    keyed("openai-keyed", "OpenAI key", "openai gpt", "sk-{w20,}", "platform.openai.com"),
    keyed("paypal-secret", "PayPal secret", "paypal", "{w50,80}", "developer.paypal.com"),
    keyed("plaid-secret", "Plaid secret", "plaid", "{a24} {a30}", "plaid.com/docs"),
    keyed("postmark-token", "Postmark token", "postmark xpostmark", "{l8}-{l4}-{l4}-{l4}-{l12}",
          "postmarkapp.com/developer"),
    keyed("rapidapi-key", "RapidAPI key", "rapidapi xrapidapi", "{w50}", "docs.rapidapi.com"),
    keyed("salesforce-secret", "Salesforce secret", "salesforce sfdc", "{u64} {a85} {a24,25}", "help.salesforce.com"),
    keyed("segment-key", "Segment key", "segment", "{w43}.{w43}", "segment.com/docs"),
    keyed("sendbird-token", "Sendbird token", "sendbird", "{h40} {x8}-{x4}-{x4}-{x4}-{x12}", "sendbird.com/docs"),
    keyed("sentry-key", "Sentry token", "sentry", "{h64}", "docs.sentry.io"),
    keyed("shodan-key", "Shodan key", "shodan", "{a32}", "developer.shodan.io"),
    keyed("sidekiq-secret", "Sidekiq credential", "bundleenterprise bundlegems sidekiq", "{h8}:{h8}",
          "github.com/sidekiq/sidekiq/wiki"),
    keyed("snyk-token", "Snyk token", "snyk", "{x8}-{x4}-{x4}-{x4}-{x12}", "docs.snyk.io"),
    keyed("sonar-key", "SonarQube token", "sonar", "{a40} {g40}", "docs.sonarsource.com"),
    keyed("square-secret", "Square secret", "square", "{g22,64}", "developer.squareup.com"),
    keyed("squarespace-token", "Squarespace token", "squarespace", "{x8}-{x4}-{x4}-{x4}-{x12}",
          "developers.squarespace.com"),
    keyed("sslmate-key", "SSLMate key", "sslmate", "{a36}", "sslmate.com/help/reference/api"),
    keyed("sumologic-key", "Sumo Logic key", "sumo", "su{a12} {a64}", "help.sumologic.com"),
    keyed("telegram-token", "Telegram token", "telegr tgbot", "{d8,10}:{w34,36}", "core.telegram.org/bots/api", "HIGH"),
    keyed("travisci-token", "Travis CI token", "travis", "{a22} {w44}", "docs.travis-ci.com"),
    keyed("trello-token", "Trello token", "trello", "{a32} {h64} ATTA{h72}", "developer.atlassian.com/cloud/trello"),
    keyed("twilio-token", "Twilio token", "twilio", "{x32}", "www.twilio.com/docs"),
    keyed("twitch-token", "Twitch token", "twitch", "{a30} live_{d6,}_{a30}", "dev.twitch.tv/docs/authentication"),
    keyed("twitter-secret", "Twitter secret", "twitter", "{a25} {a45} {a50} {d15,20}-{a20,40} A{e80,120}",
          "developer.x.com"),
    keyed("vault-keyed-token", "Vault token", "vault", "s.{a24} {l8}-{l4}-{l4}-{l4}-{l12}",
          "developer.hashicorp.com/vault"),
    keyed("wandb-legacy-key", "Weights & Biases key", "wandb weightsandbiases", "{x40}", "docs.wandb.ai"),
    keyed("yandex-token", "Yandex key", "yandex", "{w39,40} {w42,100}", "yandex.cloud/en/docs"),
    keyed("zendesk-key", "Zendesk secret", "zendesk", "{a40}", "developer.zendesk.com"),
    keyed("azure-storage-key", "Azure storage key", "accountkey azure storage", "{b86}== {b43}=",
          "learn.microsoft.com/azure/storage/common/storage-account-keys-manage", "HIGH"),
    keyed("django-secret-key", "Django secret key", "django", "{w30,60}",
          "docs.djangoproject.com/en/stable/ref/settings/#secret-key"),
    keyed("github-legacy-token", "GitHub token", "github ghe ghtoken", "{h40} {a35,40}", "docs.github.com"),
    keyed("gitlab-legacy-token", "GitLab token", "gitlab gltoken", "{w20}", "docs.gitlab.com"),
    keyed("gcp-key", "Google secret", "google gcp gcm firebase fcm", "{w24} {w35,40} AAAA{w7}:{w140}",
          "cloud.google.com/docs"),
    keyed("kubernetes-token", "Kubernetes secret", "kube k8s bootstrap", "{l6}.{l16}",
          "kubernetes.io/docs/reference/access-authn-authz"),
    keyed("slack-signing-secret", "Slack signing secret", "slack", "{h32}",
          "api.slack.com/authentication/verifying-requests-from-slack"),
    keyed("stripe-keyed", "Stripe key", "stripe", "[sk|rk]_[live|test]_{a10,}", "docs.stripe.com/keys"),
    keyed("harness-key", "Harness key", "harness", "{w40,}", "developer.harness.io"),
    keyed("hashicorp-password", "HCP Terraform token", "terraform tfe atlas", "{a14}.atlasv1.{g60,}",
          "developer.hashicorp.com"),
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
    keyed("cohere-key", "Cohere key", "cohere coapi", "{a40}", "docs.cohere.com"),
    keyed("mistral-key", "Mistral key", "mistral", "{a32}", "docs.mistral.ai"),
    keyed("zhipu-key", "Zhipu (Z.ai) key", "zhipu zai bigmodel", "{h32}.{a16}", "docs.z.ai"),
    keyed("maxmind-key", "MaxMind license key", "maxmind geoip geolite", "{a6}_{a29}_mmk {a16}", "support.maxmind.com"),
    keyed("meraki-key", "Meraki API key", "meraki", "{h40}", "developer.cisco.com/meraki"),
    keyed("plivo-id", "Plivo auth id or token", "plivo", "M[A|A]{u18} {a40}", "www.plivo.com/docs"),
    keyed("exoscale-secret", "Exoscale API secret", "exoscale", "{w43} {a40}", "community.exoscale.com"),
    keyed("ngrok-token", "ngrok authtoken", "ngrok", "{a24,30}_{a20,24}", "ngrok.com/docs"),
    keyed("bitrise-token", "Bitrise access token", "bitrise", "{w60,120}", "devcenter.bitrise.io"),
    keyed("civo-key", "Civo API key", "civo", "{a50}", "www.civo.com/docs"),
    keyed("looker-secret", "Looker client secret", "looker", "{l24} {l20}", "cloud.google.com/looker/docs"),
    keyed("tableau-token", "Tableau access token", "tableau", "{b22}==:{a32}", "help.tableau.com"),
    keyed("configcat-key", "ConfigCat SDK key", "configcat", "{w22}/{w22}", "configcat.com/docs"),
    keyed("scaleway-secret", "Scaleway secret key", "scaleway scw", "{h8}-{h4}-{h4}-{h4}-{h12}",
          "www.scaleway.com/en/docs/iam"),
    keyed("bittrex-key", "Bittrex key", "bittrex", "{l32}", "bittrex.github.io/api"),
    keyed("box-token", "Box token", "box", "{a32}", "developer.box.com"),
    keyed("openshift-token", "OpenShift token", "openshift ocp oc", "sha256~{w43}", "docs.openshift.com"),
)
PEM_LINE = "-----BEGIN {0}PRIVATE " + "KEY{1}-----"
INLINE_KEY = Rule(
    "private-key-inline", "Private key on one line", "HIGH", (b"-----BEGIN",),
    rb"-----BEGIN[ A-Z0-9]{1,32}PRIVATE KEY(?: BLOCK)?-----((?:\\[nrt]|\\\\n|\\u000[aAdD]|[A-Za-z0-9+/=:, ]|"
    rb"-(?!----)){40,16384}?)-----END[ A-Z0-9]{1,32}KEY(?: BLOCK)?-----", 0,
    (PEM_LINE.format("EC ", "") + "\\n" + "MHcCAQEE" * 10 + "\\n-----END EC PRIVATE KEY-----",),
        ("-----BEGIN CERTIFICATE-----\\nMIIB",),
    "RFC 7468, in a JSON string", find="pem",
)  # fmt: skip
OTHER_PRIVATE_KEY = Rule(
    "private-key-other", "Private key (EC, DSA, OpenSSH, encrypted, PGP)", "HIGH", (b"-----BEGIN",),
    rb"-----BEGIN (?:(?:EC|DSA|OPENSSH|ENCRYPTED|PGP|SSH2 ENCRYPTED|ANY|PKCS8|X25519|ED25519) ){1,2}PRIVATE KEY(?: "
    rb"BLOCK)?-----(?!-----END)", 0,
    (PEM_LINE.format("EC ", ""), PEM_LINE.format("OPENSSH ", ""), PEM_LINE.format("PGP ", " BLOCK")),
        ("-----BEGIN PGP PUBLIC KEY BLOCK-----",),
    "RFC 7468; RFC 5958; openssh PROTOCOL.key; RFC 9580", multiline=True, find="pem",
)  # fmt: skip
#: what follows "-----BEGIN " in base64 where a private key's header does
PRIVATE_KEY_HEADERS = ("", "RSA ", "EC ", "DSA ", "OPENSSH ", "ENCRYPTED ", "PGP ")
PEM_BASE64 = token("private-key-base64", "Private key, base64 of PEM",
                   " ".join(base64_head(f"-----BEGIN {kind}PRIVATE KEY") + "{b40,}[==|=|]"
                            for kind in PRIVATE_KEY_HEADERS),
                   "RFC 7468 inside RFC 4648")._replace(
    examples=tuple(base64.b64encode(f"{KEY_HEADER.format(kind)}\n{'MIIC' * 20}".encode()).decode()
                   for kind in PRIVATE_KEY_HEADERS),
    negatives=tuple(base64.b64encode(f"-----BEGIN {kind}-----\n{'MIIC' * 20}".encode()).decode()
                    for kind in ("CERTIFICATE", "PUBLIC KEY", "CERTIFICATE REQUEST", "RSA PUBLIC KEY")),
)
JWT_BASE64 = token("json-web-token-base64", "JSON Web Token, base64", "ZXlK{b60,}", "RFC 7519 inside RFC 4648",
    "MEDIUM")._replace(
    examples=(
        base64.b64encode(
            b"eyJ" + b"hbGciOiJIUzI1NiJ9.eyJ" + b"zdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N"
        ).decode(),
    ),
    negatives=("ZXlK" + "a2" * 40,),
)
JSON_WEB_TOKEN = Rule(
    "json-web-token", "JSON Web Token", "MEDIUM", (b"eyJ",),
        rb"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{0,2048}", 0,
    ("eyJ" + "hbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9" + ".eyJ" + "zdWIiOiIxMjM0NTY3ODkwIn0" + ".dozjgNryP4J3jVmNHl0w5N_XgL0n"
        "3I9PlFUP0THsR8U",),
    ("eyJub3QiOiJhIGp3dCJ9",), "RFC 7519",
)  # fmt: skip
JSON_WEB_ENCRYPTION = Rule(
    "json-web-encryption", "JSON Web Token, encrypted", "MEDIUM", (b"eyJ",),
        rb"eyJ[A-Za-z0-9_-]{16,}(?:\.[A-Za-z0-9_-]{0,2048}){4}", 0,
    ("eyJ" + "hbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ" + ".a1b2.c3d4.e5f6.g7h8",), ("eyJhbGciOiJIUzI1NiJ9.x",),
        "RFC 7516",
)  # fmt: skip
MAPBOX_TOKEN = token("mapbox-token", "Mapbox token", "[sk|tk].eyJ{w50,}.{w20,}",
                     "docs.mapbox.com/help/glossary/access-token")
PASSWORD_HASH = Rule(
    "password-hash", "Hash of a password (crypt)", "MEDIUM",
        tuple(b"$2a $2b $2x $2y $1$ $ap $5$ $6$ $y$ $ar $8$ $9$".split()),
    rb"\$(?:2[abxy]?\$\d\d\$[./A-Za-z0-9]{53}|(?:1|apr1)\$[./A-Za-z0-9]{1,8}\$[./A-Za-z0-9]{22}|"
    rb"[56]\$(?:rounds=\d{1,9}\$)?[./A-Za-z0-9]{1,16}\$[./A-Za-z0-9]{43,86}"
    rb"|y\$[./A-Za-z0-9]{1,12}\$[./A-Za-z0-9]{1,86}\$[./A-Za-z0-9]{43}|argon2(?:id|i|"
    rb"d)\$v=\d{1,3}\$[a-z0-9=,]{4,40}\$[A-Za-z0-9+/]{8,88}\$[A-Za-z0-9+/]{16,172}"
    rb"|[89]\$[./A-Za-z0-9]{14}\$[./A-Za-z0-9]{43})(?![./A-Za-z0-9])", 0,
    ("admin:" + shape_sample("$2y$10${a53}") + ":1:", shape_sample("$6${a16}${a86}")), ("cost $2.50 and $1",
        "$6$" + "x" * 12 + "$" + "a" * 86),
    "crypt(5); RFC 9106", find="mark",
)  # fmt: skip
URL_CREDENTIALS = Rule(
    "url-credentials", "Credentials in a URL", "HIGH", (b"://",),
    rb"://(?:[^\s:/?#@\"'<>`\\(){}]{0,128}):([^\s/?#\"'<>`\\]{3,256})@[A-Za-z0-9\[.\-]{1,255}", 1,
    ("postgres://app:" + "s3cr3t-Pass9" + "@db.internal:5432/app", "https://robot:" + "Zq8xW2" + "@example.org/x"),
    ("https://example.org/a:b@c", "http://host:8080/path", "postgres://user:${PASSWORD}@db"), "RFC 3986, section 3.2.1",
        find="url",
)  # fmt: skip
BASIC_AUTH = Rule(
    "basic-auth", "Basic authentication", "HIGH", (b"basic ",),
        rb"(?i)basic[ ]{1,4}([A-Za-z0-9+/]{8,512}={0,2})(?![A-Za-z0-9+/=])", 1,
    ("Authorization: Basic " + base64.b64encode(b"robot:correct-horse-7").decode(),), ("basic training",
        "Basic aGVsbG93b3JsZA=="), "RFC 7617", find="basic",
)  # fmt: skip
CURL_USER = Rule(
    "curl-user", "User and password of curl", "MEDIUM", (b"curl",),
    rb"curl[^\s]{0,8}(?:[ ][^\r\n]{0,200}?)?[ ](?:-u|--user|--proxy-user|-U)[ "
    rb"=]?[\"']?[^\s:\"']{1,64}:([^\s\"'$<{]{3,128})", 1,
    ("curl -s -u robot:" + "hunter2hunter2 https://example.org",), ("curl -u $USER:$PASS https://x",), "curl(1)",
        find="curl",
)  # fmt: skip
URL_DEFAULT_PASSWORD = Rule(
    "url-default-password", "Default password in a URL", "MEDIUM", (b"://",),
    rb"://(?:[^\s:/?#@\"'<>`\\(){}]{0,128}):(admin|root|example|changeme|postgres|mysql|mongo|redis|guest|"
    rb"minio(?:admin)?|elastic|rabbitmq"
    rb"|influx|grafana|toor|default|123456|1234)@[A-Za-z0-9\[.\-]{1,255}", 1,
    ("mysql://root:" + "example@db:3306/app", "amqp://admin:" + "admin@queue:5672"),
        ("postgres://USER:PASSWORD@HOST/db",), "RFC 3986, section 3.2.1", find="url",
)  # fmt: skip
ENCODED_URL_CREDENTIALS = Rule(
    "url-credentials-encoded", "Credentials in a percent-encoded URL", "HIGH", (b"%3A%2F%2F", b"%3a%2f%2f"),
    rb"(?i)%3a%2f%2f(?:[\w.\-]|%(?!40|3a|2f)[0-9a-f]{2}){0,128}%3a((?:[^\s%\"'<>&]|%(?!40|3a|"
    rb"2f)[0-9a-f]{2}){3,256})%40[A-Za-z0-9.\-]{1,255}", 1,
    ("amqp%3A%2F%2Fapp%3A" + "s3cr3tPass9%40queue%3A5672",), ("https%3A%2F%2Fexample.org%3A8080%2Fa",),
        "RFC 3986, section 2.1", find="encoded",
)  # fmt: skip
HOST_CREDENTIALS = Rule(
    "host-credentials", "User and password before a host", "HIGH", (b"@",),
        rb"@(?:(?:tcp|unix|udp)\(|[\w.\-]{1,64}:\d{2,5}(?![\w.]))", 0,
    ("dsn=app:" + "S3cr3tPass9@tcp(db:3306)/app", "connecting to app:" + "S3cr3t9x@db:3306"), ("app:latest@db:3306",
        "at 10:20@host:80"),
    "go-sql-driver/mysql, DSN", find="at",
)  # fmt: skip
NOTIFICATION_URL = Rule(
    "notification-url", "Notification URL with a token", "HIGH", (b"://",),
    rb"(?:(?<=discord)://(?:\d{15,20}/([\w\-]{60,80})|([\w\-]{60,80})@\d{15,20})|"
    rb"(?<=slack)://(?:[\w\-]{1,32}@)?(T?[A-Z0-9]{8,12}/B?[A-Z0-9]{8,12}/[A-Za-z0-9]{20,32})"
    rb"|(?:(?<=tgram)|(?<=telegram))://(?:bot)?(\d{8,10}:[\w\-]{35}))", -1,
    ("discord://" + shape_sample("{d18}/{w68}"), "tgram://" + shape_sample("{d10}:{w35}/{d9}")), ("discord://localhost",
        ), "github.com/caronc/apprise", find="scheme",
)  # fmt: skip


def hook(rule_id: str, name: str, host: str, path: str, example: str, reference: str) -> Rule:
    """A rule for a URL with a credential in its path: found at ://, matched from its host.

    The path's group is the secret.
    """
    pattern = rb"://(?:[a-z0-9-]{1,63}\.){0,3}" + re.escape(host.encode()) + path.encode()
    return Rule(rule_id, name, "HIGH", (host.encode(),), pattern, 1, ("https://" + host + example,),
        ("https://" + host + "/",), reference, False, "hook")


HOOKS = (
    hook("slack-webhook", "Slack webhook", "hooks.slack.com",
        r"/(?:services|workflows|triggers)/(T[A-Z0-9]{7,12}/B[A-Z0-9]{7,12}/[A-Za-z0-9]{20,32}(?![A-Za-z0-9])|"
        r"[A-Za-z0-9+/]{43,100}(?![A-Za-z0-9]))", "/services/" + shape_sample("T{u8}/B{u8}/{a24}"),
        "api.slack.com/messaging/webhooks"),
    hook("discord-webhook", "Discord webhook", "discord.com",
        r"/api/(?:v\d+/)?webhooks/[0-9]{15,20}/([A-Za-z0-9_-]{60,80})", "/api/webhooks/" + shape_sample("{d18}/{w68}"),
        "discord.com/developers/docs/resources/webhook"),
    hook("discordapp-webhook", "Discord webhook", "discordapp.com",
        r"/api/(?:v\d+/)?webhooks/[0-9]{15,20}/([A-Za-z0-9_-]{60,80})", "/api/webhooks/" + shape_sample("{d18}/{w68}"),
        "discord.com/developers/docs/resources/webhook"),
    hook("teams-webhook", "Microsoft Teams webhook", "office.com",
        r"/webhook(?:b2)?/([a-z0-9-]{36}@[a-z0-9-]{36}/IncomingWebhook/[a-z0-9]{32}/[a-z0-9-]{36}(?:/[\w-]{20,64})?)",
        "/webhookb2/" + shape_sample(f"{UUID}@{UUID}/IncomingWebhook/{{h32}}/{UUID}"),
        "learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors"),
    hook("tines-webhook", "Tines webhook", "tines.com", r"/webhook/([a-z0-9]{32}/[a-z0-9]{32})",
        "/webhook/" + shape_sample("{l32}/{l32}"), "www.tines.com/docs"),
    hook("zapier-webhook", "Zapier webhook", "hooks.zapier.com",
        r"/hooks/(?:catch|standard)/([0-9]{6,9}/[A-Za-z0-9]{6,8})(?![A-Za-z0-9])",
        "/hooks/catch/" + shape_sample("{d7}/{l8}"), "help.zapier.com"),
    hook("telegram-bot-url", "Telegram bot token in a URL", "api.telegram.org",
        r"/(?:file/)?bot([0-9]{8,10}:[A-Za-z0-9_-]{35})", "/bot" + shape_sample("{d10}:{w35}"),
        "core.telegram.org/bots/api"),
    hook("google-chat-webhook", "Google Chat webhook", "chat.googleapis.com",
        r"/v1/spaces/[A-Za-z0-9_-]{8,}/messages\?key=[A-Za-z0-9_-]{20,}(?:&|\\u0026|%26)token=([A-Za-z0-9_-]{20,})",
        "/v1/spaces/" + shape_sample("{a11}/messages?key={w39}&token={w43}"),
        "developers.google.com/workspace/chat/quickstart/webhooks"),
    hook("sentry-dsn", "Sentry DSN with secret", "sentry.io", r"/[0-9]{1,20}\?key=([a-f0-9]{32})",
        "/" + shape_sample("{d6}?key={h32}"), "docs.sentry.io/concepts/key-terms/dsn-explainer"),
    hook("azure-sas", "Azure shared access signature", "core.windows.net",
        r"/[^\s\"'<>:]{0,200}[?&]sig=([A-Za-z0-9%+/]{40,100}={0,2})", "/c/b?sv=2022-11-02&sig=" + shape_sample("{a44}"),
        "learn.microsoft.com/azure/storage/common/storage-sas-overview"),
    hook("aws-presigned-url", "AWS presigned URL", "amazonaws.com",
        r"/[^\s\"'<>:]{0,600}[?&]X-Amz-Signature=([a-f0-9]{64})", "/o?X-Amz-Signature=" + shape_sample("{h64}"),
        "docs.aws.amazon.com/AmazonS3/latest/userguide/ShareObjectPreSignedURL.html"),
    hook("ifttt-webhook", "IFTTT webhook", "maker.ifttt.com", r"/trigger/[\w-]{1,64}/(?:json/)?with/key/([\w-]{20,64})",
        "/trigger/door/with/key/" + shape_sample("{a22}"), "ifttt.com/maker_webhooks"),
    hook("feishu-webhook", "Feishu or Lark webhook", "open.feishu.cn", r"/open-apis/bot/v2/hook/([a-z0-9-]{36})",
        "/open-apis/bot/v2/hook/" + shape_sample(UUID), "open.feishu.cn/document"),
    hook("make-webhook", "Make webhook", "make.com", r"/([a-z0-9]{32})(?![a-z0-9])", "/" + shape_sample("{l32}"),
        "www.make.com/en/help/tools/webhooks"),
)  # fmt: skip
WHOLE_PASSWORD = Rule(
    "password-whole", "Password", "HIGH", (b"password",), PASSWORD.pattern, 1,
    ("DB_PASSWORD=" + "Ab12cdEF/gh34ij", "?password=" + "kX9vQ2mLab&user=app"), ("password=" + "kX9vQ2mLab",
        "password=changeme/your-password"),
    "the value that the original's pattern has only a part of", find="keyed",
)  # fmt: skip
WHOLE_API_KEY = WHOLE_PASSWORD._replace(
    id="api-key-whole", name="Generic API Key", keywords=(b"api",), pattern=GENERIC_API_KEY.pattern,
        examples=("api_key=" + "a1B2" * 6 + "/" + "c3D4" * 3,), negatives=("api_key=" + "a1B2" * 6,),
)
WHOLE_BEARER = Rule(
    "bearer-value", "Bearer Token", "HIGH", (b"bearer",), rb"(?i)bearer\s+([a-zA-Z0-9_\-.~+/]{20,4096}={0,2})", 1,
    ("Authorization: Bearer " + "a1b2c3d4" * 3, "bearer " + shape_sample("{b40}=")), ("bearer of news", "Bearer short",
        "Bearer " + "x" * 24), "RFC 6750, section 2.1", find="bearer-value",
)  # fmt: skip


def phrased(rule_id: str, name: str, severity: str, keywords: str, examples: Sequence[str], negatives: Sequence[str],
    reference: str) -> Rule:
    """A rule whose places and values `_dockeraudit/phrases.py`, `sentences.py` and `traces.py` know."""
    return Rule(rule_id, name, severity, tuple(keywords.encode().split()), rb"\S+", 0, tuple(examples),
        tuple(negatives), reference, find="keyed")


PHRASED = (
    phrased("next-line-secret", "Secret below its name", "MEDIUM", "pass pwd token secret key cred",
            ("Password for the [elastic] user successfully reset.\nNew value: " + "kX9vQ2mLa7",
                "use the following password to proceed to installation:\n\n" + shape_sample("{h32}") + "\n",
                "- name: DB_PASSWORD\n  value: " + "kX9vQ2mL"),
            ("Please enter the password:\nthen press return\n", "secret key:\n"),
                "first starts of Elasticsearch, Jenkins; Kubernetes manifests"),
    phrased("stated-secret", "Secret in a sentence", "MEDIUM", "pass pwd token secret key cred",
            ("A temporary password is provided for this session: " + "kX9vQ2mLa7", "the password is " + "kX9vQ2mLa7",
                "with password " + "kX9vQ2mLa7"), ("the password is required", "password for user postgres: "),
                "first starts of qBittorrent, MySQL, Airflow"),
    phrased("command-line-secret", "Secret in a command line", "MEDIUM", "pass token secret key -p -a -w",
            ("deploy --token " + shape_sample("{a24}"), "mysql -uroot -p" + "kX9vQ2mL app",
                "redis-cli -h redis -a " + "kX9vQ2mLa7 ping", "ldapsearch -x -w " + "kX9vQ2mL"),
                ("docker run -p 8080:80", "mkdir -p /var/lib/app", "tool --password PASSWORD"),
                "the programs' manuals"),
    phrased("sql-password", "Password in an SQL statement", "MEDIUM", "identified pass",
            ("CREATE USER 'app' IDENTIFIED BY '" + "kX9vQ2mL'", "CREATE ROLE app LOGIN PASSWORD '" + "kX9vQ2mL'"),
                ("IDENTIFIED BY '***'", "password varchar(255) NOT NULL"), "MySQL, PostgreSQL, Oracle: CREATE USER"),
    phrased("protocol-login", "Login in a protocol's dialogue", "MEDIUM", "login auth pass ugfzc3dvcmq6",
            ("A001 LOGIN bob " + "kX9vQ2mLa7", '"AUTH" "' + 'kX9vQ2mLa7"',
                "S: 334 UGFzc3dvcmQ6\nC: " + base64.b64encode(b"kX9vQ2mLa7").decode() + "\n"), ("A001 LOGIN failed",
                "auth plain"), "RFC 9051, RFC 4954, RFC 959; Redis AUTH"),
    phrased("authorization-header", "Authorization header", "MEDIUM", "authorization",
            ("Authorization: Token " + shape_sample("{a32}"), "authorization: 'SSWS " + shape_sample("{a40}") + "'",
                'Authorization: Digest username="app", response="' + shape_sample("{h32}") + '"'),
                ("Authorization: Token <redacted>", "Authorization: Basic realm"),
                "RFC 9110, section 11.6.2; RFC 7616"),
    phrased("stack-trace-argument", "Password among a call's arguments", "MEDIUM", "->",
        ("#1 /app/Db.php(12): Db->connect('db', 'app', '" + "kX9vQ2mLa7')",), ("#1 /app/Db.php(12): Db->getName('app')",
        ), "PHP: debug_backtrace"),
    phrased("session-cookie", "Session cookie", "MEDIUM", "sess sid",
        ("Cookie: lang=de; JSESSIONID=" + shape_sample("{x32}"), "connect.sid=s%3A" + shape_sample("{a32}.{a43}")),
        ("session=deleted; path=/", "session_state=open"), "RFC 6265"),
    phrased("signed-url", "Signed URL", "MEDIUM", "sig",
        ("https://cdn.example.org/v?Expires=1&Signature=" + shape_sample("{w64}"),), ("?signature=REDACTED", "&sig=v4"),
        "Google Cloud Storage, CloudFront, OSS: signed URLs"),
    phrased("oauth-code", "OAuth authorization code", "MEDIUM", "code",
        ("GET /callback?code=" + shape_sample("{a32}") + "&state=x",), ("?code=404", "&code=en-US"),
        "RFC 6749, section 4.1.2"),
    phrased("webhook-path", "Webhook URL of any host", "MEDIUM", "hook",
        ("POST https://chat.corp.lan/hooks/" + shape_sample("{l26}"),), ("/webhook/incoming", "/hooks/post-receive"),
        "developers.mattermost.com/integrate/webhooks"),
    phrased("snmp-community", "SNMP community", "MEDIUM", "community", ("snmp-server community " + "kX9vQ2mL RO",),
        ("community: public", "community edition"), "RFC 3584"),
    phrased("wallet-private-key", "Private key of a wallet", "HIGH", "key", ("Private Key: 0x" + shape_sample("{h64}"),
        ), ("Transaction: 0x" + shape_sample("{h64}"),), "ethereum.org: accounts"),
    phrased("one-time-code", "One-time code", "LOW", "code pass pin", ("Your verification code is " + "767421",
        "Debugger PIN: " + "123-456-789"), ("exit code: 137", "status code is 404"), "RFC 6238; Werkzeug"),
)  # fmt: skip


def sample_phrase() -> str:
    """A made-up recovery phrase whose checksum holds, always the same one."""
    secret = hashlib.sha256(b"made up").digest()[:16]
    number = int.from_bytes(secret, "big") << 4 | hashlib.sha256(secret).digest()[0] >> 4
    words = list(WORD_NUMBERS)
    return b" ".join(words[number >> 11 * place & 2047] for place in range(11, -1, -1)).decode()


RECOVERY_PHRASE = Rule(
    "recovery-phrase", "Recovery phrase of a wallet", "HIGH", (b"mnemonic", b"phrase", b"seed"), rb"\S+", 0,
    ("Mnemonic: " + sample_phrase(), "your seed phrase\n" + sample_phrase()), ("mnemonic of the day",
        "phrase: " + "legal " * 12), "BIP-39", find="phrase",
)  # fmt: skip
UNCHECKED_PHRASE = RECOVERY_PHRASE._replace(
    id="recovery-phrase-unchecked", name="Recovery phrase of a wallet, checksum not of BIP-39", severity="MEDIUM",
    examples=("Mnemonic: " + " ".join(reversed(sample_phrase().split())),),
)
KEYED_PASSWORD = Rule(
    "keyed-password", "Password in a key-value pair", "MEDIUM", (b"passw", b"pwd", b"passphrase"), rb"[^\s\"']{4,256}",
        0,
    ('{"password": "' + "tr0ub4dor&3" + '"}', "DB_PASSWORD=" + "kX9vQ2mL"), ('{"password": "__REDACTED__"}',
        "password_file=/run/secrets/x"),
    "assignments in logs, JSON and YAML", find="keyed",
)  # fmt: skip
KEYED_SECRET = Rule(
    "keyed-secret", "Secret in a key-value pair", "MEDIUM", (b"secret", b"token", b"key", b"auth", b"cred"),
        rb"[^\s\"']{8,512}", 0,
    ('"client_secret": "' + shape_sample("{a40}") + '"', "access_token=" + shape_sample("{a40}")),
    ("component=cache-key id=" + shape_sample(UUID), "token_type=bearer", "public_key=" + shape_sample("{a40}")),
    "assignments in logs, JSON and YAML", find="keyed",
)  # fmt: skip
WEAK_SECRET = Rule(
    "keyed-secret-weak", "Possible secret in a key-value pair", "LOW", (b"secret", b"token", b"key", b"auth", b"cred"),
        rb"[^\s\"']{8,512}", 0,
    ("api_secret: 'open-sesame-7Now'", "weatherstack_key=" + shape_sample("{l32}"),
        "todoist SECRET " + shape_sample("{h40}"), "clockify-token-" + shape_sample(UUID)),
    ("secret_name=my-database-secret", "unheard_of_key=" + shape_sample("{l32}"),
        "todoist tokens " + shape_sample("{d40}")), "assignments in logs, JSON and YAML", find="keyed",
)  # fmt: skip
PHRASE_EXAMPLE = " ".join(word.decode() for word in [*WORD_NUMBERS][7::186])
RECOVERY_PHRASE = Rule(
    "recovery-phrase", "Recovery phrase of a wallet", "HIGH", (b"mnemonic", b"phrase"), rb"(?:[a-z]{3,8}\W+){12}", 0,
    (f"Mnemonic: {PHRASE_EXAMPLE} about", f"write this mnemonic phrase:\n\n{PHRASE_EXAMPLE} about\n"),
    (f"Mnemonic: {PHRASE_EXAMPLE}", "a passphrase is needed to go on"), "BIP-39", find="phrase",
)  # fmt: skip
UNCHECKED_PHRASE = RECOVERY_PHRASE._replace(
    id="recovery-phrase-unchecked", name="Recovery phrase of a wallet, without BIP-39's checksum", severity="MEDIUM",
    examples=(f"Mnemonic: {PHRASE_EXAMPLE} able",),
)
#: The table. Where two matches overlap in their secrets, the earlier rule reports.
RULES: tuple[Rule, ...] = (
    *HOOKS, NOTIFICATION_URL, AWS_ACCESS_KEY, PEM_BASE64, JWT_BASE64, INLINE_KEY, PRIVATE_KEY, OTHER_PRIVATE_KEY,
    *PUBLISHABLE, *CLOUDS, *FORGES, *REGISTRIES, *CHAT, *PAYMENT, *MONITORING, *AI,
    MAPBOX_TOKEN, JSON_WEB_TOKEN, JSON_WEB_ENCRYPTION,
    RECOVERY_PHRASE, UNCHECKED_PHRASE, *KEYED, URL_CREDENTIALS, ENCODED_URL_CREDENTIALS, HOST_CREDENTIALS,
        URL_DEFAULT_PASSWORD,
    PASSWORD_HASH, BASIC_AUTH, CURL_USER, WHOLE_API_KEY, WHOLE_BEARER, WHOLE_PASSWORD,
    GENERIC_API_KEY, BEARER_TOKEN, PASSWORD, KEYED_PASSWORD, KEYED_SECRET, *PHRASED, WEAK_SECRET, EMAIL_ADDRESS,
    CONTAINER_ENV,
)  # fmt: skip
DEFAULT_SCANNER = Scanner(RULES)


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
        parts += [block[at : match.start].decode("utf-8", "surrogateescape"),
            f"{whole[:2]}***{whole[-2:]}" if len(whole) > 6 else "***"]
        at = match.end
    return "".join(parts) + block[at:].decode("utf-8", "surrogateescape")


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
