// Shows the history as a tree that arrow keys walk through.

/** Shows a History in a list, and says which picture was chosen. */
export class Tree {
  constructor(list, history, onChoose) {
    this.list = list;
    this.history = history;
    this.onChoose = onChoose;
    list.addEventListener("click", (event) => this.choose(event.target.closest("[role=treeitem]")));
    list.addEventListener("keydown", (event) => this.key(event));
  }

  /** Draw it anew. */
  show() {
    const focused = this.list.contains(document.activeElement);
    const rows = this.history.rows();
    this.list.replaceChildren(...rows.map((row, index) => this.item(row, rows[index - 1])));
    const current = this.list.querySelector("[aria-selected=true]");
    if (current) this.bringIntoView(current);
    if (focused) current?.focus({ preventScroll: true });
  }

  /** Scroll the list, and not the page with it. */
  bringIntoView(item) {
    const { list } = this;
    const [box, around] = [item.getBoundingClientRect(), list.getBoundingClientRect()];
    if (box.top < around.top) list.scrollTop -= around.top - box.top;
    if (box.bottom > around.bottom) list.scrollTop += box.bottom - around.bottom;
  }

  item({ picture, level, lane }, above) {
    const selected = picture === this.history.current;
    const item = document.createElement("li");
    item.setAttribute("role", "treeitem");
    item.setAttribute("aria-level", level);
    item.setAttribute("aria-selected", selected);
    item.tabIndex = selected ? 0 : -1;
    item.dataset.number = picture.number;
    item.style.setProperty("--lane", Math.min(lane, 6));
    const image = document.createElement("img");
    Object.assign(image, { src: picture.url, alt: "", width: 48, height: 48 });
    const words = document.createElement("span");
    const title = document.createElement("span");
    title.className = "title";
    title.textContent = `${picture.number}. ${picture.prompt || picture.name}`;
    const note = document.createElement("span");
    note.className = "note";
    const of = picture.parent && picture.parent !== above?.picture ? `of ${picture.parent.number}` : "";
    const seed = picture.seed === null ? "" : `seed ${picture.seed}`;
    note.textContent = [of, seed, `${picture.width}x${picture.height}`].filter(Boolean).join(", ");
    words.append(title, note);
    item.append(image, words);
    return item;
  }

  key(event) {
    const items = [...this.list.children];
    const item = event.target.closest("[role=treeitem]");
    const index = items.indexOf(item);
    if (index < 0 || event.ctrlKey || event.altKey || event.metaKey) return;
    const picture = this.history.pictures[item.dataset.number];
    const other = {
      ArrowDown: () => items[index + 1],
      ArrowUp: () => items[index - 1],
      ArrowLeft: () => this.itemOf(picture.parent),
      ArrowRight: () => this.itemOf(picture.children[0]),
      Home: () => items[0],
      End: () => items.at(-1),
    }[event.key];
    if (other) {
      other()?.focus();
    } else if (event.key === "Enter" || event.key === " ") {
      this.choose(item);
    } else return;
    event.preventDefault();
  }

  itemOf(picture) {
    return picture && this.list.querySelector(`[data-number="${picture.number}"]`);
  }

  choose(item) {
    if (item) this.onChoose(this.history.pictures[item.dataset.number]);
  }
}
