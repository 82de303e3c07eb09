"""Machines are told from people by what they call themselves, and no ordinary browser is called a machine."""

import crawleruseragents
import pytest
from hypothesis import given
from hypothesis import strategies as st

from goodanalytics.core import bots
from goodanalytics.core.bots import judge

WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"
WIN = f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {WEBKIT}"
MAC = f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {WEBKIT}"
DROID = f"Mozilla/5.0 (Linux; Android 10; K) {WEBKIT}"
IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)"

PEOPLE = {
    "Chrome on Windows": f"{WIN} Chrome/120.0.0.0 Safari/537.36",
    "Chrome on Mac": f"{MAC} Chrome/120.0.0.0 Safari/537.36",
    "Chrome on Linux": f"Mozilla/5.0 (X11; Linux x86_64) {WEBKIT} Chrome/119.0.0.0 Safari/537.36",
    "Chrome OS": f"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) {WEBKIT} Chrome/120.0.0.0 Safari/537.36",
    "Chrome on Android": f"{DROID} Chrome/120.0.0.0 Mobile Safari/537.36",
    "Chrome on an Android tablet": f"{DROID} Chrome/120.0.0.0 Safari/537.36",
    "Chrome on a Galaxy": f"Mozilla/5.0 (Linux; Android 13; SM-S911B) {WEBKIT} Chrome/112.0.0.0 Mobile Safari/537.36",
    "Chrome on a Pixel": f"Mozilla/5.0 (Linux; Android 14; Pixel 7) {WEBKIT} Chrome/119.0.6045.66 Mobile Safari/537.36",
    "Chrome on a Cubot": f"Mozilla/5.0 (Linux; Android 9; CUBOT X19) {WEBKIT} Chrome/90.0.4430.91 Mobile Safari/537.36",
    "Chrome on a Cubot in small letters": f"Mozilla/5.0 (Linux; Android 8.1.0; Cubot_P20) {WEBKIT} Chrome/90.0 Mobile Safari/537.36",
    "Chrome on iPhone": f"{IPHONE} CriOS/120.0.6099.50 Mobile/15E148 Safari/604.1",
    "Safari on Mac": "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.1 Safari/605.1.15",
    "Safari on iPhone": f"{IPHONE} Version/17.1 Mobile/15E148 Safari/604.1",
    "Safari on iPad": "Mozilla/5.0 (iPad; CPU OS 16_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/16.5 Mobile/15E148 Safari/604.1",
    "Safari 9": "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_11_6) AppleWebKit/601.7.7 (KHTML, like Gecko) Version/9.1.2 Safari/601.7.7",
    "Firefox on Windows": "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:120.0) Gecko/20100101 Firefox/120.0",
    "Firefox on Ubuntu": "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:120.0) Gecko/20100101 Firefox/120.0",
    "Firefox on Android": "Mozilla/5.0 (Android 13; Mobile; rv:120.0) Gecko/120.0 Firefox/120.0",
    "Firefox on iPhone": f"{IPHONE} FxiOS/120.0 Mobile/15E148 Safari/605.1.15",
    "Edge": f"{WIN} Chrome/120.0.0.0 Safari/537.36 Edg/120.0.0.0",
    "Edge on Android": f"{DROID} Chrome/120.0.0.0 Mobile Safari/537.36 EdgA/120.0.0.0",
    "the old Edge": f"{WIN} Chrome/70.0.3538.102 Safari/537.36 Edge/18.19582",
    "Internet Explorer": "Mozilla/5.0 (Windows NT 6.1; WOW64; Trident/7.0; rv:11.0) like Gecko",
    "Opera": f"{WIN} Chrome/119.0.0.0 Safari/537.36 OPR/105.0.0.0",
    "Opera Mini": "Opera/9.80 (Android; Opera Mini/36.2.2254/119.132; U; id) Presto/2.12.423 Version/12.16",
    "Samsung Internet": f"Mozilla/5.0 (Linux; Android 13; SAMSUNG SM-A546B) {WEBKIT} SamsungBrowser/23.0 Chrome/115.0.0.0 Mobile Safari/537.36",
    "Yandex Browser": f"{WIN} Chrome/118.0.0.0 YaBrowser/23.11.0 Yowser/2.5 Safari/537.36",
    "Vivaldi": f"{WIN} Chrome/118.0.0.0 Safari/537.36 Vivaldi/6.4.3160.42",
    "DuckDuckGo on Mac": "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.1 Safari/605.1.15 Ddg/17.1",
    "UC Browser": f"Mozilla/5.0 (Linux; U; Android 11; en-US; RMX2185) {WEBKIT} Version/4.0 Chrome/100.0.4896.58 UCBrowser/13.4.0.1306 Mobile Safari/537.36",
    "MIUI": f"Mozilla/5.0 (Linux; U; Android 12; de-de; Redmi Note 9) {WEBKIT} Version/4.0 Chrome/100.0.4896.127 Mobile Safari/537.36 XiaoMi/MiuiBrowser/14.4.0",
    "Silk": f"Mozilla/5.0 (Linux; Android 9; KFMAWI) {WEBKIT} Silk/112.5.1 like Chrome/112.0.5615.213 Safari/537.36",
    "a WebView": f"Mozilla/5.0 (Linux; Android 13; SM-A536B Build/TP1A; wv) {WEBKIT} Version/4.0 Chrome/119.0.6045.163 Mobile Safari/537.36",
    "Instagram": "Mozilla/5.0 (iPhone; CPU iPhone OS 16_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 Instagram 302.0.0.23.110 (iPhone12,1; iOS 16_6; en_US; en; scale=2.00; 828x1792; 514771569)",
    "Facebook on iPhone": f"{IPHONE} Mobile/15E148 [FBAN/FBIOS;FBDV/iPhone12,1;FBMD/iPhone;FBSN/iOS;FBSV/17.1;FBSS/2;FBID/phone;FBLC/en_US;FBOP/5]",
    "Facebook on Android": f"Mozilla/5.0 (Linux; Android 13; SM-A536B; wv) {WEBKIT} Version/4.0 Chrome/119.0.6045.163 Mobile Safari/537.36 [FB_IAB/FB4A;FBAV/441.0.0.31.112;]",
    "Facebook's newer mark": f"Mozilla/5.0 (Linux; Android 16; Pixel 10; wv) {WEBKIT} Version/4.0 Chrome/146.0.7680.174 Mobile Safari/537.36 MetaIAB Facebook",
    "TikTok": "Mozilla/5.0 (iPhone; CPU iPhone OS 16_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 musical_ly_32.5.0 JsSdk/2.0 NetType/WIFI Channel/App Store ByteLocale/en BytedanceWebview/d8a21c6",
    "LinkedIn": f"{IPHONE} Mobile/15E148 [LinkedInApp]/9.29.8962",
    "Snapchat": f"{IPHONE} Version/17.1 Mobile/15E148 Safari/604.1 Snapchat/12.60.0.35 (like Safari/8615.3.12.11.2, panda)",
    "Pinterest": f"{IPHONE} Mobile/15E148 [Pinterest/iOS]",
    "Google's app": f"{IPHONE} GSA/290.0.580 Mobile/15E148 Safari/604.1",
    "Twitter": f"{IPHONE} Mobile/15E148 Twitter for iPhone/10.17",
    "WeChat": f"{IPHONE} Mobile/15E148 MicroMessenger/8.0.43(0x18002b2d) NetType/WIFI Language/zh_CN",
    "Line": f"{IPHONE} Safari Line/13.19.0",
    "a Tizen television": f"Mozilla/5.0 (SMART-TV; Linux; Tizen 6.0) {WEBKIT} 76.0.3809.146/6.0 TV Safari/537.36",
    "a webOS television": f"Mozilla/5.0 (Web0S; Linux/SmartTV) {WEBKIT} Chrome/79.0.3945.79 Safari/537.36 WebAppManager",
    "PlayStation": "Mozilla/5.0 (PlayStation; PlayStation 5/6.50) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/16.0 Safari/605.1.15",
    "Xbox": "Mozilla/5.0 (Windows NT 10.0; Win64; x64; Xbox; Xbox One) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/109.0.0.0 Safari/537.36 Edg/109.0.1518.78",
    "Quest": f"Mozilla/5.0 (X11; Linux x86_64; Quest 3) {WEBKIT} OculusBrowser/30.1 Chrome/118.0.0.0 VR Safari/537.36",
    "Brave on Mac": f"{MAC} Chrome/121.0.0.0 Safari/537.36",
    "a site as a Mac app": "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Fluid/2.1.2 Safari/605.1.15",
    "inside WhatsApp": f"{IPHONE} Mobile/15E148 WhatsApp/23.24.78",
    "inside Viber": f"Mozilla/5.0 (Linux; Android 13; SM-A536B; wv) {WEBKIT} Version/4.0 Chrome/119.0.0.0 Mobile Safari/537.36 Viber/21.5.0",
    "an editor's preview": f"{WIN} Code/1.115.0 Chrome/142.0.7444.265 Electron/39.8.5 Safari/537.36",
}  # fmt: skip


