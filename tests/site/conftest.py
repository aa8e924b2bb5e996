"""The site as it is built, where it may stand, and a browser to read it with: Debian's chromium and chromium-driver."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from .reader import PHONE, Page, read

ROOT = Path(__file__).parents[2]
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a server, with the site in a folder of it."""
    root = tmp_path_factory.mktemp("served")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    command += ["--site-dir", str(root / "docs" / "clipo")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return root


@pytest.fixture(scope="session")
def names(served: Path) -> list[str]:
    """The pages of the site, but for the one that a server may show in place of any other."""
    folder = served / "docs" / "clipo"
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.html") if path.name != "404.html")


@pytest.fixture(scope="session", params=["files", "sub-path"])
def base(request: pytest.FixtureRequest, served: Path) -> Iterator[str]:
    """The address that pages' names are relative to."""
    if request.param == "files":
        yield (served / "docs" / "clipo").as_uri() + "/"
        return
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(served))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/docs/clipo/"
        server.shutdown()
        thread.join()


class Quiet(SimpleHTTPRequestHandler):
    """A server that does not tell of every request."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    options = ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in [*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options, Service("/usr/bin/chromedriver"))
    yield driver
    driver.quit()


@pytest.fixture
def phone(browser: Chrome) -> Iterator[Chrome]:
    """The browser at the width of a phone."""
    yield from _as_wide_as(PHONE, browser)


@pytest.fixture
def desktop(browser: Chrome) -> Iterator[Chrome]:
    """The browser at the width of a desktop."""
    yield from _as_wide_as(1280, browser)


def _as_wide_as(width: int, driver: Chrome) -> Iterator[Chrome]:
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    yield driver
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.fixture(scope="session")
def pages(base: str, names: list[str], browser: Chrome) -> dict[str, Page]:
    """Every page, read at the width of a phone."""
    for driver in _as_wide_as(PHONE, browser):
        driver.get("about:blank")
        for log in ("browser", "performance"):
            driver.get_log(log)  # of what came before
        seen = {name: read(driver, base + name) for name in names}
    return seen
