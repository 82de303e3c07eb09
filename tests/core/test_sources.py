"""Where a visit came from follows from the landing address and the referrer, by tables and one order of precedence."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goodanalytics.core.campaigns import CLICK_IDS, MEDIUMS
from goodanalytics.core.referrers import APPS, HOSTS, RETURN_HOSTS
from goodanalytics.core.sources import CHANNELS, DIRECT, Source, classify

PAGE = "https://acme.com/"

# Every row of the reference's table of referrers (original-core.md, 7.5), by platform.
REFERENCE = {
    "social": {
        "facebook": "facebook.com m.facebook.com l.facebook.com lm.facebook.com fb.com fb.me",
        "instagram": "instagram.com l.instagram.com",
        "twitter": "t.co twitter.com x.com",
        "linkedin": "linkedin.com lnkd.in",
        "youtube": "youtube.com youtu.be",
        "reddit": "reddit.com old.reddit.com out.reddit.com",
        "tiktok": "tiktok.com",
        "pinterest": "pinterest.com",
        "threads": "threads.net",
        "bluesky": "bsky.app",
    },
    "organic": {
        "google": "google.com google.co.uk",
        "bing": "bing.com",
        "duckduckgo": "duckduckgo.com",
        "yahoo": "yahoo.com",
        "baidu": "baidu.com",
    },
    "email": {
        "gmail": "mail.google.com mail.googleusercontent.com",
        "outlook": "outlook.live.com outlook.office.com outlook.office365.com outlook.com",
        "yahoo_mail": "mail.yahoo.com mail.yahoo.co.jp",
        "icloud_mail": "mail.icloud.com",
        "aol_mail": "mail.aol.com",
        "proton_mail": "mail.proton.me",
        "zoho_mail": "mail.zoho.com",
        "gmx": "mail.gmx.com mail.gmx.net mail.gmx.de",
        "web_de": "mail.web.de",
        "mailru": "e.mail.ru",
        "yandex_mail": "mail.yandex.ru mail.yandex.com",
        "naver_mail": "mail.naver.com",
        "fastmail": "app.fastmail.com",
        "tuta": "mail.tutanota.com",
        "hey": "app.hey.com",
    },
    "messaging": {
        "whatsapp": "web.whatsapp.com",
        "telegram": "web.telegram.org",
        "slack": "slack.com app.slack.com",
        "discord": "discord.com",
    },
    "ai": {
        "chatgpt": "chatgpt.com chat.openai.com chat-gpt.org openai.com",
        "claude": "claude.ai anthropic.com",
        "perplexity": "perplexity.ai",
        "copilot": "copilot.microsoft.com edgeservices.bing.com turing.microsoft.com cosmos.microsoft.com",
        "gemini": "gemini.google.com bard.google.com deepmind.com",
        "grok": "grok.com grok.x.com x.ai",
        "deepseek": "deepseek.com",
        "you": "you.com",
        "meta_ai": "meta.ai",
        "mistral": "mistral.ai chat.mistral.ai",
        "character_ai": "character.ai",
        "huggingchat": "huggingface.co huggingchat.com",
        "phind": "phind.com",
        "pi": "pi.ai",
        "zhipu": "zhipu.ai chatglm.cn",
        "qwen": "qwenlm.ai chat.qwen.ai",
        "felo": "felo.ai",
        "komo": "komo.ai",
        "iask": "iask.ai",
        "sider": "sider.ai",
        "venice": "venice.ai",
        "duckai": "duck.ai",
        "cohere": "cohere.ai",
        "jasper": "jasper.ai",
        "writesonic": "writesonic.com",
        "quillbot": "quillbot.com",
        "wordtune": "wordtune.com",
        "copyai": "copy.ai",
        "blackbox": "blackbox.ai",
        "openchat": "openchat.so",
        "open_assistant": "open-assistant.io",
        "openrouter": "openrouter.ai",
        "lmarena": "lmarena.ai",
        "coze": "coze.com",
        "exa": "exa.ai",
        "forefront": "forefront.ai",
        "reka": "reka.ai",
        "ai21": "ai21.com",
        "deepl": "deepl.com",
        "suno": "chat.suno.com",
        "neeva": "neeva.com",
        "nimble": "nimble.ai",
        "bnngpt": "bnngpt.com",
        "adobe_firefly": "firefly.adobe.com",
    },
}
REFERENCE_ROWS = [
    (host, platform, medium)
    for medium, group in REFERENCE.items()
    for platform, hosts in group.items()
    for host in hosts.split()
]


@pytest.mark.parametrize(("host", "platform", "medium"), REFERENCE_ROWS)
def test_every_referrer_of_the_reference(host, platform, medium):
    """Each host of the reference's table is told with medium confidence, with its host and address."""
    source = classify(PAGE, f"https://www.{host.upper()}/a?b=1")

    assert source == Source(
        platform,
        medium,
        "medium",
        referrer_host=host,
        referrer_url=f"https://www.{host.upper()}/a?b=1",
    )


