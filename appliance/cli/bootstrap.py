"""``lanfree bootstrap``: a new appliance from the repository of the old one."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from appliance import config
from appliance.cli.app import CONTEXT, app
from appliance.cli.output import ATTENTION, when
from proxy.errors import ConfigurationError, RepositoryUnavailable

_S3 = "s3://"


@app.command()
def bootstrap(
    from_repository: Annotated[str, typer.Option(help="Directory of the repository, or s3://BUCKET/PREFIX.")],
    key_file: Annotated[Path | None, typer.Option(help="The repository's key file, 0600.")] = None,
    passphrase_file: Annotated[Path | None, typer.Option(help="A file with the repository's passphrase, 0600.")] = None,
    paper: Annotated[
        Path | None, typer.Option(help="What 'lanfree key paper' printed, as a file; - for standard input.")
    ] = None,
    unencrypted: Annotated[bool, typer.Option(help="The repository is not encrypted.")] = False,
    to: Annotated[
        Path | None, typer.Option("--config", help="Where the configuration goes, if not where it was.")
    ] = None,
    state: Annotated[Path | None, typer.Option(help="State directory, if not the one that it was.")] = None,
    root: Annotated[Path, typer.Option(help="Directory that stands for /.")] = Path("/"),
    point: Annotated[str, typer.Option(help="This restore point, not the newest that is whole.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Put the appliance that is here aside.")] = False,
    s3_endpoint: Annotated[str, typer.Option(help="Address of an S3 service that is not Amazon's.")] = "",
    s3_region: Annotated[str, typer.Option(help="Region of the bucket.")] = "us-east-1",
    s3_credentials_file: Annotated[Path | None, typer.Option(help="As of the AWS tools.")] = None,
    s3_ca_bundle: Annotated[Path | None, typer.Option(help="Certificates that the service is recognised by.")] = None,
) -> None:
    """Make this machine the appliance that protected itself in a repository: configuration, keys, passwords, databases. Refuses
    where an appliance is. Says what a person has to do next."""
    from appliance.protection import bootstrap as making  # noqa: PLC0415  # see protect

    s3 = config.S3(
        **_bucket(from_repository),
        endpoint=s3_endpoint,
        region=s3_region,
        credentials_file=s3_credentials_file,
        ca_bundle=s3_ca_bundle,
    ) if from_repository.startswith(_S3) else None  # fmt: skip
    if (key_file is not None) + (passphrase_file is not None) + (paper is not None) + unencrypted != 1:
        raise ConfigurationError("bootstrap", "give one of --key-file, --passphrase-file, --paper, --unencrypted")
    opens = {"key_file": key_file, "passphrase_file": passphrase_file, "unencrypted": unencrypted}
    place = {"s3": s3} if s3 is not None else {"path": Path(from_repository).absolute()}
    section = config.Repository.model_validate(place | opens)
    wishes = making.Wishes(_target(to), state and state.absolute(), root.absolute(), point, force)
    try:
        done = making.bootstrap(making.Source(section, _text(paper)), wishes)
    except RepositoryUnavailable as error:  # a new one, which others advise, is the last thing that helps here
        error.hint = "check that it is mounted, and that --from-repository names it"
        raise
    for damaged in done.passed_over:
        CONTEXT.output.warn(f"passed over, it is damaged: {damaged}")
    for remark in done.remarks:
        CONTEXT.output.warn(remark)
    CONTEXT.output.result(
        done,
        f"made of restore point {done.point}, taken {when(done.made_at)} by {done.host}",
        *(f"written   {path}" for path in done.written),
        *(f"database  {done.state / name}" for name in done.databases),
        *(f"put aside {path}" for path in done.put_aside),
        f"{done.added} younger restore points are in the catalog again",
        *(f"next: {step}" for step in done.to_do),
    )
    if done.passed_over:
        raise typer.Exit(ATTENTION)


def _bucket(address: str) -> dict[str, str]:
    bucket, _, prefix = address.removeprefix(_S3).partition("/")
    if not bucket:
        raise ConfigurationError(address, "names no bucket", hint="for example s3://backups/site1")
    return {"bucket": bucket, "prefix": prefix}


def _text(paper: Path | None) -> str:
    """Raises ``ConfigurationError``."""
    if paper is None:
        return ""
    text = sys.stdin.read() if str(paper) == "-" else paper.read_text()
    if not text.strip():
        raise ConfigurationError(str(paper), "is empty")
    return text


def _target(option: Path | None) -> Path | None:
    """An explicit place, by this command's option or by the one of all commands."""
    if option is not None:
        return option.absolute()
    return CONTEXT.path.absolute() if CONTEXT.path != config.path_of(None) else None
