-- What wrk sends: `wrk … -s load.lua URL -- KIND SEED RATE LINKS`.
-- KIND is beacon, page, link or first; browsers come with cookies of today, but for `first`, the first page of their day. RATE
-- is requests a second over all connections, 0 for as many as are answered; a paced run keeps a timetable, so that a slow
-- answer does not lower the rate. All servers get the same bytes but for the path.

local ffi = require("ffi")
ffi.cdef("typedef struct { long s; long ns; } moment; int clock_gettime(int, moment *);")
local moment = ffi.new("moment")
local function now()
  ffi.C.clock_gettime(1, moment) -- CLOCK_MONOTONIC
  return tonumber(moment.s) + tonumber(moment.ns) * 1e-9
end

local VISITORS = 4000
local BROWSERS = {
  "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36",
  "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15",
  "Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0",
  "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1",
  "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Mobile Safari/537.36",
  "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36 Edg/140.0.0.0",
  "Mozilla/5.0 (Linux; Android 14; SM-S921B) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/28.0 Chrome/130.0.0.0 Mobile Safari/537.36",
  "Mozilla/5.0 (iPad; CPU OS 17_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.7 Mobile/15E148 Safari/604.1",
}
local PAGES = {
  { "/", "Everything for the garden", "https://www.google.com/" },
  { "/tools/spades?utm_source=newsletter&utm_medium=email&utm_campaign=autumn", "Spades", "" },
  { "/tools/spades/no-4", "Spade no. 4", "https://shop.example/tools/spades" },
  { "/seeds/tomato", "Tomato seeds", "https://www.bing.com/search?q=tomato+seeds" },
  { "/guides/when-to-prune-roses", "When to prune roses", "https://t.co/abcdef" },
  { "/basket", "Your basket", "https://shop.example/seeds/tomato" },
  { "/checkout", "Checkout", "https://shop.example/basket" },
  { "/guides/compost?gclid=EAIaIQobChMI0_demo", "Compost", "https://www.google.com/" },
}

local heads, bodies = {}, {} -- what stands before the event id and after it, by visitor and by page
local kind, path, links, event_prefix
local every, due -- seconds between two requests, and when the next one is due
local sent = 0

local HINTS = 'sec-ch-ua: "Chromium";v="141", "Not?A_Brand";v="8"\r\nsec-ch-ua-mobile: ?0\r\nsec-ch-ua-platform: "Windows"\r\n'

local set_on -- the day of the browsers' cookies
local function browser_headers(visitor)
  local browser = BROWSERS[visitor % #BROWSERS + 1]
  return "Host: shop.example\r\n" .. (browser:find("Chrome/") and HINTS or "") .. "User-Agent: " .. browser ..
    "\r\nAccept-Language: de-DE,de;q=0.9,en;q=0.8\r\nAccept-Encoding: gzip, deflate, br" ..
    string.format("\r\nX-Forwarded-For: 203.%d.%d.7", 1 + visitor % 16, math.floor(visitor / 16)) ..
    "\r\nCookie: theme=dark; _ga_anon=" .. string.format("bench-visitor-%08d.%05d", visitor, set_on) .. "\r\n"
end

function init(args)
  kind, path = args[1], wrk.path
  local seed, rate = tonumber(args[2]), tonumber(args[3])
  links = tonumber(args[4])
  set_on = math.floor(os.time() / 86400) - (kind == "first" and 1 or 0)
  math.randomseed(seed)
  event_prefix = string.format("%08x-%04x-4%03x-8", seed, math.random(0, 65535), math.random(0, 4095))
  local fetch = kind == "beacon" and
    "Accept: */*\r\nContent-Type: application/json\r\nOrigin: https://shop.example\r\n" ..
    "Referer: https://shop.example/\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\nSec-Fetch-Site: same-origin\r\n" or
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nReferer: https://www.google.com/\r\n" ..
    "Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\nSec-Fetch-Site: cross-site\r\n"
  for visitor = 0, VISITORS - 1 do heads[visitor] = browser_headers(visitor) .. fetch end
  for number, page in ipairs(PAGES) do
    local rest = string.format(
      '","event_type":"pageview","url":"https://shop.example%s","title":"%s","referrer":"%s","screen":"1920x1080",' ..
      '"language":"de-DE","timezone":"Europe/Berlin","touch_points":0,"properties":{"theme":"dark","column":3}}',
      page[1], page[2], page[3])
    local start = '{"event_id":"'
    bodies[number] = { string.format("Content-Length: %d\r\n\r\n%s", #start + 36 + #rest, start), rest }
  end
  if rate > 0 then
    every = 1 / rate
    due = now()
    delay = function()
      due = due + every
      local wait = (due - now()) * 1000
      return wait > 0 and math.floor(wait + 0.5) or 0
    end
  end
end

function request()
  sent = sent + 1
  local head = heads[math.random(0, VISITORS - 1)]
  if kind == "beacon" then
    local body = bodies[sent % #bodies + 1]
    return "POST " .. path .. " HTTP/1.1\r\n" .. head .. body[1] .. event_prefix ..
      string.format("%03x-%012x", sent % 4096, sent) .. body[2]
  end
  local target = kind == "link" and path .. math.random(1, links) or path
  return "GET " .. target .. " HTTP/1.1\r\n" .. head .. "\r\n"
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d %d\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), errors.status,
    errors.connect + errors.read + errors.write + errors.timeout))
end