REFERRERS = {
    "google germany": ("https://www.google.de/", "google", "organic", "organic search"),
    "google japan": ("https://www.google.co.jp/", "google", "organic", "organic search"),
    "google brazil": ("https://google.com.br/search", "google", "organic", "organic search"),
    "google in disguise": ("https://google.evil.com/", "google.evil.com", "referral", "referral"),
    "not google": ("https://notgoogle.com/", "notgoogle.com", "referral", "referral"),
    "a google document": ("https://docs.google.com/d/1", "docs.google.com", "referral", "referral"),
    "google news": ("https://news.google.com/", "google_news", "referral", "referral"),
    "yahoo search": ("https://search.yahoo.com/", "yahoo", "organic", "organic search"),
    "yahoo search germany": ("https://de.search.yahoo.com/", "yahoo", "organic", "organic search"),
    "yahoo redirects": ("https://r.search.yahoo.com/x", "yahoo", "organic", "organic search"),
    "yahoo japan": ("https://search.yahoo.co.jp/", "yahoo", "organic", "organic search"),
    "yahoo finance": ("https://finance.yahoo.com/", "finance.yahoo.com", "referral", "referral"),
    "yandex": ("https://yandex.com.tr/", "yandex", "organic", "organic search"),
    "ya": ("https://ya.ru/", "yandex", "organic", "organic search"),
    "yandex mail": ("https://mail.yandex.kz/", "yandex_mail", "email", "email"),
    "pinterest france": ("https://www.pinterest.fr/", "pinterest", "social", "social"),
    "amazon": ("https://www.amazon.co.uk/", "amazon", "referral", "referral"),
    "youtube's telephone site": ("https://m.youtube.com/", "youtube", "social", "social"),
    "threads today": ("https://l.threads.com/", "threads", "social", "social"),
    "bluesky's redirect": ("https://go.bsky.app/", "bluesky", "social", "social"),
    "mastodon": ("https://mastodon.social/@a", "mastodon", "social", "social"),
    "a mastodon of its own": ("https://mastodon.example.org/", "mastodon", "social", "social"),
    "ecosia": ("https://www.ecosia.org/", "ecosia", "organic", "organic search"),
    "kagi": ("https://kagi.com/", "kagi", "organic", "organic search"),
    "brave": ("https://search.brave.com/", "brave_search", "organic", "organic search"),
    "startpage": ("https://www.startpage.com/", "startpage", "organic", "organic search"),
    "qwant": ("https://www.qwant.com/", "qwant", "organic", "organic search"),
    "naver": ("https://search.naver.com/", "naver", "organic", "organic search"),
    "seznam": ("https://search.seznam.cz/", "seznam", "organic", "organic search"),
    "sogou": ("https://www.sogou.com/", "sogou", "organic", "organic search"),
    "so": ("https://www.so.com/", "so", "organic", "organic search"),
    "doubao": ("https://www.doubao.com/", "doubao", "ai", "ai"),
    "kimi": ("https://www.kimi.com/", "kimi", "ai", "ai"),
    "poe": ("https://poe.com/", "poe", "ai", "ai"),
    "bing in china": ("https://cn.bing.com/", "bing", "organic", "organic search"),
    "copilot in edge": ("https://edgeservices.bing.com/", "copilot", "ai", "ai"),
    "a google advertisement's frame": ("https://googleads.g.doubleclick.net/", "google_display", "display", "display"),
    "whatsapp's link shim": ("https://l.wl.co/l", "whatsapp", "messaging", "messaging"),
    "the gmail app": ("android-app://com.google.android.gm/", "gmail", "email", "email"),
    "the slack app": ("android-app://com.Slack", "slack", "messaging", "messaging"),
    "google's app": ("android-app://com.google.android.googlequicksearchbox/https/x", "google", "organic", "organic search"),
    "youtube on a telephone of apple": ("ios-app://544007664/vnd.youtube/x", "youtube", "social", "social"),
    "an app of its bundle": ("ios-app://com.burbn.instagram", "instagram", "social", "social"),
    "an app nobody knows": ("android-app://org.example.app/", "org.example.app", "referral", "referral"),
    "a host nobody knows": ("https://blog.example.org/post", "blog.example.org", "referral", "referral"),
    "a host with a port": ("https://www.google.com:8443/", "google", "organic", "organic search"),
    "an address of numbers": ("http://203.0.113.7/", "203.0.113.7", "referral", "referral"),
    "nothing": (None, "direct", "direct", "direct"),
    "empty": ("", "direct", "direct", "direct"),
    "blank": (" \x00", "direct", "direct", "direct"),
    "no address": ("(not set)", "direct", "direct", "direct"),
    "about blank": ("about:blank", "direct", "direct", "direct"),
    "an app without a name": ("android-app://", "direct", "direct", "direct"),
}  # fmt: skip


