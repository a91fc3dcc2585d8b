// Wires the page: what is chosen, typed and pressed, and what the server answers.

import { ApiError, endSession, getKey, make, setKey, settings as askSettings } from "./api.js";
import { History } from "./history.js";
import { filesOf, readPicture } from "./pictures.js";
import { offerProgram } from "./program.js";
import { References } from "./references.js";
import { requestOf } from "./requests.js";
import { Stage } from "./stage.js";
import { Tree } from "./tree.js";

const byId = (id) => document.getElementById(id);
const STILL = matchMedia("(prefers-reduced-motion: reduce)");
const LOST = ["session_not_found", "turn_not_found"];

const history = new History();
const stage = new Stage(() => complain(null));
const references = new References(byId("references"), () => show());
const tree = new Tree(byId("tree"), history, (picture) => goTo(picture));
let server = { key_needed: false, session_seconds: 3600 };
let running = null;

function say(words) {
  byId("status").textContent = words;
}

function complain(error) {
  byId("error").textContent = error?.message ?? "";
  if (error instanceof ApiError && error.code === "invalid_api_key") {
    byId("key-row").hidden = false;
    byId("key").focus();
  }
}

function show() {
  stage.show(history.current);
  tree.show();
  byId("undo").disabled = !history.canUndo;
  byId("redo").disabled = !history.canRedo;
  byId("start-over").disabled = !history.pictures.length || Boolean(running);
  byId("history-empty").hidden = history.pictures.length > 0;
  byId("same-seed").hidden = (history.current?.seed ?? null) === null;
  byId("run").textContent = history.current || references.pictures.length ? "Edit" : "Make a picture";
  byId("run").disabled = Boolean(running);
  byId("cancel").hidden = !running;
}

function goTo(picture) {
  history.current = picture;
  say(`Picture ${picture.number}: ${picture.prompt || picture.name}`);
  show();
}

async function begin(files) {
  complain(null);
  try {
    for (const file of files) history.add(await readPicture(file));
    show();
  } catch (error) {
    complain(error);
  }
}

async function addReferences(files) {
  complain(null);
  await references.add(files).catch(complain);
}

/** Return what the page holds of a request now; what is typed or chosen later is of the next one. */
async function askedNow() {
  const value = (id) => byId(id).value.trim();
  return {
    prompt: byId("prompt").value,
    picture: history.current,
    references: [...references.pictures],
    mask: stage.mask.isOpen && stage.mask.isMarked() ? await stage.mask.blob() : null,
    settings: {
      seed: value("seed"),
      steps: value("steps"),
      guidance: value("guidance"),
      size: value("size"),
      format: value("format"),
      previews: Number(value("previews")),
    },
  };
}

async function run() {
  if (running) return;
  complain(null);
  if (stage.mask.isOpen && !stage.mask.isMarked()) {
    complain(new Error("Nothing is marked. Paint over the part to edit, or go on without mask."));
    return;
  }
  running = new AbortController();
  const progress = byId("progress");
  if (STILL.matches) progress.value = 0;
  else progress.removeAttribute("value"); // which moves to and fro
  progress.hidden = false;
  const pressed = document.activeElement === byId("run");
  show();
  if (pressed) byId("cancel").focus();
  say("The request is on its way.");
  const start = performance.now();
  try {
    const asked = await askedNow();
    const answer = await makeAgain(asked, running.signal);
    await keep(asked, answer);
    say(`Made in ${((performance.now() - start) / 1000).toFixed(1)} s with seed ${answer.seed}. ${warned(answer)}`);
  } catch (error) {
    say(running.signal.aborted ? "Cancelled. The server stops between two steps." : "");
    if (!running.signal.aborted) complain(error);
  }
  running = null;
  stage.preview(null);
  progress.hidden = true;
  const atCancel = document.activeElement === byId("cancel");
  show();
  if (atCancel) byId("run").focus();
}

