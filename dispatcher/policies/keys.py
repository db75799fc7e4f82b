"""What providers' keys look like: facts, one row for each format, with where it is written down.

`gitleaks/…` is a rule of its `config/gitleaks.toml`, `trufflehog/…` one of its `pkg/detectors`, both as of 2026.
"""

from typing import NamedTuple

# What a key's random part is made of, and how it may go on beyond its usual length. Whatever still looks like a part of
# it is taken along: a key of another length is a key, and none is shown in part.
_GOES_ON = "(?:[_-]*[A-Za-z0-9])*"
ALNUM = ("[A-Za-z0-9]", _GOES_ON)
LOWER = ("[a-z0-9]", _GOES_ON)
UPPER = ("[A-Z0-9]", _GOES_ON)
HEX = ("[0-9A-Fa-f]", _GOES_ON)
WORD = ("[A-Za-z0-9_-]", "[A-Za-z0-9_-]*")  # base64url may end with a dash
BASE64 = ("[A-Za-z0-9+/_-]", "[A-Za-z0-9+/_-]*(?:=|%3[Dd]){0,3}")
DOTTED = ("[A-Za-z0-9_-]", "[A-Za-z0-9_-]*(?:[.=]+[A-Za-z0-9_-]+)*=*")  # several such parts
_UUID = "[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}"  # up to its last twelve


class Key(NamedTuple):
    """prefix: an expression for what such keys begin with. least: random characters after it; real keys have as many
    or more, and 40 tell a key.
    """

    provider: str
    prefix: str
    alphabet: tuple[str, str]
    least: int
    source: str

    @property
    def expression(self) -> str:
        character, goes_on = self.alphabet
        return f"{self.prefix}{character}{{{self.least}}}{goes_on}"


