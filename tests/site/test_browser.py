"""Every page of the site in a real browser: opened as a file, and served from a folder of some server."""

from pathlib import Path
from urllib.parse import unquote

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.expected_conditions import element_to_be_clickable
from selenium.webdriver.support.ui import WebDriverWait

from .reader import Page, read

FAULTS = ["errors", "failed", "tex", "unrendered", "too_wide", "nameless", "missing_images"]


@pytest.mark.parametrize("fault", FAULTS)
def test_no_page_has(fault: str, pages: dict[str, Page]) -> None:
    assert len(pages) > 25
    assert {name: found for name, page in pages.items() if (found := getattr(page, fault))} == {}


def test_nothing_is_asked_of_another_server(pages: dict[str, Page], base: str) -> None:
    own = (base, "data:", "blob:")
    assert {url for page in pages.values() for url in page.requests if not url.startswith(own)} == set()


def test_every_link_leads_somewhere(pages: dict[str, Page], base: str, served: Path) -> None:
    links = {(name, link) for name, page in pages.items() for link in page.links if not link.startswith("https://")}
    assert len(links) > 1000
    assert {found for found in links if not _leads_somewhere(found[1], pages, base, served)} == set()


def _leads_somewhere(link: str, pages: dict[str, Page], base: str, served: Path) -> bool:
    address, _, anchor = unquote(link).partition("#")
    name = address.removeprefix(unquote(base)) or "index.html"
    if name in pages:
        return not anchor or anchor in pages[name].ids
    return (served / "docs" / "clipo" / name).is_file() and not anchor


def test_the_search_finds_a_page(base: str, desktop: Chrome) -> None:
    desktop.get(base + "api/rewards.html")
    box = desktop.find_element(By.CSS_SELECTOR, "input.md-search__input")
    box.click()
    box.send_keys("dynamic sampling")
    found = (By.CSS_SELECTOR, "a.md-search-result__link")
    WebDriverWait(desktop, 10).until(element_to_be_clickable(found)).click()
    WebDriverWait(desktop, 10).until(lambda driver: "rewards.html" not in driver.current_url)
    assert desktop.current_url.startswith(base)
    assert "ynamic sampling" in desktop.find_element(By.CSS_SELECTOR, "article").text


def test_it_can_be_made_dark_and_stays_so(base: str, desktop: Chrome) -> None:
    def scheme() -> str | None:
        return desktop.find_element(By.CSS_SELECTOR, "body").get_attribute("data-md-color-scheme")

    desktop.get(base + "index.html")
    assert scheme() == "default"
    desktop.find_element(By.CSS_SELECTOR, "label[title=Dark]").click()
    assert scheme() == "slate"
    desktop.get(base + "metrics.html")
    assert scheme() == "slate"
    desktop.find_element(By.CSS_SELECTOR, "label[title=Light]").click()


def test_the_reader_sees_what_is_wrong(phone: Chrome, tmp_path: Path) -> None:
    """So that the tests above can fail."""
    (tmp_path / "page.html").write_text(
        """<!doctype html><title>Wrong</title><article>
        <p>An equation \\(x\\) and another, $y$.</p> <span class="arithmatex">z</span>
        <p style="width: 500px">Wide</p> <img src="missing.png"> <a href="nowhere.html#here">Link</a>
        <script>console.error("told")</script></article>"""
    )
    page = read(phone, (tmp_path / "page.html").as_uri())
    assert {fault for fault in FAULTS if not getattr(page, fault)} == set()
    here = tmp_path.as_uri() + "/"
    assert not _leads_somewhere(here + "nowhere.html#here", {"page.html": page}, here, tmp_path)
    assert not _leads_somewhere(here + "page.html#here", {"page.html": page}, here, tmp_path)
