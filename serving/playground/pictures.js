// Turns files into pictures that the server reads, and what it answers into blobs.

const READ = ["image/png", "image/jpeg", "image/webp"];

/**
 * Return a picture of a file: its blob, address, size and name. What browsers show and the server does not read, such as
 * GIF or AVIF, becomes PNG.
 */
export async function readPicture(file, name = file.name || "pasted.png") {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error(`${name} is no picture that this browser can read.`);
  }
  const { width, height } = bitmap;
  let blob = file;
  if (!READ.includes(file.type)) {
    const canvas = new OffscreenCanvas(width, height);
    canvas.getContext("2d").drawImage(bitmap, 0, 0);
    blob = await canvas.convertToBlob({ type: "image/png" });
    name = `${name.replace(/\.[^.]*$/, "")}.png`;
  }
  bitmap.close();
  return { blob, url: URL.createObjectURL(blob), width, height, name };
}

/** Return the picture files among what was dropped or pasted. */
export function filesOf(transfer) {
  return [...(transfer?.files ?? [])].filter((file) => file.type.startsWith("image/"));
}

/** Return bytes in base64 as a blob of a picture's format. */
export function blobOf(base64, format) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return new Blob([bytes], { type: `image/${format}` });
}