@pytest.mark.parametrize(("referrer", "platform", "medium", "channel"), REFERRERS.values(), ids=REFERRERS)
def test_referrers(referrer, platform, medium, channel):
    """The referrer's host or app says who sent the visitor."""
    source = classify(PAGE, referrer)

    assert (source.platform, source.medium, source.channel) == (platform, medium, channel)


def test_an_unknown_host_is_a_referral_of_low_confidence():
    """A referral keeps its host without www and its address without secrets."""
    source = classify(PAGE, "https://bob:pw@www.Blog.example/post?token=x#top")

    assert source == Source(
        "blog.example",
        "referral",
        "low",
        referrer_host="blog.example",
        referrer_url="https://www.Blog.example/post",
    )


OWN = {
    "the page's own host": ("https://acme.com/a", "https://acme.com/b", ()),
    "its www twin": ("https://acme.com/a", "https://www.acme.com/b", ()),
    "the twin's twin": ("https://www.acme.com/a", "https://acme.com/", ()),
    "with another port": ("http://localhost:8000/", "http://localhost:3000/", ()),
    "in capitals": ("https://acme.com/", "https://ACME.com/", ()),
    "a configured host": ("https://acme.com/", "https://shop.example/", ("shop.example",)),
    "a configured star": ("https://acme.com/", "https://a.b.acme.com/", ("*.acme.com",)),
    "our app": ("https://acme.com/", "android-app://com.acme.app/", ("com.acme.app",)),
    "a search engine that is ours": ("https://google.com/", "https://www.google.com/", ()),
    "back from stripe": ("https://acme.com/", "https://checkout.stripe.com/c/pay", ()),
    "back from paypal": ("https://acme.com/", "https://www.paypal.com/checkoutnow", ()),
    "back from klarna": ("https://acme.com/", "https://pay.klarna.com/", ()),
    "back from signing in": ("https://acme.com/", "https://accounts.google.com/", ()),
}


