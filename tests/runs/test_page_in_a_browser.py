"""The page of a run in a headless chromium: nothing is fetched, nothing fails, and records are found, shown and linked.

Skipped where the machine has no chromium.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from chromium import FOUND, Tab, in_a_tab
from made_up_run import MadeUpRun, made_up_run
from test_page import HOSTILE

from speed.runs.page import of_run

pytestmark = pytest.mark.skipif(FOUND is None, reason="no chromium is installed: pages are not looked at in a browser")
LIST = "document.querySelectorAll('#list li').length"
RECORD = "document.querySelector('#record')"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Address of a page with hostile texts and very long words."""
    folder = tmp_path_factory.mktemp("page")
    run: MadeUpRun = made_up_run(folder / "home", "scale.examples=300", hostile=HOSTILE + "w" * 400 + " ")
    page = partial(of_run.html, "made up", run.about, run.order, run.store, run.lines, run.scores)
    assert of_run.write(folder, page)
    return (folder / "report.html").as_uri()


def test_records_are_filtered_shown_and_linked(page: str) -> None:
    async def act(shown: Tab) -> None:
        await shown.screen(1400, 900)
        await shown.open(page + "#/lists/0?life=lists")
        await shown.until(f"{LIST} > 0 && {RECORD}.querySelector('h3') !== null")
        assert await shown.run(LIST) == 8
        assert await shown.run(f"{RECORD}.querySelectorAll('.answer').length") == 4
        assert await shown.run(f"{RECORD}.querySelector('.answer.best strong').textContent") == "3 best"
        assert "It fits best." in await shown.run(f"{RECORD}.textContent")
        assert await shown.run("document.querySelectorAll('script, img').length") == 2, "texts are no elements"

        await shown.run("document.dispatchEvent(new KeyboardEvent('keydown', {key: 'j', bubbles: true}))")
        assert await shown.run("location.hash") == "#/lists/1?life=lists"
        await shown.run("history.back()")
        await shown.until("location.hash === '#/lists/0?life=lists'")

        await shown.run("document.querySelector('#filters button').click()")
        await shown.until(f"{LIST} === 40")
        await shown.run(_chosen("outcome", "repeat"))
        assert await shown.run(
            "[...document.querySelectorAll('#list small')].every(x => x.textContent.includes('repeat'))"
        )
        await shown.run("document.querySelector('#list button').click()")
        await shown.until(f"{RECORD}.querySelector('ins, del') !== null")
        first = await shown.run(f"[...{RECORD}.querySelectorAll('a')].map(a => a.getAttribute('href'))[0]")
        assert first.startswith("#/corpus/")

        await shown.run(_chosen("outcome", ""))
        await shown.run(_chosen("guideline", "too_short"))
        assert 0 < await shown.run(LIST) <= 40
        await shown.run(_chosen("guideline", ""))
        await shown.run("{const q = document.querySelector('[name=q]'); q.value = 'no such words'; "
                        "q.dispatchEvent(new Event('input', {bubbles: true}))}")  # fmt: skip
        assert await shown.run(LIST) == 0
        assert "q=no+such+words" in await shown.run("location.hash")

    in_a_tab(act)


def _chosen(facet: str, value: str) -> str:
    return (
        f"{{const s = document.querySelector('[name={facet}]'); s.value = '{value}'; "
        "s.dispatchEvent(new Event('input', {bubbles: true}))}"
    )


@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_fits_its_screen_by_light_and_by_night(page: str, width: int, tmp_path: Path) -> None:
    async def act(shown: Tab) -> None:
        grounds = []
        for dark in (False, True):
            await shown.screen(width, 800, dark)
            await shown.open(page)
            await shown.run("document.querySelector('#records').scrollIntoView()")
            await shown.until(f"{LIST} > 0")
            await shown.run("document.querySelector('#list button').click()")
            assert await shown.run("document.documentElement.scrollWidth") == width, "nothing sticks out"
            assert await shown.run("document.querySelectorAll('*').length") < 5_000
            grounds.append(await shown.run("getComputedStyle(document.body).backgroundColor"))
            await shown.picture(tmp_path / f"{width}-{dark}.png")
            assert (tmp_path / f"{width}-{dark}.png").stat().st_size > 10_000
        assert grounds[0] != grounds[1]
        await shown.run("document.querySelector('#theme').click()")
        assert await shown.run("getComputedStyle(document.body).backgroundColor") == grounds[0]

    in_a_tab(act)


@pytest.mark.parametrize("dark", [False, True])
def test_paper_is_light_whatever_the_screen_is(page: str, dark: bool) -> None:
    """The button's choice stands in the element itself, which outweighs a style sheet without `!important`."""
    ink = "(each => each.color + ' on ' + each.backgroundColor)(getComputedStyle(document.body))"

    async def act(shown: Tab) -> None:
        await shown.screen(1400, 900, dark)
        await shown.open(page)
        system = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        await shown.send("Emulation.setEmulatedMedia", media="print", features=system)
        for _ in range(3):  # as the system is, light, dark
            assert await shown.run(ink) == "rgb(27, 28, 30) on rgb(255, 255, 255)"
            await shown.run("document.querySelector('#theme').click()")

    in_a_tab(act)


def test_the_policy_stops_whatever_is_not_the_pages_own(page: str) -> None:
    async def act(shown: Tab) -> str:
        await shown.open(page)
        tried = (
            "new Promise(done => {"
            "document.addEventListener('securitypolicyviolation', event => done(event.effectiveDirective));"
            "const own = document.createElement('script'); own.textContent = 'window.ran = 1';"
            "document.body.append(own)})"
        )
        stopped = str(await shown.run(tried))
        assert await shown.run("typeof window.ran") == "undefined"
        shown.errors.clear()
        return stopped

    assert in_a_tab(act) == "script-src-elem"