KEYS = (
    # models
    Key("OpenAI, Anthropic, OpenRouter, Langfuse", "sk-(?:proj|svcacct|service|admin|None|ant|or|lf)-", WORD, 20,
        "gitleaks/openai-api-key, gitleaks/anthropic-api-key, trufflehog/openrouter, trufflehog/langfuse"),
    Key("OpenAI's first, DeepSeek, Moonshot, Qwen", "sk-", ALNUM, 20, "gitleaks/openai-api-key, trufflehog/deepseek"),
    Key("ElevenLabs", "sk_", HEX, 40, "trufflehog/elevenlabs"),
    Key("Groq", "gsk_", ALNUM, 20, "trufflehog/groq"),
    Key("xAI", "xai-", ("[A-Za-z0-9_]", _GOES_ON), 20, "trufflehog/xai"),
    Key("Replicate", "r8_", WORD, 30, "trufflehog/replicate"),
    Key("Hugging Face", "(?:hf|api_org)_", ALNUM, 30, "gitleaks/huggingface-access-token"),
    Key("Perplexity", "pplx-", ALNUM, 20, "gitleaks/perplexity-api-key"),
    Key("NVIDIA", "nvapi-", WORD, 40, "trufflehog/nvapi"),
    Key("Pinecone", "(?:pcsk|pckey)_", WORD, 40, "trufflehog/pinecone"),
    Key("LangSmith", "lsv2_(?:pt|sk)_", HEX, 32, "trufflehog/langsmith"),
    Key("Tavily", "tvly-(?:dev-|prod-)?", ALNUM, 28, "docs.tavily.com"),
    Key("Cerebras", "csk-", LOWER, 40, "inference-docs.cerebras.ai"),
    Key("Fireworks", "fw_", ALNUM, 22, "docs.fireworks.ai"),
    Key("Jina", "jina_", WORD, 40, "jina.ai"),
    Key("Voyage", "pa-", WORD, 40, "docs.voyageai.com"),
    Key("Firecrawl", "fc-", HEX, 32, "docs.firecrawl.dev"),
    Key("E2B", "e2b_", HEX, 40, "e2b.dev/docs"),
    Key("Together", "tgp_v1_", WORD, 40, "docs.together.ai"),
    Key("LlamaCloud", "llx-", ALNUM, 20, "developers.llamaindex.ai"),
    Key("Helicone", "sk-helicone-", WORD, 20, "docs.helicone.ai"),
    Key("Salad", "salad_cloud_[A-Za-z0-9]{1,7}_", ALNUM, 7, "trufflehog/saladcloudapikey"),
    # clouds
    Key("AWS", "A(?:KIA|SIA|BIA|CCA|3T[A-Z0-9])", UPPER, 16, "gitleaks/aws-access-token"),
    Key("AWS Bedrock", "ABSK", BASE64, 40, "gitleaks/aws-amazon-bedrock-api-key-long-lived"),
    Key("AWS Bedrock", "bedrock-api-key-", BASE64, 28, "gitleaks/aws-amazon-bedrock-api-key-short-lived"),
    Key("AWS sessions", "(?:FwoGZXIvYXdz|IQoJb3JpZ2lu)", BASE64, 40, "trufflehog/aws/session_keys"),
    Key("AWS secret keys by their name", r"(?i:(?:aws_?)?secret_?access_?key)[\"'\s]{0,3}[:=]{1,2}[\"'\s]{0,3}", BASE64,
        40, "docs.aws.amazon.com/cli: configuration files"),
    Key("AWS AppSync", "da2-", LOWER, 26, "trufflehog/appsync"),
    Key("Google", "AIza", WORD, 35, "gitleaks/gcp-api-key"),
    Key("Google OAuth", r"ya29\.", DOTTED, 20, "trufflehog/googleoauth2"),
    Key("Google OAuth", "GOCSPX-", WORD, 20, "developers.google.com/identity/protocols/oauth2"),
    Key("Google OAuth", "1//0", WORD, 40, "developers.google.com/identity/protocols/oauth2"),
    Key("Azure storage", "AccountKey=", BASE64, 40, "trufflehog/azure_storage"),
    Key("Azure messaging", "SharedAccessKey=", BASE64, 40, "learn.microsoft.com: Service Bus connection strings"),
    Key("Azure", r"[A-Za-z0-9_~.]{3}[0-9]Q~", ("[A-Za-z0-9_~.-]", r"(?:\.*[A-Za-z0-9_~-])*"), 30,
        "gitleaks/azure-ad-client-secret"),
    Key("Azure, signatures", "sig=", ("[A-Za-z0-9%+/_-]", "[A-Za-z0-9%+/_-]*={0,2}"), 40, "trufflehog/azure_sas_token"),
    Key("Alibaba Cloud", "LTAI", ALNUM, 12, "gitleaks/alibaba-access-key-id"),
    Key("Tencent Cloud", "AKID", ALNUM, 32, "cloud.tencent.com/document/product/598/40488"),
    Key("Yandex", "AQVN", WORD, 35, "gitleaks/yandex-api-key"),
    Key("Yandex", r"t1\.[A-Za-z0-9_-]{1,80}={0,2}\.", BASE64, 40, "gitleaks/yandex-access-token"),
    Key("Yandex", "YC", WORD, 38, "gitleaks/yandex-aws-access-token"),
    Key("DigitalOcean", "do[opr]_v1_", HEX, 40, "gitleaks/digitalocean-pat"),
    Key("Heroku", "HRKU-", WORD, 36, "gitleaks/heroku-api-key-v2"),
    Key("Fly.io", "(?:fo1|fm1[ar]|fm2)_", BASE64, 40, "gitleaks/flyio-access-token"),
    Key("Scalingo", "tk-(?:us|eu|osc(?:-[a-z0-9]{1,8}){1,2})-", WORD, 40, "gitleaks/scalingo-api-token"),
    Key("Cloudflare", "cf(?:k|ut|at)_", ALNUM, 40, "trufflehog/cloudflareapitoken"),
    Key("Cloudflare", r"v1\.0-(?:[0-9a-f]{24}|[0-9a-f]{32})-", HEX, 40, "gitleaks/cloudflare-origin-ca-key"),
    Key("Netlify", "nf[pcuo]_", ALNUM, 36, "trufflehog/netlify"),
    Key("Deno", "dd[pw]_", ALNUM, 36, "trufflehog/denodeploy"),
    Key("Supabase", "sbp_", ALNUM, 40, "trufflehog/supabasetoken"),
    Key("Supabase", "sb_secret_", WORD, 20, "supabase.com/docs/guides/api/api-keys"),
    Key("PlanetScale", r"pscale_(?:tkn|oauth|pw)_", DOTTED, 32, "gitleaks/planetscale-api-token"),
    Key("MongoDB Atlas", "mdb_sa_sk_", WORD, 20, "mongodb.com/docs/atlas: service accounts"),
    Key("CockroachDB", "CCDB1_", WORD, 20, "cockroachlabs.com/docs/cockroachcloud"),
    Key("Neon", "napi_", ALNUM, 40, "neon.com/docs/manage/api-keys"),
    Key("Render", "rnd_", ALNUM, 28, "render.com/docs/api"),
    Key("Vercel", "vc[pkiar]_", ALNUM, 24, "vercel.com/docs/rest-api"),
    Key("Vercel", "vercel_blob_rw_", WORD, 40, "vercel.com/docs/vercel-blob"),
    Key("Akamai", "akab-[a-z0-9]{16}-", LOWER, 16, "techdocs.akamai.com/developer/docs/edgegrid"),
    Key("Cloudinary", "cloudinary://[0-9]{1,20}:", ("[A-Za-z0-9_-]", "[A-Za-z0-9_-]*(?:@[A-Za-z0-9_-]+)?"), 20,
        "cloudinary.com/documentation"),
    Key("ClickHouse", "4b1d", ALNUM, 38, "gitleaks/clickhouse-cloud-api-secret-key"),
    Key("Databricks", "dapi", HEX, 32, "gitleaks/databricks-api-token"),
    Key("OpenShift", "sha256~", WORD, 40, "gitleaks/openshift-user-token"),
    Key("Tailscale", "tskey-[a-z]{1,12}-", WORD, 15, "trufflehog/tailscale"),
    Key("Defined Networking", "dnkey-", WORD, 40, "gitleaks/defined-networking-api-token"),
    # secrets' keepers
    Key("1Password", "A3-[A-Z0-9]{6}-[A-Z0-9]{6}(?:-[A-Z0-9]{5}|[A-Z0-9]{5})-", WORD, 11,
        "gitleaks/1password-secret-key"),
    Key("1Password", "ops_eyJ", BASE64, 40, "gitleaks/1password-service-account-token"),
    Key("Doppler", r"dp\.(?:ct|pt|st|sa|scim|audit)\.(?:[a-z0-9_-]{2,35}\.)?", ALNUM, 40, "trufflehog/doppler"),
    Key("Vault", r"hv[sbr]\.", DOTTED, 24, "gitleaks/vault-service-token"),
    Key("Vault's first", r"s\.", ("[A-Za-z0-9]", r"(?![\w(])"), 24, "gitleaks/vault-service-token"),
    Key("Terraform", r"[A-Za-z0-9]{14}\.atlasv1\.", WORD, 40, "gitleaks/hashicorp-tf-api-token"),
    Key("Pulumi", "pul-", HEX, 40, "gitleaks/pulumi-api-token"),
    Key("Infracost", "ico-", ALNUM, 32, "gitleaks/infracost-api-token"),
    # code
    Key("GitHub", "gh[pours]_", ALNUM, 36, "gitleaks/github-pat"),
    Key("GitHub App", "ghs_[0-9]{1,12}_eyJ", DOTTED, 16, "docs.github.com: installation tokens, ghs_APPID_JWT"),
    Key("GitHub", "github_pat_", WORD, 22, "gitleaks/github-fine-grained-pat"),
    Key("GitLab", "gl(?:pat|dt|ft|rt|rtr|oas|soat|imt|ptt|agent|cbt|ffct|ffct|wt)-", DOTTED, 20,
        "gitleaks/gitlab-pat-routable, docs.gitlab.com/security/tokens"),
    Key("GitLab", "GR1348941", WORD, 20, "gitleaks/gitlab-rrt"),
    Key("GitLab", "_gitlab_session=", ALNUM, 32, "gitleaks/gitlab-session-cookie"),
    Key("Bitbucket", "ATBB", DOTTED, 28, "trufflehog/bitbucketapppassword"),
    Key("Atlassian", "AT(?:ATT|CTT)3", DOTTED, 40, "gitleaks/atlassian-api-token"),
    Key("CircleCI", "CCI(?:PAT|PRJ)_[A-Za-z0-9]{22}_", HEX, 40, "trufflehog/circleci"),
    Key("Buildkite", "bkua_", LOWER, 40, "trufflehog/buildkite"),
    Key("Sourcegraph", "sgp_(?:local_)?", ALNUM, 16, "gitleaks/sourcegraph-access-token"),
    Key("Sourcegraph Cody", "slk_", HEX, 40, "trufflehog/sourcegraphcody"),
    Key("SonarQube", "sq[upa]_", HEX, 40, "gitleaks/sonar-api-token"),
    Key("Snyk", r"snyk_[us]at\.[0-9a-f]{8}\.", DOTTED, 20, "docs.snyk.io, snyk/go-application-framework"),
    Key("npm", "npm_", ALNUM, 36, "gitleaks/npm-access-token"),
    Key("PyPI", "pypi-", WORD, 40, "gitleaks/pypi-upload-token"),
    Key("RubyGems", "rubygems_", HEX, 40, "gitleaks/rubygems-api-token"),
    Key("Clojars", "CLOJARS_", ALNUM, 40, "gitleaks/clojars-api-token"),
    Key("NuGet", "oy2", LOWER, 40, "trufflehog/nugetapikey"),
    Key("Cargo", "cio", ALNUM, 32, "rust-lang: src/util/token.rs of its registry"),
    Key("Docker", "dckr_[po]at_", WORD, 20, "trufflehog/dockerhub"),
    Key("Artifactory", "AKCp", ALNUM, 40, "gitleaks/artifactory-api-key"),
    Key("Artifactory", "cmVm[dt]", ALNUM, 40, "gitleaks/artifactory-reference-token"),
    Key("Octopus Deploy", "API-", UPPER, 26, "gitleaks/octopus-deploy-api-key"),
    Key("Harness", r"(?:pat|sat)\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9]{24}\.", ALNUM, 20, "gitleaks/harness-api-key"),
    Key("Prefect", "pn[ub]_", ALNUM, 36, "gitleaks/prefect-api-token"),
    Key("Postman", "PMAK-", WORD, 40, "gitleaks/postman-api-token"),
    Key("ReadMe", "rdme_", LOWER, 40, "gitleaks/readme-api-token"),
    Key("LaunchDarkly", f"(?:api|sdk)-{_UUID}", HEX, 12, "trufflehog/launchdarkly"),
    Key("Contentful", "CFPAT-", WORD, 40, "trufflehog/contentfulpersonalacces"),
    Key("Apify", "apify_api_", ALNUM, 36, "trufflehog/apify"),
    Key("Intra 42", "[su]-s4t2(?:ud|af)-", HEX, 40, "gitleaks/intra42-client-secret"),
    # watching
    Key("Sentry", "sntrys_eyJ", ("[A-Za-z0-9+/]", "[A-Za-z0-9+/=_-]*"), 40, "gitleaks/sentry-org-token"),
    Key("Sentry", "sntry[aiu]_", HEX, 40, "gitleaks/sentry-user-token, getsentry/sentry: types/token.py"),
    Key("New Relic", "NR(?:AK|II|IQ|JS|BR)-", WORD, 19, "gitleaks/new-relic-user-api-key"),
    Key("Dynatrace", r"dt0[a-z][0-9]{2}\.[A-Za-z0-9]{24}\.", ALNUM, 40, "gitleaks/dynatrace-api-token"),
    Key("Grafana", "glc_", BASE64, 32, "gitleaks/grafana-cloud-api-token"),
    Key("Grafana", "glsa_[A-Za-z0-9]{32}_", HEX, 8, "gitleaks/grafana-service-account-token"),
    Key("Grafana's first", "eyJrIjoi", BASE64, 40, "gitleaks/grafana-api-key"),
    Key("Honeycomb", "hc[a-z]{2}k_", ALNUM, 40, "docs.honeycomb.io: API keys"),
    Key("PostHog", "phx_", WORD, 40, "trufflehog/posthog"),
    Key("Rootly", "rootly_", HEX, 40, "trufflehog/rootly"),
    Key("pganalyze", "pgar_", ALNUM, 27, "trufflehog/pganalyze"),
    # messages
    Key("Slack", r"xoxe\.xox[bp]-", WORD, 20, "gitleaks/slack-config-access-token"),
    Key("Slack", "xox[abcdeoprs]-", ("[A-Za-z0-9%-]", "[A-Za-z0-9%+/_-]*={0,3}"), 10, "gitleaks/slack-bot-token"),
    Key("Slack", "xapp-[0-9]-", WORD, 10, "gitleaks/slack-app-token"),
    Key("Slack", r"(?:https?://)?hooks\.slack(?:-gov)?\.com/(?:services|workflows|triggers)/", BASE64, 20,
        "gitleaks/slack-webhook-url"),
    Key("Microsoft Teams", rf"https://[a-z0-9-]+\.webhook\.office\.com/webhookb2/{_UUID}[0-9a-f]{{12}}@",
        ("[A-Za-z0-9-]", "[A-Za-z0-9/-]*"), 36, "gitleaks/microsoft-teams-webhook"),
    Key("Discord", r"(?:https://)?(?:[a-z]+\.)?discord(?:app)?\.com/api/webhooks/[0-9]{17,20}/", WORD, 40,
        "trufflehog/discordwebhook"),
    Key("Discord", r"[MNO][A-Za-z0-9_-]{23,27}\.[A-Za-z0-9_-]{6}\.", WORD, 27, "trufflehog/discordbottoken"),
    Key("Zapier", r"https://hooks\.zapier\.com/hooks/catch/", BASE64, 12, "trufflehog/zapierwebhook"),
    Key("Telegram", "(?:bot)?[0-9]{8,16}:A[A-Za-z0-9_-]", WORD, 33, "gitleaks/telegram-bot-api-token"),
    Key("Twilio", "(?:AC|SK)", HEX, 32, "gitleaks/twilio-api-key"),
    Key("SendGrid", r"SG\.[A-Za-z0-9_-]{16,32}\.", WORD, 16, "gitleaks/sendgrid-api-token"),
    Key("Mailgun", "(?:pub)?key-", LOWER, 32, "gitleaks/mailgun-private-api-token"),
    Key("Mailgun", "[0-9a-h]{32}-[0-9a-h]{8}-", HEX, 8, "gitleaks/mailgun-signing-key"),
    Key("MailerSend", r"mlsn\.", HEX, 40, "developers.mailersend.com"),
    Key("Resend", "re_[A-Za-z0-9]{8}_", ALNUM, 20, "resend.com/docs"),
    Key("Mailchimp", "[0-9a-f]{32}-us", ("[0-9]", _GOES_ON), 1, "gitleaks/mailchimp-api-key"),
    Key("Brevo", "x(?:key|smtp)sib-", WORD, 40, "gitleaks/sendinblue-api-token"),
    # work
    Key("Notion", "secret_", ALNUM, 40, "trufflehog/notion"),
    Key("Notion", "ntn_", ALNUM, 40, "gitleaks/notion-api-token"),
    Key("Linear", "lin_(?:api|oauth)_", ALNUM, 32, "gitleaks/linear-api-key"),
    Key("Asana", "[0-2]/[0-9]{14,17}(?:/[0-9]{14,17})?:", HEX, 32, "developers.asana.com/docs/personal-access-token"),
    Key("Airtable", r"pat[A-Za-z0-9]{14}\.", HEX, 40, "gitleaks/airtable-personnal-access-token"),
    Key("ClickUp", "pk_[0-9]{7,9}_", UPPER, 32, "trufflehog/clickuppersonaltoken"),
    Key("Figma", "fig[dpuo]_", WORD, 22, "trufflehog/figmapersonalaccesstoken"),
    Key("Frame.io", "fio-u-", WORD, 40, "gitleaks/frameio-api-token"),
    Key("Typeform", "tfp_", DOTTED, 40, "gitleaks/typeform-api-token"),
    Key("HubSpot", f"pat-(?:na|eu|ap)[0-9]-{_UUID}", HEX, 12, "trufflehog/hubspotapikey"),
    Key("Salesforce", "00[A-Za-z0-9]{13}!", ("[A-Za-z0-9_.]", r"(?:\.*[A-Za-z0-9_])*"), 40, "trufflehog/salesforce"),
    Key("Salesforce", "5AEP861", DOTTED, 40, "trufflehog/salesforcerefreshtoken"),
    Key("Zoho", r"1000\.[0-9a-f]{32}\.", HEX, 32, "trufflehog/zohocrm"),
    Key("Dropbox", r"sl\.(?:u\.)?", DOTTED, 40, "gitleaks/dropbox-short-lived-api-token"),
    Key("Mapbox", r"[ps]k\.[A-Za-z0-9_-]{60,}\.", WORD, 22, "gitleaks/mapbox-api-token"),
    Key("MaxMind", "[A-Za-z0-9]{6}_[A-Za-z0-9]{29}_mm", ("k", _GOES_ON), 1, "gitleaks/maxmind-license-key"),
    Key("Beamer", "b_", WORD, 44, "gitleaks/beamer-api-token"),
    Key("Adafruit", "aio_", ALNUM, 28, "trufflehog/adafruitio"),
    Key("Voiceflow", r"VF\.(?:(?:DM|WS)\.)?[0-9A-Fa-f]{24}\.", ALNUM, 16, "trufflehog/voiceflow"),
    Key("Facebook", "EAA[A-Za-z0-9]", ALNUM, 80, "gitleaks/facebook-page-access-token"),
    Key("Facebook", r"[0-9]{15,16}(?:\||%7C|%)", WORD, 27, "gitleaks/facebook-access-token"),
    Key("Twitter", "A{22}", ("[A-Za-z0-9%]", "[A-Za-z0-9%]*"), 60, "gitleaks/twitter-bearer-token"),
    Key("Twitter", "[0-9]{15,25}-", ALNUM, 40, "gitleaks/twitter-access-token"),
    Key("Settlemint", "sm_[aps]at_", ALNUM, 16, "gitleaks/settlemint-application-access-token"),
    Key("Authress", r"(?:sc|ext|scauth|authress)_[A-Za-z0-9]{5,30}\.[A-Za-z0-9]{4,6}\.acc[_-][A-Za-z0-9-]{10,32}\.",
        BASE64, 30, "gitleaks/authress-service-client-access-key"),
    # money
    Key("Stripe", "[rs]k_(?:live|test|prod)_", ALNUM, 10, "gitleaks/stripe-access-token"),
    Key("Stripe", "whsec_", BASE64, 24, "docs.stripe.com/webhooks"),
    Key("PayPal, Braintree", r"access_token\$(?:production|sandbox)\$[0-9a-z]{16}\$", HEX, 32,
        "trufflehog/braintreepayments"),
    Key("Mercado Pago", "APP_USR-[0-9]{6,20}-[0-9]{6}-", HEX, 32, "mercadopago.com/developers"),
    Key("Pagar.me", "ak_(?:live|test)_", ALNUM, 30, "trufflehog/pagarme"),
    Key("Adyen", "AQE", BASE64, 90, "docs.adyen.com/development-resources/api-credentials"),
    Key("Square", "EAAA", WORD, 56, "gitleaks/square-access-token"),
    Key("Square", "sq0[a-z]{3}-", WORD, 22, "gitleaks/square-access-token"),
    Key("Shopify", "shp(?:at|ca|pa|ss)_", HEX, 32, "gitleaks/shopify-access-token"),
    Key("Plaid", f"access-(?:sandbox|development|production)-{_UUID}", HEX, 12, "gitleaks/plaid-api-token"),
    Key("Flutterwave", "FLW(?:SEC|PUB)K(?:_TEST)?-", LOWER, 12, "gitleaks/flutterwave-secret-key"),
    Key("Polar", "polar_[a-z]{2,4}_", ALNUM, 20, "polar.sh/docs"),
    Key("Razorpay", "rzp_(?:live|test)_", ALNUM, 14, "trufflehog/razorpay"),
    Key("Lob, Mollie", "(?:live|test)_(?:pub_)?", ALNUM, 30, "gitleaks/lob-api-key"),
    Key("GoCardless", "live_", WORD, 40, "gitleaks/gocardless-api-token"),
    Key("EasyPost", "EZ[AT]K", ALNUM, 40, "gitleaks/easypost-api-token"),
    Key("Shippo", "shippo_(?:live|test)_", HEX, 40, "gitleaks/shippo-api-token"),
    Key("Duffel", "duffel_(?:live|test)_", WORD, 40, "gitleaks/duffel-api-token"),
    Key("Ramp", "ramp_(?:id|sec)_", ALNUM, 40, "trufflehog/ramp"),
    # of several
    Key("what says that it is a secret", "secret-token:",
        ("[A-Za-z0-9%_-]", "[A-Za-z0-9%_-]*(?:[.~:@=+]+[A-Za-z0-9%_-]+)*"), 12, "RFC 8959"),
    Key("JSON Web Tokens in base64", "ZXlK", BASE64, 40, "gitleaks/jwt-base64"),
    Key("Adobe", "p8e-", ALNUM, 32, "gitleaks/adobe-client-secret"),
)  # fmt: skip