@pytest.mark.parametrize(("url", "referrer", "own_hosts"), OWN.values(), ids=OWN)
def test_coming_back_is_no_arrival(url, referrer, own_hosts):
    """Own pages, payment pages and sign-in pages are no source, so that a visit is not split by them."""
    assert classify(url, referrer, own_hosts) == DIRECT


def test_own_pages_do_not_hide_a_campaign():
    """A tagged link on an own page still says its campaign."""
    assert classify("https://acme.com/?utm_source=banner", "https://acme.com/").platform == "banner"


@pytest.mark.parametrize("pattern", sorted(RETURN_HOSTS))
def test_every_return_host(pattern):
    """Each row of the table of payment and sign-in hosts is no source."""
    assert classify(PAGE, f"https://{pattern.removeprefix('.')}/return") == DIRECT


UTM = {
    "source and medium": ("utm_source=news&utm_medium=email", "news", "email", "email"),
    "case is folded": ("UTM_Source=Google&utm_medium=CPC", "google", "paid", "paid search"),
    "an unknown medium stays": ("utm_source=a&utm_medium=Carrier%20Pigeon", "a", "carrier pigeon", "campaign"),
    "no medium": ("utm_source=a", "a", "unknown", "campaign"),
    "no medium but a known platform": ("utm_source=facebook", "facebook", "unknown", "social"),
    "google without medium": ("utm_source=google", "google", "unknown", "organic search"),
    "a newsletter without medium": ("utm_source=newsletter", "newsletter", "unknown", "email"),
    "fb": ("utm_source=fb&utm_medium=paid", "facebook", "paid", "paid social"),
    "ig": ("utm_source=IG&utm_medium=social", "instagram", "social", "social"),
    "adwords": ("utm_source=AdWords&utm_medium=ppc", "google_ads", "paid", "paid search"),
    "an ambiguous word stays": ("utm_source=x&utm_medium=social", "x", "social", "social"),
    "a host of the tables": ("utm_source=www.facebook.com", "facebook", "social", "social"),
    "a host of the tables with a medium": ("utm_source=facebook.com&utm_medium=cpc", "facebook", "paid", "paid social"),
    "another host": ("utm_source=blog.example&utm_medium=referral", "blog.example", "referral", "referral"),
    "chatgpt": ("utm_source=chatgpt.com", "chatgpt", "ai", "ai"),
    "chatgpt in capitals": ("utm_source=ChatGPT.com&utm_medium=referral", "chatgpt", "ai", "ai"),
    "perplexity with www": ("utm_source=www.perplexity.ai", "perplexity", "ai", "ai"),
    "chatgpt paid for": ("utm_source=chatgpt.com&utm_medium=cpc", "chatgpt", "paid", "campaign"),
    "chatgpt as a word": ("utm_source=chatgpt", "chatgpt", "unknown", "ai"),
    "direct by its name": ("utm_source=(direct)&utm_medium=(none)", "direct", "direct", "direct"),
    "a list": ("utm_source[]=a&utm_medium[0]=email", "a", "email", "email"),
    "repeated": ("utm_source=&utm_source=a&utm_source=b&utm_medium=email", "a", "email", "email"),
    "empty": ("utm_source=&utm_medium=", "direct", "direct", "direct"),
    "blank": ("utm_source=%20%00", "direct", "direct", "direct"),
    "video of youtube": ("utm_source=youtube&utm_medium=cpc", "youtube", "paid", "video"),
    "escaped ampersands": ("utm_source=a&amp;utm_medium=email", "a", "email", "email"),
    "invalid percent encoding": ("utm_source=%zz%ff&utm_medium=email", "%zz\ufffd", "email", "email"),
    "a medium alone": ("utm_medium=email", "direct", "email", "email"),
}  # fmt: skip


@pytest.mark.parametrize(("query", "platform", "medium", "channel"), UTM.values(), ids=UTM)
def test_utm(query, platform, medium, channel):
    """The UTM parameters say platform and medium as their writer meant them."""
    source = classify(f"{PAGE}?{query}", None)

    assert (source.platform, source.medium, source.channel) == (platform, medium, channel)


