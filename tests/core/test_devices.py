"""Devices are read from user agents, client hints and touch points."""

import pytest
import ua_parser
from hypothesis import given
from hypothesis import strategies as st

from goodanalytics.core import devices
from goodanalytics.core.devices import Device, label, parse

WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"
MAC_CHROME = f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {WEBKIT} Chrome/120.0.0.0 Safari/537.36"
MAC_SAFARI = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.1 Safari/605.1.15"
WINDOWS_CHROME = f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {WEBKIT} Chrome/120.0.0.0 Safari/537.36"
ANDROID_CHROME = f"Mozilla/5.0 (Linux; Android 10; K) {WEBKIT} Chrome/120.0.0.0 Mobile Safari/537.36"
IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)"

SAMPLES = {
    "Chrome on Mac": (MAC_CHROME, Device("desktop", "Apple", None, "Mac", "10.15.7", "Chrome", "120.0.0.0")),
    "Safari on iPhone": (f"{IPHONE} Version/17.0 Mobile/15E148 Safari/604.1", Device("smartphone", "Apple", "iPhone", "iOS", "17.0", "Mobile Safari", "17.0")),
    "Safari on iPad": ("Mozilla/5.0 (iPad; CPU OS 16_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/16.5 Mobile/15E148 Safari/604.1", Device("tablet", "Apple", "iPad", "iPadOS", "16.5", "Mobile Safari", "16.5")),
    "Chrome on Windows": (WINDOWS_CHROME, Device("desktop", None, None, "Windows", "10", "Chrome", "120.0.0.0")),
    "Chrome's frozen Android": (ANDROID_CHROME, Device("smartphone", None, None, "Android", "10", "Chrome Mobile", "120.0.0.0")),
    "Chrome's frozen Android tablet": (ANDROID_CHROME.replace(" Mobile", ""), Device("tablet", None, None, "Android", "10", "Chrome", "120.0.0.0")),
    "a Galaxy": (ANDROID_CHROME.replace("10; K", "13; SM-S911B"), Device("smartphone", "Samsung", "SM-S911B", "Android", "13", "Chrome Mobile", "120.0.0.0")),
    "Firefox on Linux": ("Mozilla/5.0 (X11; Linux x86_64; rv:120.0) Gecko/20100101 Firefox/120.0", Device("desktop", None, None, "Linux", None, "Firefox", "120.0")),
    "Firefox on an Android phone": ("Mozilla/5.0 (Android 13; Mobile; rv:120.0) Gecko/120.0 Firefox/120.0", Device("smartphone", None, None, "Android", "13", "Firefox Mobile", "120.0")),
    "Firefox on an Android tablet": ("Mozilla/5.0 (Android 13; Tablet; rv:120.0) Gecko/120.0 Firefox/120.0", Device("tablet", None, None, "Android", "13", "Firefox Mobile", "120.0")),
    "nothing": (None, Device()),
    "empty": ("", Device()),
    "junk": ("asdf qwer", Device()),
}  # fmt: skip


@pytest.mark.parametrize(("user_agent", "device"), SAMPLES.values(), ids=SAMPLES)
def test_samples(user_agent, device):
    """Known user agents give known devices."""
    assert parse(user_agent) == device


