// Asks the server: its settings, pictures as events, the end of a session. Errors come in the server's own words.

import { eventsOf } from "./events.js";
import { blobOf } from "./pictures.js";

const ROOT = new URL("../", import.meta.url); // the page may lie below a proxy's prefix
const KEY = "kontext-trt key";

/** The address that other programs call. */
export const BASE_URL = new URL("v1", ROOT).href;

/** Reports what the server says, with its code where it has one. */
export class ApiError extends Error {
  constructor(message, { code = "", param = null, status = 0 } = {}) {
    super(message);
    Object.assign(this, { code, param, status });
  }
}

/** Return the key that was typed in this tab, "" without one. */
export function getKey() {
  return sessionStorage.getItem(KEY) ?? "";
}

/** Remember a key until the tab is closed. */
export function setKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

/** Return what the server says of itself. */
export async function settings() {
  return (await ask("playground/settings.json", {})).json();
}

/**
 * Make a picture, and return what the server says of it, with the picture as a blob.
 *
 * @param request what requests.js makes
 * @param signal  the signal that cancels it: the server stops between two steps
 * @param onPreview called with a blob and the number of each preview, from 0 on
 */
export async function make(request, signal, onPreview) {
  const form = new FormData();
  for (const [name, value] of request.fields) form.append(name, value);
  for (const [name, picture] of request.files) form.append(name, picture.blob, picture.name);
  form.append("stream", "true");
  if (request.previews) form.append("partial_images", String(request.previews));
  const response = await ask(request.path, { method: "POST", body: form, signal });
  const format = request.format;
  let answer = null;
  try {
    // to its end: who leaves earlier is taken for one who went away
    for await (const event of eventsOf(response)) {
      if (event.error) throw errorOf(event, response.status);
      if (event.type.endsWith(".partial_image")) onPreview(blobOf(event.b64_json, format), event.partial_image_index);
      if (event.type.endsWith(".completed")) answer = { ...event, blob: blobOf(event.b64_json, format) };
    }
  } catch (error) {
    if (error instanceof ApiError || signal.aborted) throw error;
    throw new ApiError(`The connection broke before the picture was there (${error.message}).`);
  }
  if (answer) return answer;
  throw new ApiError("The server ended its answer before the picture was there.");
}

/** End a session, whatever the server says to it. */
export async function endSession(name) {
  await ask(`v1/sessions/${encodeURIComponent(name)}`, { method: "DELETE" }).catch(() => {});
}

async function ask(path, options) {
  const key = getKey();
  const headers = key ? { authorization: `Bearer ${key}` } : {};
  let response;
  try {
    response = await fetch(new URL(path, ROOT), { ...options, headers });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new ApiError("The server cannot be reached. Is it running?");
  }
  if (response.ok) return response;
  let body = {};
  try {
    body = await response.json();
  } catch {
    // a proxy's page: the status is all there is
  }
  throw errorOf(body, response.status, response.headers.get("retry-after"));
}

function errorOf(body, status, retryAfter = null) {
  const said = body.error ?? {};
  let words = said.message ?? `The server answered with status ${status}.`;
  if (retryAfter) words += ` Try again in ${retryAfter} s.`;
  return new ApiError(words, { code: said.code ?? "", param: said.param ?? null, status });
}