@pytest.mark.parametrize("user_agent", PEOPLE.values(), ids=PEOPLE)
def test_people(user_agent):
    """An ordinary browser is a person's."""
    assert judge(user_agent) == bots.PERSON


MACHINES = {
    "Googlebot": ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "crawler: Googlebot", "search-engine"),
    "Googlebot as Chrome": (f"Mozilla/5.0 (Linux; Android 6.0.1; Nexus 5X Build/MMB29P) {WEBKIT} Chrome/120.0.0.0 Mobile Safari/537.36 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "crawler: Googlebot", "search-engine"),
    "bingbot": ("Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)", "crawler: bingbot", "search-engine"),
    "DuckDuckBot": ("DuckDuckBot/1.1; (+http://duckduckgo.com/duckduckbot.html)", "crawler: DuckDuckBot", "search-engine"),
    "Applebot": ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_5) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/13.1.1 Safari/605.1.15 (Applebot/0.1; +http://www.apple.com/go/applebot)", "crawler: Applebot", "search-engine"),
    "Slackbot": ("Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)", "preview: Slackbot", "social-preview"),
    "Twitterbot": ("Twitterbot/1.0", "preview: Twitterbot", "social-preview"),
    "Facebook's preview": ("facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)", "preview: facebookexternalhit", "social-preview"),
    "Discord's preview": ("Mozilla/5.0 (compatible; Discordbot/2.0; +https://discordapp.com)", "preview: Discordbot", "social-preview"),
    "Telegram's preview": ("TelegramBot (like TwitterBot)", "preview: TelegramBot", "social-preview"),
    "WhatsApp's preview": ("WhatsApp/2.23.20.0 A", "preview: WhatsApp", "social-preview"),
    "LinkedIn's preview": ("LinkedInBot/1.0 (compatible; Mozilla/5.0; Apache-HttpClient +http://www.linkedin.com)", "preview: LinkedInBot", "social-preview"),
    "GPTBot": (f"Mozilla/5.0 {WEBKIT}; compatible; GPTBot/1.2; +https://openai.com/gptbot", "crawler: GPTBot", "ai-crawler"),
    "ChatGPT-User": (f"Mozilla/5.0 {WEBKIT}; compatible; ChatGPT-User/1.0; +https://openai.com/bot", "crawler: ChatGPT-User", "ai-crawler"),
    "ClaudeBot": (f"Mozilla/5.0 {WEBKIT}; compatible; ClaudeBot/1.0; +claudebot@anthropic.com)", "crawler: ClaudeBot", "ai-crawler"),
    "PerplexityBot": (f"Mozilla/5.0 {WEBKIT}; compatible; PerplexityBot/1.0; +https://perplexity.ai/perplexitybot)", "crawler: PerplexityBot", "ai-crawler"),
    "Bytespider": (f"Mozilla/5.0 (Linux; Android 5.0) {WEBKIT} Mobile Safari/537.36 (compatible; Bytespider; spider-feedback@bytedance.com)", "crawler: Bytespider", "ai-crawler"),
    "CCBot": ("CCBot/2.0 (https://commoncrawl.org/faq/)", "crawler: CCBot", "ai-crawler"),
    "GoogleOther": (f"Mozilla/5.0 (Linux; Android 6.0.1; Nexus 5X Build/MMB29P) {WEBKIT} Chrome/120.0.0.0 Mobile Safari/537.36 (compatible; GoogleOther)", "crawler: GoogleOther", "ai-crawler"),
    "Ahrefs": ("Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)", "crawler: AhrefsBot", "seo"),
    "Semrush": ("Mozilla/5.0 (compatible; SemrushBot/7~bl; +http://www.semrush.com/bot.html)", "crawler: SemrushBot", "seo"),
    "Pingdom": ("Pingdom.com_bot_version_1.4_(http://www.pingdom.com/)", "crawler: Pingdom", "monitoring"),
    "UptimeRobot": ("Mozilla/5.0+(compatible; UptimeRobot/2.0; http://www.uptimerobot.com/)", "crawler: UptimeRobot", "monitoring"),
    "headless Chrome": (f"Mozilla/5.0 (X11; Linux x86_64) {WEBKIT} HeadlessChrome/120.0.0.0 Safari/537.36", "automation: HeadlessChrome", "browser-automation"),
    "Lighthouse": (f"{MAC} Chrome/114.0.0.0 Safari/537.36 Chrome-Lighthouse", "crawler: Chrome-Lighthouse", "monitoring"),
    "PhantomJS": ("Mozilla/5.0 (Unknown; Linux x86_64) AppleWebKit/538.1 (KHTML, like Gecko) PhantomJS/2.1.1 Safari/538.1", "automation: PhantomJS", "browser-automation"),
    "Office before a click": ("Microsoft Office Existence Discovery", "scanner: Microsoft Office", "link-scanner"),
    "Outlook before a click": ("Mozilla/4.0 (compatible; ms-office; MSOffice rmj)", "scanner: ms-office", "link-scanner"),
    "a mail gateway": ("Mozilla/5.0 (compatible; Barracuda Sentinel (EE))", "scanner: Barracuda", "link-scanner"),
    "curl": ("curl/8.0.1", "http library: curl", "http-library"),
    "wget": ("Wget/1.21.3", "http library: Wget", "http-library"),
    "requests": ("python-requests/2.31.0", "http library: python-requests", "http-library"),
    "httpx": ("python-httpx/0.28.1", "http library: httpx", "http-library"),
    "aiohttp": ("Python/3.11 aiohttp/3.9.1", "http library: aiohttp", "http-library"),
    "Go": ("Go-http-client/2.0", "http library: Go-http-client", "http-library"),
    "axios": ("axios/1.6.2", "http library: axios", "http-library"),
    "okhttp": ("okhttp/4.12.0", "http library: okhttp", "http-library"),
    "Java": ("Java/17.0.9", "http library: Java", "http-library"),
    "node": ("node", "http library: node", "http-library"),
    "Scrapy": ("Scrapy/2.11.0 (+https://scrapy.org)", "http library: Scrapy", "http-library"),
    "one nobody listed": ("Mozilla/5.0 (compatible; MyVeryOwnBot/1.0)", "crawler: MyVeryOwnBot", "unknown"),
    "one that says crawler": ("Example-crawler 1", "crawler: Example-crawler", "unknown"),
    "one that gives its address": ("Mozilla/5.0 (compatible; Exampler/1.0; +https://example.org/about)", "crawler: unnamed", "unknown"),
}  # fmt: skip


