"use strict";
// What refines a search: the chips of the query, the filters, the switches. `change(query)` searches for another query.

const NUM_VALUES_SHOWN = 8;
const NUM_FACETS_OPEN = 4;
const MINUS = "\u2212";
const signed = (weight) => (weight < 0 ? MINUS : "+");

/** Show every part of a query that is not in the box, each with a way to remove it. `titles`: id -> { title, image_url }. */
function showChips(query, titles, change) {
  const chips = [
    ...(query.picture ? [pictureChip(query, change)] : []),
    ...query.products.map((part) => productChip(query, part, titles.get(part.id), change)),
    ...splitText(query.text).unwanted.map((word) => wordChip(query, word, change)),
    ...[...query.chosen].flatMap(([field, values]) => values.map((value) => filterChip(query, field, value, change))),
  ];
  byId("chips").replaceChildren(...chips);
  byId("chips").hidden = chips.length === 0;
  byId("picture-note").hidden = !query.picture;
}

function makeChip(kind, name, onRemove) {
  const chip = fromTemplate("chip").firstElementChild;
  chip.classList.add(kind);
  chip.querySelector(".name").textContent = name;
  nameControl(chip.querySelector(".remove"), `Remove: ${name}`);
  chip.querySelector(".remove").addEventListener("click", () => { onRemove(); byId("q").focus({ preventScroll: true }); });
  return chip;
}

function withoutSign(chip) {
  chip.querySelector(".sign").remove();
  chip.querySelector(".weight").remove();
  return chip;
}

function chipPicture(chip, url) {
  const image = chip.querySelector("img");
  image.hidden = !url;
  image.addEventListener("error", () => { image.hidden = true; });
  if (url) loadPicture(image, url);
}

function pictureChip(query, change) {
  const chip = makeChip("plus-chip", query.picture.file.name || "Your picture", () => change({ ...query, picture: null }));
  chipPicture(chip, query.picture.url);
  return withoutSign(chip);
}

function productChip(query, { id, weight }, known, change) {
  const title = known?.title || id, isOnly = partsOf(query).length === 1 && weight > 0;
  const chip = makeChip(weight < 0 ? "minus-chip" : "plus-chip", isOnly ? `More like ${title}` : title, () => change(reweighed(query, id, -weight)));
  chipPicture(chip, known?.image_url);
  if (isOnly) return withoutSign(chip);
  const sign = chip.querySelector(".sign");
  sign.textContent = signed(weight);
  nameControl(sign, `${title} counts ${weight < 0 ? "against" : "for"} a product; turn it round`);
  chip.dataset.part = id;
  sign.addEventListener("click", () => {
    change(reweighed(query, id, -2 * weight));
    [...byId("chips").children].find((one) => one.dataset.part === id)?.querySelector(".sign")?.focus();
  });
  chip.querySelector(".weight").textContent = `\u00d7${Math.abs(weight)}`;
  return chip;
}

function wordChip(query, word, change) {
  const chip = makeChip("minus-chip", word, () => change(withoutWord(query, word)));
  chip.querySelector(".sign").replaceWith(element("span", "sign", MINUS));
  chip.querySelector(".weight").textContent = `\u00d7${STEP}`;
  return chip;
}

function filterChip(query, field, value, change) {
  return withoutSign(makeChip("filter-chip", `${label(field)}: ${shown(value)}`, () => change(toggled(query, field, value))));
}

/** Return the facets to show: those of the catalogue, and what an address asks for beyond them. */
function facetsOf(info, query) {
  const facets = (info?.facets ?? []).filter(({ values }) => values.length > 1).map(({ field, values }) => ({ field, values: [...values] }));
  for (const [field, values] of query.chosen) {
    let facet = facets.find((one) => one.field === field);
    if (!facet) facets.push(facet = { field, values: [] });
    for (const value of values) if (!facet.values.some((one) => one.value === value)) facet.values.push({ value, count: null });
  }
  return facets;
}

/** Show the filters; boxes that are there already are only ticked, so that the focus stays where it is. */
function showFilters(info, query, choose) {
  const panel = byId("filters"), facets = facetsOf(info, query), shape = JSON.stringify(facets);
  if (panel.dataset.shape !== shape) {
    panel.dataset.shape = shape;
    panel.replaceChildren(...facets.map((facet, at) => facetBox(facet, at < NUM_FACETS_OPEN || query.chosen.has(facet.field), choose)));
  }
  for (const box of panel.querySelectorAll("input")) box.checked = (query.chosen.get(box.name) ?? []).includes(JSON.parse(box.value));
  for (const box of panel.querySelectorAll("input:checked")) box.closest("li").hidden = false;
  return facets.length > 0;
}

function facetBox({ field, values }, isOpen, choose) {
  const box = element("details"), list = element("ul");
  box.open = isOpen;
  list.append(...values.map((one, at) => valueBox(field, one, at >= NUM_VALUES_SHOWN, choose)));
  box.append(element("summary", "", label(field)), list);
  if (values.length > NUM_VALUES_SHOWN) box.append(showAllButton(list, values.length));
  return box;
}

function valueBox(field, { value, count: number }, isHidden, choose) {
  const row = element("li"), around = element("label"), box = element("input"), name = element("span", "value", shown(value));
  box.type = "checkbox";
  box.name = field;
  box.value = JSON.stringify(value);
  box.addEventListener("change", () => choose(field, value));
  name.dir = "auto";
  around.append(box, name, element("span", "count", number === null ? "" : number.toLocaleString("en")));
  row.hidden = isHidden;
  row.append(around);
  return row;
}

function showAllButton(list, numValues) {
  const all = button(`Show all ${numValues}`, "quiet", () => {
    for (const row of list.children) row.hidden = false;
    list.children[NUM_VALUES_SHOWN].querySelector("input").focus();
    all.remove();
  });
  return all;
}

/** Show the switches as a query has them. */
function showSwitches(query, info) {
  document.querySelector(`[name=against][value=${query.against}]`).checked = true;
  const collapse = byId("collapse");
  collapse.hidden = !query.collapse && !info?.columns?.includes(GROUP_COLUMN);
  collapse.querySelector("input").checked = query.collapse;
  const number = numChosen(query);
  byId("show-filters").lastElementChild.textContent = number ? `Filters (${number})` : "Filters";
}