TYPES = {
    "Internet Explorer": ("Mozilla/5.0 (Windows NT 6.1; WOW64; Trident/7.0; rv:11.0) like Gecko", "desktop"),
    "Chrome OS": (f"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) {WEBKIT} Chrome/120.0.0.0 Safari/537.36", "desktop"),
    "Opera Mini": ("Opera/9.80 (Android; Opera Mini/36.2.2254/119.132; U; id) Presto/2.12.423 Version/12.16", "smartphone"),
    "Windows Phone": (f"Mozilla/5.0 (Windows Phone 10.0; Android 6.0.1; Microsoft; Lumia 650) {WEBKIT} Chrome/52.0.2743.116 Mobile Safari/537.36 Edge/15.15063", "smartphone"),
    "iPod": ("Mozilla/5.0 (iPod touch; CPU iPhone OS 12_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/12.1 Mobile/15E148 Safari/604.1", "smartphone"),
    "Kindle Fire": (f"Mozilla/5.0 (Linux; Android 9; KFMAWI) {WEBKIT} Silk/112.5.1 like Chrome/112.0.5615.213 Safari/537.36", "tablet"),
    "a WebView on a tablet": (f"Mozilla/5.0 (Linux; Android 13; SM-X906B; wv) {WEBKIT} Version/4.0 Chrome/120.0.0.0 Safari/537.36", "tablet"),
    "a Tizen television": (f"Mozilla/5.0 (SMART-TV; Linux; Tizen 6.0) {WEBKIT} 76.0.3809.146/6.0 TV Safari/537.36", "tv"),
    "a webOS television": (f"Mozilla/5.0 (Web0S; Linux/SmartTV) {WEBKIT} Chrome/79.0.3945.79 Safari/537.36 WebAppManager", "tv"),
    "Fire TV": (f"Mozilla/5.0 (Linux; Android 9; AFTMM Build/PS7633; wv) {WEBKIT} Version/4.0 Chrome/88.0.4324.152 Mobile Safari/537.36", "tv"),
    "Chromecast": (f"Mozilla/5.0 (X11; Linux aarch64) {WEBKIT} Chrome/90.0.4430.225 Safari/537.36 CrKey/1.56.500000", "tv"),
    "PlayStation 5": ("Mozilla/5.0 (PlayStation; PlayStation 5/6.50) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/16.0 Safari/605.1.15", "console"),
    "Xbox": (f"Mozilla/5.0 (Windows NT 10.0; Win64; x64; Xbox; Xbox One) {WEBKIT} Chrome/109.0.0.0 Safari/537.36 Edg/109.0.1518.78", "console"),
    "Switch": ("Mozilla/5.0 (Nintendo Switch; WifiWebAuthApplet) AppleWebKit/609.4 (KHTML, like Gecko) NF/6.0.2.21.3 NintendoBrowser/5.1.0.22474", "console"),
    "a watch": ("Mozilla/5.0 (Linux; Android 11; SM-R870) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/4.0 Chrome/98.0 Mobile Safari/537.36", "wearable"),
    "Googlebot": ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "bot"),
    "curl": ("curl/8.0.1", "bot"),
}  # fmt: skip


@pytest.mark.parametrize(("user_agent", "device_type"), TYPES.values(), ids=TYPES)
def test_types(user_agent, device_type):
    """Every class of device is told."""
    assert parse(user_agent).type == device_type


def test_a_bot_has_only_its_name():
    """What a crawler pretends to be is not a device of a visitor."""
    assert parse(SAMPLES["Chrome on Mac"][0] + " (compatible; Googlebot/2.1)") == Device(
        "bot", browser="Googlebot"
    )


APPS = {
    "Instagram": (f"{IPHONE} Mobile/15E148 Instagram 302.0.0.23.110 (iPhone12,1; iOS 16_6)", "Instagram"),
    "Facebook on iPhone": (f"{IPHONE} Mobile/15E148 [FBAN/FBIOS;FBDV/iPhone12,1]", "Facebook"),
    "Facebook on Android": (f"{ANDROID_CHROME} [FB_IAB/FB4A;FBAV/441.0.0.31.112;]", "Facebook"),
    "Facebook's newer mark": (f"{ANDROID_CHROME} MetaIAB Facebook", "Facebook"),
    "Messenger": (f"{IPHONE} Mobile/15E148 [FBAN/MessengerForiOS;FBAV/430.0]", "Messenger"),
    "Threads": (f"{IPHONE} Mobile/15E148 Barcelona 302.0.0.23.110 (iPhone12,1)", "Threads"),
    "TikTok": (f"{IPHONE} Mobile/15E148 musical_ly_32.5.0 BytedanceWebview/d8a21c6", "TikTok"),
    "LinkedIn": (f"{IPHONE} Mobile/15E148 [LinkedInApp]/9.29.8962", "LinkedIn"),
    "Snapchat": (f"{IPHONE} Version/17.1 Mobile/15E148 Safari/604.1 Snapchat/12.60.0.35", "Snapchat"),
    "Pinterest": (f"{IPHONE} Mobile/15E148 [Pinterest/iOS]", "Pinterest"),
    "Google": (f"{IPHONE} GSA/290.0.580 Mobile/15E148 Safari/604.1", "Google"),
    "Twitter": (f"{IPHONE} Mobile/15E148 Twitter for iPhone/10.17", "Twitter"),
    "WeChat": (f"{IPHONE} Mobile/15E148 MicroMessenger/8.0.43(0x18002b2d)", "WeChat"),
    "Line": (f"{IPHONE} Safari Line/13.19.0", "Line"),
    "some other app": (ANDROID_CHROME.replace("; K)", "; K; wv)"), "WebView"),
    "a browser": (MAC_CHROME, None),
}


