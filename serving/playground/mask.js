// Paints a mask over a picture. What is painted becomes transparent in the mask: there the picture is edited.

const COLOUR = "#ff2d95";
const STEP = 0.5; // of the brush, per press of an arrow key

/** Marks a part of a picture with a brush, by mouse, touch or keyboard. */
export class Mask {
  constructor({ canvas, cursor, brush, onChange }) {
    Object.assign(this, { canvas, cursor, brush, onChange, erasing: false, of: null });
    this.context = canvas.getContext("2d", { willReadFrequently: true });
    this.at = { x: 0, y: 0 };
    this.last = null;
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => this.up());
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => this.point(null));
    canvas.addEventListener("pointerleave", () => this.point(null));
    brush.addEventListener("input", () => this.point(this.at));
  }

  /** Lay it over a picture, with what was marked before if it is the same one. */
  open(picture) {
    if (this.of !== picture) {
      this.of = picture;
      Object.assign(this.canvas, { width: picture.width, height: picture.height }); // which empties it
      this.at = { x: picture.width / 2, y: picture.height / 2 };
    }
    this.canvas.hidden = false;
  }

  close() {
    this.canvas.hidden = true;
    this.point(null);
  }

  get isOpen() {
    return !this.canvas.hidden;
  }

  /** The diameter of the brush in pixels of the picture: up to half of its shorter side. */
  get diameter() {
    return Math.max(1, (Number(this.brush.value) / 200) * Math.min(this.canvas.width, this.canvas.height));
  }

  clear() {
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.onChange();
  }

  /** Mark what is not marked, and nothing else. */
  invert() {
    this.fill(this.context, "xor");
    this.onChange();
  }

  /** Return whether anything is marked. */
  isMarked() {
    const { data } = this.context.getImageData(0, 0, this.canvas.width, this.canvas.height);
    for (let index = 3; index < data.length; index += 4) if (data[index] > 127) return true;
    return false;
  }

  /** Return a PNG of the picture's size, transparent where it is marked and black elsewhere. */
  async blob() {
    const canvas = new OffscreenCanvas(this.canvas.width, this.canvas.height);
    const context = canvas.getContext("2d");
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.globalCompositeOperation = "destination-out";
    context.drawImage(this.canvas, 0, 0);
    return canvas.convertToBlob({ type: "image/png" });
  }

  fill(context, operation) {
    context.globalCompositeOperation = operation;
    context.fillStyle = COLOUR;
    context.fillRect(0, 0, this.canvas.width, this.canvas.height);
  }

  /** Draw from one point to another; a point alone is a dot. */
  stroke(from, to) {
    const { context } = this;
    context.globalCompositeOperation = this.erasing ? "destination-out" : "source-over";
    Object.assign(context, { strokeStyle: COLOUR, fillStyle: COLOUR, lineWidth: this.diameter, lineCap: "round" });
    context.beginPath();
    context.moveTo(from.x, from.y);
    context.lineTo(to.x, to.y);
    context.stroke();
    context.beginPath(); // a line of no length is not drawn, not even its ends
    context.arc(to.x, to.y, this.diameter / 2, 0, 2 * Math.PI);
    context.fill();
    this.onChange();
  }

  down(event) {
    if (event.button !== 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.last = this.pointOf(event);
    this.stroke(this.last, this.last);
  }

  move(event) {
    const here = this.pointOf(event);
    if (this.last) {
      for (const one of event.getCoalescedEvents?.() ?? []) {
        const next = this.pointOf(one);
        this.stroke(this.last, next);
        this.last = next;
      }
      this.stroke(this.last, here);
      this.last = here;
    }
    this.point(here);
  }

  up() {
    this.last = null;
  }

  key(event) {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (way) {
      const before = this.at;
      const step = Math.max(1, this.diameter * STEP);
      const within = (value, most) => Math.min(Math.max(value, 0), most);
      const x = within(before.x + way[0] * step, this.canvas.width);
      const y = within(before.y + way[1] * step, this.canvas.height);
      this.point({ x, y });
      if (event.shiftKey) this.stroke(before, this.at);
    } else if (event.key === " ") {
      this.point(this.at);
      this.stroke(this.at, this.at);
    } else return;
    event.preventDefault();
  }

  /** Show the brush at a point of the picture, or nowhere. */
  point(at) {
    this.cursor.hidden = at === null;
    if (at === null) return;
    this.at = at;
    const { width, height } = this.canvas;
    Object.assign(this.cursor.style, {
      left: `${(100 * at.x) / width}%`,
      top: `${(100 * at.y) / height}%`,
      width: `${(100 * this.diameter) / width}%`,
    });
  }

  pointOf(event) {
    const box = this.canvas.getBoundingClientRect();
    return {
      x: ((event.clientX - box.left) / box.width) * this.canvas.width,
      y: ((event.clientY - box.top) / box.height) * this.canvas.height,
    };
  }
}
