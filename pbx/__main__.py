"""The command line: `./run CMD`. The one place that turns errors into exit codes.

0 all is well, 1 problems were found, 2 it cannot run, 130 Ctrl-C.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Coroutine
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated
from typing import Any

import orjson
import typer
import uvloop
from rich.console import Console
from rich.table import Table

from pbx import __version__
from pbx.app import CONTRACTS
from pbx.app import AppError
from pbx.app import emergency_calls
from pbx.app import installation
from pbx.app import serve
from pbx.ami import AmiError
from pbx.ari import AriError
from pbx.asterisk import AsteriskError
from pbx.clock import SystemClock
from pbx.config import Config
from pbx.config import load_config
from pbx.contract import NoContract
from pbx.contract import Profile
from pbx.contract import installed
from pbx.contract import load_contracts
from pbx.database import StoreError
from pbx.dialplan import check as check_plans
from pbx.dialplan import load_plans
from pbx.dialplan import plan_files
from pbx.emergency_call import readiness
from pbx.manual import manual
from pbx.manual import schema as plan_schema
from pbx.prefix import ProgramMissing
from pbx.speech import SpeechError
from pbx.store import CallRecord
from pbx.store import State
from pbx.store import Store
from pbx.yamlfile import Problems

FAIR_USE = "fair-use"  # the policy that counts minutes

PROBLEMS = 1
CANNOT_RUN = 2
INTERRUPTED = 130

HELP = """A virtual PBX: without a command it starts, in the foreground; Ctrl-C stops it.

`./run demo` places real calls on a PBX of its own and checks what is heard.

Exit status: 0 all is well, 1 problems were found, 2 it cannot run, 130 Ctrl-C.
"""

EXPECTED = (AppError, AsteriskError, StoreError, ProgramMissing, SpeechError, AriError, AmiError, NoContract)

app = typer.Typer(
    add_completion=False, no_args_is_help=False, pretty_exceptions_enable=False, help=HELP,
    context_settings={"help_option_names": ["-h", "--help"]},
)
contract_commands = typer.Typer(help="Contract profiles: what each clause asks, and what holds calls to it.")
app.add_typer(contract_commands, name="contract")
emergency_commands = typer.Typer(help="Emergency calls: who can make them, and what is missing.")
app.add_typer(emergency_commands, name="emergency")
# A table that goes into a file or another program is not squeezed into a terminal.
out = Console(highlight=False, width=None if sys.stdout.isatty() else 200)

ConfigOption = Annotated[
    Path, typer.Option("--config", "-c", envvar="PBX_CONFIG", help="The PBX's own configuration file.")
]
DEFAULT_CONFIG = Path("config/pbx.yml")


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    config: ConfigOption = DEFAULT_CONFIG,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what the engine does.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Starts the PBX in the foreground; Ctrl-C stops it."""
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO, stream=sys.stderr,
        format="%(asctime)s %(levelname)-8s %(name)s: %(message)s",
    )
    if not verbose:
        logging.getLogger("alembic").setLevel(logging.WARNING)
    context.obj = config
    if version:
        print(f"pbx {__version__}")
    elif context.invoked_subcommand is None:
        _run(serve(load_config(config), tell=lambda text: print(text, flush=True)))


@app.command()
def check(
    context: typer.Context,
    paths: Annotated[list[Path] | None, typer.Argument(help="Plans, or folders of plans; else all.")] = None,
) -> None:
    """Prints every problem of the plans at once, as file:line:column: message. Exits 1 if there is one."""
    config = load_config(context.obj)
    problems = check_plans(paths or plan_files(config.plans), installation(config))
    for problem in problems:
        print(problem)
    errors = sum(not problem.warning for problem in problems)
    warnings = len(problems) - errors
    print(f"{_count(errors, 'error')}, {_count(warnings, 'warning')}", file=sys.stderr)
    if errors:
        raise typer.Exit(PROBLEMS)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


@app.command()
def steps() -> None:
    """Prints the manual of the steps that a flow is made of."""
    print(manual())


