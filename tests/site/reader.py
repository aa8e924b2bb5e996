"""Reads a page in the browser: what it loads, says, links to and shows."""

import json
from typing import Any, NamedTuple

from selenium.webdriver import Chrome

PHONE = 360
_SCRIPT = """
const shown = element => element.checkVisibility();
const article = document.querySelector("article") || document.body;
const words = article.cloneNode(true);
words.querySelectorAll("pre, code, math, script, style").forEach(element => element.remove());
const scrolls = element => {
  for (let parent = element; parent && parent !== document.body; parent = parent.parentElement)
    if (getComputedStyle(parent).overflowX !== "visible") return true;
  return false;
};
const wide = [...article.querySelectorAll("*")].filter(
  element => shown(element) && element.getBoundingClientRect().right > innerWidth + 1 && !scrolls(element)
);
return {
  links: [...document.querySelectorAll("a[href], link[href], img[src], script[src]")].map(it => it.href || it.src),
  ids: [...document.querySelectorAll("[id]")].map(element => element.id),
  tex: words.textContent.match(/\\$|\\\\[a-zA-Z()[\\]]+/g) || [],
  unrendered: [...document.querySelectorAll(".arithmatex, merror")]
    .concat([...article.querySelectorAll("math")].filter(math => shown(math) && !math.getBoundingClientRect().width))
    .map(element => element.outerHTML),
  too_wide: wide.map(element => element.outerHTML.slice(0, 200))
    .concat(document.documentElement.scrollWidth > innerWidth ? ["the page"] : []),
  nameless: [...article.querySelectorAll("img:not([alt]), img[alt=''], svg:not([aria-hidden])")]
    .filter(it => it.tagName === "IMG" || !it.querySelector("title")).map(it => it.outerHTML.slice(0, 200)),
  missing_images: [...document.images].filter(image => !image.complete || !image.naturalWidth).map(image => image.src),
};
"""


class Page(NamedTuple):
    """What was seen of a page at the width of a phone.

    Attributes:
        errors: Errors and warnings of the console.
        requests: Addresses asked for.
        failed: Requests that failed.
        links: Addresses that the page links to or loads, absolute.
        ids: What a link to the page may point at.
        tex: What looks like TeX in the text.
        unrendered: Formulas that are not shown.
        too_wide: What makes the page scroll sideways, or is cut off.
        nameless: Pictures without a text in their place.
        missing_images: Images that did not load.
    """

    errors: list[str]
    requests: list[str]
    failed: list[str]
    links: list[str]
    ids: list[str]
    tex: list[str]
    unrendered: list[str]
    too_wide: list[str]
    nameless: list[str]
    missing_images: list[str]


def read(driver: Chrome, address: str) -> Page:
    """Opens an address and looks at it."""
    driver.get(address)
    found = driver.execute_script(_SCRIPT)
    errors = [entry["message"] for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    requests = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    return Page(errors, requests, [text for event in events if (text := _failure(event))], **found)


def _failure(event: dict[str, Any]) -> str:
    """What went wrong by an event of the network, or nothing."""
    values = event["params"]
    if event["method"] == "Network.responseReceived" and values["response"]["status"] >= 400:
        return f"{values['response']['status']} {values['response']['url']}"
    if event["method"] == "Network.loadingFailed" and not values.get("canceled"):
        return str(values["errorText"])
    return ""
