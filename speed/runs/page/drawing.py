"""Pictures by matplotlib as elements of a page: no style attributes, which the page forbids, and its own colours.

matplotlib draws with fixed colours of a palette; `page.css` has for each of them the one that is shown, by light and
by night. Readers who are colour-blind tell the palette apart (Okabe and Ito).
"""

from __future__ import annotations

import inspect
import io
import re
import warnings
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup

from speed.core.cache import write_aside
from speed.core.spec import Json, digest

INK, FAINT, BLUE, ORANGE, GREEN, PINK = "#111111", "#999999", "#0072b2", "#d55e00", "#009e73", "#cc79a7"
OTHERS = {"#ffffff": "none", "#000000": INK, "#666666": FAINT, "#b0b0b0": FAINT, "#cccccc": FAINT}
"""matplotlib's own colours, and those of the palette that stand for them."""
LINK = "{http://www.w3.org/1999/xlink}href"
_STYLE = re.compile(r"\s*([\w-]+)\s*:\s*([^;]+)")
_DROPPED = {"metadata", "style", "title", "script"}


def drawn(
    draw: Callable[[Any, Any], None], data: Json, width: float, height: float, name: str, home: Path
) -> Markup | None:
    """What `draw` puts on a figure, as an SVG element; None where matplotlib is not installed.

    It is kept below `<home>/cache` by all that it depends on, so that a run whose stages are all there, and whose page
    is the same, need not import matplotlib.

    Args:
        draw: a function of a module, of matplotlib's figure and the data.
        width: in inches, at 72 units each.
        name: what it shows, for readers who do not see it.
    """
    try:
        by = version("matplotlib")
    except PackageNotFoundError:
        return None
    code = [sha256(Path(file).read_bytes()).hexdigest() for file in (__file__, inspect.getfile(draw))]
    kept = home / "cache" / "pictures" / f"{digest([by, *code, draw.__name__, data, width, height, name])}.svg"
    if kept.is_file():
        return Markup(kept.read_text(encoding="utf-8"))
    picture = _drawn(draw, data, width, height, name)
    with suppress(OSError), write_aside(kept) as aside:  # a full disk costs the next run half a second
        aside.write_text(picture, encoding="utf-8")
    return picture


def _drawn(draw: Callable[[Any, Any], None], data: Json, width: float, height: float, name: str) -> Markup:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    settings: Any = {
        "svg.hashsalt": name, "svg.fonttype": "none", "text.parse_math": False, "font.size": 9, "axes.edgecolor": FAINT,
        "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK, "ytick.color": INK, "axes.spines.top": False,
        "axes.spines.right": False, "axes.grid": True, "grid.color": FAINT, "grid.alpha": 0.25, "legend.frameon": False,
        "axes.facecolor": "none", "figure.facecolor": "none", "savefig.facecolor": "none",
    }  # fmt: skip
    with mpl.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(width, height))
        draw(figure, data)
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return inlined(file.getvalue().decode("utf-8"), name)


def inlined(svg: str, name: str) -> Markup:
    """An SVG document of matplotlib's as an element of HTML."""
    root = ElementTree.fromstring(re.sub(r"<!DOCTYPE[^>]*>", "", svg))
    for parent in list(root.iter()):
        for child in list(parent):
            if not isinstance(child.tag, str) or child.tag.rpartition("}")[2] in _DROPPED:
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        for prop, value in _STYLE.findall(element.attrib.pop("style", "")):
            if prop == "font":
                size = re.search(r"([\d.]+)px", value)
                element.set("font-size", size[1] if size else "9")
            else:
                element.set(prop, value.strip())
        for paint in ("fill", "stroke"):
            if element.get(paint) in OTHERS:
                element.set(paint, OTHERS[element.attrib[paint]])
        if LINK in element.attrib:
            element.set("href", element.attrib.pop(LINK))
        for needless in ("id",) if element.tag in ("g", "svg") else ("font-family",):
            element.attrib.pop(needless, None)
        if element.get("transform", "").startswith("rotate(-0 "):
            del element.attrib["transform"]
    root.attrib = {"viewBox": root.get("viewBox", ""), "role": "img", "aria-label": name, "class": "plot"}
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # its texts are escaped by ElementTree
