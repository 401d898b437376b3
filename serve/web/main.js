"use strict";
// The page: what happens when, and the one place that remembers what is searched for.

const PAUSE_MS = 350;             // of typing, before a search that Enter has not asked for
const MAX_RETRIES = 8;            // by itself, when the service is busy
const pictures = new Map();       // number -> picture: for going back and forth in this tab
const titles = new Map();         // product id -> { title, image_url }, as far as known
let query = NO_QUERY;
let info = null;
let shownAnswer = null;           // { found, roundTripMs } of the products on the page
let running = new AbortController();
let numRetries = 0;
let numHits = NUM_HITS;
let typing = 0;

const deeds = {
  open: (hit) => showDetails(hit, deeds),
  like: (id) => go({ ...NO_QUERY, against: query.against, collapse: query.collapse, chosen: query.chosen, products: [{ id, weight: 1 }] }),
  plus: (id) => go(reweighed(query, id, STEP)),
  minus: (id) => go(reweighed(query, id, -STEP)),
};

/** Search for a query and give it an entry in the browser's history. */
function go(next, { isTyped = false } = {}) {
  clearTimeout(typing);
  query = next;
  const address = addressOf(query), state = { picture: query.picture?.number, isTyped };
  const write = isTyped && history.state?.isTyped ? "replaceState" : "pushState";
  history[write](state, "", address ? `?${address}` : location.pathname);
  numHits = NUM_HITS;
  if (!isTyped) scrollTo({ top: 0 });
  search();
}

/** Take the query from the address, as when the page opens or somebody goes back. */
function restore() {
  query = { ...readAddress(location.search), picture: pictures.get(history.state?.picture) ?? null };
  numHits = NUM_HITS;
  search();
}

/** Show the query and its products; a search that still runs is given up, and its answer never shown. */
async function search({ isRetry = false } = {}) {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  if (!isRetry) numRetries = 0;
  showQuery();
  if (isEmpty(query)) { clearHits(); showWelcome(info?.examples ?? [], (text) => go({ ...query, text })); return; }
  showWaiting();
  nameProducts(signal);
  try {
    const request = await requestOf(query, Math.min(numHits, info?.max_k ?? numHits), cardFields(info));
    signal.throwIfAborted();
    const { record, roundTripMs } = await ask(request, signal);
    signal.throwIfAborted();
    showFound(record, roundTripMs);
  } catch (error) {
    if (signal.aborted) return;
    clearHits();
    showFailure(error instanceof Problem ? error : new Problem(`The page failed: ${error.message}`));
  }
}

function showQuery() {
  const box = byId("q");
  if (box.value.trim() !== query.text) box.value = query.text;
  const named = query.text || query.products.map(({ id }) => titles.get(id)?.title || id)[0] || query.picture?.file.name;
  document.title = named ? `${named} \u2013 Product search` : "Product search";
  showChips(query, titles, go);
  showSwitches(query, info);
  const hasFilters = showFilters(info, query, (field, value) => go(toggled(query, field, value)));
  byId("filters").hidden = byId("show-filters").hidden = !hasFilters || isEmpty(query);
  byId("share").hidden = isEmpty(query);
  byId("forget-key").hidden = !readKey();
}

function showWaiting() {
  const list = byId("hits");
  clearMessage();
  byId("more").hidden = true;
  list.setAttribute("aria-busy", "true");
  if (!list.querySelector(".card")) { clearHits(); list.setAttribute("aria-busy", "true"); showSkeletons(); }
  announce("Searching\u2026");
}

function clearHits() {
  shownAnswer = null;
  byId("hits").replaceChildren();
  byId("hits").removeAttribute("aria-busy");
  byId("summary").hidden = byId("speed").hidden = byId("more").hidden = true;
}

function showFound(found, roundTripMs) {
  for (const { product_id: id, title, image_url } of found.hits ?? []) titles.set(id, { title, image_url });
  byId("hits").removeAttribute("aria-busy");
  shownAnswer = { found, roundTripMs };
  numRetries = 0;
  showAnswer();
  if (info && info.index_version !== found.index_version) loadInfo();
}

/** Show the answer that came last, with what is known of the catalogue by now. */
function showAnswer() {
  const { found, roundTripMs } = shownAnswer, numFound = (found.hits ?? []).length;
  showHits(found, info, deeds);
  showSpeed(found, roundTripMs, info);
  if (!numFound) showNothing(numChosen(query), () => go({ ...query, chosen: new Map() }));
  byId("more").hidden = numFound < numHits || numHits >= (info?.max_k ?? numHits);
}

function showFailure(problem) {
  if (problem.status === 401) return askForKey();
  if (!isOverload(problem) || numRetries >= MAX_RETRIES) return showProblem(problem, () => search());
  numRetries += 1;
  // A little chance keeps all that were refused together from coming back together.
  const waitS = (problem.retryAfterS ?? DEFAULT_RETRY_S * numRetries) + Math.random() / 2;
  return showBusy(problem, waitS, () => search({ isRetry: true }));
}

function askForKey() {
  const wasRefused = readKey() !== "";
  keepKey("");
  byId("forget-key").hidden = true;
  clearHits();
  showKeyForm(wasRefused, (key) => { keepKey(key); loadInfo(); search(); });
}

