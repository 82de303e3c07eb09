"""
The tables behind `core.sources`: which host or app is which platform and medium.

How a host is looked up: the host itself, then the host with a leading dot, then the same for each parent domain. So a key
``"yahoo.com"`` is that host alone, and a key ``".youtube.com"`` is that domain and all below it. A leading ``www.`` and the
port are removed first. Where one domain holds both a search engine and other products (google.com, yahoo.com), only its
search hosts are listed, so that a link in a Google document is not counted as a search.

Sources: the reference behaviour, original-core.md, section 7 (all of its rows are here). Rows of newer products were added from general knowledge in 2026.
"""

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from goodanalytics.core.urls import bare_host

_SOCIAL = {
    "facebook": ".facebook.com .fb.com .fb.me .fb.watch .facebook.net",
    "instagram": ".instagram.com .ig.me instagr.am",
    "twitter": ".twitter.com .x.com t.co",
    "linkedin": ".linkedin.com lnkd.in",
    "youtube": ".youtube.com youtu.be .youtube-nocookie.com",
    "reddit": ".reddit.com redd.it",
    "tiktok": ".tiktok.com",
    "pinterest": ".pinterest.com pin.it",
    "threads": ".threads.net .threads.com",
    "bluesky": ".bsky.app bsky.social .bsky.social",
    "mastodon": (
        ".mastodon.social .mastodon.online .mastodon.world .mstdn.social .mstdn.jp .mas.to .fosstodon.org .hachyderm.io "
        ".infosec.exchange .techhub.social .chaos.social .pawoo.net .social.vivaldi.net .mastodon.xyz .mastodon.cloud"
    ),
    "snapchat": ".snapchat.com",
    "tumblr": ".tumblr.com",
    "quora": ".quora.com",
    "medium": ".medium.com",
    "substack": "substack.com",
    "hacker_news": "news.ycombinator.com",
    "lobsters": "lobste.rs",
    "product_hunt": ".producthunt.com",
    "vk": ".vk.com .vk.ru",
    "ok_ru": ".ok.ru",
    "weibo": ".weibo.com .weibo.cn t.cn",
    "xiaohongshu": ".xiaohongshu.com .xhslink.com",
    "douyin": ".douyin.com",
    "zhihu": ".zhihu.com",
    "bilibili": ".bilibili.com b23.tv",
    "vimeo": ".vimeo.com",
    "twitch": ".twitch.tv",
    "dailymotion": ".dailymotion.com",
    "xing": ".xing.com",
    "nextdoor": ".nextdoor.com",
    "lemmy": ".lemmy.world .lemmy.ml",
    "truth_social": ".truthsocial.com",
    "linktree": "linktr.ee",
}

_ORGANIC = {
    "google": "google.com m.google.com encrypted.google.com syndicatedsearch.goog cse.google.com",
    "bing": ".bing.com",
    "duckduckgo": ".duckduckgo.com",
    "yahoo": "yahoo.com m.yahoo.com",
    "baidu": "baidu.com m.baidu.com wap.baidu.com",
    "ecosia": ".ecosia.org",
    "kagi": "kagi.com",
    "brave_search": "search.brave.com",
    "startpage": ".startpage.com",
    "qwant": ".qwant.com",
    "yandex": "ya.ru m.ya.ru",
    "naver": "naver.com search.naver.com m.naver.com m.search.naver.com",
    "daum": "daum.net search.daum.net m.daum.net",
    "seznam": "seznam.cz search.seznam.cz",
    "sogou": ".sogou.com",
    "so": "so.com m.so.com",
    "shenma": ".sm.cn",
    "aol": "aol.com search.aol.com",
    "ask": ".ask.com",
    "mojeek": ".mojeek.com",
    "swisscows": ".swisscows.com",
    "metager": ".metager.org .metager.de",
    "presearch": ".presearch.com",
    "coccoc": "coccoc.com",
    "petal_search": ".petalsearch.com",
    "dogpile": ".dogpile.com",
    "searxng": ".searx.be",
    "rambler": "nova.rambler.ru",
    "mailru_search": "go.mail.ru",
    "lilo": "search.lilo.org",
}

