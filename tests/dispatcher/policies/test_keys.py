"""Keys as their providers give them out, of random characters: found whole, wherever they stand, in any split."""

import random
import re
import string
from functools import cache

import pytest

from dispatcher.policies.rules import PatternsPolicy, RuleSet

ALPHABETS = {
    "A": string.ascii_letters + string.digits,
    "L": string.ascii_lowercase + string.digits,
    "U": string.ascii_uppercase + string.digits,
    "Z": string.ascii_letters,
    "D": string.digits,
    "H": "0123456789abcdef",
    "W": string.ascii_letters + string.digits + "-_",
    "B": string.ascii_letters + string.digits + "+/",
}

# `{W36}` is 36 random characters of that alphabet. The lengths are those of the providers, not of our table.
SHAPES = """
sk-{A20}T3BlbkFJ{A20} sk-proj-{W74}T3BlbkFJ{W74} sk-svcacct-{W58}T3BlbkFJ{W58} sk-admin-{W58}T3BlbkFJ{W58}
sk-ant-api03-{W93}AA sk-ant-admin01-{W93}AA sk-or-v1-{H64} sk-{H32} sk-lf-{UUID} sk_{H48} gsk_{A52} xai-{A80} r8_{W37}
hf_{Z34} api_org_{Z34} pplx-{A48} nvapi-{W64} pcsk_{A6}_{A63} lsv2_pt_{H32}_{H10} salad_cloud_{A5}_{A40} AKIA{U16}
ASIA{U16} ABIA{U16} ACCA{U16} A3T{U17} ABSK{B109}== ABSK{B131}= bedrock-api-key-YmVkcm9jay5hbWF6b25hd3MuY29t{B60}
da2-{L26} AIza{W35} AIzaSy{W33} ya29.{W120} GOCSPX-{W28} 1//0{W98} AccountKey={B86}== SharedAccessKey={B43}=
{A3}8Q~{W34} LTAI{A20} LTAI{A12} AKID{A32} AQVN{W36} t1.{W60}.{W86} YC{W38} dop_v1_{H64} doo_v1_{H64} dor_v1_{H64}
HRKU-AA{W58} HRKU-{UUID} fo1_{W43} fm1a_{B200}= fm2_{B300}== tk-us-{W48} cfk_{A40}{H8} cfut_{A40}{H8} cfat_{A40}{H8}
v1.0-{H24}-{H146} nfp_{A36} ddp_{A36} sbp_{H40} sb_secret_{W31} pscale_tkn_{A43} pscale_oauth_{A40} pscale_pw_{A43}
4b1d{A38} dapi{H32} dapi{H32}-2 sha256~{W43} tskey-auth-{A16}-{A32} dnkey-{L26}-{L52} A3-{U6}-{U11}-{U5}-{U5}-{U5}
A3-{U6}-{U6}-{U5}-{U5}-{U5}-{U5} ops_eyJ{B300}= dp.pt.{A43} dp.st.prd.{A43} dp.sa.{A40} hvs.{W95} hvb.{W150} s.{A24}
{A14}.atlasv1.{W67} pul-{H40} ico-{A32} ghp_{A36} gho_{A36} ghu_{A36} ghs_{A36} ghr_{A76}
ghs_{D7}_eyJ{W30}.eyJ{W300}.{W86} github_pat_{A22}_{A59} glpat-{W20} glpat-{W27}.01.{L9} glrt-{W20}
glrt-t3_{W27}.01.{L9} gldt-{W20} glft-{W20} glptt-{H40} glcbt-{A5}_{W20} glsoat-{W20} glimt-{W25} glagent-{W50}
gloas-{H64} glffct-{W20} GR1348941{W20} _gitlab_session={L32} ATBB{A32} ATATT3{W182}={H8} ATCTT3xFfG{W170}={H8}
CCIPAT_{A22}_{H40} bkua_{L40} sgp_{H40} sgp_{H16}_{H40} sgp_local_{H40} slk_{H64} squ_{H40} sqp_{H40} npm_{A36}
pypi-AgEIcHlwaS5vcmc{W150} rubygems_{H48} CLOJARS_{L60} oy2{L43} dckr_pat_{W27} dckr_oat_{W32} AKCp{A69} cmVmd{A59}
API-{U26} pat.{W22}.{A24}.{A20} pnu_{A36} PMAK-{H24}-{H34} rdme_{L70} api-{H8}-{H4}-4{H3}-{H4}-{H12}
sdk-{H8}-{H4}-4{H3}-{H4}-{H12} CFPAT-{W43} apify_api_{A36} s-s4t2ud-{H64} u-s4t2af-{H64} sntrys_eyJ{B120}=_{B43}
sntryu_{H64} NRAK-{U27} NRII-{W32} NRJS-{H19} dt0c01.{U24}.{U64} dt0s16.{U24}.{U64} glc_eyJ{B100}== glsa_{A32}_{H8}
eyJrIjoi{A80}= phx_{A43} rootly_{H64} pgar_{A27} xoxb-{D12}-{D13}-{A24} xoxp-{D12}-{D12}-{D12}-{H32} xoxe.xoxp-1-{U163}
xoxe-1-{U146} xapp-1-{U11}-{D13}-{H64} xoxa-2-{A40} xoxs-{D10}-{D10}-{D10}-{H10}
hooks.slack.com/services/T{U8}/B{U10}/{A24} https://hooks.slack.com/workflows/T{U9}/A{U10}/{D18}/{A24}
https://acme.webhook.office.com/webhookb2/{UUID}@{UUID}/IncomingWebhook/{H32}/{UUID}
https://discord.com/api/webhooks/{D19}/{W68} M{A23}.{W6}.{W27} N{A25}.{W6}.{W38}
https://hooks.zapier.com/hooks/catch/{D8}/{L7}/ {D10}:AA{W33} AC{H32} SK{H32} SG.{W22}.{W43} key-{H32} pubkey-{H32}
{H32}-{H8}-{H8} {H32}-us12 xkeysib-{H64}-{A16} xsmtpsib-{H64}-{A16} secret_{A43} ntn_{D11}{A35} lin_api_{A40}
lin_oauth_{H64} pat{A14}.{H64} pk_{D8}_{U32} figd_{W40} fio-u-{W64} tfp_{W44} tfp_{A44}_{A14} pat-na1-{UUID}
00D{A12}!{A96} 5AEP861{A80} 1000.{H32}.{H32} sl.{W135} sk.{W80}.{A22} pk.{L60}.{L22} {A6}_{A29}_mmk b_{W44} aio_{A28}
VF.DM.{H24}.{A16} EAAC{A120} {D15}|{W27} {D16}%7C{W27} AAAAAAAAAAAAAAAAAAAAAA{A80} {D19}-{A40} sm_pat_{A16}
scauth_{L12}.{L4}.acc_{L20}.{B60}= sk_live_{A24} sk_live_{A99} rk_test_{A99} sk_prod_{A30} whsec_{A32} whsec_{B43}=
EAAA{W60} sq0atp-{W22} sq0csp-{W43} shpat_{H32} shpca_{H32} shppa_{H32} shpss_{H32} access-sandbox-{UUID}
FLWSECK_TEST-{L32}-X FLWSECK-{L32}-X FLWPUBK_TEST-{L32}-X rzp_live_{A14} live_{H35} test_pub_{H31} live_{W40}
live_{A30} EZAK{A54} EZTK{A54} shippo_live_{H40} duffel_test_{W43} ramp_sec_{A48} p8e-{L32}
eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJ{W60}.{W43} eyJhbGciOiJub25lIn0.eyJ{W60}
eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.ew0{W90}.{W43} eyJ{W800}.eyJ{W2000}.{W683}
eyJhbGciOiJSU0EtT0FFUCJ9.{W342}.{W16}.{W200}.{W22} eyJhbGciOiJkaXIifQ..{W16}.{W200}.{W22} tvly-{A32} tvly-dev-{A32}
csk-{L48} fw_{A24} jina_{A60} pa-{W43} fc-{H32} e2b_{H40} FwoGZXIvYXdz{B300}== IQoJb3JpZ2luX2{B400}=
aws_secret_access_key={B40} AWS_SECRET_ACCESS_KEY={B40} sig={A43}%3D napi_{L64} rnd_{A32} vercel_blob_rw_{A16}_{A30}
cio{A32} hcaik_{L58} xoxd-{A40}%2B{A40}%3D xoxc-{D12}-{D12}-{D12}-{H64} bot{D10}:AA{W33} mlsn.{H64} re_{A8}_{A24}
access_token$production${L16}${H32} APP_USR-{D16}-{D6}-{H32}-{D9} ak_live_{A30} vcp_{A24} akab-{L16}-{L16}
cloudinary://{D15}:{A27}@acme 1/{D16}:{H32} 2/{D16}/{D16}:{H32} AQE{B240}= tk-osc-fr1-{W48}
llx-{A48} sk-helicone-{L7}-{L7}-{L7}-{L7} mdb_sa_sk_{W40} mdb_sa_sk_us_{A37} CCDB1_{A22}_{A40}
snyk_uat.{H8}.eyJ{W160}.{W86} snyk_sat.{H8}.eyJ{W160}.{W86} sntryi_{H64} sntrya_{H64} polar_oat_{A43} polar_pat_{A43}
sl.u.{W150} ZXlKaGJHY2lPaU{B200}== tgp_v1_{W43} secret-token:{UUID}%20{A5} secret-token:{A16}
sess-{A40} AQ.Ab8RN6{W44} wandb_v1_{W77} rpa_{U46} ak-{A22} as-{A22} flp_{A60} m0-{A40} ck-{A44} bb_live_{W36}
key_{H64} crsr_{H64} pylf_v1_us_{A43} SCW{U17} AKLT{B44}== bce-v3/ALTAK-{A21}/{H40} {A52}JQQJ99BIAC{A22}
Id={W10};Secret={B43}= git&{D12}&{B86}== 0.A{W90}.Ag{W300} 1.A{W100}.Ag{W280} 2{A26}_{A21} xau_{A38}
signkey-prod-{H64} tr_prod_{A20} tr_dev_{A24} ptr_{B43}= AK1{A52} st.{H24}.{H32}.{H32} 00U{W39} DI{U18} unkey_{A24}
NF-{A32} spu-{L32} endr+{A16} thog-key-{H16} thog-secret-{H32} BBDC-{B44} PERCY_TOKEN={H64} sk{A79}
{H8}:{H8}@gems.contribsys.com {H8}:{H8}@enterprise.contribsys.com {H32}FFFFNRAL eu01xx{H26}FFFFNRAL AA{H40}-NRMA
xaat-{UUID} xapt-{UUID} na1.{B100} os_v2_app_{L103} sec-c-{B64} sub-c-{UUID} KEY0{A54} pk_prod_{U28} pk_live_{A99}
pk_{H34} pk_{A6}_{H34} BBFF-{A30} https://acme-1.tines.com/webhook/{L32}/{L32} key-{A64} act_{L24}
oaa{A14}.v1.{A60}.{H64} tkn.v1_{A71}= api_{A22}.{A22} cal_live_{H32} cal_{H32} bb_pr_{H30} pk.{H32} sk_pr_{A20}_{H40}
sk_{D4}_{D6}_{H32} sk_{L32} lk_{A22} pri_{H32} web_{L32} flb_live_{A20} shltm_{W40} 3MVG9{A80} v2/{A388}
pi_{A24}_secret_{A25} sk_live_{W93} pdl_live_apikey_{L26}_{A22}_{A3} rh-api-{UUID} master-{A20} account-{A20}
API_KEY{U32} ghp_{A20}_{A20} glsa_{A30}_{A10} pscale_pw_{A20}.{A20} hvb.{A20}.{A100} sqco_{A59} figor_{A43}
sandbox-sq0idb-{W22} {D5}:AA{W33} test_{A27} live_{A5}={A34} SG.{A10}={A10}.{A20}={A24} glc_eyJ{A30}={A60}
fm2_{B300},fm2_{B200}= eyJ{A60}.eyJ{A20}/{A20}+{A20}.{A20}/{A22} ewkJIm{A60}.eyJ{A40}.{W43}
pat-eu1-{A8}-{A4}-{A4}-{A4}-{A12}
""".split()  # noqa: SIM905

