"use strict";
// Keeps the page live: the server sends the sections, each is put in place if it has changed. Texts are
// escaped by the server; nothing is made of them here.

const main = document.getElementById("live");
const statusLine = document.getElementById("status");
const zone = document.getElementById("zone");
const pause = document.getElementById("pause");
const heading = main.querySelector("h1");
const before = new Map();
let isPaused = false;
let isDragging = false;
let lastAt = Date.now();

function isLocal() {
  try {
    return localStorage.getItem("geventpool-zone") === "local";
  } catch {
    return false;
  }
}

function showTimes(root) {
  const local = isLocal();
  for (const one of root.querySelectorAll("time")) {
    if (!one.dataset.utc) one.dataset.utc = one.textContent;
    const then = new Date(one.dateTime);
    const isOld = one.dataset.utc.includes("-");
    one.textContent = !local ? one.dataset.utc : isOld ? then.toLocaleString() : then.toLocaleTimeString();
    one.title = local ? one.dateTime : then.toLocaleString();
  }
  zone.setAttribute("aria-pressed", String(local));
}

function openKeys(section) {
  return new Set([...section.querySelectorAll("details[open]")].map((one) => one.dataset.key));
}

function isBusy(section) {
  // Whoever selects text here or has the focus within is not disturbed.
  const selection = document.getSelection();
  return isDragging || (selection && !selection.isCollapsed && section.contains(selection.anchorNode));
}

function focusedPath(section) {
  const links = [...section.querySelectorAll("a[href], summary, [tabindex]")];
  return links.indexOf(document.activeElement);
}

function put(section, old) {
  const opened = openKeys(old);
  for (const one of section.querySelectorAll("details")) one.open = opened.has(one.dataset.key);
  const focused = focusedPath(old);
  const scrolled = [...old.querySelectorAll(".scroll")].map((one) => one.scrollLeft);
  old.replaceWith(section);
  section.querySelectorAll(".scroll").forEach((one, place) => (one.scrollLeft = scrolled[place] || 0));
  if (focused >= 0) {
    const links = section.querySelectorAll("a[href], summary, [tabindex]");
    if (links[focused]) links[focused].focus({ preventScroll: true });
  }
}

function show(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  const ids = new Set();
  let last = heading;
  for (const section of [...template.content.children]) {
    ids.add(section.id);
    const text = section.outerHTML;
    const old = document.getElementById(section.id);
    if (!old) {
      last.after(section);
      showTimes(section);
      before.set(section.id, text);
      last = section;
      continue;
    }
    last = old;
    if (before.get(section.id) === text || isBusy(old)) continue;
    before.set(section.id, text);
    showTimes(section);
    put(section, old);
    last = section;
  }
  for (const old of [...main.querySelectorAll(":scope > section")]) if (!ids.has(old.id)) old.remove();
}

function tellStatus(text, isStale) {
  if (statusLine.textContent !== text) statusLine.textContent = text;
  document.body.classList.toggle("stale", isStale);
}

function clock(milliseconds) {
  const then = new Date(milliseconds);
  return isLocal() ? then.toLocaleTimeString() : then.toISOString().slice(11, 19) + " UTC";
}

function listen(address) {
  const source = new EventSource(address);
  source.onmessage = (message) => {
    lastAt = Date.now();
    const said = JSON.parse(message.data);
    if (!isPaused && said.html) show(said.html);
    if (!isPaused) tellStatus("live", false);
  };
  source.onerror = () => {
    // The browser itself comes again, except where it was refused: such as while the server was away.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => listen(address), 2000);
  };
  addEventListener("pagehide", () => source.close());
}

function zoomable() {
  // Drag over a chart: that stretch of time is shown.
  let chart = null;
  let from = 0;
  const timeAt = (event) => {
    const box = chart.getBoundingClientRect();
    const data = chart.dataset;
    const x = ((event.clientX - box.left) / box.width) * 1000;
    const share = (x - data.left) / (1000 - data.left - data.right);
    const begin = Number(data.begin);
    return begin + Math.min(Math.max(share, 0), 1) * (Number(data.end) - begin);
  };
  main.addEventListener("pointerdown", (event) => {
    chart = event.target.closest("svg.chart");
    if (!chart) return;
    isDragging = true;
    from = timeAt(event);
    event.preventDefault();
  });
  addEventListener("pointerup", (event) => {
    isDragging = false;
    if (!chart) return;
    const to = timeAt(event);
    chart = null;
    if (Math.abs(to - from) < 3) return;
    const address = new URL(location.href);
    address.searchParams.set("from", Math.min(from, to).toFixed(0));
    address.searchParams.set("to", Math.max(from, to).toFixed(0));
    location.href = address.href;
  });
}

zone.hidden = false;
zone.addEventListener("click", () => {
  try {
    localStorage.setItem("geventpool-zone", isLocal() ? "utc" : "local");
  } catch {
    return;
  }
  showTimes(document);
});
showTimes(document);
zoomable();
if (document.body.dataset.stream) {
  pause.hidden = false;
  pause.addEventListener("click", () => {
    isPaused = !isPaused;
    pause.setAttribute("aria-pressed", String(isPaused));
    if (isPaused) tellStatus("paused at " + clock(Date.now()), false);
  });
  listen(document.body.dataset.stream);
  setInterval(() => {
    if (!isPaused && Date.now() - lastAt > 5000) tellStatus("stale since " + clock(lastAt), true);
  }, 1000);
}