@pytest.mark.parametrize(("user_agent", "reason", "category"), MACHINES.values(), ids=MACHINES)
def test_machines(user_agent, reason, category):
    """A machine is told with its name and its kind."""
    verdict = judge(user_agent)

    assert (verdict.bot, verdict.reasons, verdict.category) == (True, (reason,), category)


@pytest.mark.parametrize("user_agent", [None, "", "   "], ids=["none", "empty", "blank"])
def test_nobody_says_nothing(user_agent):
    """Every browser sends a user agent, so one who does not is a machine."""
    assert judge(user_agent) == bots.Verdict(bot=True, reasons=("empty user agent",), category="empty")


KNOWN = [
    (entry["pattern"], instance)
    for entry in crawleruseragents.CRAWLER_USER_AGENTS_DATA
    for instance in entry["instances"]
    if entry["pattern"] not in bots._PEOPLE or bots._PEOPLE[entry["pattern"]]
]


def test_every_known_crawler_is_caught():
    """All examples of crawler-user-agents are machines, but for the browsers that it lists by mistake."""
    missed = [instance for _, instance in KNOWN if not judge(instance).bot]

    assert missed == []


def test_both_engines_agree():
    """Without the Rust wheel the same pattern is found."""
    fast, plain = bots._fast_matcher(), bots._plain_matcher()
    some = [instance[: bots.MAX_USER_AGENT] for _, instance in KNOWN[::20]] + [*PEOPLE.values()]

    assert [plain(user_agent) for user_agent in some] == [fast(user_agent) for user_agent in some]


