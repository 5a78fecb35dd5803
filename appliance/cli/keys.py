"""``lanfree key``: who may open the repository."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from appliance import storage
from appliance.cli.app import CONTEXT, app
from appliance.cli.output import table
from proxy.errors import ConfigurationError, KeyRefused
from proxy.repository import KeyFile, Passphrase, Secret, keys
from proxy.repository.keys import Slot
from proxy.repository.repository import check_keyring, read_settings

key = typer.Typer(no_args_is_help=True, help="Key slots of the repository: who may open it.")
app.add_typer(key, name="key")

_FILE = Annotated[Path | None, typer.Option(help="A key file; made if it is missing.")]
_PASSPHRASE = Annotated[Path | None, typer.Option(help="A file with the passphrase, 0600.")]


@key.command("list")
def list_slots() -> None:
    """The key slots. Needs no key: what is shown is what anybody sees who reads the storage."""
    found = keys.slots(storage.store_of(CONTEXT.settings().repository))
    rows = [(slot.id, slot.kind, slot.label, slot.created_at) for slot in found]
    CONTEXT.output.result(
        [{"id": s.id, "kind": s.kind, "label": s.label, "created_at": s.created_at} for s in found],
        table("SLOT", "KIND", "LABEL", "MADE", rows=rows),
    )


@key.command("add")
def add(
    label: Annotated[str, typer.Argument(help="What to call it; readable by everybody who reads the storage.")],
    key_file: _FILE = None,
    passphrase_file: _PASSPHRASE = None,
) -> None:
    """Let one more key file or passphrase open the repository. No data is rewritten."""
    secret = _secret(key_file, passphrase_file)
    with CONTEXT.services() as services:
        repository = services.repository
        if not repository.settings.sealed:
            raise KeyRefused("it is not encrypted: there is nothing to open")
        slot = keys.add_slot(
            repository.store, repository.settings, repository.keyring, secret, label=label, now=services.clock.now()
        )
    _told(slot, "added")


@key.command("remove")
def remove(slot: Annotated[str, typer.Argument(help="Slot, as 'lanfree key list' names it.")]) -> None:
    """Take a way in away. The key in the configuration must open another slot, so that nobody locks himself out."""
    section = CONTEXT.settings().repository
    with CONTEXT.services() as services:
        keys.remove_slot(
            services.repository.store, services.repository.settings, slot, _own(storage.secret_of(section))
        )
    CONTEXT.output.result(
        {"slot": slot, "removed": True}, f"slot {slot} removed; whoever copied the storage before keeps it"
    )


@key.command("rotate")
def rotate() -> None:
    """Seal with a new key from now on. All slots but the configured one are removed, and have to be added anew."""
    section = CONTEXT.settings().repository
    with CONTEXT.services() as services:
        repository = services.repository
        secret = _own(storage.secret_of(section))
        keyring, slot = keys.rotate(repository.store, repository.settings, secret, now=services.clock.now())
    generations = len(keyring.generations)
    CONTEXT.output.result(
        {"slot": slot.id, "generation": generations},
        f"generation {generations} seals from now on; slot {slot.id} is the only one",
        "next: 'lanfree key add' for every other key, and 'lanfree key paper' for the safe",
    )


@key.command("paper")
def paper(svg: Annotated[Path | None, typer.Option(help="Also write a QR code to this file, 0600.")] = None) -> None:
    """Print the keys themselves, for a safe. Whoever has the paper and the storage reads everything."""
    import segno  # noqa: PLC0415  # only this command draws codes

    with CONTEXT.services() as services:
        repository = services.repository
        if not repository.settings.sealed:
            raise KeyRefused("it is not encrypted: it has no key to keep safe")
        text = keys.to_paper(repository.settings, repository.keyring)
    code = segno.make(text, error="m")
    if svg is not None:
        svg.touch(0o600, exist_ok=False)
        code.save(str(svg), kind="svg", scale=4)
    if sys.stdout.isatty():
        code.terminal(compact=True)
    CONTEXT.output.result({"paper": text}, text.rstrip())


@key.command("recover")
def recover(
    paper_file: Annotated[Path, typer.Argument(metavar="FILE", help="The text of the paper; - for standard input.")],
    key_file: _FILE = None,
    passphrase_file: _PASSPHRASE = None,
    label: Annotated[str, typer.Option(help="What to call the new slot.")] = "recovered",
) -> None:
    """Open a repository whose keys were lost with what was printed for the safe, by a new key slot."""
    section = CONTEXT.settings().repository
    text = sys.stdin.read() if str(paper_file) == "-" else paper_file.read_text()
    if key_file is None and passphrase_file is None:
        key_file, passphrase_file = section.key_file, section.passphrase_file
    # Before a key file is made: one that opens nothing would stand in the way of bringing back the right one.
    known = read_settings(storage.store_of(section))
    check_keyring(known, keys.from_paper(known, text))
    slot = storage.recover(section, text, _secret(key_file, passphrase_file), label)
    _told(slot, "added from paper")


def _told(slot: Slot, how: str) -> None:
    CONTEXT.output.result(
        {"slot": slot.id, "kind": slot.kind, "label": slot.label}, f"slot {slot.id} ({slot.kind} {slot.label}) {how}"
    )


def _secret(key_file: Path | None, passphrase_file: Path | None) -> Secret:
    if passphrase_file is not None and key_file is None:
        return storage.passphrase_in(passphrase_file)
    if key_file is None or passphrase_file is not None:
        raise ConfigurationError("key", "give either a key file or a passphrase file")
    if not key_file.exists():
        storage.write_key_file(key_file)
    return storage.key_in(key_file)


def _own(secret: Secret | None) -> KeyFile | Passphrase:
    if secret is None:
        raise KeyRefused("it is not encrypted: it has no key slots")
    return secret
