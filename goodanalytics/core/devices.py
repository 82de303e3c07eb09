"""
With what device somebody came: read from the user agent, from client hints, and from the number of touch points.

The rules of this file:

* Parsing is ua-parser's (through its Rust engine where the wheel exists), the class of device is user-agents'; the tables here
  are only for what those do not know: televisions, consoles, watches and the browsers inside apps.
* Client hints beat the user agent, which Chromium has frozen: they name Edge, Opera and Brave, Windows 11, and the telephone's
  model. They are HTTP structured fields; what does not parse is passed over, and invented brands (GREASE) are ignored.
* An iPad that asks for desktop pages sends the user agent of a Mac; only touch points tell them apart.
* At most 512 characters of a user agent and of each hint are looked at. Nothing raises.
* Names are those of ua-parser ("Mobile Safari", "Chrome Mobile"), except that Mac OS X is called Mac.

Sources: the reference behaviour, original-core.md, section 20; dependencies.md, section 3; User-Agent Client Hints (WICG), whose
section on platform versions gives 13 as the first version of Windows 11.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Final, Literal

import ua_parser
from user_agents import parsers as classification

from goodanalytics.core.bots import MAX_USER_AGENT, judge
from goodanalytics.core.urls import printable

DeviceType = Literal["desktop", "smartphone", "tablet", "console", "tv", "wearable", "other", "bot"]


@dataclass(frozen=True, slots=True)
class Device:
    """
    A device as far as it made itself known; a bot has only its name, as ``browser``.

    Attributes:
        type: The class of device; ``other`` when nothing tells.
        brand: Maker: ``Apple``, ``Samsung``.
        model: ``iPhone``, ``SM-S911B``.
        os: ``Mac``, ``Windows``, ``iOS``, ``Android``, …
        os_version: As many parts as are known, joined by dots.
        browser: ``Chrome``, ``Mobile Safari``, …
        browser_version: As many parts as are known, joined by dots.
        in_app: The app whose built-in browser this is.
    """

    type: DeviceType = "other"
    brand: str | None = None
    model: str | None = None
    os: str | None = None
    os_version: str | None = None
    browser: str | None = None
    browser_version: str | None = None
    in_app: str | None = None


_HINTS: Final = (
    "sec-ch-ua",
    "sec-ch-ua-mobile",
    "sec-ch-ua-platform",
    "sec-ch-ua-platform-version",
    "sec-ch-ua-model",
    "sec-ch-ua-full-version-list",
)

# The first that matches names the app: Instagram and Threads carry Facebook's marks as well.
_IN_APP: Final = tuple(
    (name, re.compile(pattern))
    for name, pattern in (
        ("Threads", r"\bBarcelona \d"),
        ("Instagram", r"\bInstagram[ /]?\d?"),
        ("Messenger", r"FBAN/Messenger|MessengerForiOS|MessengerLite|FB_IAB/MESSENGER|Orca-Android"),
        ("Facebook", r"FBAN/|FBAV/|FB_IAB/|\[FB|MetaIAB Facebook"),
        ("TikTok", r"musical_ly|BytedanceWebview|TikTok|\btrill_"),
        ("LinkedIn", r"LinkedInApp"),
        ("Snapchat", r"Snapchat"),
        ("Pinterest", r"Pinterest/|\[Pinterest"),
        ("Twitter", r"Twitter for |TwitterAndroid"),
        ("Reddit", r"\bReddit/"),
        ("WeChat", r"MicroMessenger"),
        ("Line", r" Line/\d"),
        ("KakaoTalk", r"KAKAOTALK"),
        ("WhatsApp", r"\bWhatsApp/"),
        ("Viber", r"\bViber/"),
        ("Naver", r"NAVER\(inapp"),
        ("Baidu", r"baiduboxapp"),
        ("Weibo", r"Weibo"),
        ("Google", r"\bGSA/"),
        ("WebView", r"; wv\)"),
    )
)

_TV: Final = re.compile(
    r"Smart-?TV|SMART-TV|SmartHub|HbbTV|Web0S|webOS\.TV|NetCast|BRAVIA|Apple ?TV|Google ?TV|Android ?TV|CrKey|Roku|"
    r"\bAFT[A-Z0-9]+\b|Viera|VIDAA|Philips ?TV|Tizen.*\bTV\b|\bTV Safari|MiTV|SHIELD Android",
    re.IGNORECASE,
)
_CONSOLE: Final = re.compile(
    r"PlayStation|\bXbox\b|Nintendo|Steam ?Deck|Valve Steam GameOverlay", re.IGNORECASE
)
_WEARABLE: Final = re.compile(
    r"Apple ?Watch|watchOS|Wear ?OS|\bSM-[RL]\d{3}|Galaxy Watch|OculusBrowser|Quest \d"
)
_ANDROID_PHONE: Final = re.compile(r"\bMobile\b|Opera Mini|Opera Mobi|Dalvik")

_NO_BRAND: Final = frozenset({"Generic", "Generic_Android", "Generic_Android_Tablet", "Generic_Inettv"})
_NO_MODEL: Final = frozenset({"K", "Mac", "Smartphone", "Tablet", "Feature Phone", "Other", "Android"})

_BRAND: Final = re.compile(r'"((?:[^"\\]|\\.)*)"\s*;\s*v\s*=\s*"([^"\\]*)"')
_NOT_LETTERS: Final = re.compile(r"[^a-z]")
_BROWSER_OF_BRAND: Final[Mapping[str, str]] = {
    "Google Chrome": "Chrome",
    "Microsoft Edge": "Edge",
    "Microsoft Edge WebView2": "Edge",
    "Yandex": "Yandex Browser",
    "YaBrowser": "Yandex Browser",
    "Android WebView": "Chrome Mobile WebView",
}
_OS_OF_PLATFORM: Final[Mapping[str, str]] = {
    "macOS": "Mac",
    "Mac OS X": "Mac",
    "Windows": "Windows",
    "Android": "Android",
    "Linux": "Linux",
    "iOS": "iOS",
    "Chrome OS": "Chrome OS",
    "Chromium OS": "Chrome OS",
    "Fuchsia": "Fuchsia",
}
# What Windows says in Sec-CH-UA-Platform-Version before 10 counted up (UA Client Hints, platform version).
_OLD_WINDOWS: Final[Mapping[str, str]] = {"0.1": "7", "0.2": "8", "0.3": "8.1"}

_LABELS: Final[Mapping[DeviceType, str]] = {
    "desktop": "Desktop",
    "smartphone": "Mobile",
    "tablet": "Tablet",
    "console": "Console",
    "tv": "TV",
    "wearable": "Wearable",
    "other": "Unknown",
    "bot": "Bot",
}


def parse(
    user_agent: str | None, hints: Mapping[str, str] | None = None, touch_points: int | None = None
) -> Device:
    """
    Return the device behind a request.

    Args:
        user_agent: As sent.
        hints: Header values under lower-case names; those that are no client hints do not matter.
        touch_points: The browser's ``navigator.maxTouchPoints``, when a beacon told it.

    >>> parse("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    ...       "Version/17.1 Safari/605.1.15", touch_points=5).model
    'iPad'
    """
    # Only what can change the answer is in the key, or the cache would hold one entry per touch screen.
    values = tuple((hints.get(name) or "")[:MAX_USER_AGENT] for name in _HINTS) if hints else ()
    return _parse(
        (user_agent or "").strip()[:MAX_USER_AGENT], values, touch_points is not None and touch_points > 1
    )


def label(device: Device) -> str:
    """
    Return a short name for people: type, operating system and browser with at most two parts of each version.

    >>> label(Device("desktop", os="Mac", os_version="10.15.7", browser="Chrome", browser_version="120.0.0.0"))
    'Desktop · Mac 10.15 · Chrome 120.0'
    """
    named = [_LABELS[device.type]]
    if device.os:
        named.append(f"{device.os} {_short(device.os_version)}".strip())
    if device.browser:
        named.append(f"{device.browser} {_short(device.browser_version)}".strip())
    return " · ".join(named)


@lru_cache(maxsize=4096)
def _parse(user_agent: str, hints: tuple[str, ...], several_touch_points: bool) -> Device:
    verdict = judge(user_agent) if user_agent else None
    if verdict is not None and verdict.bot:
        return Device(type="bot", browser=verdict.name)
    device = _from_user_agent(user_agent) if user_agent else Device()
    if any(hints):
        device = _with_hints(device, dict(zip(_HINTS, hints, strict=True)))
    if several_touch_points and device.os == "Mac" and device.browser in {"Safari", None}:
        return replace(device, type="tablet", brand="Apple", model="iPad", os="iPadOS", os_version=None)
    return device


@cache
def _parser() -> ua_parser.Parser:
    """Return the parser, built on first use; our own cache stands before it."""
    engine = ua_parser.RegexResolver
    if engine is None:
        return ua_parser.Parser.from_matchers(ua_parser.load_builtins())
    cached = ua_parser.CachingResolver(engine(ua_parser.load_lazy_builtins()), ua_parser.Cache(4000))
    return ua_parser.Parser(cached)


def _from_user_agent(user_agent: str) -> Device:
    found = _parser().parse(printable(user_agent))
    browser, os, hardware = found.user_agent, found.os, found.device
    os_name = os.family if os else None
    brand = hardware.brand if hardware and hardware.brand not in _NO_BRAND else None
    model = hardware.model if hardware and hardware.model not in _NO_MODEL else None
    os_version = _version(os.major, os.minor, os.patch, os.patch_minor) if os else None
    if os_name == "Mac OS X":
        os_name = "Mac"
    elif os_name == "iOS" and model == "iPad" and os and _number(os.major) >= 13:
        os_name = "iPadOS"
    return Device(
        type=_type(user_agent, found),
        brand=brand,
        model=model,
        os=os_name,
        os_version=os_version,
        browser=browser.family if browser else None,
        browser_version=_version(browser.major, browser.minor, browser.patch, browser.patch_minor)
        if browser
        else None,
        in_app=next((name for name, pattern in _IN_APP if pattern.search(user_agent)), None),
    )


def _type(user_agent: str, found: ua_parser.Result) -> DeviceType:
    """Return the class of device; the special ones first, since most of them look like a desktop or a tablet."""
    if _CONSOLE.search(user_agent):
        return "console"
    if _TV.search(user_agent):
        return "tv"
    if _WEARABLE.search(user_agent):
        return "wearable"
    classified = _classified(user_agent, found)
    if classified.device.family in classification.TABLET_DEVICE_FAMILIES:
        return "tablet"
    if classified.os.family == "Android":
        # user-agents takes a WebView on a tablet for a telephone; the word Mobile is Chrome's own rule.
        return "smartphone" if _ANDROID_PHONE.search(user_agent) else "tablet"
    if classified.is_mobile:
        return "smartphone"
    if classified.is_tablet:
        return "tablet"
    if classified.is_pc or classified.os.family in {"Windows", "Linux", "Ubuntu", "FreeBSD", "OpenBSD"}:
        return "desktop"
    return "other"


def _classified(user_agent: str, found: ua_parser.Result) -> classification.UserAgent:
    """Return user-agents' value, filled from *found*: its own constructor would parse again, twenty times slower."""
    browser, os, hardware = found.user_agent, found.os, found.device
    classified = classification.UserAgent.__new__(classification.UserAgent)
    classified.ua_string = user_agent
    classified.browser = (
        classification.parse_browser(browser.family, browser.major, browser.minor, browser.patch)
        if browser
        else classification.parse_browser("Other")
    )
    classified.os = (
        classification.parse_operating_system(os.family, os.major, os.minor, os.patch)
        if os
        else classification.parse_operating_system("Other")
    )
    classified.device = (
        classification.parse_device(hardware.family, hardware.brand, hardware.model)
        if hardware
        else classification.parse_device("Other", None, None)
    )
    return classified


def _with_hints(device: Device, hints: Mapping[str, str]) -> Device:
    """Lay the client hints over what the user agent said."""
    device = _with_brand(device, hints["sec-ch-ua"], hints["sec-ch-ua-full-version-list"])
    os = _OS_OF_PLATFORM.get(_text(hints["sec-ch-ua-platform"]) or "")
    if os:
        same = os == device.os or (os == "Linux" and device.os in {"Ubuntu", "Fedora", "Debian"})
        device = device if same else replace(device, os=os, os_version=None)
        if version := _platform_version(os, _text(hints["sec-ch-ua-platform-version"])):
            device = replace(device, os_version=version)
    if model := _text(hints["sec-ch-ua-model"]):
        device = replace(device, model=model[:100], brand=_brand_of(model) or device.brand)
    return replace(device, type=_hinted_type(device, hints["sec-ch-ua-mobile"].strip()))


def _hinted_type(device: Device, mobile: str) -> DeviceType:
    if device.type in {"console", "tv", "wearable"}:
        return device.type
    if mobile == "?1":
        return "smartphone"
    if mobile == "?0" and device.os == "Android":
        return "tablet"
    if device.type == "other" and mobile == "?0":
        return "desktop"
    return device.type


def _with_brand(device: Device, brands: str, full_versions: str) -> Device:
    """Return *device* with the browser that its brand lists name, if they name one."""
    named = _brand(full_versions) or _brand(brands)
    if named is None:
        return device
    name, version = named
    family = device.browser or ""
    # "Chrome Mobile" from the user agent says more than the brand "Google Chrome", and is the same browser.
    browser = family if family.split(" ")[0] == name and name in {"Chrome", "Edge", "Opera"} else name
    if browser == family and (device.browser_version or "").partition(".")[0] == version:
        version = device.browser_version or version
    return replace(device, browser=browser, browser_version=version or device.browser_version)


def _brand(header: str) -> tuple[str, str] | None:
    """Return the most telling brand of a list as (browser, version): any real one before Chromium."""
    chromium: tuple[str, str] | None = None
    for brand, version in _BRAND.findall(header):
        name = printable(brand.replace("\\", "")).strip()[:100]
        if not name or _is_invented(name):
            continue
        if name == "Chromium":
            chromium = ("Chromium", printable(version)[:50])
        else:
            return _BROWSER_OF_BRAND.get(name, name), printable(version)[:50]
    return chromium


def _is_invented(brand: str) -> bool:
    """Tell whether *brand* is GREASE, put there so that nobody relies on the list: "Not?A_Brand", "(Not(A:Brand"."""
    letters = _NOT_LETTERS.sub("", brand.lower())
    return letters.endswith("brand") and "not" in letters


def _text(header: str) -> str | None:
    """Return the string that a structured field holds; a bare word is taken as it stands."""
    text = printable(header).strip()
    if len(text) >= 2 and text.startswith('"') and text.endswith('"'):
        text = text[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    return text.strip() or None


def _platform_version(os: str, version: str | None) -> str | None:
    numbers = re.match(r"\d+(?:\.\d+){0,3}", version or "", re.ASCII)
    if numbers is None:
        return None
    if os != "Windows":
        return numbers[0][:50]
    major = int(numbers[0].partition(".")[0][:9])
    if major == 0:
        return _OLD_WINDOWS.get(".".join(numbers[0].split(".")[:2]))
    return "11" if major >= 13 else "10"


def _brand_of(model: str) -> str | None:
    """Return the maker of a telephone *model*, asked of ua-parser as the user agent of old would have said it."""
    as_of_old = f"Mozilla/5.0 (Linux; Android 10; {model[:100]} Build/A) AppleWebKit/537.36 Chrome/100.0 Mobile Safari/537.36"
    found = _parser().parse(as_of_old).device
    return found.brand if found and found.brand not in _NO_BRAND else None


def _version(*numbers: str | None) -> str | None:
    known: list[str] = []
    for number in numbers:
        if number is None:
            break
        known.append(number)
    return ".".join(known) or None


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() and len(text) < 10 else 0


def _short(version: str | None) -> str:
    return ".".join((version or "").split(".")[:2])