_EMAIL = {
    "gmail": "mail.google.com mail.googleusercontent.com",
    "outlook": (
        ".outlook.live.com .outlook.office.com .outlook.office365.com .outlook.com .safelinks.protection.outlook.com "
        "outlook.cloud.microsoft"
    ),
    "yahoo_mail": ".mail.yahoo.com mail.yahoo.co.jp .mail.yahoo.co.jp",
    "icloud_mail": "mail.icloud.com",
    "aol_mail": ".mail.aol.com",
    "proton_mail": "mail.proton.me mail.protonmail.com",
    "zoho_mail": ".mail.zoho.com mail.zoho.eu",
    "gmx": "mail.gmx.com mail.gmx.net mail.gmx.de deref-gmx.com deref-gmx.net navigator.gmx.net 3c.gmx.net",
    "web_de": "mail.web.de deref-web-02.de deref-web.de 3c.web.de",
    "mailru": "e.mail.ru touch.mail.ru",
    "naver_mail": "mail.naver.com",
    "qq_mail": ".mail.qq.com",
    "fastmail": "app.fastmail.com",
    "tuta": "mail.tutanota.com app.tuta.com mail.tuta.com",
    "hey": "app.hey.com",
    "mailchimp": ".list-manage.com .campaign-archive.com",
    "superhuman": "mail.superhuman.com",
}

_MESSAGING = {
    "whatsapp": ".whatsapp.com wa.me l.wl.co",
    "telegram": "web.telegram.org .telegram.org t.me telegram.me",
    "slack": ".slack.com",
    "discord": ".discord.com .discordapp.com discord.gg",
    "messenger": ".messenger.com m.me",
    "teams": "teams.microsoft.com teams.live.com statics.teams.cdn.office.net teams.cloud.microsoft",
    "google_chat": "chat.google.com",
    "wechat": "mp.weixin.qq.com .weixin.qq.com .wechat.com",
    "line": ".line.me",
    "viber": ".viber.com",
    "signal": ".signal.org signal.me",
    "skype": "web.skype.com",
    "element": "app.element.io matrix.to",
    "kakaotalk": ".kakao.com",
    "zalo": "chat.zalo.me",
}

_AI = {
    "chatgpt": ".chatgpt.com chat.openai.com chat-gpt.org .openai.com",
    "claude": ".claude.ai claude.com .anthropic.com",
    "perplexity": ".perplexity.ai perplexity.com",
    "copilot": (
        "copilot.microsoft.com copilot.cloud.microsoft m365.cloud.microsoft edgeservices.bing.com turing.microsoft.com "
        "cosmos.microsoft.com copilot.com"
    ),
    "github_copilot": "copilot.github.com",
    "gemini": "gemini.google.com bard.google.com .deepmind.com",
    "notebooklm": "notebooklm.google.com",
    "google_ai_studio": "aistudio.google.com",
    "grok": ".grok.com grok.x.com .x.ai",
    "deepseek": ".deepseek.com",
    "you": ".you.com",
    "meta_ai": ".meta.ai",
    "mistral": ".mistral.ai",
    "character_ai": ".character.ai",
    "huggingchat": ".huggingface.co .huggingchat.com",
    "phind": ".phind.com",
    "pi": ".pi.ai",
    "zhipu": ".zhipu.ai .zhipuai.cn .chatglm.cn .z.ai",
    "qwen": ".qwenlm.ai chat.qwen.ai .qwen.ai .tongyi.com .qianwen.com",
    "doubao": ".doubao.com",
    "kimi": ".kimi.com kimi.ai .kimi.moonshot.cn .moonshot.cn",
    "yuanbao": "yuanbao.tencent.com",
    "ernie": "yiyan.baidu.com chat.baidu.com",
    "minimax": ".minimax.io .minimaxi.com",
    "poe": ".poe.com",
    "manus": ".manus.im",
    "genspark": ".genspark.ai",
    "felo": ".felo.ai",
    "komo": ".komo.ai",
    "iask": ".iask.ai",
    "sider": ".sider.ai",
    "venice": ".venice.ai",
    "duckai": ".duck.ai",
    "cohere": ".cohere.ai .cohere.com",
    "jasper": ".jasper.ai",
    "writesonic": ".writesonic.com",
    "quillbot": ".quillbot.com",
    "wordtune": ".wordtune.com",
    "copyai": ".copy.ai",
    "blackbox": ".blackbox.ai",
    "openchat": ".openchat.so",
    "open_assistant": ".open-assistant.io",
    "openrouter": ".openrouter.ai",
    "lmarena": ".lmarena.ai",
    "coze": ".coze.com",
    "exa": ".exa.ai",
    "forefront": ".forefront.ai",
    "reka": ".reka.ai",
    "ai21": ".ai21.com",
    "deepl": ".deepl.com",
    "suno": "chat.suno.com .suno.com",
    "neeva": ".neeva.com",
    "nimble": ".nimble.ai",
    "bnngpt": ".bnngpt.com",
    "adobe_firefly": "firefly.adobe.com",
    "andi": ".andisearch.com",
    "consensus": ".consensus.app",
    "elicit": "elicit.com",
    "liner": ".liner.com .getliner.com",
    "lumo": "lumo.proton.me",
    "kagi_assistant": "assistant.kagi.com",
    "cursor": ".cursor.com",
    "lovable": ".lovable.dev",
    "arc_search": "search.arc.net",
}