AROUND = ["{}", "the key {} is", "KEY={}\n", '{{"key": "{}"}}', "Use {}.", "`{}`,", "密钥{}。", "<b>{}</b>"]


def made(shape: str, chance: random.Random) -> str:
    """A random part ends in a letter or digit: what stands behind it is not then taken for one."""

    def part(match: re.Match[str]) -> str:
        characters = "".join(chance.choices(ALPHABETS[match[1]], k=int(match[2])))
        return characters[:-1] + characters[-1].replace("-", "0").replace("_", "0")

    shape = shape.replace("{UUID}", "{H8}-{H4}-{H4}-{H4}-{H12}")
    return re.sub(r"\{([A-Z])(\d+)\}", part, shape)


@cache
def rules() -> RuleSet:
    return RuleSet([PatternsPolicy("p", presets=("api_keys",), action="redact", replacement="#")])


def shown(text: str, size: int) -> str:
    gate = rules().gate(0.0)
    gate.resume(0)
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    return "".join(gate.content(piece, 1.0).text for piece in pieces) + gate.end(1.0).text


@pytest.mark.parametrize("shape", SHAPES)
def test_a_key_is_hidden_whole_wherever_it_stands_and_however_it_is_split(shape: str) -> None:
    chance = random.Random(shape)
    for around in AROUND:
        key = made(shape, chance)
        for size in (1, 10_000):
            assert shown(around.format(key), size) == around.format("#"), key


