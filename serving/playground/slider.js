// Lays the picture before over the picture after it, up to a line that is moved. The control is a range input, so that
// mouse, touch, arrow keys and screen readers work as for any other.

/** Compares two pictures. */
export class Slider {
  constructor({ range, before, divider }) {
    Object.assign(this, { range, before, divider });
    range.addEventListener("input", () => this.draw());
  }

  /** Show a picture before, or none where this is null. */
  show(picture) {
    for (const part of [this.range, this.before, this.divider]) part.hidden = picture === null;
    if (picture) {
      this.before.src = picture.url;
      this.before.alt = `Before: ${picture.prompt || picture.name}`;
    }
    this.draw();
  }

  draw() {
    const share = Number(this.range.value);
    this.before.style.clipPath = `inset(0 ${100 - share}% 0 0)`;
    this.divider.style.left = `${share}%`;
    this.range.setAttribute("aria-valuetext", `${share} % before`);
  }
}