/** Make a picture; where the server has let a session go, from the picture that this page still has. */
async function makeAgain(asked, signal) {
  const { picture, settings } = asked;
  const previewed = (blob, number) => {
    stage.preview(blob);
    byId("progress").value = (number + 1) / (settings.previews + 1);
    say(`Preview ${number + 1} of ${settings.previews}`);
  };
  try {
    return await make(requestOf(asked), signal, previewed);
  } catch (error) {
    if (!LOST.includes(error.code) || !picture?.session) throw error;
    if (error.code === "session_not_found") history.forgetSession(picture.session);
    picture.session = "";
    return make(requestOf(asked), signal, previewed);
  }
}

/** Write an answer into the history. */
async function keep({ prompt, picture: parent }, answer) {
  const number = history.pictures.length;
  const picture = await readPicture(answer.blob, `picture-${number}.${answer.output_format}`);
  const { session = "", turn = 0, seed } = answer;
  if (parent && session && parent.session !== session) Object.assign(parent, { session, turn: 0 });
  history.add({ ...picture, prompt, seed, session, turn }, parent);
}

function warned(answer) {
  return (answer.warnings ?? []).join(" ");
}

async function startOver() {
  for (const name of history.sessions()) await endSession(name);
  history.clear();
  references.clear();
  complain(null);
  say("");
  show();
  byId("prompt").focus();
}

function takeDrops() {
  const view = document.documentElement;
  const onReferences = (event) => byId("references-box").contains(event.target);
  view.addEventListener("dragover", (event) => {
    event.preventDefault();
    view.classList.add("dragging");
  });
  for (const name of ["dragleave", "drop"]) view.addEventListener(name, () => view.classList.remove("dragging"));
  view.addEventListener("drop", (event) => {
    event.preventDefault(); // or the browser leaves the page for the picture
    const files = filesOf(event.dataTransfer);
    if (!files.length) complain(new Error("That is no picture: drop a PNG, JPEG or WebP file."));
    else if (onReferences(event)) addReferences(files);
    else begin(files.slice(0, 1));
  });
  document.addEventListener("paste", (event) => {
    const files = filesOf(event.clipboardData);
    if (files.length) begin(files.slice(0, 1));
  });
}

function takeChoices() {
  const chosen = (id, take) =>
    byId(id).addEventListener("change", async (event) => {
      await take([...event.target.files]);
      event.target.value = ""; // the same file may be chosen again
    });
  chosen("choose", begin);
  chosen("reference-choose", addReferences);
  byId("key").addEventListener("change", (event) => setKey(event.target.value.trim()));
  byId("same-seed").addEventListener("click", () => {
    byId("seed").value = history.current.seed;
  });
}

function takePresses() {
  const form = byId("request");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    setKey(byId("key").value.trim());
    run();
  });
  // what is wrong must be seen before the browser can point at it
  form.addEventListener("invalid", (event) => event.target.closest("details")?.setAttribute("open", ""), true);
  byId("cancel").addEventListener("click", () => running?.abort());
  byId("undo").addEventListener("click", () => move("undo"));
  byId("redo").addEventListener("click", () => move("redo"));
  byId("start-over").addEventListener("click", startOver);
  document.addEventListener("keydown", (event) => {
    const writing = event.target.closest?.("textarea, input:not([type=range])");
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    if (event.key === "Escape" && running) running.abort();
    if (event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey) && !writing) {
      event.preventDefault();
      move(event.shiftKey ? "redo" : "undo");
    }
  });
}

function move(way) {
  const before = history.current;
  history[way]();
  if (history.current !== before) goTo(history.current);
}

async function meetServer() {
  try {
    server = await askSettings();
  } catch (error) {
    complain(error);
    return;
  }
  byId("model").textContent = server.model;
  byId("steps").placeholder = server.steps;
  byId("guidance").placeholder = server.guidance;
  byId("sizes").replaceChildren(...server.sizes.map((size) => Object.assign(document.createElement("option"), { value: size })));
  byId("key-row").hidden = !server.key_needed;
  byId("key").value = getKey();
  stage.masksAllowed = server.masks;
  show();
}

takeDrops();
takeChoices();
takePresses();
offerProgram(async () => requestOf(await askedNow()), () => server, say);
show();
meetServer();