MEDIUM_WORDS = {
    "cpc": "paid", "ppc": "paid", "paid": "paid", "retargeting": "paid", "paidsearch": "paid_search", "paid-search": "paid_search",
    "sem": "paid_search", "paid_social": "paid_social", "Paid Social": "paid_social", "cpm": "display", "display": "display",
    "banner": "display", "email": "email", "E-Mail": "email", "newsletter": "email", "social": "social",
    "social-media": "social", "organic": "organic", "referral": "referral", "affiliate": "affiliate", "affiliates": "affiliate",
    "sms": "sms", "push": "push", "video": "video", "qr": "qr", "qr-code": "qr", "custom": "custom", "Custom": "custom",
}  # fmt: skip


@pytest.mark.parametrize(("written", "medium"), MEDIUM_WORDS.items())
def test_mediums(written, medium):
    """utm_medium is one of a table's words, or stays itself."""
    assert classify(f"{PAGE}?utm_source=a&utm_medium={written}", None).medium == medium


CHANNEL_ROWS = {
    "paid search by its medium": (Source("a", "paid_search"), "paid search"),
    "paid social by its medium": (Source("a", "paid_social"), "paid social"),
    "paid, nobody knows where": (Source("a", "paid"), "campaign"),
    "display": (Source("a", "display"), "display"),
    "affiliate": (Source("a", "affiliate"), "affiliate"),
    "video": (Source("a", "video"), "video"),
    "a text message": (Source("a", "sms"), "messaging"),
    "a push message": (Source("a", "push"), "messaging"),
    "a QR code": (Source("a", "qr"), "campaign"),
    "organic on a social network": (Source("facebook", "organic"), "social"),
    "organic elsewhere": (Source("a", "organic"), "organic search"),
    "a referral tagged for a social network": (Source("linkedin", "referral"), "social"),
    "a referral tagged for a search engine": (Source("google", "referral"), "referral"),
    "a partner": (Source("direct", "referral", partner_code="bob"), "affiliate"),
    "a partner's paid click": (Source("google_ads", "paid", partner_code="bob"), "paid search"),
    "nothing": (Source(), "direct"),
    "a campaign alone": (Source(campaign="spring"), "campaign"),
}


@pytest.mark.parametrize(("source", "channel"), CHANNEL_ROWS.values(), ids=CHANNEL_ROWS)
def test_channels(source, channel):
    """The channel follows from medium and platform."""
    assert source.channel == channel


def test_a_campaign_alone_keeps_the_referrer():
    """utm_campaign without utm_source adds to what the referrer says, and takes nothing away."""
    source = classify(f"{PAGE}?utm_campaign=Spring&utm_term=t&utm_content=c", "https://www.google.com/")

    assert (source.platform, source.medium, source.confidence) == ("google", "organic", "medium")
    assert (source.campaign, source.term, source.content) == ("Spring", "t", "c")


def test_utm_beats_the_referrer():
    """utm_source is believed before the referrer, whose host stays known."""
    source = classify(f"{PAGE}?utm_source=claude.ai", "https://www.facebook.com/")

    assert (source.platform, source.medium, source.referrer_host) == ("claude", "ai", "facebook.com")


CLICK_ID_ROWS = {
    "gclid": ("google_ads", "paid", "paid search"),
    "gbraid": ("google_ads", "paid", "paid search"),
    "wbraid": ("google_ads", "paid", "paid search"),
    "msclkid": ("microsoft_ads", "paid", "paid search"),
    "fbclid": ("meta", "social", "social"),
    "ttclid": ("tiktok", "paid", "paid social"),
    "twclid": ("twitter_ads", "paid", "paid social"),
    "li_fat_id": ("linkedin_ads", "paid", "paid social"),
    "sccid": ("snapchat_ads", "paid", "paid social"),
    "ScCid": ("snapchat_ads", "paid", "paid social"),
    "dclid": ("google_display", "paid", "display"),
    "epik": ("pinterest_ads", "paid", "paid social"),
    "irclickid": ("impact_radius", "affiliate", "affiliate"),
}