PREFETCHES = {
    "prefetch": ({"sec-purpose": "prefetch"}, True),
    "prerender": ({"sec-purpose": "prefetch;prerender"}, True),
    "older Chrome": ({"purpose": "prefetch"}, True),
    "Safari's top sites": ({"x-purpose": "preview"}, True),
    "Firefox": ({"x-moz": "Prefetch"}, True),
    "another purpose": ({"purpose": "navigate"}, False),
    "none": ({"accept": "*/*"}, False),
}


@pytest.mark.parametrize(("headers", "expected"), PREFETCHES.values(), ids=PREFETCHES)
def test_prefetch(headers, expected):
    """A page that is loaded ahead of the visitor is told apart from a crawler."""
    verdict = judge(PEOPLE["Chrome on Mac"], headers=headers)

    assert bots.is_prefetch(headers) is expected
    assert verdict == (
        bots.Verdict(bot=True, reasons=("prefetch",), category="prefetch") if expected else bots.PERSON
    )


def test_a_crawler_that_prefetches_has_both_reasons():
    """Reasons add up; the crawler's name and kind stay."""
    verdict = judge("Googlebot/2.1", headers={"purpose": "prefetch"})

    assert verdict.reasons == ("crawler: Googlebot", "prefetch")
    assert (verdict.name, verdict.category) == ("Googlebot", "search-engine")


def test_headless_chrome_behind_an_ordinary_name():
    """A changed user agent does not hide what the client hint still says."""
    verdict = judge(PEOPLE["Chrome on Mac"], headers={"sec-ch-ua": '"HeadlessChrome";v="120"'})

    assert verdict.reasons == ("automation: HeadlessChrome",)


@given(st.one_of(st.none(), st.text()), st.dictionaries(st.sampled_from(["sec-ch-ua", "purpose"]), st.text()))
def test_any_text_has_a_verdict(user_agent, headers):
    """Nothing raises, and a machine always has a reason."""
    verdict = judge(user_agent, headers=headers)

    assert verdict.bot == bool(verdict.reasons)
