// Shows the current picture: beside what it was made of, under a mask, or what becomes of it.

import { Mask } from "./mask.js";
import { Slider } from "./slider.js";

const byId = (id) => document.getElementById(id);

/** Shows one picture at a time, with its tools. */
export class Stage {
  constructor(onMask) {
    this.picture = null;
    this.previewUrl = "";
    this.masksAllowed = true;
    this.slider = new Slider({ range: byId("slider"), before: byId("before"), divider: byId("divider") });
    this.mask = new Mask({
      canvas: byId("mask"),
      cursor: byId("mask-cursor"),
      brush: byId("brush"),
      onChange: onMask,
    });
    byId("mask-open").addEventListener("click", () => this.openMask(!this.mask.isOpen));
    byId("mask-invert").addEventListener("click", () => this.mask.invert());
    byId("mask-clear").addEventListener("click", () => this.mask.clear());
    byId("mask-erase").addEventListener("click", () => this.erase(!this.mask.erasing));
    byId("mask-download").addEventListener("click", async () => download(await this.mask.blob(), "mask.png"));
  }

  /** Show a picture of the history, or the place where one is dropped if this is null. */
  show(picture) {
    const other = this.picture !== picture;
    this.picture = picture;
    if (other) this.openMask(false);
    byId("drop").hidden = picture !== null;
    for (const id of ["compare", "caption", "another", "download"]) byId(id).hidden = picture === null;
    byId("mask-open").hidden = picture === null || !this.masksAllowed;
    if (!picture) return;
    const after = byId("after");
    after.src = picture.url;
    after.alt = picture.prompt || picture.name;
    byId("compare").style.setProperty("--ratio", picture.width / picture.height);
    byId("caption").textContent = captionOf(picture);
    Object.assign(byId("download"), { href: picture.url, download: picture.name });
    this.compare();
  }

  compare() {
    const comparable = this.picture?.parent && !this.mask.isOpen;
    this.slider.show(comparable ? this.picture.parent : null);
  }

  /** Show what becomes of a request, or nothing of it where this is null. */
  preview(blob) {
    const image = byId("preview");
    URL.revokeObjectURL(this.previewUrl);
    this.previewUrl = blob ? URL.createObjectURL(blob) : "";
    image.hidden = !blob;
    if (blob) {
      byId("compare").hidden = false;
      byId("drop").hidden = true;
      image.src = this.previewUrl;
    } else {
      image.removeAttribute("src");
      byId("compare").hidden = this.picture === null;
      byId("drop").hidden = this.picture !== null;
    }
  }

  openMask(open) {
    if (open) this.mask.open(this.picture);
    else this.mask.close();
    const button = byId("mask-open");
    button.setAttribute("aria-expanded", open);
    button.textContent = open ? "Without mask" : "Mark a part";
    byId("mask-tools").hidden = !open;
    this.erase(false);
    this.compare();
  }

  erase(erasing) {
    this.mask.erasing = erasing;
    byId("mask-erase").setAttribute("aria-pressed", erasing);
  }
}

function captionOf(picture) {
  const words = picture.prompt ? [`“${picture.prompt}”`] : [picture.name];
  words.push(`${picture.width}x${picture.height}`);
  if (picture.seed !== null) words.push(`seed ${picture.seed}`);
  return words.join(", ");
}

function download(blob, name) {
  const link = document.createElement("a");
  const url = URL.createObjectURL(blob);
  Object.assign(link, { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
