"use strict";
// What is searched for: a value that is never changed, how the address bar writes it, and the request it becomes.

const NUM_HITS = 24;
const SIDES = ["image", "text", "both"];
const STEP = 0.5;          // how much one press of "more of this" or "less of this" counts; the text itself counts 1
const MAX_WEIGHT = 2;
const MAX_PARTS = 16;      // parts of one mix that the service takes
const GROUP_COLUMN = "group_id";
const UNWANTED = /(^|\s)-("[^"]+"|\p{L}\S*)/gu;

const NO_QUERY = Object.freeze({
  text: "",
  products: [],            // [{ id, weight }]
  picture: null,           // { number, file, url }: it has no place in an address
  against: "image",
  chosen: new Map(),       // field -> values of the filter
  collapse: false,
});

/** Split a text into what is wanted and the words with a minus before them: `sofa -red`. */
function splitText(text) {
  const unwanted = [];
  const wanted = text.replace(UNWANTED, (_, before, word) => { unwanted.push(word.replaceAll('"', "")); return before; });
  return { wanted: wanted.replace(/\s+/g, " ").trim(), unwanted };
}

/** Return everything that counts for or against a product, with its weight. */
function partsOf(query) {
  const { wanted, unwanted } = splitText(query.text);
  return [
    ...(wanted ? [{ text: wanted, weight: 1 }] : []),
    ...unwanted.map((text) => ({ text, weight: -STEP })),
    ...(query.picture ? [{ picture: query.picture, weight: 1 }] : []),
    ...query.products.map(({ id, weight }) => ({ product_id: id, weight })),
  ].slice(0, MAX_PARTS);
}

const isEmpty = (query) => partsOf(query).length === 0;
const numChosen = (query) => [...query.chosen.values()].flat().length;

/** Count a product more or less; at weight 0 it leaves the query. */
function reweighed(query, id, by) {
  const before = query.products.find((part) => part.id === id);
  const weight = Math.max(-MAX_WEIGHT, Math.min(MAX_WEIGHT, (before?.weight ?? 0) + by));
  const others = query.products.filter((part) => part.id !== id);
  return { ...query, products: weight ? [...others, { id, weight }] : others };
}

/** Choose a value of a filter, or no longer. */
function toggled(query, field, value) {
  const values = query.chosen.get(field) ?? [];
  const left = values.includes(value) ? values.filter((one) => one !== value) : [...values, value];
  const chosen = new Map(query.chosen);
  if (left.length) chosen.set(field, left); else chosen.delete(field);
  return { ...query, chosen };
}

function withoutWord(query, word) {
  const text = query.text.replace(UNWANTED, (all, before, one) => (one.replaceAll('"', "") === word ? before : all));
  return { ...query, text: text.replace(/\s+/g, " ").trim() };
}

/** Return the filter of the service's grammar, or undefined for none. */
function filterOf(query) {
  const clauses = [...query.chosen].map(([field, values]) => ({ field, in: values }));
  return clauses.length > 1 ? { and: clauses } : clauses[0];
}

// Values of a filter are texts, numbers, true or false; a text that reads like one of the others is quoted.
const LIKE_JSON = /^(true|false|-?\d+(\.\d+)?([eE][+-]?\d+)?|".*")$/s;
const writeValue = (value) => (typeof value !== "string" || LIKE_JSON.test(value) ? JSON.stringify(value) : value);

function readValue(text) {
  if (!LIKE_JSON.test(text)) return text;
  try { return JSON.parse(text); } catch { return text; }
}

/** Write a query as the part of an address after `?`. */
function addressOf(query) {
  const given = new URLSearchParams();
  if (query.text) given.set("q", query.text);
  for (const { id, weight } of query.products) given.append(...(weight === 1 ? ["like", id] : ["mix", `${weight}:${id}`]));
  if (query.against !== "image") given.set("against", query.against);
  if (query.collapse) given.set("collapse", GROUP_COLUMN);
  for (const [field, values] of query.chosen) for (const value of values) given.append(`f.${field}`, writeValue(value));
  return given.toString();
}

/** Read a query from an address that anybody may have written: what makes no sense is left out. */
function readAddress(address) {
  const given = new URLSearchParams(address);
  let query = { ...NO_QUERY, text: (given.get("q") ?? "").trim().slice(0, 2000), collapse: given.get("collapse") === GROUP_COLUMN };
  if (SIDES.includes(given.get("against"))) query.against = given.get("against");
  for (const id of given.getAll("like")) if (id) query = reweighed(query, id, 1);
  for (const part of given.getAll("mix")) {
    const [, weight, id] = /^(-?[0-9.]{1,6}):(.+)$/s.exec(part) ?? [];
    if (Number(weight)) query = reweighed(query, id, Number(weight));
  }
  for (const [name, value] of given) {
    const field = name.slice(2), known = query.chosen.get(field) ?? [];
    if (name.startsWith("f.") && field && !known.includes(readValue(value))) query = toggled(query, field, readValue(value));
  }
  return query;
}

/** Return the request of a query: { path, method, headers, body }. */
async function requestOf(query, numHits, fields) {
  const parts = partsOf(query), filter = filterOf(query);
  const wishes = { k: numHits, ...(query.against !== "image" && { against: query.against }), ...(query.collapse && { collapse: GROUP_COLUMN }) };
  if (parts.length === 1 && parts[0].picture) return pictureRequest(parts[0].picture, wishes, filter);
  const record = { ...wishes, ...(filter && { filter }), ...(fields && { fields }), ...(await queryRecord(parts)) };
  return { path: "v1/search", method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(record) };
}

async function pictureRequest(picture, wishes, filter) {
  const given = new URLSearchParams(wishes), body = await smallEnough(picture.file);
  if (filter) given.set("filter", JSON.stringify(filter));
  const headers = { "Content-Type": body.type || "application/octet-stream" };
  return { path: `v1/search/image?${given}`, method: "POST", headers, body };
}

async function queryRecord(parts) {
  const records = await Promise.all(parts.map(async ({ picture, ...part }) => (picture ? { image: await base64Of(picture.file), ...part } : part)));
  if (records.length > 1 || records[0].weight < 0) return { mix: records };
  const { weight, ...only } = records[0];
  return only;
}