@pytest.mark.parametrize(("name", "expected"), CLICK_ID_ROWS.items(), ids=CLICK_ID_ROWS)
def test_click_ids(name, expected):
    """A click id names its platform with high confidence and is kept with its case."""
    source = classify(f"{PAGE}?{name}=AbC", None)

    assert (source.platform, source.medium, source.channel) == expected
    assert source.confidence == "high"
    assert (source.click_id_type, source.click_id) == (name.lower(), "AbC")
    assert source.click_ids == ((name.lower(), "AbC"),)


def test_a_click_id_paid_for_beats_fbclid():
    """Of several click ids the paid one names the platform; all are kept."""
    source = classify(f"{PAGE}?fbclid=F&gclid=G&dclid=D", None)

    assert (source.platform, source.click_id) == ("google_ads", "G")
    assert source.click_ids == (("dclid", "D"), ("fbclid", "F"), ("gclid", "G"))


def test_an_empty_click_id_does_not_count():
    """?gclid= is no click, and a later one of the same name may be."""
    assert classify(f"{PAGE}?gclid=&fbclid=%20", None) == DIRECT
    assert classify(f"{PAGE}?gclid=&gclid=x", None).click_id == "x"


def test_everything_at_once():
    """A click id beats a partner, UTM and referrer, and each keeps the members that only it knows."""
    url = f"{PAGE}?gclid=G&via=bob&ref=eve&utm_source=news&utm_medium=email&utm_campaign=Spring"

    assert classify(url, "https://facebook.com/x") == Source(
        "google_ads",
        "paid",
        "high",
        campaign="Spring",
        click_id_type="gclid",
        click_id="G",
        click_ids=(("gclid", "G"),),
        partner_code="bob",
        referrer_host="facebook.com",
        referrer_url="https://facebook.com/x",
    )


def test_fbclid_does_not_hide_that_a_click_was_paid_for():
    """Facebook adds fbclid to every link; only utm_medium knows that this one was an advertisement."""
    paid = classify(f"{PAGE}?fbclid=F&utm_source=facebook&utm_medium=paid_social", None)
    unpaid = classify(f"{PAGE}?fbclid=F&utm_source=facebook&utm_medium=email", None)

    assert (paid.platform, paid.medium, paid.channel) == ("meta", "paid_social", "paid social")
    assert (unpaid.platform, unpaid.medium) == ("meta", "social")


def test_a_partner():
    """via comes before ref, makes the visit a referral, and leaves the platform as it is."""
    source = classify(f"{PAGE}?ref=eve&via=Bob", "https://www.google.com/")

    assert (source.platform, source.medium, source.partner_code) == ("google", "referral", "Bob")
    assert source.channel == "affiliate"
    assert classify(f"{PAGE}?via=&ref=eve", None).partner_code == "eve"


def test_values_are_bounded():
    """A kept value has at most 255 characters and none that PostgreSQL cannot store."""
    source = classify(f"{PAGE}?utm_source={'a' * 999}&utm_campaign=a%00b%0A{'c' * 999}&via={'v' * 999}", None)

    assert source.platform == "a" * 255
    assert source.campaign == "ab" + "c" * 253
    assert source.partner_code == "v" * 255


def test_parameters_after_the_first_two_hundred_do_not_count():
    """The work for one visit is bounded."""
    noise = "&".join(f"x{n}=1" for n in range(200))

    assert classify(f"{PAGE}?{noise}&utm_source=late", None) == DIRECT


def test_a_hash_route_may_carry_the_campaign():
    """Pages routed by the fragment have their parameters there."""
    assert classify("https://acme.com/#/landing?utm_source=news", None).platform == "news"


