"""A real OpenID provider (zitadel's certified library) on a loopback port, and a person's browser at it."""

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

SETUP = Path(__file__).parents[3] / "appliance/setup/oidc.sh"
CLIENT, SECRET = "lanfree", "a secret: of no worth & with letters that need care"
PASSWORD = "a camel reads at night"


def program() -> str:
    """Where the provider's program is, or would be: what a test that uses it ``requires``."""
    return subprocess.run([SETUP, "--path"], check=True, capture_output=True, text=True).stdout.strip()


@dataclass
class OidcProvider:
    """``issuer``: as its tokens name it. ``file``: people, which it reads anew each time."""

    issuer: str
    file: Path

    def person(self, subject: str, name: str, groups: list[str], **facts: Any) -> None:
        """Somebody who can sign in there, or the same with other facts."""
        known = json.loads(self.file.read_text())
        shown = {"FirstName": name.title(), "LastName": "Test", "Email": f"{name}@example.org", "EmailVerified": True}
        known["People"][subject] = (
            {"ID": subject, "Username": name, "Password": PASSWORD, "Groups": groups} | shown | facts
        )
        draft = self.file.with_suffix(".new")
        draft.write_text(json.dumps(known))
        draft.replace(self.file)

    def sign_in(self, address: str, name: str, password: str = PASSWORD) -> str:
        """What a person does there; the address to which the browser is sent back."""
        with httpx.Client(timeout=30, trust_env=False) as browser:
            page = browser.get(address, follow_redirects=True)
            found = re.search(r'name="id" value="([^"]+)"', page.text)
            assert found is not None, page.text
            form = {"id": found[1], "username": name, "password": password}
            answer = browser.post(f"{self.issuer}login/username", data=form)
            while answer.is_redirect and answer.headers["location"].startswith(("/", self.issuer)):
                answer = browser.get(httpx.URL(self.issuer).join(answer.headers["location"]))
            return answer.headers.get("location", "")


@contextmanager
def running(directory: Path, redirect: str) -> Iterator[OidcProvider]:
    """``redirect``: where it may send browsers back to."""
    file = directory / "oidc.json"
    file.write_text(json.dumps({"Client": CLIENT, "Secret": SECRET, "Redirect": redirect, "People": {}}))
    with (directory / "oidc.log").open("w") as log:
        process = subprocess.Popen([program(), file], stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout is not None
        issuer = process.stdout.readline().strip()
        assert issuer, (directory / "oidc.log").read_text()
        yield OidcProvider(issuer, file)
    finally:
        process.terminate()
        process.wait(30)
        if process.stdout is not None:
            process.stdout.close()
