"""Decisions on a waiting alert, from a terminal: drafts, return, withdraw, the telephone, joint warnings, its life."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer

from gateway.cli import answer as page
from gateway.cli.alert import File, Id, Reason
from gateway.cli.client import Gateway, Token, Url, alert_path, message
from gateway.cli.frame import AsJson, print_json, print_table, wrong_use

CHINA = "+08:00"

Name = Annotated[str, typer.Option("--name", help="Who gave the authorisation; better left out: you are asked.")]
Post = Annotated[str, typer.Option("--post", help="Their post; asked for.")]
Number = Annotated[str, typer.Option("--number", help="The number they were called at; better left out: asked for.")]
At = Annotated[str, typer.Option("--at", metavar="TIME", help="When; 2026-07-20T14:05 is China time.")]
Recording = Annotated[str, typer.Option("--recording", help="Number of the recording; or give --witness.")]
Witness = Annotated[str, typer.Option("--witness", help="Name of a second witness.")]


def draft(file: File, url: Url = "", token: Token = "", json: AsJson = False) -> None:
    """Keep a message as a draft: checked, and sent to nobody. Then: amend, submit, withdraw.

    Example: mingluo draft warning.xml
    """
    _outcome(Gateway(url, token).post("/v1/alerts/draft", message(file)), json)


def amend(alert: Id, file: File, url: Url = "", token: Token = "", json: AsJson = False) -> None:
    """Store another wording of a draft, or of what was returned. Its id may change; the answer shows it.

    Example: mingluo amend 3f6c0a9d21b47e5588aa warning.xml
    """
    _outcome(Gateway(url, token).request("PUT", alert_path(alert), message(file)), json)


def submit(alert: Id, url: Url = "", token: Token = "", json: AsJson = False) -> None:
    """Hand a draft on: it takes the way its route says now.

    Example: mingluo submit 3f6c0a9d21b47e5588aa
    """
    _outcome(Gateway(url, token).post(alert_path(alert, "submit")), json)


def return_(alert: Id, reason: Reason, url: Url = "", token: Token = "", json: AsJson = False) -> None:
    """Give a waiting alert back to its writer.

    Example: mingluo return 3f6c0a9d21b47e5588aa --reason "the township is misspelt"
    """
    _standing(Gateway(url, token).post(alert_path(alert, "return"), {"reason": reason}), json)


def withdraw(alert: Id, reason: Reason, url: Url = "", token: Token = "", json: AsJson = False) -> None:
    """Take back what you have written and nobody has sent.

    Example: mingluo withdraw 3f6c0a9d21b47e5588aa --reason "written anew"
    """
    _standing(Gateway(url, token).post(alert_path(alert, "withdraw"), {"reason": reason}), json)


def release(alert: Id, url: Url = "", token: Token = "", json: AsJson = False) -> None:
    """Let a near-duplicate, which was kept back, go out all the same.

    Example: mingluo release 3f6c0a9d21b47e5588aa
    """
    _outcome(Gateway(url, token).post(alert_path(alert, "release")), json)


def authorise(
    alert: Id,
    at: At,
    name: Name = "",
    post: Post = "",
    number: Number = "",
    recording: Recording = "",
    witness: Witness = "",
    url: Url = "",
    token: Token = "",
    json: AsJson = False,
) -> None:
    """Write down a telephone authorisation (电话授权): the alert goes out, and a signer countersigns within two hours.

    Name, post and number are asked for: other users of this machine see arguments.

    Example: mingluo authorise 3f6c0a9d21b47e5588aa --at 2026-07-20T14:05 --recording R-17
    """
    body = telephone(name, post, number, at, recording, witness)
    _outcome(Gateway(url, token).post(alert_path(alert, "authorise"), body), json)


def join(
    alert: Id,
    partner: Annotated[str, typer.Option(metavar="ID", help="The partner that agreed by telephone.")] = "",
    name: Name = "",
    post: Post = "",
    number: Number = "",
    at: At = "",
    recording: Recording = "",
    witness: Witness = "",
    url: Url = "",
    token: Token = "",
    json: AsJson = False,
) -> None:
    """Agree to a joint warning as its partner; or, with --partner, write down that it agreed by telephone.

    Example: mingluo join 3f6c0a9d21b47e5588aa
    """
    body: dict[str, object] = {}
    if partner:
        if not at:
            wrong_use("--partner: give --at of the call as well; name, post and number are asked for")
        body = {"partner": partner, "call": telephone(name, post, number, at, recording, witness)}
    _outcome(Gateway(url, token).post(alert_path(alert, "join"), body), json)


def alone(alert: Id, url: Url = "", token: Token = "", json: AsJson = False) -> None:
    """Publish a joint warning under your own name, once the partner has been waited for.

    Example: mingluo alone 3f6c0a9d21b47e5588aa
    """
    _outcome(Gateway(url, token).post(alert_path(alert, "alone")), json)


def area_approval(
    alert: Id,
    number: Annotated[str, typer.Argument(metavar="NUMBER", help="The number (审批号), as the office gave it.")],
    url: Url = "",
    token: Token = "",
    json: AsJson = False,
) -> None:
    """Add the approval number (审批号) an active alert's area request waits for: that request alone goes out.

    A signer of the issuing body does it. The same number again changes nothing; another one is refused.

    Example: mingluo area-approval 3f6c0a9d21b47e5588aa 豫应急〔2026〕15号
    """
    _outcome(Gateway(url, token).post(alert_path(alert, "area-approval"), {"number": number}), json)


def consult(
    alert: Id,
    participant: Annotated[list[str], typer.Option(help="Who took part; once for each.")],
    conclusion: Annotated[str, typer.Option(help="What was concluded.")],
    at: At,
    url: Url = "",
    token: Token = "",
    json: AsJson = False,
) -> None:
    """Keep a consultation (会商) with an alert.

    Example: mingluo consult 3f6c0a9d21b47e5588aa --participant 张某 --participant 李某 --at 2026-07-20T13:40
    --conclusion 山洪风险高
    """
    body = {"at": moment(at), "participants": participant, "conclusion": conclusion}
    found = Gateway(url, token).post(alert_path(alert, "consultation"), body)
    print_json(found) if json else typer.echo("kept")


def life(alert: Id, url: Url = "", token: Token = "", json: AsJson = False) -> None:
    """Show the life of an alert: where it stood, what happened, who did it, when.

    Example: mingluo life 3f6c0a9d21b47e5588aa
    """
    found = Gateway(url, token).get(alert_path(alert, "decisions")) or {}
    if json:
        print_json(found)
        return
    rows = [
        [
            page.clock(one.get("at"), seconds=True),
            one.get("standing") or "—",
            one.get("event"),
            one.get("by"),
            one.get("reason"),
        ]
        for one in found.get("decisions") or ()
    ]
    print_table(("at", "stood at", "event", "by", "reason"), rows)


def telephone(name: str, post: str, number: str, at: str, recording: str, witness: str) -> dict[str, object]:
    """Return the form of a call; name, post and number are asked for where they are not given."""
    if not (recording or witness):
        wrong_use("give --recording, or --witness: a call that nothing proves authorises nothing")
    form: dict[str, object] = {"at": moment(at), "recording": recording, "witness": witness}
    given = {"name": name, "post": post, "number": number}
    return form | {what: text or typer.prompt(what, err=True) for what, text in given.items()}


def moment(text: str) -> str:
    """Return a time with its offset; without one it is China's."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        wrong_use(f"--at {text}: write a time such as 2026-07-20T14:05")
    return text if at.tzinfo else at.isoformat() + CHINA


def _outcome(answer: Any, json: bool) -> None:
    print_json(answer) if json else page.show_outcome(answer or {})


def _standing(answer: Any, json: bool) -> None:
    print_json(answer) if json else page.show_standing(answer or {})


def add(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (draft, amend, submit, withdraw, release, authorise, join, alone, consult, life):
        app.command(rich_help_panel="Decisions, through the API")(command)
    app.command("area-approval", rich_help_panel="Decisions, through the API")(area_approval)
    app.command("return", rich_help_panel="Decisions, through the API")(return_)
