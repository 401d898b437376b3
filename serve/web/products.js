"use strict";
// Products found: their cards, the keyboard among them, and the details of one.

const NUM_ATTRIBUTES = 3;
const COMMON_SHARE = 0.6;         // a value that most products share tells nothing about one of them
const PRICE = /^price(?:_([a-z]{3})(?=_|$))?/i;
const CURRENCIES = new Set(Intl.supportedValuesOf("currency"));

/** Return the columns that cards need, or undefined for all: then nothing is known about the columns yet. */
function cardFields(info) {
  const facets = (info?.facets ?? []).map((facet) => facet.field);
  const prices = (info?.columns ?? []).filter((column) => PRICE.test(column));
  return facets.length ? [...new Set([...facets, ...prices])] : undefined;
}

/** Choose what a card says beside the title: [{ column, text }]. */
function attributesOf(product, info) {
  const facets = info?.facets?.length ? info.facets : Object.keys(product).filter(isPlain).map((field) => ({ field, values: [] }));
  const telling = facets.filter(({ field, values }) => isShort(product[field]) && !isCommon(product[field], values, info));
  const prices = Object.keys(product).filter((column) => PRICE.test(column) && typeof product[column] === "number");
  return [
    ...prices.slice(0, 1).map((column) => ({ column, text: priceText(column, product[column]) })),
    ...telling.map(({ field }) => ({ column: field, text: typeof product[field] === "string" ? product[field] : `${label(field)}: ${shown(product[field])}` })),
  ].slice(0, NUM_ATTRIBUTES);
}

const isPlain = (column) => !/(^|_)(id|title|name|description|text|url|image)$/i.test(column) && !PRICE.test(column);
const isShort = (value) => (typeof value === "string" && value.length > 0 && value.length <= 28) || typeof value === "boolean";

function isCommon(value, values, info) {
  const known = values.find((one) => one.value === value);
  return known !== undefined && known.count > COMMON_SHARE * info.num_products;
}

function priceText(column, value) {
  const currency = PRICE.exec(column)[1]?.toUpperCase();
  return CURRENCIES.has(currency) ? value.toLocaleString("en", { style: "currency", currency }) : `${label(column)} ${shown(value)}`;
}

/** Make the card of a hit; `deeds` are what its buttons do. */
function makeCard(hit, found, info, deeds) {
  const card = fromTemplate("card").firstElementChild, title = hit.title || hit.product_id;
  const part = (name) => card.querySelector(`.${name}`);
  card.dataset.id = hit.product_id;
  part("title").textContent = title;
  fillFrame(part("picture"), hit.image_url, "");     // the title beside it says what it shows
  part("score").textContent = hit.score.toFixed(3);
  part("score").title = scoreMeaning(hit, found);
  part("attributes").append(...attributesOf(hit.product ?? {}, info).map(({ column, text }) => attribute(column, text)));
  part("open").addEventListener("click", () => deeds.open(hit));
  connectDeeds(card, hit.product_id, title, deeds);
  card.addEventListener("focusin", () => makeCurrent(card));
  return card;
}

function connectDeeds(root, id, title, deeds) {
  const names = { like: "More like this", plus: "More of this", minus: "Less of this" };
  for (const [name, text] of Object.entries(names)) {
    const control = root.querySelector(`.${name}`);
    control.title = text;
    control.setAttribute("aria-label", `${text}: ${title}`);
    control.addEventListener("click", () => deeds[name](id));
  }
}

function attribute(column, text) {
  const made = element("li", "", text);
  made.dir = "auto";
  made.title = label(column);
  return made;
}

function scoreMeaning(hit, found) {
  const sides = { image: "pictures", text: "words" };
  const places = Object.entries(hit.ranks ?? {}).filter(([, rank]) => rank).map(([side, rank]) => `place ${rank} by ${sides[side] ?? side}`);
  return [`Score: ${found.score_kind ?? "cosine similarity"}`, ...(found.against === "both" ? places : [])].join(", ");
}