ACQUISITIONS = {
    "direct": (Source(), (None, None, None)),
    "case is folded": (Source("Google", "CPC", campaign=" Spring "), ("google", "cpc", "spring")),
    "the word direct in any case": (Source("Direct", "DIRECT"), (None, None, None)),
    "a partner without a platform": (
        Source("direct", "referral", partner_code="b"),
        (None, "referral", None),
    ),
}


@pytest.mark.parametrize(("source", "expected"), ACQUISITIONS.values(), ids=ACQUISITIONS)
def test_acquisition(source, expected):
    """Sessions compare platform, medium and campaign without case, direct being nothing."""
    assert source.acquisition == expected


def test_json_holds_only_what_is_known():
    """A stored source has no empty members."""
    source = Source(
        "google_ads", "paid", "high", click_id_type="gclid", click_id="G", click_ids=(("gclid", "G"),)
    )

    assert source.to_json() == {
        "platform": "google_ads",
        "medium": "paid",
        "confidence": "high",
        "click_id_type": "gclid",
        "click_id": "G",
        "click_ids": {"gclid": "G"},
    }


@pytest.mark.parametrize(
    "written",
    [None, {}, {"platform": 7, "confidence": "sure", "click_ids": ["x"], "unknown": "x", "campaign": ""}],
    ids=["nothing", "empty", "odd"],
)
def test_odd_json_reads_as_direct(written):
    """What nobody of ours wrote is passed over."""
    assert Source.from_json(written) == DIRECT


addresses = st.one_of(
    st.none(),
    st.text(),
    st.builds(
        "https://{}/{}?{}#{}".format,
        st.sampled_from(["acme.com", "www.google.com", "x", "[", "t.co"]),
        st.text(max_size=10),
        st.lists(
            st.builds(
                "{}={}".format,
                st.sampled_from(["utm_source", "utm_medium", "utm_campaign", "via", "ref", "a", "gclid[]", "fbclid", "%"]),
                st.one_of(st.text(max_size=9), st.sampled_from([*MEDIUMS, "chatgpt.com", "fb"])),
            ),
            max_size=6,
        ).map("&".join),
        st.text(max_size=10),
    ),
    st.sampled_from([f"android-app://{app}" for app in APPS] + [f"https://x{host}" for host in HOSTS]),
)  # fmt: skip


@given(addresses, addresses, st.lists(st.text(), max_size=3))
def test_any_visit_has_a_source(url, referrer, own_hosts):
    """Nothing raises; the channel is one of the closed set; JSON gives the same source back."""
    source = classify(url, referrer, own_hosts)

    assert source.channel in CHANNELS
    assert Source.from_json(source.to_json()) == source
    assert (source.channel == "direct") == source.is_direct


@given(
    st.sampled_from(list(HOSTS)),
    st.text(alphabet="abcxyz_é&;=%", max_size=30).filter(lambda t: "ref" not in t),
)
def test_unrelated_parameters_change_nothing(host, noise):
    """Only the named parameters matter."""
    referrer = f"https://{host.removeprefix('.')}/"

    assert classify(f"{PAGE}?{noise}", referrer) == classify(PAGE, referrer)


@given(
    st.from_regex(r"[a-z]{1,9}(\.[a-z]{2,9}){1,3}", fullmatch=True),
    st.booleans(),
    st.sampled_from(["", ":8080"]),
)
def test_an_own_host_is_never_a_referral(host, twin, port):
    """Whatever a site is called, its own links are no source."""
    referrer = f"https://{'www.' if twin else ''}{host}{port}/other"

    assert classify(f"https://{host}/", referrer) == DIRECT


def test_the_order_of_click_ids_is_paid_first():
    """No unpaid click id stands before a paid one, and fbclid is last."""
    mediums = [medium for _, medium in CLICK_IDS.values()]

    assert mediums == sorted(mediums, key=["paid", "affiliate", "social"].index)
    assert list(CLICK_IDS)[-1] == "fbclid"