@pytest.mark.parametrize(("user_agent", "app"), APPS.values(), ids=APPS)
def test_in_app_browsers(user_agent, app):
    """The app whose browser it is, is named."""
    assert parse(user_agent).in_app == app


CHROMIUM = '"Chromium";v="120", "Not?A_Brand";v="24"'
HINTS = {
    "Edge": (WINDOWS_CHROME, {"sec-ch-ua": CHROMIUM + ', "Microsoft Edge";v="120"'}, {"browser": "Edge", "browser_version": "120"}),
    "Brave": (MAC_CHROME, {"sec-ch-ua": '"Brave";v="121", ' + CHROMIUM}, {"browser": "Brave", "browser_version": "121"}),
    "Opera": (MAC_CHROME, {"sec-ch-ua": '"Opera";v="105", ' + CHROMIUM}, {"browser": "Opera", "browser_version": "105"}),
    "Chrome, its version kept when no other is said": (MAC_CHROME, {"sec-ch-ua": '"Google Chrome";v="120", ' + CHROMIUM}, {"browser": "Chrome", "browser_version": "120.0.0.0"}),
    "Chrome on a telephone": (ANDROID_CHROME, {"sec-ch-ua": '"Google Chrome";v="120", ' + CHROMIUM}, {"browser": "Chrome Mobile", "browser_version": "120.0.0.0"}),
    "Chromium alone": (MAC_CHROME, {"sec-ch-ua": CHROMIUM}, {"browser": "Chromium", "browser_version": "120"}),
    "the full list beats the short one": (WINDOWS_CHROME, {"sec-ch-ua": '"Google Chrome";v="120"', "sec-ch-ua-full-version-list": '"Not)A;Brand";v="99.0.0.0", "Google Chrome";v="120.0.6099.71"'}, {"browser": "Chrome", "browser_version": "120.0.6099.71"}),
    "every way to write the invented brand": (MAC_CHROME, {"sec-ch-ua": '" Not A;Brand";v="99", "(Not(A:Brand";v="8", ";Not A Brand";v="1", "Not_A Brand";v="8"'}, {"browser": "Chrome", "browser_version": "120.0.0.0"}),
    "Windows 11": (WINDOWS_CHROME, {"sec-ch-ua-platform": '"Windows"', "sec-ch-ua-platform-version": '"15.0.0"'}, {"os": "Windows", "os_version": "11"}),
    "the first Windows 11": (WINDOWS_CHROME, {"sec-ch-ua-platform": '"Windows"', "sec-ch-ua-platform-version": '"13.0.0"'}, {"os_version": "11"}),
    "Windows 10": (WINDOWS_CHROME, {"sec-ch-ua-platform": '"Windows"', "sec-ch-ua-platform-version": '"10.0.0"'}, {"os_version": "10"}),
    "Windows 8.1": (WINDOWS_CHROME, {"sec-ch-ua-platform": '"Windows"', "sec-ch-ua-platform-version": '"0.3.0"'}, {"os_version": "8.1"}),
    "macOS": (MAC_CHROME, {"sec-ch-ua-platform": '"macOS"', "sec-ch-ua-platform-version": '"14.2.1"'}, {"os": "Mac", "os_version": "14.2.1"}),
    "macOS without version": (MAC_CHROME, {"sec-ch-ua-platform": '"macOS"'}, {"os": "Mac", "os_version": "10.15.7"}),
    "a model": (ANDROID_CHROME, {"sec-ch-ua-model": '"SM-S911B"', "sec-ch-ua-platform": '"Android"', "sec-ch-ua-platform-version": '"14.0.0"'}, {"brand": "Samsung", "model": "SM-S911B", "os_version": "14.0.0"}),
    "another model": (ANDROID_CHROME, {"sec-ch-ua-model": '"Pixel 7"'}, {"brand": "Google", "model": "Pixel 7"}),
    "an empty model": (ANDROID_CHROME, {"sec-ch-ua-model": '""'}, {"model": None}),
    "a telephone that asked for desktop pages": (f"Mozilla/5.0 (X11; Linux x86_64) {WEBKIT} Chrome/120.0.0.0 Safari/537.36", {"sec-ch-ua-mobile": "?1"}, {"type": "smartphone"}),
    "a tablet by its platform": (f"Mozilla/5.0 (X11; Linux x86_64) {WEBKIT} Chrome/120.0.0.0 Safari/537.36", {"sec-ch-ua-mobile": "?0", "sec-ch-ua-platform": '"Android"'}, {"type": "tablet", "os": "Android", "os_version": None}),
    "an unknown platform": (MAC_CHROME, {"sec-ch-ua-platform": '"Unknown"'}, {"os": "Mac"}),
    "garbage": (MAC_CHROME, {"sec-ch-ua": '"";;;v=', "sec-ch-ua-mobile": "yes", "sec-ch-ua-platform": '"', "sec-ch-ua-platform-version": '"x"'}, {"type": "desktop", "os": "Mac", "browser": "Chrome"}),
    "hints without a user agent": (None, {"sec-ch-ua": '"Google Chrome";v="120"', "sec-ch-ua-platform": '"Linux"', "sec-ch-ua-mobile": "?0"}, {"type": "desktop", "os": "Linux", "browser": "Chrome", "browser_version": "120"}),
    "other headers do not matter": (MAC_CHROME, {"accept": "x", "user-agent": "y"}, {"browser": "Chrome"}),
}  # fmt: skip


