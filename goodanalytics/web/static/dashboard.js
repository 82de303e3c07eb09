// Comforts only: every page works without this file.
"use strict";

// Read the chart by pointer or finger: what a band says in its title is said above the chart at once.
const reading = document.getElementById("reading");
const plot = document.querySelector(".plot");
if (reading && plot) {
  const read = (event) => {
    const title = event.target.closest(".band")?.querySelector("title");
    if (title) reading.textContent = title.textContent;
  };
  plot.addEventListener("pointerover", read);
  plot.addEventListener("pointerdown", read);
  plot.addEventListener("pointerleave", () => { reading.textContent = ""; });
}

// On a phone the rooms stand in one row that scrolls: bring the one that is open into sight.
const rooms = document.querySelector(".top nav");
const open = rooms?.querySelector("[aria-current]");
if (open) rooms.scrollLeft = open.offsetLeft - rooms.offsetLeft - (rooms.clientWidth - open.offsetWidth) / 2;

// Offer the browser's own time zone when the page shows another one.
const ownZone = document.getElementById("own-zone");
const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
if (ownZone && zone && zone !== ownZone.dataset.zone) {
  const address = new URL(ownZone.href);
  address.searchParams.set("tz", zone);
  ownZone.href = address.href;
  ownZone.textContent = `Show them in ${zone}`;
  ownZone.hidden = false;
}

for (const button of document.querySelectorAll("[data-copy]")) {
  if (!navigator.clipboard) continue;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.textContent = "Copied";
  });
}

// While a link is written, show what it will be. The server says the same when it is asked (`dashboard_link_form.destination`).
const linkForm = document.querySelector("form[data-preview]");
if (linkForm) {
  const said = (name) => linkForm.elements[name].value.trim();
  const encoded = (text) => encodeURIComponent(text).replaceAll("%20", "+");
  const nameOf = (part) => {
    const name = part.split("=")[0].toLowerCase();
    try { return decodeURIComponent(name.replaceAll("+", " ")); } catch { return name; }
  };
  const address = () => {
    const url = said("url");
    if (!/^https?:\/\/[^/?#\s]+[^\s]*$/i.test(url)) return null;
    const [, base, query, fragment] = /^([^?#]*)\??([^#]*)(#?.*)$/.exec(url);
    const campaign = ["utm_source", "utm_medium", "utm_campaign", "utm_content", "utm_term"].filter(said);
    const kept = query.split("&").filter((part) => part && ![...campaign, "ga_id"].includes(nameOf(part)));
    const parameters = [...kept, ...campaign.map((name) => `${name}=${encoded(said(name))}`)];
    return base + (parameters.length ? `?${parameters.join("&")}` : "") + fragment;
  };
  const image = document.getElementById("preview-qr");
  const short = document.getElementById("preview-short");
  const { path, linkDomains, qr, scheme } = linkForm.dataset;
  let drawing = 0;
  const draw = (domain, key) => {
    clearTimeout(drawing);
    drawing = setTimeout(() => {
      image.src = `${qr}?domain=${encodeURIComponent(domain)}&key=${encodeURIComponent(key)}`;
    }, 300);
  };
  const preview = (event) => {
    document.getElementById("preview-url").textContent = address() ?? "no address yet";
    if (!["domain", "key"].includes(event.target.name)) return;
    const [domain, key] = [said("domain").toLowerCase(), said("key")];
    const isOwn = linkDomains.split(" ").some((known) => known === domain || known === domain.split(":")[0]);
    const isWhole = /^[^/?#@\s\\]+$/.test(domain) && /^[\w-]{1,255}$/.test(key);
    short.textContent = isWhole ? `${scheme}://${domain}${isOwn ? "" : path}/${key}` : "not complete yet";
    image.hidden = !isWhole;
    if (isWhole) draw(domain, key);
  };
  linkForm.addEventListener("input", preview);
  document.getElementById("preview-again").hidden = true;
  document.getElementById("problems")?.focus();
}

// A file that is chosen is read into the box beside it, which the form sends. A text of another encoding is said, never guessed.
const file = document.querySelector("input[data-into]");
if (file) {
  const told = document.getElementById("file-said");
  document.getElementById("file-field").hidden = false;
  file.addEventListener("change", async () => {
    const [chosen] = file.files;
    if (!chosen) return;
    const box = document.getElementById(file.dataset.into);
    box.value = "";
    if (chosen.size > Number(file.dataset.most)) {
      told.textContent = file.dataset.tooLarge;
      return;
    }
    try {
      box.value = new TextDecoder("utf-8", { fatal: true }).decode(await chosen.arrayBuffer());
      told.textContent = `${chosen.name} is in the box.`;
    } catch {
      told.textContent = "This is no text in UTF-8. Save it as that, or use the command line with --encoding.";
    }
  });
}

// An open sheet closes when something else is touched, or by Escape.
const sheet = document.querySelector("details.dates");
if (sheet) {
  document.addEventListener("pointerdown", (event) => { if (!sheet.contains(event.target)) sheet.open = false; });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") sheet.open = false; });
}
