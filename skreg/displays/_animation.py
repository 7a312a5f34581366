"""Pictures one after the other, in a file: GIF, or a page of HTML with a slider."""

import base64
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from io import BytesIO
from math import isfinite
from pathlib import Path

import numpy as np

HOLD = 4  # the last picture stays so many times as long
PAGE = """\
<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>%(title)s</title>
<style>
body { margin: 1rem auto; max-width: %(width)dpx; padding: 0 1rem;
       font: 1rem system-ui, sans-serif; }
img { display: block; width: 100%%; height: auto; }
form { display: flex; gap: 1rem; align-items: center; }
input { flex: 1; }
output { min-width: 8em; text-align: right; font-variant-numeric: tabular-nums; }
</style>
<img id="picture" alt="%(title)s" width="%(width)d" height="%(height)d" src="%(first)s">
<form>
<button id="play" type="button">Play</button>
<input id="slider" type="range" min="0" max="%(last)d" value="0" aria-label="Moment">
<output id="caption" for="slider"></output>
</form>
<script>
const pictures = %(pictures)s;
const captions = %(captions)s;
const [picture, play, slider, caption] = ["picture", "play", "slider", "caption"]
  .map(id => document.getElementById(id));
let timer = null;
function show() {
  picture.src = pictures[slider.value];
  caption.textContent = captions[slider.value];
  picture.alt = captions[slider.value];
}
function stop() {
  clearInterval(timer);
  timer = null;
  play.textContent = "Play";
}
function start() {
  if (+slider.value === pictures.length - 1) slider.value = 0;
  timer = setInterval(step, %(interval)s);
  play.textContent = "Pause";
  show();
}
function step() {
  slider.value = +slider.value + 1;
  show();
  if (+slider.value === pictures.length - 1) stop();
}
play.onclick = () => timer === null ? start() : stop();
slider.oninput = () => { stop(); show(); };
show();
</script>
</html>
"""


def write_animation(
    path, pictures: Iterable, captions: Sequence[str], interval: float, title: str
) -> Path:
    """Write pictures into one file, under another name until it is complete.

    Parameters
    ----------
    path : str or path-like
        Ends in .gif or .html.
    pictures : iterable of PIL.Image.Image
        All of one size.
    captions : sequence of str
        One a picture.
    interval : float
        Milliseconds a picture.
    title : str
        Of the page.

    Returns
    -------
    Path
    """
    path = Path(path)
    makers = {".gif": _gif, ".html": _page}
    if path.suffix.lower() not in makers:
        raise ValueError(f"path must end in .gif or .html; got {str(path)!r}.")
    if not isfinite(interval) or interval <= 0:
        raise ValueError(
            f"interval must be a positive number of milliseconds; got {interval!r}."
        )
    content = makers[path.suffix.lower()](list(pictures), captions, interval, title)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _gif(pictures, captions, interval, title) -> bytes:
    pictures = _in_few_colors(pictures)
    file = BytesIO()
    pictures[0].save(
        file,
        "GIF",
        save_all=True,
        append_images=pictures[1:],
        duration=[interval] * (len(pictures) - 1) + [HOLD * interval],
        loop=0,
        optimize=False,
    )
    return file.getvalue()


def _in_few_colors(pictures) -> list:
    """Return the pictures in the 256 most frequent of their colours.

    One palette for all, or a colour would change from one picture to the next. Pillow
    would round the colours on the way: white paper would become grey.
    """
    from PIL import Image

    codes, inverse, counts = [], [], Counter()
    for picture in pictures:
        pixels = np.asarray(picture).reshape(-1, 3).astype(np.int32)
        code, back, count = np.unique(
            pixels @ (1 << 16, 1 << 8, 1), return_inverse=True, return_counts=True
        )
        codes.append(code)
        inverse.append(back.reshape(picture.height, picture.width))
        counts.update(dict(zip(code.tolist(), count.tolist(), strict=True)))
    palette = _rgb(np.array([code for code, _ in counts.most_common(256)]))
    few = []
    for code, back in zip(codes, inverse, strict=True):
        distances = np.square(_rgb(code)[:, None] - palette).sum(axis=-1)
        picture = Image.fromarray(distances.argmin(axis=1).astype(np.uint8)[back])
        picture.putpalette(palette.astype(np.uint8).tobytes())
        few.append(picture)
    return few


def _rgb(codes: np.ndarray) -> np.ndarray:
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=-1)


def _page(pictures, captions, interval, title) -> bytes:
    sources = [_data_url(picture) for picture in pictures]
    width, height = pictures[0].size
    page = PAGE % {
        "title": escape(title),
        "width": width,
        "height": height,
        "first": sources[0],
        "last": len(pictures) - 1,
        "pictures": json.dumps(sources),
        "captions": json.dumps(captions).replace("<", "\\u003c"),
        "interval": json.dumps(interval),
    }
    return page.encode()


def _data_url(picture) -> str:
    file = BytesIO()
    picture.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
