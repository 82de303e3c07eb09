/* Options: consent, debug, endpoint, outbound, respectPrivacySignals. Before:
(window.GoodAnalytics = window.GoodAnalytics || {q: []}).q.push(["track", name]) */
(() => {
const tag = document.currentScript, stub = window.GoodAnalytics || {},
twice = () => console.warn("init twice");
if (stub.init) return twice();

let config = {}, page = {}, held = [], queue = [], clickId, failed = 0, out = 0, left, since;

const warn = e => /true/.test(config.debug) && console.warn(e),
guard = f => (...a) => { try { return f(...a); } catch (e) { warn(e); } },

write = guard((k, v) => v ? localStorage[k] = v : delete localStorage[k]),
read = guard(k => localStorage[k]),
cookie = guard(k => (document.cookie.match(`(?:^|; )${k}=([^;]*)`) || [])[1]),
setClick = guard(v => document.cookie = `_ga_good=${clickId = v}; path=/; samesite=lax; max-age=${v ? 7776e3 : 0}` +
  (/s:/.test(location.protocol) ? "; secure" : "")),

isUuid = s => /^[\da-f]{8}(-[\da-f]{4}){4}[\da-f]{8}$/i.test(s),
uuid = () => URL.createObjectURL(new Blob).slice(-36),

seen = () => !left && !document.hidden,
allowed = () => location.host && !read("_ga_optout") && !/false/.test(config.consent) &&
  (/false/.test(config.respectPrivacySignals) || !navigator.globalPrivacyControl && navigator.doNotTrack != 1),

without = (k, s) => s.replace(RegExp(`[?&]${k}=[^&]*`, "g"), "").replace(/^&/, "?"),
route = at => at.pathname + (at.hash.match(/^#!?\/.*/) || ""),
clean = at => at.origin + at.pathname + without("ga_id", at.search) + (at.hash.match(/^#!?\/.*/) || ""),

save = () => {
  queue = queue.slice(0, 30);
  while (JSON.stringify(queue).length > 2e4) queue.pop();
  write("_ga_queue", queue[0] && JSON.stringify(queue));
},
post = (path, body) => fetch(config.endpoint + path, {method: "POST", body, keepalive: true, credentials: "include"}),
deliver = () => {
  const sent = queue, body = `[${sent.map(e => e[0])}]`;
  if (!sent[0] || !allowed()) return;
  if (!failed && !seen() && navigator.sendBeacon(config.endpoint + "/event", body)) return queue = [];
  if (out) return failed && save();
  out++;
  post("/event", body).then(r => {
    if (/429|5../.test(r.status)) return retry(r.headers.get("retry-after"));
    queue = queue.filter(e => !sent.includes(e));
    failed && save(failed = 0);
    resume();
    r.ok || r.text().then(warn);
  }).catch(retry);
},
resume = () => deliver(out && out--),
retry = s => save(setTimeout(resume, 1e3 * Math.max(Math.min(60, 2 ** failed++), s | 0))),

emit = (event_type, fields, on = page) => {
  if (!allowed()) return;
  if (!on.url) return held.push([event_type, fields]);
  const e = {
    event_id: uuid(), event_type, url: on.url, referrer: on.referrer, ga_id: api.getClickId(),
    screen: screen.width + "x" + screen.height, language: navigator.language,
    timezone: Intl.DateTimeFormat().resolvedOptions().timeZone,
  };
  for (const k of ["_fbp", "_fbc", "_ttp", "_ga_ref"]) e[k] = cookie(k);
  queue = [...queue, [JSON.stringify(Object.assign(e, fields)), Date.now()]];
  deliver();
},

land = (id, k) => {
  if (!isUuid(id)) return true;
  setClick(id);
  history.replaceState(history.state, "", location.pathname + without(k, location.search) + location.hash);
},
enter = ({url = location, title, properties} = {}, when = f => f()) => {
  if (!allowed()) return;
  flush();
  const on = page = {
    url: clean(new URL(url, location)), referrer: page.url || document.referrer, at: route(location), engaged: 0, deepest: 0, told: 0,
  }, s = new URLSearchParams(location.search), k = s.get("via") ? "via" : "ref", key = s.get(k);
  if (land(s.get("ga_id"), "ga_id") && key) {
    post("/click", JSON.stringify({event_id: uuid(), key, url: on.url, referrer: on.referrer}))
      .then(r => r.json()).then(r => land(r.ga_id, k)).catch(warn).then(resume, out++);
  }
  when(guard(() => emit("pageview", {title: title || document.title, properties}, on)));
},
moved = guard(() => page.url && page.at != route(location) && enter({}, setTimeout)),
wake = () => {
  if (page.url || !config.endpoint || !seen() || !allowed()) return;
  queue = guard(() => JSON.parse(read("_ga_queue") || "[]").filter(e => Date.now() - e[1] < 864e5))() || [];
  write("_ga_queue");
  enter();
  held.splice(0).forEach(a => emit(...a));
},

clock = () => {
  if (since) page.engaged += performance.now() - since;
  since = seen() && document.hasFocus() && performance.now();
},
depth = () => page.deepest = Math.max(page.deepest,
  Math.min(100, (scrollY + innerHeight) / document.documentElement.scrollHeight * 100 + .5 | 0)),
flush = () => {
  clock();
  if (page.engaged >= 1e3 || page.deepest > page.told) {
    emit("engagement", {engaged_ms: page.engaged | 0, scroll_depth: page.told = depth()});
    page.engaged = 0;
  }
},
look = () => {
  seen() ? clock() : flush();
  wake();
},

listeners = {
  popstate: moved,
  visibilitychange: look,
  prerenderingchange: look,
  focus: look,
  blur: look,
  scroll: depth,
  online: () => failed && resume(),
  pagehide() { left = true; flush(); deliver(); },
  pageshow(e) { left = false; e.persisted && enter(); },
  click({target}) {
    const named = target.closest("[data-ga-event]"), link = target.closest("a[href]"), properties = {};
    if (named) {
      for (const {name, value} of named.attributes) if (/^data-ga-(?!event$)/.test(name)) properties[name.slice(8)] = value;
      api.track(named.dataset.gaEvent, properties);
    }
    if (!/true/.test(config.outbound) || !link) return;
    const file = /\.(pdf|zip|csv|docx?|xlsx?|mp[34])$/.test(link.pathname);
    if (file || link.origin != origin && link.host) api.track(file ? "File download" : "Outbound link", {url: clean(link)});
  },
},

api = {
  init(options) {
    if (config.endpoint) return twice();
    Object.assign(config, {endpoint: tag ? new URL("../t", tag.src).href : "/ga/t"}, tag && tag.dataset, options);
    for (const k of ["pushState", "replaceState"]) {
      const f = history[k].bind(history);
      history[k] = (...a) => { f(...a); moved(); };
    }
    for (const k in listeners) addEventListener(k, guard(listeners[k]), true);
    wake();
  },
  track: (event_name, properties) => emit("custom", {event_name, properties}),
  pageview: o => page.url && enter(o),
  lead: (properties, token) => emit("lead", {properties, token}),
  sale: ({amount_cents, currency, key, properties, token}) => emit("sale", {amount_cents, currency, key, properties, token}),
  identify: ({token, external_id, email, name, traits}) => emit("identify", {token, external_id, email, name, traits}),
  share: channel => emit("share", {properties: {channel}}),
  setConsent(given) {
    if (config.consent = !!given) return wake();
    page.url && post("/deny").catch(warn).then(resume, out++);
    api.forget();
    page = {}; held = [];
  },
  optOut() { write("_ga_optout", 1); api.setConsent(); },
  optIn() { write("_ga_optout"); api.setConsent(1); },
  forget() { setClick(); write("_ga_queue"); queue = []; },
  reset() {
    listeners.pagehide();
    left = false;
    setClick();
    page.url && post("/reset").catch(warn).then(resume, out++);
  },
  getClickId: () => [clickId, cookie("_ga_good")].find(isUuid),
};
for (const k in api) api[k] = guard(api[k]);
api.q = {push: guard(([k, ...a]) => api[k](...a))};
window.GoodAnalytics = api;
stub.q && stub.q.forEach(api.q.push);
if (tag && tag.dataset.auto != "false" && (tag.defer || tag.dataset.endpoint)) api.init();
})();