/** Find out the titles of products that an address names by id alone. */
async function nameProducts(signal) {
  const unknown = query.products.filter(({ id }) => !titles.has(id));
  const answers = await Promise.allSettled(unknown.map(({ id }) => ask({ path: productPath(id) }, signal)));
  answers.forEach(({ value }, at) => { if (value) titles.set(unknown[at].id, value.record); });
  if (unknown.length && !signal.aborted) showQuery();
}

/** Ask what is served: facets, examples, counts. The page works without, so it asks again only if the service is busy. */
async function loadInfo(numTries = 0) {
  try {
    info = (await ask({ path: "v1/info" })).record;
  } catch (problem) {
    if (problem.status === 401 && isEmpty(query)) askForKey();
    if (isOverload(problem) && numTries < MAX_RETRIES) setTimeout(loadInfo, (problem.retryAfterS ?? DEFAULT_RETRY_S) * 1000, numTries + 1);
    return;
  }
  byId("about").textContent = count(info.num_products, "product", "products");
  byId("version").textContent = `${info.model} \u00b7 index version ${info.index_version}`;
  showQuery();
  if (isEmpty(query)) search();
  else if (shownAnswer && !byId("hits").contains(document.activeElement)) showAnswer();
}

function usePicture(file) {
  if (!file) return;
  const picture = { number: pictures.size + 1, file, url: URL.createObjectURL(file) };
  pictures.set(picture.number, picture);
  byId("q").value = "";
  go({ ...NO_QUERY, against: query.against, collapse: query.collapse, chosen: query.chosen, picture });
}

async function share() {
  const left = query.picture ? " It holds everything but your picture: choose that again there." : "";
  let said = `Link copied.${left}`;
  try { await navigator.clipboard.writeText(location.href); } catch { said = `Copy the address of this page.${left}`; }
  byId("summary").hidden = false;
  byId("summary").textContent = said;
  announce(said);
}

function searchTyped(isTyped) {
  const text = byId("q").value.trim();
  if (isTyped && (text === query.text || text.length === 1)) return;
  go({ ...query, text }, { isTyped });
}

function onKey(event) {
  const active = document.activeElement, isInBox = active === byId("q");
  if (event.isComposing || event.ctrlKey || event.metaKey || event.altKey || byId("details").open) return;
  const isInText = /^(INPUT|TEXTAREA|SELECT)$/.test(active.tagName) && !/^(checkbox|radio)$/.test(active.type);
  if (event.key === "/" && !isInText) { event.preventDefault(); byId("q").focus(); byId("q").select(); }
  else if (event.key === "Escape") onEscape(event, isInBox);
  else if (event.key === "ArrowDown" && (isInBox || active === document.body)) { event.preventDefault(); focusCard(byId("hits").querySelector(".card")); }
  else if (!isInText && moveAmongCards(event.key)) event.preventDefault();
}

function onEscape(event, isInBox) {
  event.preventDefault();
  if (document.body.classList.contains("filtering")) showFilterPanel(false);
  else if (isInBox && (byId("q").value || !isEmpty(query))) { byId("q").value = ""; go({ ...NO_QUERY, against: query.against }); }
  else byId("q").focus();
}

function showFilterPanel(isShown) {
  document.body.classList.toggle("filtering", isShown);
  byId("show-filters").setAttribute("aria-expanded", String(isShown));
}

function connectForm() {
  byId("form").addEventListener("submit", (event) => { event.preventDefault(); searchTyped(false); });
  byId("q").addEventListener("input", (event) => {
    clearTimeout(typing);
    if (!event.isComposing) typing = setTimeout(searchTyped, PAUSE_MS, true);
  });
  byId("pick").addEventListener("click", () => byId("file").click());
  byId("file").addEventListener("change", (event) => { usePicture(event.target.files[0]); event.target.value = ""; });
  byId("against").addEventListener("change", (event) => go({ ...query, text: byId("q").value.trim(), against: event.target.value }));
  byId("collapse").addEventListener("change", (event) => go({ ...query, collapse: event.target.checked }));
  byId("show-filters").addEventListener("click", () => showFilterPanel(!document.body.classList.contains("filtering")));
  byId("share").addEventListener("click", share);
  byId("more").addEventListener("click", () => { numHits += NUM_HITS; search(); });
  byId("forget-key").addEventListener("click", () => { keepKey(""); info = null; search(); loadInfo(); });
}

function connectPictures() {
  const holdsFile = (event) => event.dataTransfer?.types.includes("Files");
  const isPicture = (file) => file.type.startsWith("image/");
  addEventListener("paste", (event) => usePicture([...(event.clipboardData?.files ?? [])].find(isPicture)));
  addEventListener("dragover", (event) => { if (holdsFile(event)) { event.preventDefault(); byId("drop").hidden = false; } });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) byId("drop").hidden = true; });
  addEventListener("drop", (event) => {
    if (!holdsFile(event)) return;
    event.preventDefault();
    byId("drop").hidden = true;
    usePicture([...event.dataTransfer.files].find(isPicture) ?? event.dataTransfer.files[0]);
  });
}

connectForm();
connectPictures();
addEventListener("keydown", onKey);
addEventListener("popstate", restore);
byId("details").addEventListener("click", (event) => { if (event.target === byId("details")) byId("details").close(); });
loadInfo();
restore();