@pytest.mark.parametrize(
    "name",
    [
        "test_recursive_generator_reference_is_rematerialized",
        "sk-estimator-doc-link-wrapper",
        "live_view_of_the_whole_garden",
        "hf_hub_download_with_progress_bars",
        "s.startswith",
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9",
        "key-value-store-of-the-application-server",
        "xai-cache-client-value-secret",
        "xapp-settings-daemon-panel",
        "s.translateAttributeNameTo",
        "KEY_BINDING_OF_THE_SECOND_WINDOW_IN_THE_LEFT_PANE_OF_ALL",
        "KEY=0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnop",
        "YC=0123456789abcdefghijklmnopqrstuvwxyz0123456789",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "0010f1de55ae6ed1a9e6cbcb4d2b5e2b1b0cd7f2ab5f0a1d6f10b2b8b5c3a2d1",
        "api_client.sessions.list_all_of_the_users",
        "sk_learn_pipeline_with_standard_scaler",
        "account-settings-of-the-signed-in-user",
        "web_worker_that_reads_what_was_sent",
        "st.session_state.messages",
        "test_key_of_the_provider_is_hidden_whole",
        "ak-sdk_and_as-is",
    ],
)
def test_names_are_not_keys(name: str) -> None:
    assert shown(f"call {name}(x)", 1) == f"call {name}(x)"


@pytest.mark.parametrize("shape", SHAPES)
def test_what_goes_on_beyond_a_keys_usual_length_is_hidden_too(shape: str) -> None:
    key = made(shape, random.Random(shape))
    if not key.endswith(("=", "%3D", "/", ".com")) and not shape.startswith(("s.", "00U")):  # told by their length
        assert shown(f"the key {key}0aZ9 is", 1) == "the key # is"
