"use strict";
// Making elements. Whatever comes from the catalogue, the service or the address enters the page as text, never as HTML.

const byId = (id) => document.getElementById(id);
const fromTemplate = (id) => byId(id).content.cloneNode(true);

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function button(text, className, onClick) {
  const made = element("button", className, text);
  made.type = "button";
  made.addEventListener("click", onClick);
  return made;
}

/** Name a control for those who see it and those who hear it. */
function nameControl(control, name) {
  control.title = name;
  control.setAttribute("aria-label", name);
}

/** Fill a frame with a picture, or with a neutral tile where there is none or it is broken. */
function fillFrame(frame, url, alt) {
  if (!url) { frame.replaceChildren(fromTemplate("tile")); return; }
  const image = element("img");
  image.alt = alt;
  image.decoding = "async";
  image.loading = "lazy";
  image.addEventListener("error", () => frame.replaceChildren(fromTemplate("tile")));
  frame.replaceChildren(image);
  loadPicture(image, url);
}

const count = (number, one, many) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
const label = (column) => { const words = column.replaceAll("_", " ").trim(); return words.charAt(0).toUpperCase() + words.slice(1); };

/** Say something to those who cannot see it appear. */
const announce = (text) => { byId("live").textContent = text; };

/** Write a value of the catalogue, whatever its type. */
function shown(value) {
  if (value === null || value === undefined || value === "") return "\u2013";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "number") return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(7)));
  if (Array.isArray(value)) return value.map((one) => (typeof one === "object" ? fieldsOf(one) : shown(one))).join(", ") || "\u2013";
  return typeof value === "object" ? fieldsOf(value) : String(value);
}
const fieldsOf = (value) => (value === null ? "\u2013" : Object.values(value).map(shown).join(": "));
