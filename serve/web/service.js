"use strict";
// Requests to the service, which is always the page's own origin; the API key; pictures on their way out and in.

const KEY_NAME = "product-search-key";
const LARGE_PICTURE_BYTES = 2_000_000;
const LARGEST_SIDE = 1280;     // pixels; well above what any encoder looks at
const DEFAULT_RETRY_S = 2;

/** What the service, or the way to it, has against a request. */
class Problem extends Error {
  constructor(detail, { status = 0, title = "", errors = [], requestId = "", retryAfterS = null } = {}) {
    super(detail);
    Object.assign(this, { status, title, errors, requestId, retryAfterS });
  }
}

// Session storage may be forbidden; then the key lives as long as the page.
let keyInMemory = "";
function readKey() {
  try { return sessionStorage.getItem(KEY_NAME) ?? keyInMemory; } catch { return keyInMemory; }
}
function keepKey(key) {
  keyInMemory = key;
  try { if (key) sessionStorage.setItem(KEY_NAME, key); else sessionStorage.removeItem(KEY_NAME); } catch { /* see above */ }
}
const keyHeaders = () => (readKey() ? { Authorization: `Bearer ${readKey()}` } : {});

/** Send a request and return { record, roundTripMs }; throws Problem, or an AbortError where the signal said so. */
async function ask({ path, method = "GET", headers = {}, body }, signal) {
  const start = performance.now();
  let answer;
  try {
    answer = await fetch(path, { method, headers: { ...headers, ...keyHeaders() }, body, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The service cannot be reached.");
  }
  const record = await answer.json().catch((error) => { if (error.name === "AbortError") throw error; return null; });
  if (!answer.ok || record === null) throw problemOf(answer, record);
  return { record, roundTripMs: performance.now() - start };
}

function problemOf(answer, record) {
  return new Problem(record?.detail || record?.title || `The service answered ${answer.status} without saying why.`, {
    status: answer.status,
    title: record?.title,
    errors: Array.isArray(record?.errors) ? record.errors : [],
    requestId: record?.request_id || answer.headers.get("X-Request-ID") || "",
    retryAfterS: retryAfter(answer.headers.get("Retry-After")),
  });
}

/** Read a Retry-After header, seconds or a date (RFC 9110, section 10.2.3); null where there is none. */
function retryAfter(text) {
  if (!text) return null;
  const seconds = /^\d+$/.test(text) ? Number(text) : (Date.parse(text) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.min(600, Math.max(1, Math.ceil(seconds))) : null;
}

const isOverload = (problem) => problem instanceof Problem && (problem.status === 503 || problem.status === 429);
const productPath = (id) => `v1/products/${encodeURIComponent(id)}`;

/** Show a picture of the service; where it asks for a key, an <img> alone could not send it. */
async function loadPicture(image, url) {
  if (!readKey() || url.startsWith("blob:")) { image.src = url; return; }
  try {
    const answer = await fetch(url, { headers: keyHeaders() });
    if (!answer.ok) throw new Problem("no picture", { status: answer.status });
    const local = URL.createObjectURL(await answer.blob());
    image.addEventListener("load", () => URL.revokeObjectURL(local), { once: true });
    image.src = local;
  } catch {
    image.dispatchEvent(new Event("error"));
  }
}

/** Return a picture as it is, or a smaller JPEG of a large one: a phone's photo would take long to send. */
async function smallEnough(file) {
  if (file.size <= LARGE_PICTURE_BYTES) return file;
  try {
    const pixels = await createImageBitmap(file);
    const scale = Math.min(1, LARGEST_SIDE / Math.max(pixels.width, pixels.height));
    const canvas = new OffscreenCanvas(Math.max(1, Math.round(pixels.width * scale)), Math.max(1, Math.round(pixels.height * scale)));
    const context = canvas.getContext("2d");
    context.fillStyle = "#fff";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(pixels, 0, 0, canvas.width, canvas.height);
    return await canvas.convertToBlob({ type: "image/jpeg", quality: 0.92 });
  } catch {
    return file;  // not a picture that this browser reads; the service says what is wrong with it
  }
}

async function base64Of(file) {
  const bytes = new Uint8Array(await (await smallEnough(file)).arrayBuffer());
  let binary = "";
  for (let at = 0; at < bytes.length; at += 32_768) binary += String.fromCharCode(...bytes.subarray(at, at + 32_768));
  return btoa(binary);
}
