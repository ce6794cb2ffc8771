// Shows what a registry has. Whatever comes from it is text: no markup is ever made of it, and no address that it says is
// followed (the Content-Security-Policy of this page forbids the first as well).

const PAGE = 50;            // entries that are asked for at once
const MOST_SHOWN = 5000;    // entries of a list in all
const LONGEST_TEXT = 4000;  // letters of anything that a registry says
const IMAGE_CONFIG = /^application\/vnd\.(oci\.image\.config|docker\.container\.image)\.v1\+json$/;
const ANNOTATION = "org.opencontainers.image.";

const main = document.getElementById("main");
const session = { authorization: null, user: null };
let turn = 0;               // of the view that is being made: what comes later for another one is left

class Refused extends Error {
  constructor(status, message, challenge) {
    super(message);
    this.status = status;
    this.challenge = challenge || "";
  }
}

// ---- asking ---------------------------------------------------------------------------------------------------------

async function ask(path, authorization = session.authorization) {
  const headers = authorization ? { Authorization: authorization } : {};
  let response;
  try {
    // Without the browser's own credentials it does not ask for a password in our place.
    response = await fetch(path, { headers, credentials: "omit", cache: "no-store", redirect: "error" });
  } catch {
    throw new Refused(0, "The registry does not answer.");
  }
  const text = await response.text();
  if (response.ok) return JSON.parse(text);
  let message = `It answers with ${response.status}.`;
  try { message = JSON.parse(text).errors[0].message; } catch { /* it says nothing that is understood */ }
  throw new Refused(response.status, message, response.headers.get("www-authenticate"));
}

function path(name, ...rest) {
  const all = [...name.split("/"), ...rest].map(String);
  // A browser takes these for ways to elsewhere, encoded or not (url.spec.whatwg.org, "Path state").
  if (all.some((word) => /^\.{0,2}$/.test(word))) throw new Refused(404, "Nothing is called so.");
  return ["/ui/repositories", ...all.map(encodeURIComponent)].join("/");
}

// ---- making ---------------------------------------------------------------------------------------------------------

// Letters that turn or hide what stands beside them are shown as what they are.
const visible = (text) => text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g, "\ufffd");

function plain(value) {
  const text = visible(String(value ?? ""));
  return text.length > LONGEST_TEXT ? text.slice(0, LONGEST_TEXT) + "…" : text;
}

function make(tag, properties, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "class") node.className = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(3)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(plain(child)));
  }
  return node;
}

const list = (value) => (Array.isArray(value) ? value : []);
const entries = (value) => (value && typeof value === "object" && !Array.isArray(value) ? Object.entries(value) : []);
const words = (value) => list(value).map(String).join(" ");
const count = (number, one, many) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
const short = (digest) => String(digest).replace(/^(sha\d+:[0-9a-f]{12})[0-9a-f]*$/, "$1");

function size(bytes) {
  if (typeof bytes !== "number" || !isFinite(bytes)) return "?";
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let at = 0;
  while (bytes >= 999.5 && at < units.length - 1) { bytes /= 1000; at += 1; }
  return `${at && bytes < 99.95 ? bytes.toFixed(1) : Math.round(bytes)} ${units[at]}`;
}

// `seconds` since 1970; 0 is never.
function ago(seconds, never = "never") {
  if (!seconds || !isFinite(seconds)) return document.createTextNode(never);
  const units = [["year", 31557600], ["month", 2629800], ["day", 86400], ["hour", 3600], ["minute", 60]];
  const since = Date.now() / 1000 - seconds;
  const [unit, length] = units.find(([, length]) => Math.abs(since) >= length) || ["minute", 60];
  const words = Math.abs(since) < 60 ? "just now" :
    new Intl.RelativeTimeFormat("en", { numeric: "auto" }).format(-Math.round(since / length), unit);
  const date = new Date(seconds * 1000);
  if (isNaN(date)) return document.createTextNode("?");
  return make("time", { datetime: date.toISOString(), title: date.toLocaleString() }, words);
}

