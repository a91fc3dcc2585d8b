// Writes a request down for other programs. A key is never written: it comes from the environment.

const KEY = "KONTEXT_API_KEY";
const NAMED = ["prompt", "size", "output_format"]; // what OpenAI's client knows by name
const WHOLE = ["seed", "num_inference_steps", "turn"];

/** Return the request as a command of curl, which writes the picture to a file. */
export function curlOf(request, baseUrl, keyNeeded) {
  const lines = [`curl --fail-with-body ${shell(`${baseUrl}${request.path.slice(2)}`)}`];
  if (keyNeeded) lines.push(`-H "Authorization: Bearer $${KEY}"`);
  for (const [name, value] of plain(request)) lines.push(`--form-string ${shell(`${name}=${value}`)}`);
  for (const [name, { name: file }] of request.files) lines.push(`-F ${shell(`${name}=@${curlName(file)}`)}`);
  return `${lines.join(" \\\n  ")} \\\n  | jq -r '.data[0].b64_json' | base64 --decode > ${output(request)}\n`;
}

/** Return the request as a Python program for OpenAI's client. */
export function pythonOf(request, baseUrl, keyNeeded) {
  const fields = plain(request);
  const own = fields.filter(([name]) => !NAMED.includes(name));
  const images = request.files.filter(([name]) => name === "image[]").map(([, picture]) => opened(picture));
  const mask = request.files.find(([name]) => name === "mask");
  const values = fields.filter(([name]) => NAMED.includes(name)).map(([name, value]) => `${name}=${text(value)},`);
  if (request.edit) values.unshift(`image=[${images.join(", ")}],`);
  if (mask) values.push(`mask=${opened(mask[1])},`);
  if (own.length) {
    values.push("extra_body={", ...own.map(([name, value]) => `    ${text(name)}: ${literal(name, value)},`), "},");
  }
  return [
    "import base64",
    ...(keyNeeded ? ["import os"] : []),
    "from pathlib import Path",
    "",
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${text(baseUrl)}, api_key=${keyNeeded ? `os.environ["${KEY}"]` : '"none"'})`,
    `answer = client.images.${request.edit ? "edit" : "generate"}(`,
    ...values.map((line) => `    ${line}`),
    ")",
    `Path("${output(request)}").write_bytes(base64.b64decode(answer.data[0].b64_json))`,
    "",
  ].join("\n");
}

/** Return in words which files a snippet reads, and how long it holds. */
export function aboutFiles(request, sessionSeconds) {
  const names = request.files.map(([, picture]) => picture.name);
  const words = names.length ? [`It reads ${names.join(", ")} from the folder that it runs in.`] : [];
  if (plain(request).some(([name]) => name === "session")) {
    words.push(`It edits a turn that the server keeps for ${Math.round(sessionSeconds / 60)} minutes after its last use.`);
  }
  return words.join(" ");
}

/** Return the fields without the wish for a session, which a single request does not need. */
function plain(request) {
  return request.fields.filter(([name, value]) => name !== "session" || value !== "new");
}

function output(request) {
  return `edited.${request.format}`;
}

function shell(value) {
  return `'${value.replaceAll("'", "'\\''")}'`;
}

/** A file's name in quotes, as curl reads it within -F: a comma or semicolon would end it otherwise. */
function curlName(name) {
  return `"${name.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;
}

/** JSON's strings are Python's, but for DEL, which both take as it is. */
function text(value) {
  return JSON.stringify(value);
}

function literal(name, value) {
  if (WHOLE.includes(name)) return value.replace(/^0+(?=\d)/, ""); // Python refuses 007
  return name === "guidance_scale" ? String(Number(value)) : text(value);
}

function opened(picture) {
  return `open(${text(picture.name)}, "rb")`;
}