@pytest.mark.parametrize(("user_agent", "hints", "expected"), HINTS.values(), ids=HINTS)
def test_client_hints(user_agent, hints, expected):
    """What a client hint says is believed before the user agent."""
    device = parse(user_agent, hints)

    assert {name: getattr(device, name) for name in expected} == expected


TOUCH = {
    "an iPad as a Mac": (MAC_SAFARI, 5, Device("tablet", "Apple", "iPad", "iPadOS", None, "Safari", "17.1")),
    "a Mac": (MAC_SAFARI, 0, Device("desktop", "Apple", None, "Mac", "10.15.7", "Safari", "17.1")),
    "a Mac with one touch point": (MAC_SAFARI, 1, Device("desktop", "Apple", None, "Mac", "10.15.7", "Safari", "17.1")),
    "nobody said": (MAC_SAFARI, None, Device("desktop", "Apple", None, "Mac", "10.15.7", "Safari", "17.1")),
    "a Windows laptop with a touch screen": (WINDOWS_CHROME, 10, SAMPLES["Chrome on Windows"][1]),
}  # fmt: skip


@pytest.mark.parametrize(("user_agent", "touch_points", "device"), TOUCH.values(), ids=TOUCH)
def test_touch_points(user_agent, touch_points, device):
    """No Mac has touch points, so a Mac's Safari that has some runs on an iPad."""
    assert parse(user_agent, None, touch_points) == device


LABELS = {
    "of two parts": (parse(MAC_CHROME), "Desktop · Mac 10.15 · Chrome 120.0"),
    "a telephone": (parse(ANDROID_CHROME), "Mobile · Android 10 · Chrome Mobile 120.0"),
    "a bot": (Device("bot", browser="Googlebot"), "Bot · Googlebot"),
    "a bot without a name": (Device("bot"), "Bot"),
    "nothing": (Device(), "Unknown"),
    "a television": (Device("tv", os="Tizen"), "TV · Tizen"),
}


@pytest.mark.parametrize(("device", "expected"), LABELS.values(), ids=LABELS)
def test_labels(device, expected):
    """A label is short and for people."""
    assert label(device) == expected


def test_without_the_rust_engine_the_answer_is_the_same(monkeypatch):
    """Platforms that lack the compiled wheel fall back to the slower parser."""
    monkeypatch.setattr(ua_parser, "RegexResolver", None)
    devices._parser.cache_clear()
    devices._parse.cache_clear()
    try:
        assert parse(MAC_CHROME) == SAMPLES["Chrome on Mac"][1]
    finally:
        monkeypatch.undo()
        devices._parser.cache_clear()
        devices._parse.cache_clear()


def test_only_the_start_of_a_user_agent_counts():
    """What stands after 512 characters changes nothing."""
    padded = MAC_CHROME + " " + "x" * 600

    assert parse(padded) == parse(padded + " Edg/120.0")


hint_names = st.sampled_from(devices._HINTS)
hint_values = st.one_of(st.text(), st.text(alphabet='"\\;v=?01 ,x.²٣'))


@given(
    st.one_of(st.none(), st.text(), st.text(alphabet="Mozila/5.0 (iPad; CPUOS٣1_²)")),
    st.dictionaries(hint_names, hint_values),
    st.one_of(st.none(), st.integers()),
)
def test_any_text_is_some_device(user_agent, hints, touch_points):
    """Nothing raises, and every device has a label."""
    assert label(parse(user_agent, hints, touch_points))
