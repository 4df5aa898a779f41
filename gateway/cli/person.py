"""What a person may ask for: opting out and in again, erasure. Directly, or through the API of a running gateway.

The number is asked for or read from standard input: other users of the machine see arguments.
"""

from __future__ import annotations

import getpass
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from gateway.cli.client import Gateway, Token, Url
from gateway.cli.frame import AsJson, load_settings, print_json, tell
from gateway.cli.installation import ASK, Now, vault_of, with_store

if TYPE_CHECKING:
    from gateway.directory.right import Rights

T = TypeVar("T")

Named = Annotated[bool, typer.Option("--name", help="Ask for the name too: several people share the number.")]


def opt_out(url: Url = "", token: Token = "", json: AsJson = False) -> None:
    """Let a resident opt out of service messages, blue and yellow warnings. The number is asked for.

    Orange, red and evacuation come all the same, and officials cannot opt out. Everybody with the number is meant.
    With --url or --token the running gateway does it; otherwise the database is opened itself.

    Example: mingluo roster opt-out
    """
    _opt(url, token, on=True, json=json)


def opt_in(url: Url = "", token: Token = "", json: AsJson = False) -> None:
    """Take an opt-out back. The number is asked for.

    Example: mingluo roster opt-in
    """
    _opt(url, token, on=False, json=json)


def _opt(url: str, token: str, *, on: bool, json: bool) -> None:
    number = typer.prompt("phone number", err=True)
    if url or token:
        answer = Gateway(url, token).post("/v1/people/opt-out", {"phone": number, "on": on}) or {}
    else:
        found = _with_rights(lambda rights, actor: rights.opt_out(number, actor, on=on))
        answer = {"people": list(found.people), "officials": list(found.officials)}
    if json:
        print_json(answer)
    else:
        typer.echo(f"{'opted out' if on else 'opted in'}: {', '.join(map(str, answer['people']))}")
    if answer["officials"] and on:
        tell(f"{len(answer['officials'])} more with this number are officials, who cannot opt out")


def erase(
    named: Named = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether it is meant.")] = False,
    url: Url = "",
    token: Token = "",
    json: AsJson = False,
) -> None:
    """Erase a person: name, number, frozen addresses and replies. The number is asked for. It cannot be undone.

    What was sent stays in the ledger under an id that names nobody any more, and no later list brings the person
    back. Back-ups hold the person until they are replaced: erase again after restoring one.

    Example: mingluo roster erase
    """
    number = typer.prompt("phone number", err=True)
    name = typer.prompt("name", err=True) if named else ""
    if not yes:
        typer.confirm("erase this person for ever?", abort=True, err=True)
    if url or token:
        answer = Gateway(url, token).post("/v1/people/erase", {"phone": number, "name": name}) or {}
    else:
        answer = _with_rights(lambda rights, actor: rights.erase(number, name, actor))._asdict()
    if json:
        print_json(answer)
    else:
        typer.echo(f"erased: person {answer['person']}, and the address in {answer['batches']} batches")


def readmit(json: AsJson = False) -> None:
    """Let lists register somebody again who was erased. Number and name are asked for.

    Example: mingluo roster readmit
    """
    number, name = typer.prompt("phone number", err=True), typer.prompt("name", err=True)
    person = _with_rights(lambda rights, actor: rights.readmit(number, name, actor))
    print_json({"person": person}) if json else typer.echo(f"may be listed again: person {person}")


def _with_rights(work: Callable[[Rights, str], Awaitable[T]]) -> T:
    from gateway.directory.right import Rights

    settings = load_settings()
    vault = vault_of(settings)
    actor = f"console/{getpass.getuser()}"

    async def run(_store: Any, database: Any) -> T:
        return await work(Rights(database, vault, Now()), actor)

    return with_store(settings, ASK, run)
