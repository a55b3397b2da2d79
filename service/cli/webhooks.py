"""`epochal webhook`: addresses that are notified when experiments and studies end."""

import time
from typing import Annotated, Any

import typer

from models.webhooks import CHOICES
from service.cli import options
from service.cli.output import Mode, age, print_json, say, shown, table

Number = Annotated[int, typer.Argument(metavar="ID", min=1, help="Number of the webhook.")]
WAITING = ("pending", "sending")
TEST_SECONDS = 30
"""How long `test` waits for the outcome: a second until it is sent, ten until it is given up."""

app = typer.Typer(no_args_is_help=True, help="Addresses that are notified when experiments and studies end.")


@app.command()
def add(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="Where messages are POSTed: https://...")],
    event: Annotated[
        list[str] | None, typer.Option(help=f"An event to subscribe to; may be repeated: {', '.join(CHOICES)}.")
    ] = None,
    name: Annotated[str, typer.Option(help="A name for display; any text.")] = "",
    url: options.Url = None,
    api_key: options.ApiKey = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Add a webhook and show its secret, once; it gets all events unless some are named."""
    body: dict[str, Any] = {"url": address, "name": name, **({"events": event} if event else {})}
    made = options.connect(url, api_key, data_dir).post("/webhooks", body)
    if Mode.json:
        print_json(made)
        return
    say(f"webhook {made['id']} is added; messages are signed with this secret, which is not shown again:")
    typer.echo(made["secret"])


@app.command("list")
def list_webhooks(
    url: options.Url = None,
    api_key: options.ApiKey = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """List webhooks."""
    found = options.connect(url, api_key, data_dir).get("/webhooks")
    if Mode.json:
        print_json(found)
        return
    if not found["items"]:
        say("no webhooks; `epochal webhook add ADDRESS` adds one")
        return
    rows = [
        (str(item["id"]), "on" if item["enabled"] else "off", _events(item), age(item["created_at"]),
         shown(item["name"]), shown(item["url"]))
        for item in found["items"]
    ]  # fmt: skip
    table(("id", "", "events", "created", "name", "address"), rows, right=("id",))


@app.command()
def show(
    number: Number,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many messages at most.")] = 20,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Show a webhook and what was sent to it, the newest first."""
    client = options.connect(url, api_key, data_dir)
    webhook = client.get(f"/webhooks/{number}")
    page = client.get(f"/webhooks/{number}/deliveries", limit=limit)
    if Mode.json:
        print_json({**webhook, "deliveries": page["items"]})
        return
    state = "enabled" if webhook["enabled"] else f"disabled: {shown(webhook['reason'])}"
    say(f"webhook {number}: {shown(webhook['url'])}, {_events(webhook)}; {state}")
    rows = [
        (str(item["id"]), shown(item["event"]), shown(item["status"]), str(item["attempts"]), age(item["created_at"]),
         _answer(item))
        for item in page["items"]
    ]  # fmt: skip
    table(("id", "event", "status", "attempts", "created", "last answer"), rows, right=("id", "attempts"))
    if page["next"]:
        say(f"there are {page['total']}; --limit shows more, up to 200")


@app.command("test")
def send_test_message(
    number: Number,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Send a test message and show its result; exit code 1 if it did not arrive."""
    client = options.connect(url, api_key, data_dir)
    sent = client.post(f"/webhooks/{number}/test")
    until = time.monotonic() + TEST_SECONDS
    while sent["status"] in WAITING and not sent["last_attempt_at"] and time.monotonic() < until:
        time.sleep(0.25)
        sent = client.get(f"/webhooks/{number}/deliveries/{sent['id']}")
    if Mode.json:
        print_json(sent)
    elif sent["status"] == "delivered":
        say(f"delivered: {_answer(sent)}")
    else:
        say(f"not delivered yet: {_answer(sent) or 'no attempt was made'}", style="red")
    if sent["status"] != "delivered":
        raise typer.Exit(1)


@app.command()
def delete(
    number: Number,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Delete a webhook, with the messages that wait to be sent to it."""
    options.connect(url, api_key, data_dir).delete(f"/webhooks/{number}")
    if Mode.json:
        print_json({"id": number, "deleted": True})
    say(f"webhook {number} is deleted")


def _events(item: dict[str, Any]) -> str:
    known = {event.value for event in CHOICES}
    return "all events" if known <= set(item["events"]) else ", ".join(shown(event) for event in item["events"])


def _answer(item: dict[str, Any]) -> str:
    status = "" if item["last_status"] is None else f"{item['last_status']} "
    return f"{status}{shown(item['last_answer'] or '')}".strip()
