// Makes a request of what the page holds. The API sends it, and the snippets write it down.

/**
 * Return a request: its path, fields and files as the server takes them, and what the page needs to read the answer.
 *
 * A picture that the server keeps is named by its session and turn; another one is sent, and begins a session. Without
 * a picture one is made of the words alone.
 *
 * @param picture    the picture that is edited, null for none
 * @param references further pictures
 * @param mask       the mask as a blob, null for none
 * @param settings   seed, steps, guidance and size as they were typed, "" for the usual; format; number of previews
 */
export function requestOf({ prompt, picture, references, mask, settings }) {
  const edit = picture !== null || references.length > 0;
  const fields = [["prompt", prompt]];
  const files = references.map((reference) => ["image[]", reference]);
  if (picture?.session) {
    fields.push(["session", picture.session], ["turn", String(picture.turn)]);
  } else if (picture) {
    fields.push(["session", "new"]);
    files.unshift(["image[]", picture]);
  }
  if (mask) files.push(["mask", { blob: mask, name: "mask.png" }]);
  const own = {
    seed: settings.seed,
    num_inference_steps: settings.steps,
    guidance_scale: settings.guidance,
    size: settings.size,
    output_format: settings.format === "png" ? "" : settings.format,
  };
  for (const [name, value] of Object.entries(own)) if (value !== "") fields.push([name, value]);
  return {
    path: edit ? "v1/images/edits" : "v1/images/generations",
    edit,
    fields,
    files,
    previews: settings.previews,
    format: settings.format,
  };
}
