// Holds the pictures as a tree: each was made of another one, and nothing is lost by going back.

/**
 * A picture of the history, a plain object:
 * number (from 0 on), parent (a picture or null), children, blob, url, width, height, name (of its file), prompt, seed,
 * session and turn (where the server keeps it; session "" where it does not).
 */
export class History {
  constructor() {
    this.clear();
  }

  /** Forget everything. */
  clear() {
    for (const picture of this.pictures ?? []) URL.revokeObjectURL(picture.url);
    this.pictures = [];
    this.current = null;
  }

  /** Add a picture below another one, or as a beginning of its own, and go there. */
  add(picture, parent = null) {
    const added = { prompt: "", seed: null, session: "", turn: 0, ...picture };
    Object.assign(added, { number: this.pictures.length, parent, children: [] });
    this.pictures.push(added);
    parent?.children.push(added);
    this.current = added;
    return added;
  }

  get canUndo() {
    return Boolean(this.current?.parent);
  }

  get canRedo() {
    return Boolean(this.current?.children.length);
  }

  /** Go back to what the current picture was made of. */
  undo() {
    if (this.canUndo) this.current = this.current.parent;
  }

  /** Go to the last picture that was made of the current one. */
  redo() {
    if (this.canRedo) this.current = this.current.children.at(-1);
  }

  /** Return the pictures in the order of a tree, each with its level, from 1 on, and the lane that it is drawn in. */
  rows() {
    const rows = [];
    const walk = (picture, level, lane) => {
      rows.push({ picture, level, lane });
      // what was made first goes on in the same lane, so that edits in a row do not wander off to the side
      picture.children.forEach((child, index) => walk(child, level + 1, lane + (index ? 1 : 0)));
    };
    for (const picture of this.pictures) if (!picture.parent) walk(picture, 1, 0);
    return rows;
  }

  /** Write down that the server keeps a session no more. */
  forgetSession(name) {
    for (const picture of this.pictures) if (picture.session === name) picture.session = "";
  }

  /** Return the names of the sessions that the server keeps for these pictures. */
  sessions() {
    return [...new Set(this.pictures.map((picture) => picture.session).filter(Boolean))];
  }
}
