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

// An open sheet closes when something else is touched, or by Escape.
const sheet = document.querySelector("details.dates");
if (sheet) {
  document.addEventListener("pointerdown", (event) => { if (!sheet.contains(event.target)) sheet.open = false; });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") sheet.open = false; });
}