/** Show the hits; those that stay where they are keep their cards and pictures. */
function showHits(found, info, deeds) {
  const list = byId("hits"), hits = found.hits ?? [];
  const before = [...list.querySelectorAll(".card")].map((card) => card.dataset.id);
  const isLonger = before.length > 0 && before.length < hits.length && before.every((id, at) => id === hits[at].product_id);
  const cards = hits.slice(isLonger ? before.length : 0).map((hit) => makeCard(hit, found, info, deeds));
  const focused = document.activeElement.closest("#hits .card")?.dataset.id;
  if (isLonger) list.append(...cards); else list.replaceChildren(...cards);
  const current = [...list.children].find((card) => card.dataset.id === focused) ?? list.firstElementChild;
  if (!current) return;
  makeCurrent(current);
  if (focused !== undefined && !list.contains(document.activeElement)) current.querySelector(".open").focus({ preventScroll: true });
}

function showSkeletons() {
  byId("hits").replaceChildren(...Array.from({ length: 8 }, () => {
    const made = element("li", "skeleton");
    made.setAttribute("aria-hidden", "true");
    made.append(element("span", "picture"), element("span", "bar"), element("span", "bar short"));
    return made;
  }));
}

// One card at a time is reached by Tab, as in any grid; arrows move to the others.
function makeCurrent(card) {
  for (const one of byId("hits").querySelectorAll(".card")) {
    for (const control of one.querySelectorAll("button")) control.tabIndex = one === card ? 0 : -1;
  }
}

/** Move the focus by an arrow key; returns whether it moved. */
function moveAmongCards(key) {
  const cards = [...byId("hits").querySelectorAll(".card")], at = cards.findIndex((card) => card.contains(document.activeElement));
  if (at < 0) return false;
  const numColumns = Math.max(1, cards.findIndex((card) => card.offsetTop > cards[0].offsetTop));
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -numColumns, ArrowDown: numColumns, Home: -at, End: cards.length - 1 - at };
  if (!(key in steps)) return false;
  if (key === "ArrowUp" && at < numColumns) byId("q").focus();
  else focusCard(cards[Math.min(cards.length - 1, Math.max(0, at + steps[key]))]);
  return true;
}

function focusCard(card) {
  card?.querySelector(".open").focus();
  card?.scrollIntoView({ block: "nearest" });
}

/** Open the details of a hit: what the hit says at once, and all columns when they have come. */
async function showDetails(hit, deeds) {
  const dialog = byId("details"), title = hit.title || hit.product_id;
  dialog.replaceChildren(fromTemplate("product"));
  byId("details-title").textContent = title;
  fillFrame(dialog.querySelector(".picture"), hit.image_url, title);
  const closing = Object.fromEntries(Object.entries(deeds).map(([name, deed]) => [name, (id) => { dialog.close(); deed(id); }]));
  connectDeeds(dialog, hit.product_id, title, closing);
  dialog.querySelector(".close").addEventListener("click", () => dialog.close());
  const columns = dialog.querySelector("dl");
  columns.setAttribute("aria-busy", "true");
  showColumns(columns, { product_id: hit.product_id, ...hit.product });
  if (!dialog.open) dialog.showModal();
  try {
    const { record } = await ask({ path: productPath(hit.product_id) });
    if (columns.isConnected) showColumns(columns, { product_id: hit.product_id, ...record.product });
  } catch (problem) {
    if (columns.isConnected) columns.after(element("p", "wrong", `The other columns did not come: ${problem.message}`));
  }
  columns.removeAttribute("aria-busy");
}

function showColumns(list, product) {
  list.replaceChildren(...Object.entries(product).map(([column, value]) => {
    const row = element("div"), text = element("dd", "", shown(value));
    text.dir = "auto";
    row.append(element("dt", "", label(column)), text);
    return row;
  }));
}
