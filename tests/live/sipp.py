"""Scripted SIP in great numbers: runs a scenario of SIPp against a server, and tells what came of its calls."""

from __future__ import annotations

import asyncio
import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pbx.ports import free_port
from pbx.prefix import Prefix

_BESIDES = 60.0  # seconds that a run may take beyond the time its calls need to be placed


@dataclass(frozen=True)
class Result:
    """How the calls went, as SIPp sees them. `errors` is what it logged."""

    successful: int
    failed: int
    errors: str


async def run(
    scenario: str, prefix: Prefix, folder: Path, *, server: str, callers: Sequence[str], per_second: int
) -> Result:
    """Places one call per caller to `server`; the scenario (XML) knows its caller's number as [field0]."""
    folder.mkdir(parents=True)
    (folder / "scenario.xml").write_text(scenario)
    (folder / "callers.csv").write_text("SEQUENTIAL\n" + "".join(f"{caller};\n" for caller in callers))
    port = free_port("127.0.0.1", ("udp",))
    time = len(callers) / per_second + _BESIDES
    options = {
        "-sf": "scenario.xml", "-inf": "callers.csv", "-m": len(callers), "-r": per_second, "-l": 10 * per_second,
        "-i": "127.0.0.1", "-p": port, "-mi": "127.0.0.1", "-timeout": f"{time:.0f}s",
        "-stf": "statistics.csv", "-fd": 1, "-error_file": "errors.log",
    }
    words = [str(word) for option in options.items() for word in option]
    with (folder / "screen").open("wb") as screen:
        process = await asyncio.create_subprocess_exec(
            *prefix.command("sipp"), server, *words, "-trace_stat", "-trace_err", "-nostdin", "-timeout_error",
            stdin=asyncio.subprocess.DEVNULL, stdout=screen, stderr=screen, cwd=folder,
            env={**os.environ, "TERM": "dumb"},
        )
        try:
            await asyncio.wait_for(process.wait(), time + _BESIDES)
        except BaseException:
            process.kill()
            await process.wait()
            raise
    assert (folder / "statistics.csv").exists(), (folder / "screen").read_text(errors="replace")[-2000:]
    with (folder / "statistics.csv").open() as file:
        last = list(csv.DictReader(file, delimiter=";"))[-1]
    log = folder / "errors.log"
    errors = log.read_text(errors="replace") if log.exists() else ""
    return Result(int(last["SuccessfulCall(C)"]), int(last["FailedCall(C)"]), errors)