_DISPLAY = {
    "google_display": ".doubleclick.net .googlesyndication.com .googleadservices.com",
    "taboola": ".taboola.com",
    "outbrain": ".outbrain.com",
    "criteo": ".criteo.com",
}

_REFERRAL = {
    "google_news": "news.google.com",
    "github": ".github.com",
    "stack_overflow": ".stackoverflow.com",
    "wikipedia": ".wikipedia.org",
}

_GROUPS = {
    "social": _SOCIAL,
    "organic": _ORGANIC,
    "email": _EMAIL,
    "messaging": _MESSAGING,
    "ai": _AI,
    "display": _DISPLAY,
    "referral": _REFERRAL,
}

HOSTS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        host: (platform, medium)
        for medium, group in _GROUPS.items()
        for platform, hosts in group.items()
        for host in hosts.split()
    }
)
"""Host, or dot and domain for all below it → platform and medium."""

_COUNTRY = r"(?:com|cat|[a-z]{2}|com?\.[a-z]{2})"

COUNTRY_DOMAINS: Final = tuple(
    (re.compile(pattern.replace("COUNTRY", _COUNTRY)), platform, medium)
    for pattern, platform, medium in (
        (r"(?:m\.)?google\.COUNTRY", "google", "organic"),
        (r"(?:(?:[a-z0-9-]+\.)*search\.|m\.|[a-z]{2}\.)?yahoo\.COUNTRY", "yahoo", "organic"),
        (r"(?:[a-z]{2}\.)?mail\.yahoo\.COUNTRY", "yahoo_mail", "email"),
        (r"(?:m\.|search\.)?yandex\.COUNTRY", "yandex", "organic"),
        (r"mail\.yandex\.COUNTRY", "yandex_mail", "email"),
        (r"(?:[a-z0-9-]+\.)?pinterest\.COUNTRY", "pinterest", "social"),
        (r"(?:m\.|smile\.)?amazon\.COUNTRY", "amazon", "referral"),
        (r"(?:m\.)?ebay\.COUNTRY", "ebay", "referral"),
        (r"mastodon\.[a-z0-9.-]+", "mastodon", "social"),
    )
)
"""Names that one company holds under many countries' domains; matched against the whole host."""

_APPS = {
    "email": {
        "gmail": "com.google.android.gm com.google.gmail 422689480",
        "outlook": "com.microsoft.office.outlook 951937596",
        "yahoo_mail": "com.yahoo.mobile.client.android.mail",
        "samsung_email": "com.samsung.android.email.provider",
        "apple_mail": "com.apple.mobilemail",
        "proton_mail": "ch.protonmail.android",
    },
    "messaging": {
        "slack": "com.slack com.tinyspeck.chatlyio 618783545",
        "whatsapp": "com.whatsapp com.whatsapp.w4b net.whatsapp.whatsapp 310633997",
        "telegram": "org.telegram.messenger org.telegram.messenger.web org.telegram.plus ph.telegra.telegraph 686449807",
        "signal": "org.thoughtcrime.securesms org.whispersystems.signal",
        "teams": "com.microsoft.teams",
        "discord": "com.discord com.hammerandchisel.discord 985746746",
        "messenger": "com.facebook.orca com.facebook.mlite com.facebook.messenger 454638411",
        "google_chat": "com.google.android.apps.dynamite",
        "google_messages": "com.google.android.apps.messaging",
        "apple_messages": "com.apple.mobilesms",
        "wechat": "com.tencent.mm com.tencent.xin",
        "line": "jp.naver.line.android jp.naver.line",
        "viber": "com.viber.voip",
        "kakaotalk": "com.kakao.talk",
    },
    "social": {
        "facebook": "com.facebook.katana com.facebook.lite com.facebook.facebook 284882215",
        "instagram": "com.instagram.android com.instagram.lite com.burbn.instagram 389801252",
        "threads": "com.instagram.barcelona com.burbn.barcelona",
        "twitter": "com.twitter.android com.twitter.android.lite com.atebits.tweetie2 333903271",
        "linkedin": "com.linkedin.android com.linkedin.linkedin 288429040",
        "reddit": "com.reddit.frontpage com.reddit.reddit 1064216828",
        "pinterest": "com.pinterest pinterest 429047995",
        "tiktok": "com.zhiliaoapp.musically com.ss.android.ugc.trill 835599320",
        "snapchat": "com.snapchat.android com.toyopagroup.picaboo 447188370",
        "youtube": "com.google.android.youtube com.google.ios.youtube 544007664",
        "bluesky": "xyz.blueskyweb.app",
        "mastodon": "org.joinmastodon.android",
        "vk": "com.vkontakte.android",
        "tumblr": "com.tumblr",
        "quora": "com.quora.android",
    },
    "organic": {
        "google": "com.google.android.googlequicksearchbox com.google.googlemobile 284815942",
        "duckduckgo": "com.duckduckgo.mobile.android",
        "bing": "com.microsoft.bing",
    },
    "ai": {
        "chatgpt": "com.openai.chatgpt com.openai.chat 6448311069",
        "claude": "com.anthropic.claude",
        "perplexity": "ai.perplexity.app.android",
        "gemini": "com.google.android.apps.bard com.google.gemini",
        "copilot": "com.microsoft.copilot",
        "deepseek": "com.deepseek.chat",
        "grok": "ai.x.grok",
        "poe": "com.poe.android",
    },
    "referral": {
        "google_news": "com.google.android.apps.magazines",
        "google_discover": "com.google.android.apps.searchlite",
    },
}

