// Polls the figures of the control room and shows them; not while the tab is hidden.
import { Charts } from "./charts.js";

const POLL_MS = 5000;
const OLD_MS = 3 * POLL_MS;
const GIVE_UP_MS = 10000;

const room = document.getElementById("room");
const byId = (id) => document.getElementById(id);
const charts = new Charts(byId("charts"));

let readAt = null;
let problem = "";
let timer = null;
let spoken = "";

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

async function read(url) {
  const answer = await fetch(url, { redirect: "manual", signal: AbortSignal.timeout(GIVE_UP_MS) });
  if (answer.type === "opaqueredirect" || answer.status === 403) throw new Error("you are logged out: load the page again");
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
  return answer.json();
}

async function poll() {
  clearTimeout(timer);
  timer = null;
  if (document.hidden) return;
  try {
    const span = document.querySelector("input[name=span]:checked").value;
    const [state, drawn] = await Promise.all([
      read(room.dataset.state),
      read(`${room.dataset.charts}?span=${encodeURIComponent(span)}`),
    ]);
    readAt = Date.now();
    problem = "";
    show(state);
    charts.show(drawn, span);
  } catch (error) {
    problem = error.name === "TimeoutError" ? "the server does not answer" : error.message;
  }
  showFreshness();
  clearTimeout(timer);
  if (!document.hidden) timer = setTimeout(poll, POLL_MS);
}

function show(state) {
  speak(state.verdict, state.well);
  const alerts = state.alerts.map((alert) => {
    const item = element("li", "", { class: "bad" });
    item.append(element("strong", alert.text));
    const since = alert.since ? `, since ${new Date(alert.since).toLocaleString()}` : "";
    item.append(element("span", ` (${alert.name}: ${alert.value}, threshold ${alert.threshold}${since}) `));
    // A page of the checkout, as it is where no address is set, is no page of this site.
    const goes = /^(https?:|\/)/.test(alert.link);
    item.append(goes ? element("a", `What to do: ${alert.name}`, { href: alert.link }) : `What to do: ${alert.link}`);
    return item;
  });
  byId("alerts").replaceChildren(...(alerts.length ? alerts : [element("li", "No alert fires.")]));
  byId("figures").replaceChildren(...state.figures.map((figure) => {
    const box = element("div");
    box.append(element("dt", figure.name), element("dd", figure.value));
    return box;
  }));
  byId("invariants").replaceChildren(...state.invariants.map((invariant) =>
    element("li", invariant.holds ? `Holds: ${invariant.name}` : `Broken: ${invariant.name}: ${invariant.broken_by}`,
      { class: invariant.holds ? "good" : "bad" })));
  byId("samples").textContent = state.samples;
  byId("tables").replaceChildren(...state.tables.map(table));
}

function table({ title, rows }) {
  const section = element("section", undefined, { "aria-label": title });
  section.append(element("h2", title));
  if (!rows.length) {
    section.append(element("p", "None."));
    return section;
  }
  const columns = Object.keys(rows[0]).filter((column) => column !== "is_well");
  const made = element("table", undefined, { class: "stack" });
  const head = element("tr");
  head.append(...columns.map((column) => element("th", column, { scope: "col" })));
  const thead = element("thead");
  thead.append(head);
  const body = element("tbody");
  body.append(...rows.map((row) => {
    const line = element("tr", undefined, row.is_well === false ? { class: "bad" } : {});
    line.append(...columns.map((column) => element("td", String(row[column]), { "data-column": column })));
    return line;
  }));
  made.append(thead, body);
  section.append(made);
  return section;
}

// Only a change is written, so that a screen reader does not say the same every few seconds.
function speak(text, well) {
  if (text === spoken) return;
  spoken = text;
  byId("verdict").textContent = text;
  byId("verdict").className = well ? "good" : "bad";
}

function showFreshness() {
  const line = byId("freshness");
  const when = readAt ? `Figures of ${new Date(readAt).toLocaleTimeString()}` : "No figures yet";
  const old = readAt !== null && Date.now() - readAt > OLD_MS;
  line.className = problem || old ? "bad" : "";
  line.textContent = problem ? `${when}: ${problem}.` : old ? `${when}: they are old.` : `${when}.`;
  if (problem) speak(`Unknown: ${problem}`, false);
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(timer);
  if (!document.hidden) poll();
});
byId("spans").addEventListener("change", poll);
setInterval(showFreshness, 1000);
poll();
