from __future__ import annotations

from pydantic import Field

from pbx.step import Run
from pbx.step import Step
from pbx.yamlfile import Milliseconds


class Ring(Step):
    """Lets the caller hear ringing, without ringing anybody.

    ```yaml
    - ring: 4s
    - say: "Bonjour, vous êtes bien chez Acme."
    ```

    The caller hears the usual ringing tone for this time. The call stays unanswered if it was.
    """

    word = "ring"
    short = "for"
    takes_time = True

    for_: Milliseconds = Field(5_000, ge=100, le=120_000, description="How long")

    async def run(self, run: Run) -> None:
        call = run.call
        await call.ring()
        await call.wait(self.for_)
        if call.caller.up:
            # Before the answer it is the caller's own telephone that rings on; after it, it is Asterisk.
            await call.tell_caller(call.caller.ring_stop())
