"""An appliance with a console that a real browser looks at: proxies, their site and databases as in the tests of serving, the
console as a process of its own with its own certificate, and pages of Chromium."""

import os
import re
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Error, Page

from api.auth import people
from api.auth.roles import EVERY_MACHINE, Caller, Permission, Role
from appliance.web import listening
from appliance.web.access import access_of
from tests.integration.serving.fleet import Fleet, until

PASSWORD = "a donkey sings at noon"

ROOT = Caller("root", frozenset(Permission))

WIDE, NARROW = 1280, 400

SERIOUS = frozenset({"serious", "critical"})


@dataclass
class Console:
    """``fleet``: everything behind it. ``screenshots``: where pages are kept as they looked."""

    fleet: Fleet
    browser: Browser
    screenshots: Path
    module: str = "tests.integration.web.console_process"
    """What runs as its process."""
    url: str = ""
    process: "subprocess.Popen[bytes] | None" = None
    contexts: list[BrowserContext] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    """Requests to anywhere but the console."""
    complaints: list[str] = field(default_factory=list)
    """What pages wrote to the browser's console as an error."""

    def start(self) -> None:
        """Let it answer."""
        argv = [sys.executable, "-W", "ignore", "-m", self.module]
        argv += [str(self.fleet.configuration("looking-on")), str(self.fleet.site.directory)]
        log = (self.fleet.base / "console.log").open("ab")
        self.process = subprocess.Popen(argv, stdout=log, stderr=log, env={**os.environ})
        until(self._answers, "the console answers")

    def _answers(self) -> bool:
        assert self.process is not None and self.process.poll() is None, self.said()
        running = listening.found(self.fleet.services.settings.state.directory / "web")
        if running is None or running.pid != self.process.pid:
            return False
        self.url = f"https://localhost:{running.port}"
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/health/live", context=context, timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def stop(self) -> None:
        """End pages and process, that of a browser that died as well."""
        for context in self.contexts:
            with suppress(Error):
                context.close()
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def said(self) -> str:
        """What the process wrote."""
        return (self.fleet.base / "console.log").read_text(errors="replace")[-4000:]

    def user(self, name: str, *roles: Role, machines: tuple[str, ...] = EVERY_MACHINE) -> None:
        """Somebody who may sign in with ``PASSWORD``."""
        people.add(access_of(self.fleet.services), ROOT, name, PASSWORD, roles, machines=machines)

    def page(self, *, width: int = WIDE, dark: bool = False, **more: Any) -> Page:
        """A new browser, in Berlin, that knows nobody."""
        context = self.browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if dark else "light",
            ignore_https_errors=True,
            timezone_id="Europe/Berlin",
            reduced_motion="reduce",  # nothing is half there in pictures
            **more,
        )
        context.set_default_timeout(60_000)
        self.contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: self._asked(request.url))
        page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        return page

    def _asked(self, url: str) -> None:
        if not url.startswith((self.url, "data:", "blob:", "about:")):
            self.outside.append(url)

    def signed_in(self, name: str = "alice", path: str = "/", **more: Any) -> Page:
        """A page of somebody who signed in by the form."""
        page = self.page(**more)
        page.goto(f"{self.url}/login?next=/console{path}")
        page.get_by_label(re.compile("name", re.IGNORECASE)).first.fill(name)
        page.get_by_label(re.compile("password", re.IGNORECASE)).first.fill(PASSWORD)
        page.get_by_role("button", name=re.compile("sign in", re.IGNORECASE)).first.click()
        settled(page)
        return page

    def go(self, page: Page, path: str) -> None:
        """To a page of the console, until it is drawn."""
        page.goto(f"{self.url}/console{path}")
        settled(page)

    def keep(self, page: Page, name: str) -> Path:
        """A picture of it."""
        self.screenshots.mkdir(parents=True, exist_ok=True)
        file = self.screenshots / f"{name}.png"
        # The whole page without scrolling: what is fixed to the window would end in its middle.
        size = page.viewport_size or {"width": WIDE, "height": 900}
        height = page.evaluate("Math.max(document.documentElement.scrollHeight, 600)")
        page.set_viewport_size({"width": size["width"], "height": min(height, 6000)})
        page.screenshot(path=file)
        page.set_viewport_size(size)
        return file


def settled(page: Page) -> None:
    """Wait until it is drawn, and its socket is open."""
    page.wait_for_selector("h1")
    page.wait_for_function("() => window.did_handshake !== false && window.socket?.connected !== false")


def drawn(page: Page) -> None:
    """Wait until its charts are, too, and what the bar above counts."""
    page.wait_for_function(
        """() => [...document.querySelectorAll(".nicegui-echart")].every((one) => one.querySelector("canvas, svg"))
        && ![...document.querySelectorAll(".lf-count")].some((one) => one.textContent === "…")
        && document.fonts.status === "loaded\"""",
    )
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def findings(page: Page) -> Mapping[str, list[str]]:
    """What axe-core finds that is serious or worse: rule -> where."""
    found = Axe().run(page).response["violations"]
    return {one["id"]: [node["html"][:200] for node in one["nodes"]] for one in found if one["impact"] in SERIOUS}
