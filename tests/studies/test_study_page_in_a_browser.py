"""The page of a study in a headless chromium: nothing is fetched, nothing fails, and it fits its screen.

Skipped where the machine has no chromium.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from chromium import FOUND, Tab, in_a_tab

from speed.studies.answer import Answer
from speed.studies.web_page import html

pytestmark = pytest.mark.skipif(FOUND is None, reason="no chromium is installed: pages are not looked at in a browser")
COMMITTED = Path(__file__).resolve().parents[2] / "experiments"


def page(folder: Path, name: str, answer: Answer) -> str:
    """Address of the page of an answer, with its committed picture."""
    file = folder / f"{name}.html"
    file.write_text(html(answer, (COMMITTED / f"{name}.svg").read_text(encoding="utf-8")), encoding="utf-8")
    return file.as_uri()


def committed(name: str) -> Answer:
    return Answer.model_validate_json((COMMITTED / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("name", ["table2", "figure4"])
def test_a_study_fits_its_screen_by_light_and_by_night(name: str, width: int, tmp_path: Path) -> None:
    answer = committed(name)

    async def act(shown: Tab) -> None:
        grounds = []
        for dark in (False, True):
            await shown.screen(width, 800, dark)
            await shown.open(page(tmp_path, name, answer))
            assert await shown.run("document.documentElement.scrollWidth") == width, "nothing sticks out"
            assert await shown.run("document.querySelectorAll('*').length") < 5_000
            text = await shown.run("document.body.textContent")
            assert all(row.name in text for row in answer.rows)
            assert await shown.run("document.querySelector('svg').getBoundingClientRect().width") > 200, "the picture"
            tallest = "Math.max(...[...document.querySelectorAll('tr')].map(row => row.offsetHeight))"
            assert await shown.run(tallest) < 150, "a cell of words is not squeezed to a word a line"
            grounds.append(await shown.run("getComputedStyle(document.body).backgroundColor"))
            await shown.picture(tmp_path / f"{name}-{width}-{dark}.png", whole=True)
        assert grounds[0] != grounds[1]

    in_a_tab(act)


def test_what_a_study_is_called_stays_text(tmp_path: Path) -> None:
    hostile = "<img src=x onerror=alert(1)><script>window.ran = 1</script>" + "w" * 400
    answer = committed("table2")
    study = answer.study.model_copy(update={"title": hostile, "question": hostile, "hypothesis": hostile})

    async def act(shown: Tab) -> None:
        await shown.screen(400, 800)
        await shown.open(page(tmp_path, "table2", answer.model_copy(update={"study": study})))
        assert await shown.run("typeof window.ran") == "undefined"
        assert hostile in await shown.run("document.body.textContent")
        assert await shown.run("document.documentElement.scrollWidth") == 400

    in_a_tab(act)
