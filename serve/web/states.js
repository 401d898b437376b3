"use strict";
// What stands where the products would be: a welcome, nothing found, an error, a wait, a question for the key.

let countdown = 0;    // the timer of a wait; there is one at most

function clearMessage() {
  clearInterval(countdown);
  byId("message").hidden = true;
  byId("message").replaceChildren();
}

function showMessage(kind, ...content) {
  clearMessage();
  byId("message").className = kind;
  byId("message").append(...content);
  byId("message").hidden = false;
}

function showWelcome(examples, searchFor) {
  showMessage("welcome", fromTemplate("welcome"));
  const list = byId("message").querySelector(".examples");
  list.hidden = examples.length === 0;
  list.append(...examples.map((text) => {
    const row = element("li"), chip = button(text, "example", () => searchFor(text));
    chip.dir = "auto";
    chip.title = text;
    row.append(chip);
    return row;
  }));
}

function showNothing(numFilters, clearFilters) {
  const advice = numFilters ? "No product passes these filters, or none can be compared with this." : "No product can be compared with that. Other words, or the other side, may help.";
  showMessage("nothing", element("h2", "", "Nothing found"), element("p", "", advice));
  if (numFilters) byId("message").append(button("Clear the filters", "main", clearFilters));
}

function showProblem(problem, retry) {
  const title = problem.status >= 400 && problem.status < 500 ? "This cannot be searched for" : "That did not work";
  const rows = problem.errors.map(({ field, detail }) => element("li", "", field ? `${field}: ${detail}` : detail));
  const list = element("ul", "reasons");
  list.append(...rows);
  showMessage("wrong", element("h2", "", title), element("p", "detail", problem.message), ...(rows.length ? [list] : []));
  if (problem.requestId) byId("message").append(element("p", "request", `Request ${problem.requestId}`));
  byId("message").append(button("Try again", "main", retry));
  announce(`${title}. ${problem.message}`);
}

/** Count down to the next try; the wait ends early by its button, or with the next message. */
function showBusy(problem, waitS, retry) {
  const ends = Date.now() + waitS * 1000, left = element("span", "seconds");
  const tick = () => {
    const seconds = Math.max(0, Math.ceil((ends - Date.now()) / 1000));
    left.textContent = count(seconds, "second", "seconds");
    if (Date.now() >= ends) { clearInterval(countdown); retry(); }
  };
  const line = element("p", "", "It takes no more searches right now. The next try is in ");
  line.append(left, ".");
  showMessage("busy", element("h2", "", "The service is busy"), line, button("Try now", "main", retry));
  if (problem.requestId) byId("message").append(element("p", "request", `Request ${problem.requestId}`));
  announce(`The service is busy. Next try in ${count(Math.ceil(waitS), "second", "seconds")}.`);
  countdown = setInterval(tick, 200);
  tick();
}

function showKeyForm(wasRefused, useKey) {
  showMessage("locked", fromTemplate("key-form"));
  const detail = wasRefused ? "The key was not accepted." : "Ask whoever runs it for one.";
  byId("message").querySelector(".detail").textContent = detail;
  byId("message").querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    useKey(byId("key").value.trim());
  });
  announce(`This service asks for a key. ${detail}`);
  byId("key").focus();
}

/** Say how long each stage took, unless it took nothing, and which index answered. */
function showSpeed(found, roundTripMs, info) {
  const times = Object.entries(found.timings_ms ?? {}).filter(([, ms]) => typeof ms === "number" && ms >= 0.05);
  const stages = times.map(([name, ms]) => `${name} ${ms.toFixed(1)} ms`);
  byId("summary").textContent = summaryOf(found, info);
  byId("speed").textContent = [...stages, `round trip ${roundTripMs.toFixed(0)} ms`, `index version ${found.index_version}`].join(" \u00b7 ");
  byId("summary").hidden = byId("speed").hidden = false;
  announce(found.hits?.length ? byId("summary").textContent : "Nothing found");
}

function summaryOf(found, info) {
  const number = (found.hits ?? []).length, total = info?.num_products, allowed = found.num_allowed ?? total;
  if (!number) return "No hits";
  if (allowed === undefined) return count(number, "hit", "hits");
  return `${number.toLocaleString("en")} of ${count(allowed, "product", "products")}${allowed < total ? " that pass the filters" : ""}`;
}