@app.command()
def schema() -> None:
    """Prints the JSON Schema of a plan, for editors."""
    print(json.dumps(plan_schema(), indent=2, ensure_ascii=False))


@app.command()
def calls(
    context: typer.Context,
    tenant: Annotated[str | None, typer.Option(help="Of this tenant only.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many, newest first.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """Lists the newest call records."""
    records = _run(_from_store(load_config(context.obj), lambda store: store.calls(tenant=tenant, limit=limit)))
    if as_json:
        for record in records:
            print(_json(record))
        return
    table = Table("call", "tenant", "started (UTC)", "from", "to", "outcome", "seconds", "legs", box=None)
    for record in records:
        legs = ", ".join(f"{leg.target} {leg.outcome}" for leg in record.legs)
        started = record.started_at.strftime("%Y-%m-%d %H:%M:%S")
        seconds = f"{record.duration_ms / 1000:.1f}"
        table.add_row(
            record.id, record.tenant, started, record.caller_number, record.dialled, record.outcome, seconds, legs
        )
    out.print(table)


@app.command()
def explain(
    context: typer.Context,
    call: Annotated[str, typer.Argument(help="A call's id, as `calls` prints it.")],
    as_json: Annotated[bool, typer.Option("--json", help="The whole record as one JSON object.")] = False,
) -> None:
    """Tells why a call went as it did: each event and decision, with the line of the plan behind it."""
    record = _run(_from_store(load_config(context.obj), lambda store: store.call(call)))
    if record is None:
        print(f'there is no call "{call}": ./run calls lists them', file=sys.stderr)
        raise typer.Exit(PROBLEMS)
    print(_json(record) if as_json else story(record))


@app.command()
def usage(
    context: typer.Context,
    tenant: Annotated[str | None, typer.Option(help="Of this tenant only.")] = None,
    cured: Annotated[str | None, typer.Option(metavar="TENANT/LINE", help="Closes the case of this line.")] = None,
) -> None:
    """Lists the minutes that each line has used in its service month, and whether that is under review."""
    config = load_config(context.obj)
    if cured is not None and not _run(_from_store(config, lambda store: _cure(store, *cured.partition("/")[::2]))):
        print(
            f'there is no case to close for "{cured}": ./run usage lists them; write TENANT/LINE, as in acme/101',
            file=sys.stderr,
        )
        raise typer.Exit(PROBLEMS)
    lines = _run(_from_store(config, lambda store: store.states(FAIR_USE, tenant)))
    table = Table("tenant", "line", "month from", "minutes", "of", "state", "answer until (UTC)", box=None)
    for (of, line), state in sorted(lines.items()):
        case = state["case"]
        for month, account in sorted(state["months"].items())[-1:] or [("", {"used_ms": 0, "allowance_ms": 0})]:
            minutes = f"{account['used_ms'] / 60_000:.1f}"
            allowance = str(account["allowance_ms"] // 60_000) if month else ""
            deadline = case.get("deadline", "")[:16] if case["state"] == "notified" else ""
            table.add_row(of, line or "-", month, minutes, allowance, case["state"], deadline)
    out.print(table)


async def _cure(store: Store, tenant: str, line: str) -> bool:
    """Whether there was a case to close; a running engine learns of it within a minute."""

    def close(state: State) -> None:
        state["case"]["state"] = "cured"

    case = (await store.states(FAIR_USE, tenant)).get((tenant, line), {}).get("case", {})
    if case.get("state") in (None, "observe", "cured"):
        return False
    await store.change(FAIR_USE, tenant, line, close)
    return True


def story(record: CallRecord) -> str:
    """A record as text, one line per event."""
    lines = [
        f"{record.id}  {record.direction}  {record.caller_number or 'withheld'} -> {record.dialled}"
        f"  tenant {record.tenant or '-'}, plan {record.plan_version or '-'}",
    ]
    for moment in record.timeline:
        detail = "  ".join(f"{key}={_shown(value)}" for key, value in moment.detail.items() if value is not None)
        lines.append(f"  {moment.offset_ms / 1000:8.3f} s  {moment.kind:<15} {detail}".rstrip())
    for leg in record.legs:
        lines.append(f"  leg {leg.number}: {leg.target} {leg.outcome}, cause {leg.cause}, ended by {leg.ended_by}")
    lines.append(
        f"  {record.outcome}, cause {record.cause}, ended by {record.ended_by}, {record.duration_ms / 1000:.1f} s"
    )
    return "\n".join(lines)


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


@contract_commands.command("list")
def list_contracts() -> None:
    """Lists the profiles of config/contracts, with every version of each."""
    table = Table("contract", "version", "valid from", "country", "rules", "whose", box=None)
    for name, versions in load_contracts(CONTRACTS).versions.items():
        for profile in versions:
            whose = dict.fromkeys(document.whose for document in profile.documents.values())
            first = str(profile.valid_from)
            table.add_row(name, profile.version, first, profile.country, str(len(profile.rules)), ", ".join(whose))
    out.print(table)


@contract_commands.command("show")
def show_contract(
    name: Annotated[str, typer.Argument(help="A profile, as `contract list` prints it.")],
    on: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="The version of this day; else of today.")
    ] = None,
    french: Annotated[bool, typer.Option("--fr", help="What the clauses say in French.")] = False,
) -> None:
    """Prints a contract clause by clause: what it asks, and what holds calls to it or is still lacking."""
    day = (on or SystemClock().now()).date()
    profile = load_contracts(CONTRACTS).valid(name, day)
    print(f"{profile.name}, version {profile.version}, valid from {profile.valid_from}, {profile.country}")
    out.print(_clauses(profile, french))


def _clauses(profile: Profile, french: bool) -> Table:
    policies = installed()
    table = Table("rule", "clause", "it says", "values", "held by", box=None, padding=(0, 2, 1, 0))
    for rule in profile.rules:
        lacking = rule.lacks(policies)
        values = "\n".join(f"{key}: {setting}" for key, setting in rule.values.items())
        held = f"waits for {lacking}" if lacking else f"policy {rule.policy}"
        table.add_row(rule.rule, str(rule.clause), rule.says.fr if french else rule.says.en, values, held)
    return table


@emergency_commands.command("status")
def emergency_status(context: typer.Context) -> None:
    """Tells for every line whether it can call for help now, and what is missing. Exits 1 if one cannot.

    By the configuration and the plans alone: whether the trunks work, a test call tells.
    """
    config = load_config(context.obj)
    calls = emergency_calls(config)
    lines = list(readiness(calls, load_plans(config.plans, installation(config))))
    table = Table("line", "name", "can call", "goes out", "shows", "tells", "missing", box=None)
    for line in lines:
        can = "no" if line.problems else " ".join(line.numbers)
        ways = " ".join(f"{route.number}@{route.trunk}" for route in line.routes)
        missing = "; ".join((*line.problems, *line.gaps))
        table.add_row(line.line, line.name, can, ways, line.shown, line.place, missing)
    out.print(table)
    for country in dict.fromkeys(line.country for line in lines):
        for doubt in calls.tables.doubts(country):
            print(doubt, file=sys.stderr)
    if any(line.problems for line in lines):
        raise typer.Exit(PROBLEMS)


async def _from_store(config: Config, query: Any) -> Any:
    store = Store(config.database_url, clock=SystemClock(), spool=None)
    await store.open()
    try:
        return await query(store)
    finally:
        await store.close()


def _json(record: CallRecord) -> str:
    """A record in the API's form."""
    data = {**asdict(record), "duration_ms": record.duration_ms, "talk_ms": record.talk_ms}
    return orjson.dumps(data, default=str, option=orjson.OPT_UTC_Z).decode()


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.Runner(loop_factory=uvloop.new_event_loop).run(work)


def main() -> None:
    try:
        app(standalone_mode=True, prog_name="./run")
    except Problems as problems:
        print(problems, file=sys.stderr)
        raise SystemExit(PROBLEMS) from None
    except EXPECTED as error:
        print(f"pbx: {error}", file=sys.stderr)
        raise SystemExit(CANNOT_RUN) from None
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


if __name__ == "__main__":
    main()