// A command of one line, which is copied as it is shown.
function copied(command, label) {
  const text = plain(command).replace(/\s/g, " ");
  const shown = make("code", null, text);
  const button = make("button", { type: "button", class: "quiet", "aria-label": `Copy ${label}`, onclick: async () => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Without TLS browsers have no clipboard for a page.
      const range = document.createRange();
      range.selectNodeContents(shown);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      document.execCommand("copy");
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  } }, "Copy");
  return make("div", { class: "copy" }, shown, button);
}

function fact(name, value) {
  const empty = value === null || value === undefined || value === "" || (Array.isArray(value) && !value.length);
  if (empty) return null;
  const shown = Array.isArray(value) ? make("ul", null, value.slice(0, 500).map((one) => make("li", null, one))) : value;
  return [make("dt", null, name), make("dd", null, shown)];
}

const title = (text, count) => make("h2", null, text, count === undefined ? null : make("span", { class: "count" }, count));
const place = (...parts) => "#/" + parts.join("");

// ---- where ----------------------------------------------------------------------------------------------------------

// Names, tags and digests as a registry takes them. Commands are made of nothing else: whoever copies one runs it.
const NAME = /^[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*(?:\/[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*)*$/;
const TAG = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/;
const DIGEST = /^(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/;
const isName = (text) => text.length <= 255 && NAME.test(text);
const isReference = (sign, text) => (sign === "@" ? DIGEST : TAG).test(text);

// `#/`, `#/NAME`, `#/NAME:TAG`, `#/NAME@DIGEST`; of a manifest that an index led to, `^` and the index's own reference.
// `null`: it is none of them.
function where() {
  let text = "";
  try { text = decodeURIComponent(location.hash.replace(/^#\/?/, "")); } catch { return null; }
  const [said, from] = text.split("^");
  const by = said.match(/^([^:@]*)([:@])(.+)$/);
  const here = by ? { name: by[1], reference: by[3], sign: by[2], from } : { name: said };
  const isRight = (!text || isName(here.name)) && (!by || isReference(here.sign, here.reference)) &&
    (!from || (/^[:@]/.test(from) && isReference(from[0], from.slice(1))));
  return isRight ? here : null;
}

function trail(here) {
  const parts = [];
  if (here.name) {
    parts.push(here.reference ? make("a", { href: place(here.name) }, here.name) : make("b", null, here.name));
    const own = here.reference && here.sign + short(here.reference);
    if (here.from) parts.push(make("a", { href: place(here.name, here.from) }, here.from[0] + short(here.from.slice(1))), " › ");
    if (own) parts.push(make("b", null, own));
  }
  document.getElementById("trail").replaceChildren(...parts.map((part) => part instanceof Node ? part : document.createTextNode(part)));
}

function up() {
  const here = where();
  if (!here) location.hash = place();
  else if (here.from) location.hash = place(here.name, here.from);
  else if (here.reference) location.hash = place(here.name);
  else if (here.name) location.hash = place();
}

async function show() {
  const mine = ++turn;
  const found = where();
  const here = found || { name: "" };
  trail(here);
  document.title = here.name ? `${here.name}${here.reference ? here.sign + short(here.reference) : ""} – ${location.host}` : location.host;
  main.setAttribute("aria-busy", "true");
  const waiting = setTimeout(() => { if (mine === turn) main.replaceChildren(make("p", { class: "loading" }, "Loading …")); }, 250);
  let nodes;
  try {
    if (!found) throw new Refused(404, "No repository, tag or digest is called so.");
    nodes = here.reference ? await manifest(here, mine) : here.name ? await repository(here.name, mine) : await repositories(mine);
  } catch (error) {
    nodes = [refusal(error)];
  }
  clearTimeout(waiting);
  if (mine !== turn) return;
  main.replaceChildren(...nodes.flat(3).filter(Boolean));
  main.removeAttribute("aria-busy");
  scrollTo(0, 0);
  main.focus({ preventScroll: true });
}

function refusal(error) {
  if (!(error instanceof Refused)) {
    console.error(error);
    return make("div", { class: "notice bad" }, make("h2", null, "This cannot be shown"), make("p", null, "What the registry gave is not understood."));
  }
  if (error.status === 401) {
    setTimeout(() => knock(error, session.user ? "What you logged in with does not open this." : "This registry wants to know who you are."));
    return make("div", { class: "notice" }, make("h2", null, "Log in to see this"),
      make("button", { type: "button", onclick: () => knock(error, "") }, "Log in"));
  }
  const head = { 0: "Nobody answers", 403: "You may not see this", 404: "There is no such thing here" }[error.status] || "That did not work";
  return make("div", { class: "notice bad" }, make("h2", null, head), make("p", null, error.message),
    make("p", null, make("button", { type: "button", class: "quiet", onclick: show }, "Try again"), location.hash.length > 2 ? [" ", make("a", { href: place() }, "All repositories")] : null));
}

// ---- lists ----------------------------------------------------------------------------------------------------------

// A list that is longer than what is asked for at once. What is looked for is looked for in all of it.
async function pages(mine, options) {
  const all = [];
  let next = "";
  const shown = make("ul", { class: "list" });
  const found = make("p", { class: "lead", role: "status" });
  const more = make("button", { type: "button", class: "quiet more", onclick: () => forth(PAGE) }, "More");
  const find = make("input", { class: "find", type: "search", placeholder: `Find ${options.what}`, "aria-label": `Find ${options.what}`, oninput: () => look() });
  const fetchMore = async () => {
    const page = await ask(`${options.path}?n=${PAGE}${next ? `&last=${encodeURIComponent(next)}` : ""}`);
    const got = list(page[options.key]);
    all.push(...got);
    next = typeof page.next === "string" && got.length ? page.next : null;
    if (all.length >= MOST_SHOWN) next = null;
    return page;
  };
  const draw = () => {
    const wanted = find.value.trim().toLowerCase();
    const matching = wanted ? all.filter((one) => String(one.name).toLowerCase().includes(wanted)) : all;
    shown.replaceChildren(...matching.map((one) => make("li", null, options.row(one))));
    shown.hidden = !matching.length;
    more.hidden = next === null;
    const whole = next === null ? (all.length >= MOST_SHOWN ? `the first ${all.length}` : `${all.length}`) : `the first ${all.length}`;
    found.textContent = wanted ? `${matching.length} of ${whole}` : next === null && all.length < MOST_SHOWN ? options.total(all.length) : `${whole} ${options.what}`;
  };
  let looking = null;
  const forth = async (atLeast) => {
    if (looking) return looking;
    more.disabled = true;
    looking = (async () => {
      const goal = all.length + atLeast;
      try {
        while (next !== null && all.length < goal && mine === turn) { await fetchMore(); draw(); }
      } catch (error) {
        found.textContent = error.message;
      } finally {
        more.disabled = false;
        looking = null;
      }
    })();
    return looking;
  };
  const look = () => { draw(); if (find.value.trim() && next !== null) forth(Infinity); };
  const first = await fetchMore();
  draw();
  return { all, first, find, found, shown, more };
}

async function repositories(mine) {
  const pageful = await pages(mine, {
    path: "/ui/repositories", key: "repositories", what: "repositories",
    total: (number) => count(number, "repository", "repositories"),
    row: (one) => make("a", { class: "row", href: place(one.name) },
      make("span", { class: "name" }, one.name, one.upstream ? make("small", null, `kept of ${one.upstream}`) : null),
      make("span", { class: "cell", "data-label": "Tags:" }, one.tags === null ? "many tags" : count(one.tags, "tag", "tags")),
      make("span", { class: "cell", "data-label": "Size:" }, size(one.bytes)),
      make("span", { class: "cell", "data-label": "Last push:" }, ago(one.pushed_at, "–"))),
  });
  if (!pageful.all.length) {
    return [make("div", { class: "notice" }, make("h2", null, "Nothing is here yet"),
      make("p", null, session.user || !pageful.first.is_limited ? "The first push makes a repository." : "Or nothing that everyone may see: log in."),
      copied(`docker tag IMAGE ${location.host}/NAME:TAG`, "the command"), copied(`docker push ${location.host}/NAME:TAG`, "the command"))];
  }
  return [make("div", { class: "head" }, make("div", null, make("h1", null, "Repositories"), pageful.found), pageful.find), pageful.shown, pageful.more];
}

function kind(one) {
  if (one.platforms.length) return one.platforms.slice(0, 8).map((platform) => make("span", { class: "chip" }, platform));
  if (one.artifact_type && !IMAGE_CONFIG.test(one.artifact_type)) return make("span", { class: "chip" }, one.artifact_type);
  return null;
}

async function repository(name, mine) {
  const pageful = await pages(mine, {
    path: path(name, "tags"), key: "tags", what: "tags",
    total: (number) => count(number, "tag", "tags"),
    row: (one) => make("a", { class: "row", href: place(name, ":", one.name) },
      make("span", { class: "name" }, one.name, make("small", null, short(one.digest), " ", kind(one))),
      make("span", { class: "cell", "data-label": "Size:" }, size(one.bytes)),
      make("span", { class: "cell", "data-label": "Pushed:" }, "pushed ", ago(one.pushed_at)),
      make("span", { class: "cell", "data-label": "Pulled:" }, one.pulled_at ? ["pulled ", ago(one.pulled_at)] : "never pulled")),
  });
  const head = make("div", { class: "head" }, make("div", null, make("h1", { class: "mono" }, name), pageful.found), pageful.all.length ? pageful.find : null);
  if (!pageful.all.length) return [head, make("div", { class: "notice" }, make("h2", null, "No tags"), make("p", null, "Its manifests are called by their digests alone."))];
  const tags = pageful.all.map((one) => one.name).filter((tag) => isReference(":", tag));
  const newest = tags.includes("latest") ? "latest" : tags[0];
  return [head, newest ? copied(`docker pull ${location.host}/${name}:${newest}`, "the command") : null, pageful.shown, pageful.more];
}

// ---- one manifest ---------------------------------------------------------------------------------------------------

const platformOf = (value) => value && value.os ? [value.os, value.architecture, value.variant].filter(Boolean).map(plain).join("/") : null;
const own = (value, name) => (value && typeof value === "object" && Object.hasOwn(value, name) ? value[name] : undefined);

async function manifest(here, mine) {
  const told = await ask(path(here.name, "manifests", here.reference));
  const content = JSON.parse(told.content);
  const isIndex = Array.isArray(content.manifests);
  let config = null;
  const configType = String(own(content.config, "mediaType") || "");
  const isImage = !isIndex && IMAGE_CONFIG.test(configType) && !content.artifactType;
  if (isImage) {
    try { config = JSON.parse((await ask(path(here.name, "documents", content.config.digest))).content); } catch (error) {
      if (error instanceof Refused && error.status === 401) throw error;
    }
  }
  if (mine !== turn) return [];
  const called = `${location.host}/${here.name}${here.sign}${here.reference}`;
  const chips = isIndex ? ["index"] : isImage ? [platformOf(config) || "image"] : [told.artifact_type || configType || "artifact"];
  return [
    make("div", { class: "head" }, make("div", null,
      make("h1", { class: "mono" }, here.name, make("span", null, here.sign + short(here.reference))),
      make("p", { class: "lead" }, chips.map((chip) => make("span", { class: "chip" }, chip)), size(told.bytes), ", pushed ", ago(told.pushed_at), told.pulled_at ? [", pulled ", ago(told.pulled_at)] : ", never pulled"))),
    isIndex || isImage ? copied(`docker pull ${called}`, "the command") : copied(`oras pull ${called}`, "the command"),
    make("div", { class: "card" }, make("dl", null,
      fact("Digest", make("code", null, told.digest)),
      fact("Type", told.media_type),
      isImage ? null : fact("Artifact", told.artifact_type),
      fact("Tags", list(told.tags).length ? make("span", null, list(told.tags).map((tag) => make("a", { class: "mono", href: place(here.name, ":", tag) }, tag))) : null),
      content.subject ? fact("About", make("a", { class: "mono", href: place(here.name, "@", content.subject.digest) }, short(content.subject.digest))) : null,
      config ? facts(config) : null)),
    isIndex ? platforms(here, content, told) : layers(content, config, told),
    notes("Labels", own(own(config, "config"), "Labels")),
    notes("Annotations", content.annotations),
    referrers(here, told),
    make("details", null, make("summary", null, "Manifest"), make("pre", null, pretty(content))),
    config ? make("details", null, make("summary", null, "Configuration"), make("pre", null, pretty(config))) : null,
  ];
}

function pretty(value) {
  const node = document.createTextNode("");
  const text = visible(JSON.stringify(value, null, 2));
  // In full: somebody looks for something in it.
  node.data = text.length > 400000 ? text.slice(0, 400000) + "\n…" : text;
  return node;
}

function facts(image) {
  const run = own(image, "config") || {};
  const created = Date.parse(image.created) / 1000;
  return [
    fact("Created", created > 0 ? ago(created) : null),
    fact("Entrypoint", run.Entrypoint ? make("code", null, words(run.Entrypoint)) : null),
    fact("Command", run.Cmd ? make("code", null, words(run.Cmd)) : null),
    fact("User", run.User), fact("Directory", run.WorkingDir),
    fact("Ports", entries(run.ExposedPorts).map(([port]) => port)),
    fact("Volumes", entries(run.Volumes).map(([path]) => make("code", null, path))),
    fact("Environment", list(run.Env).map((one) => make("code", null, one))),
    fact("Stops by", run.StopSignal),
  ];
}

function notes(name, values) {
  const all = entries(values).slice(0, 200);
  if (!all.length) return null;
  return [title(name, all.length), make("div", { class: "card" }, make("dl", null, all.map(([key, value]) =>
    [make("dt", { class: "mono" }, key.startsWith(ANNOTATION) ? key.slice(ANNOTATION.length) : key), make("dd", null, typeof value === "string" ? value : JSON.stringify(value))])))];
}

function platforms(here, content, told) {
  const isAttestation = (one) => own(one.annotations, "vnd.docker.reference.type") === "attestation-manifest";
  const from = here.sign + here.reference;
  const rows = content.manifests.slice(0, 1000).map((one) => {
    const child = own(told.children, one.digest) || {};
    return make("li", null, make("a", { class: "row wide", href: place(here.name, "@", one.digest, "^", from) },
      make("span", { class: "name" }, isAttestation(one) ? "attestation" : platformOf(one.platform) || one.artifactType || one.mediaType || "manifest",
        make("small", null, short(one.digest), child.is_here === false ? [" ", make("span", { class: "chip bad" }, "not here")] : null)),
      make("span", { class: "cell", "data-label": "Size:" }, child.is_here === false ? "" : size(child.bytes))));
  });
  return [title("Platforms", rows.length), rows.length ? make("ul", { class: "list" }, rows) : make("p", { class: "notice" }, "The index is empty.")];
}

// What an image's history says of its layers: those that it calls empty have none.
function layers(content, config, told) {
  const all = list(content.layers);
  const history = list(own(config, "history"));
  const largest = Math.max(1, ...all.map((layer) => Number(layer.size) || 0));
  const missing = new Set(list(told.missing));
  const rows = [];
  let number = 0;
  const row = (layer, step) => {
    number += 1;
    const named = own(layer.annotations, "org.opencontainers.image.title");
    const node = make("li", null,
      make("span", { class: "number" }, number),
      make("span", { class: "what" }, named || command(step) || layer.mediaType || "layer",
        make("small", null, short(layer.digest), missing.has(layer.digest) ? [" ", make("span", { class: "chip bad" }, "not here")] : null)),
      make("span", { class: "size" }, size(layer.size)), make("span", { class: "share" }));
    node.lastChild.style.setProperty("--share", `${(100 * (Number(layer.size) || 0)) / largest}%`);
    rows.push(node);
  };
  const isWhole = history.filter((step) => step && !step.empty_layer).length === all.length;
  let at = 0;
  for (const step of isWhole ? history.slice(0, 1000) : []) {
    if (step && step.empty_layer) rows.push(make("li", { class: "empty" }, make("span"), make("span", { class: "what" }, command(step)), make("span")));
    else { row(all[at], step); at += 1; }
  }
  for (const layer of all.slice(at, at + 1000)) row(layer, null);
  const counted = `${all.length}, ${size(all.reduce((sum, layer) => sum + (Number(layer.size) || 0), 0))}`;
  return [title("Layers", counted), rows.length ? make("ol", { class: "layers" }, rows) : make("p", { class: "notice" }, "It has none.")];
}

function command(step) {
  const said = String((step && step.created_by) || "");
  // Whoever made the image wrote it: no pattern may look at a letter more than once or twice.
  return said.replace(/^\/bin\/sh -c #\(nop\)\s*/, "").replace(/^(RUN )?\/bin\/sh -c /, "RUN ").replace(/# buildkit$/, "").trim();
}

function referrers(here, told) {
  const all = list(told.referrers);
  if (!all.length) return null;
  return [title("About it", told.has_more_referrers ? `the first ${all.length}` : all.length), make("ul", { class: "list" }, all.map((one) =>
    make("li", null, make("a", { class: "row wide", href: place(here.name, "@", one.digest, "^", here.sign, here.reference) },
      make("span", { class: "name" }, one.artifactType || one.mediaType, make("small", null, short(one.digest), entries(one.annotations).slice(0, 4).map(([key, value]) => ` ${plain(key)}=${plain(value)}`))),
      make("span", { class: "cell", "data-label": "Size:" }, size(one.size))))))];
}

// ---- who ------------------------------------------------------------------------------------------------------------

const door = document.getElementById("door");
const field = (id) => document.getElementById(id);
const encoded = (text) => btoa(Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join(""));

// A token service elsewhere gives none to a page: whoever has one can say it.
function wantsToken(challenge) {
  const realm = challenge.match(/^Bearer .*?realm="([^"]*)"/i);
  if (!realm) return null;
  try { const url = new URL(realm[1]); return url.pathname === "/v2/token" ? null : url.host; } catch { return null; }
}

function knock(error, why) {
  const elsewhere = wantsToken((error && error.challenge) || "");
  field("by-token").hidden = !elsewhere;
  field("by-password").hidden = Boolean(elsewhere);
  field("door-why").textContent = plain(elsewhere ? `It takes tokens of ${elsewhere}.` : why);
  field("door-error").textContent = "";
  if (!door.open) door.showModal();
  field(elsewhere ? "token" : "name").focus();
}

function greet() {
  field("user").textContent = session.user ? plain(session.user) : "";
  field("enter").textContent = session.authorization ? "Log out" : "Log in";
}

field("door-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const byToken = !field("by-token").hidden;
  const name = field("name").value;
  const authorization = byToken ? `Bearer ${field("token").value.trim()}` : `Basic ${encoded(`${name}:${field("password").value}`)}`;
  try {
    await ask("/v2/", authorization);
  } catch (error) {
    field("door-error").textContent = error.status === 401 ? "That is not right." : plain(error.message);
    field(byToken ? "token" : "password").focus();
    return;
  }
  Object.assign(session, { authorization, user: byToken ? "by token" : name });
  field("password").value = field("token").value = "";
  greet();
  door.close();
  show();
});
field("door-cancel").addEventListener("click", () => door.close());
field("enter").addEventListener("click", () => {
  if (!session.authorization) return knock(null, "");
  Object.assign(session, { authorization: null, user: null });
  greet();
  show();
});

// Only where somebody can be somebody.
async function entrance() {
  try { await ask("/v2/", null); } catch (error) { field("enter").hidden = error.status !== 401; }
}

// ---- keys -----------------------------------------------------------------------------------------------------------

addEventListener("keydown", (event) => {
  if (door.open || event.ctrlKey || event.metaKey || event.altKey) return;
  const find = main.querySelector(".find");
  const rows = Array.from(main.querySelectorAll("a.row"));
  const at = rows.indexOf(document.activeElement);
  if (event.key === "/" && find && document.activeElement !== find) find.focus();
  else if (event.key === "Escape" && document.activeElement === find && find.value) { find.value = ""; find.dispatchEvent(new Event("input")); }
  else if (event.key === "Escape") up();
  else if (event.key === "ArrowDown" && rows.length) rows[Math.min(at + 1, rows.length - 1)].focus();
  else if (event.key === "ArrowUp" && at >= 0) (at ? rows[at - 1] : find || main).focus();
  else if (event.key === "Enter" && document.activeElement === find && rows.length) rows[0].click();
  else return;
  event.preventDefault();
});

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
field("host").textContent = location.host;
addEventListener("hashchange", show);
greet();
entrance();
show();
