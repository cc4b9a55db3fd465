// The dashboard of `tfserve-nb serve --dashboard`: the server draws the views, this asks for them and carries out clicks.
"use strict";

const ADMIN = "v1";            // relative to /tfserve/: the page also works behind a prefix
const EVERY_MS = 1000;
const MODELS_EVERY_MS = 10_000;
const TABS = [
  ["versions", "Versions"], ["latency", "Latency"], ["resources", "Resources"], ["compare", "A/B"], ["requests", "Requests"],
];
const SPANS = ["1 minute", "2 minutes", "5 minutes", "15 minutes"];

const find = (id) => document.getElementById(id);
const state = { token: null, model: null, tab: "versions", busy: false, status: null, undo: null, paused: false,
  actions: null, rows: [], engines: [], engine: "", followed: "",
  span: SPANS[1], signature: "", version: "", a: "", b: "", request: "", target: "default",
  signatures: [], lookedMs: 0, sampling: false, again: false, resent: false, only: "", label: "" };

class Refused extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

async function ask(path, body) {
  const headers = { Authorization: `Bearer ${state.token}` };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let reply;
  try {
    reply = await fetch(`${ADMIN}/${path}`,
      { method: body === undefined ? "GET" : "POST", headers, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw new Refused(0, "the server does not answer: was it stopped? This page goes on when it is back");
  }
  const value = await reply.json().catch(() => ({}));
  if (!reply.ok) throw new Refused(reply.status, (value.error ?? reply.statusText) + (value.hint ? ` (try: ${value.hint})` : ""));
  return value;
}

const ofModel = (rest) => `models/${encodeURIComponent(state.model)}${rest}`;
const say = (text) => { if (find("said").textContent !== text) find("said").textContent = text; };

// --- elements -------------------------------------------------------------------------------------------------------

function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (typeof value === "boolean") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

function choice(label, options, key, always = []) {
  const select = make("select", { "aria-label": label, onchange: () => { state[key] = select.value; refresh(true); } });
  const all = [...always, ...options.map((one) => [String(one), String(one)])];
  for (const [value, text] of all) select.append(make("option", { value }, text));
  if (!all.some(([value]) => value === state[key])) state[key] = all[0]?.[0] ?? "";
  select.value = state[key];
  return make("label", {}, label, select);
}

const button = (text, title, onclick, kind = "") => make("button", { title, onclick, class: kind, type: "button" }, text);

const actionButton = (name, chosen = () => ({})) => {
  const { text, title, is_main: isMain } = state.actions[name];
  return button(text, title, () => act(name, chosen()), isMain ? "main" : "");
};

// --- what is clicked ------------------------------------------------------------------------------------------------

async function carryOut(doing, path, body, done) {
  if (state.busy) return;
  state.busy = true;
  say(`${doing}…`);
  const focused = controls().indexOf(document.activeElement);
  controls().forEach((one) => { one.disabled = true; });
  let said;
  try {
    said = done(await ask(path, body));
  } catch (error) {
    said = `⚠ ${error.message}`;
  }
  state.busy = false;
  drawnControls = "";      // also what changed nothing draws them anew: they can be used again
  await refresh(true);
  if (document.activeElement === document.body) controls()[focused]?.focus();
  say(said);
}

// The server has the table of actions: what they are called, what they say, and which action takes them back.
function act(name, chosen = {}) {
  const action = state.actions[name];
  const fill = (text) => text.replace(/\{(\w+)\}/g, (_, field) => ({ ...chosen, name: state.model })[field] ?? "");
  if (action.question && !confirm(fill(action.question))) return;
  carryOut(fill(action.what), ofModel(`/actions/${name}`), chosen, ({ said, undo }) => { state.undo = undo; return said; });
}

function takeBack() {
  const { what, action, choice: chosen } = state.undo;
  carryOut(`taking back: ${what}`, ofModel(`/actions/${action}`), chosen, () => { state.undo = null; return `taken back: ${what}`; });
}

const controls = () => [...find("controls").querySelectorAll("button, input, select")];

// --- controls of each view ------------------------------------------------------------------------------------------

// The field names what runs the chosen version, whenever that is something else; until then, what a person chose stays.
function followEngine() {
  const running = state.status.versions.find((one) => String(one.version) === state.version)?.engine ?? "";
  const followed = `${state.version} ${running}`;
  if (followed === state.followed) return;
  state.followed = followed;
  if (state.engines.includes(running)) state.engine = running;
}

const CONTROLS = {
  versions() {
    const { status } = state;
    const loaded = status.versions.filter((one) => one.state === "AVAILABLE").map((one) => one.version).sort((a, b) => a - b);
    const known = [...new Set([...loaded, ...status.on_disk])].sort((a, b) => b - a);
    if (state.version === "") state.version = String(status.default_version ?? known[0] ?? "");
    followEngine();
    const label = make("input", { type: "text", placeholder: "stable", value: state.label ?? "",
      oninput: () => { state.label = label.value; } });
    const [forVersion, forLabel, forEngine] = state.rows.map((names) => names.map((name) =>
      actionButton(name, () => ({ version: state.version, label: label.value.trim(), engine: state.engine }))));
    const undo = button(state.undo ? `Undo: ${state.undo.what}` : "Undo", "Take the last change back", takeBack);
    undo.disabled = state.undo === null;
    const rows = [
      make("div", {}, choice("Version", known, "version"), ...forVersion, undo),
      make("div", {}, make("label", {}, "Label", label), ...forLabel),
      make("div", {}, choice("Engine", state.engines, "engine"), ...forEngine),
    ];
    for (const version of loaded) {
      const percent = Math.round(status.traffic[version] ?? 0);
      const slider = make("input", { type: "range", min: 0, max: 100, value: percent, "aria-label": `v${version} traffic`,
        onchange: () => act("share", { version, percent: Number(slider.value) }), disabled: loaded.length < 2 });
      rows.push(make("div", {}, make("label", {}, `v${version} traffic`, slider, `${percent} %`)));
    }
    return rows;
  },
  latency() {
    const pause = button(state.paused ? "Go on" : "Pause", "Let the charts stand still",
      () => { state.paused = !state.paused; refresh(true); });
    const versions = state.status.versions.map((one) => one.version);
    return [make("div", {}, choice("Last", SPANS, "span"), choice("Version", versions, "only", [["", "all"]]),
      choice("Signature", state.signatures, "signature", [["", "all"]]), pause)];
  },
  compare() {
    const versions = state.status.versions.map((one) => one.version).sort((a, b) => a - b);
    if (state.a === "") state.a = String(state.status.default_version ?? "");
    if (state.b === "") state.b = String(versions.filter((one) => String(one) !== state.a).at(-1) ?? "");
    return [make("div", {}, choice("A: version", versions, "a"), choice("B: version", versions, "b"))];
  },
  resources: () => [],
  requests() {
    const number = make("input", { type: "text", placeholder: "newest", value: state.request, "aria-label": "Request",
      oninput: () => { state.request = number.value.trim(); } });
    const versions = state.status.versions.map((one) => one.version);
    return [make("div", {},
      actionButton(state.sampling ? "stop_sampling" : "sample"),
      make("label", {}, "Request", number), choice("Send to", versions, "target", [["default", "the model"]]),
      button("Send again", "Send the request once more", () => { state.again = true; refresh(true); }))];
  },
};

// --- drawing --------------------------------------------------------------------------------------------------------

let drawnControls = "";
let drawnContent = "";

async function refresh(isForced = false) {
  if (!state.token || document.hidden && !isForced) return;
  try {
    if (state.model === null || performance.now() - state.lookedMs > MODELS_EVERY_MS) await findModels();
    if (state.model === null) return;
    if (state.actions === null)
      ({ actions: state.actions, rows: state.rows, engines: state.engines } = await ask(ofModel("/pages/actions")));
    state.status = await ask(ofModel(""));
    const query = new URLSearchParams(
      { span: state.span, signature: state.signature, only: state.only ?? "", a: state.a, b: state.b, request: state.request });
    const sending = state.tab === "requests" && state.again;
    if (sending) query.set("to", state.target);
    if (state.tab !== "requests") state.again = state.resent = false;
    if (state.resent && !sending && !isForced) return;      // the answer stays until something else is asked
    const { html, is_on: isOn, signatures } = await ask(ofModel(`/pages/${state.tab}?${query}`));
    state.sampling = isOn ?? state.sampling;
    state.signatures = signatures ?? state.signatures;
    state.resent = sending;
    state.again = false;
    draw(html, isForced);
    if (find("said").dataset.isProblem) { say(""); delete find("said").dataset.isProblem; }
  } catch (error) {
    if (error.status === 401) return logOut("The token is wrong: the server may have been started anew.");
    if (error.status === 404) state.model = null;
    find("said").dataset.isProblem = "yes";
    say(`⚠ ${error.message}`);
  }
}

function draw(html, isForced) {
  const isTyping = find("controls").contains(document.activeElement) && !isForced;
  const versions = state.status.versions.map((one) => [one.version, one.state, one.engine]);
  const key = JSON.stringify([state.tab, versions, state.status.traffic, state.status.labels,
    state.status.on_disk, state.undo?.what, state.paused, state.version, state.sampling, state.signatures]);
  if (key !== drawnControls && !isTyping && !state.busy) {
    find("controls").replaceChildren(...CONTROLS[state.tab]());
    drawnControls = key;
  }
  if (state.tab === "latency" && state.paused) return;
  if (html !== drawnContent) {
    const open = [...find("content").querySelectorAll("details")].map((one) => one.open);
    find("content").innerHTML = html;      // the server escapes everything that comes from users
    find("content").querySelectorAll("details").forEach((one, place) => { one.open = open[place] ?? one.open; });
    drawnContent = html;
  }
}

async function findModels() {
  const { models } = await ask("models");
  const select = find("model");
  const listed = [...select.options].map((one) => one.value);
  if (JSON.stringify(listed) !== JSON.stringify(models))
    select.replaceChildren(...models.map((name) => make("option", { value: name }, name)));
  if (!models.includes(state.model)) state.model = models[0] ?? null;
  if (state.model !== null && select.value !== state.model) select.value = state.model;
  state.lookedMs = performance.now();
  if (state.model === null) say("no model is served yet");
}

function open(tab) {
  state.tab = tab;
  drawnControls = drawnContent = "";
  for (const one of find("tabs").children) {
    const isIt = one.id === `tab-${tab}`;
    one.setAttribute("aria-selected", String(isIt));
    one.tabIndex = isIt ? 0 : -1;
  }
  find("panel").setAttribute("aria-labelledby", `tab-${tab}`);
  refresh(true);
}

function logOut(text) {
  sessionStorage.removeItem("tfserve-token");
  state.token = null;
  find("main").hidden = true;
  find("login").hidden = false;
  say(text);
}

function logIn(token) {
  state.token = token;
  sessionStorage.setItem("tfserve-token", token);
  find("login").hidden = true;
  find("main").hidden = false;
  say("");
  open(state.tab);
}

function start() {
  for (const [id, title] of TABS) {
    find("tabs").append(make("button", { role: "tab", id: `tab-${id}`, "aria-controls": "panel", type: "button",
      onclick: () => open(id) }, title));
  }
  find("tabs").addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const tabs = [...find("tabs").children];
    const next = tabs[(tabs.indexOf(document.activeElement) + step + tabs.length) % tabs.length];
    next.focus();
    next.click();
  });
  find("model").addEventListener("change", () => { state.model = find("model").value; state.version = state.followed = ""; state.undo = null; open(state.tab); });
  find("login").addEventListener("submit", (event) => { event.preventDefault(); logIn(find("token").value.trim()); });
  document.addEventListener("visibilitychange", () => refresh());
  // The token comes behind the #, which browsers do not send; it does not stay in the address bar.
  const given = new URLSearchParams(location.hash.slice(1)).get("token") ?? sessionStorage.getItem("tfserve-token");
  if (location.hash) history.replaceState(null, "", location.pathname + location.search);
  if (given) logIn(given); else logOut("");
  setInterval(refresh, EVERY_MS);
}

start();
