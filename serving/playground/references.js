// Keeps further pictures that a request shows the model, in a list from which each can be taken out.

import { readPicture } from "./pictures.js";

/** Holds and shows further references. */
export class References {
  constructor(list, onChange) {
    this.list = list;
    this.onChange = onChange;
    this.pictures = [];
  }

  /** Add picture files. Throws an Error for what cannot be read. */
  async add(files) {
    for (const file of files) this.pictures.push(await readPicture(file, this.freshName(file.name)));
    this.show();
  }

  clear() {
    for (const picture of this.pictures) URL.revokeObjectURL(picture.url);
    this.pictures = [];
    this.show();
  }

  /** Two files of one name would be one file in a snippet; pasted ones have no names of their own. */
  freshName(name = "pasted.png") {
    const taken = this.pictures.map((picture) => picture.name);
    if (!taken.includes(name)) return name;
    const [, stem, suffix] = /^(.*?)(\.[^.]*)?$/.exec(name);
    let number = 2;
    while (taken.includes(`${stem}-${number}${suffix ?? ""}`)) number += 1;
    return `${stem}-${number}${suffix ?? ""}`;
  }

  remove(picture) {
    const index = this.pictures.indexOf(picture);
    this.pictures.splice(index, 1);
    URL.revokeObjectURL(picture.url);
    this.show();
    const buttons = this.list.querySelectorAll("button");
    (buttons[Math.min(index, buttons.length - 1)] ?? document.getElementById("reference-choose")).focus();
  }

  show() {
    this.list.replaceChildren(
      ...this.pictures.map((picture) => {
        const item = document.createElement("li");
        const image = document.createElement("img");
        Object.assign(image, { src: picture.url, alt: "", width: 48, height: 48 });
        const name = document.createElement("span");
        name.textContent = picture.name;
        const button = document.createElement("button");
        Object.assign(button, { type: "button", textContent: "Remove" });
        button.setAttribute("aria-label", `Remove ${picture.name}`);
        button.addEventListener("click", () => this.remove(picture));
        item.append(image, name, button);
        return item;
      }),
    );
    this.onChange();
  }
}