APPS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        app: (platform, medium)
        for medium, group in _APPS.items()
        for platform, apps in group.items()
        for app in apps.split()
    }
)
"""Android package, iOS bundle or App Store number, lower-cased → platform and medium."""

RETURN_HOSTS: Final = frozenset(
    {
        # payments: the visitor left the site to pay and comes back
        "checkout.stripe.com", "hooks.stripe.com", "pay.stripe.com", "buy.stripe.com", "billing.stripe.com",
        "invoice.stripe.com", "js.stripe.com", ".paypal.com", ".paypalobjects.com", ".klarna.com", ".adyen.com",
        ".adyenpayments.com", ".mollie.com", ".braintreegateway.com", ".paddle.com", ".lemonsqueezy.com",
        ".checkout.com", ".worldpay.com", ".sagepay.com", ".opayo.co.uk", ".authorize.net", ".2checkout.com",
        ".squareup.com", ".afterpay.com", ".clearpay.co.uk", ".affirm.com", ".razorpay.com", ".payu.com",
        ".payu.in", ".mercadopago.com", ".sofort.com", ".giropay.de", ".ideal.nl", ".przelewy24.pl", ".bancontact.com",
        ".wirecard.com", ".datatrans.com", ".saferpay.com", ".gocardless.com", ".chargebee.com", ".recurly.com",
        ".cardinalcommerce.com", ".arcot.com", ".3dsecure.io", "pay.google.com", "payments.google.com", "pay.amazon.com",
        "payments.amazon.com", "apple-pay-gateway.apple.com", ".alipay.com", "pay.weixin.qq.com",
        # sign-in: the visitor left the site to prove who they are and comes back
        "accounts.google.com", "appleid.apple.com", "login.microsoftonline.com", "login.live.com", "login.yahoo.com",
        ".auth0.com", ".okta.com", ".onelogin.com", ".clerk.accounts.dev", ".amazoncognito.com",
        "oauth.telegram.org", "oauth.vk.com",
    }
)  # fmt: skip
"""Hosts, or dot and domain, that send a visitor back who was here before; coming from them is not an arrival."""


def platform_of_host(host: str) -> tuple[str, str] | None:
    """
    Return platform and medium of a referring *host*, ``None`` when no table knows it.

    >>> platform_of_host("m.youtube.com")
    ('youtube', 'social')
    >>> platform_of_host("docs.google.com") is None
    True
    """
    name = bare_host(host)
    for key in _keys(name):
        if found := HOSTS.get(key):
            return found
    for pattern, platform, medium in COUNTRY_DOMAINS:
        if pattern.fullmatch(name):
            return platform, medium
    return None


def is_return_host(host: str) -> bool:
    """
    Tell whether *host* is a payment or sign-in page, from which visitors come back rather than arrive.

    >>> is_return_host("checkout.stripe.com")
    True
    """
    return any(key in RETURN_HOSTS for key in _keys(bare_host(host)))


def _keys(name: str) -> Iterator[str]:
    """Yield the keys under which the host *name* can stand in a table, the nearest first."""
    yield name
    while name:
        yield f".{name}"
        name = name.partition(".")[2]
