"""Edits one picture: `python examples/edit.py BUNDLE PICTURE PROMPT OUT`; what is left out is of `make demo`."""

import sys

from kontext_trt import Kontext


def show_step(done: int, of: int) -> None:
    """Say which step is done, on one line."""
    print(f"\rstep {done} of {of}", end="" if done < of else "\n", flush=True)


def main(
    bundle: str = "demo/bundle",
    picture: str = "docs/small-kontext/before.png",
    prompt: str = "turn the orange hexagon black",
    out: str = "edited.png",
) -> None:
    """Edit a picture, and say what it took."""
    with Kontext.open(bundle) as kontext:
        result = kontext.edit(picture, prompt, seed=0, on_step=show_step)
    (path,) = result.save(out)  # the request goes along, in the file's metadata
    width, height = result.image.size
    stages = ", ".join(f"{name} {value:,.0f} ms" for name, value in result.milliseconds.items())
    print(f"{path}: {width}x{height}, seed {result.seed}, by {result.executor}: {stages}")


if __name__ == "__main__":
    main(*sys.argv[1:])
