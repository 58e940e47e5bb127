from __future__ import annotations

import logging
from datetime import datetime

from pydantic import Field

from pbx.call import Recorded
from pbx.prompt import Prompt
from pbx.prompt import spoken
from pbx.step import Run
from pbx.step import Step
from pbx.store import Message
from pbx.store import StoreError
from pbx.tenant import BoxRef

log = logging.getLogger(__name__)

_SILENCE_MS = 8_000

_GREETING = spoken(
    "Votre correspondant n'est pas disponible. Laissez votre message après le bip, puis raccrochez.",
    "The person you are calling is not available. Leave your message after the tone, then hang up.",
)
_THANKS = spoken("Merci. Votre message est enregistré.", "Thank you. Your message has been recorded.")
_TOO_SHORT = spoken("Votre message était trop court.", "Your message was too short.")
_NOT_NOW = spoken(
    "Votre message n'a pas pu être enregistré. Rappelez plus tard.",
    "Your message could not be recorded. Please call again later.",
)


class Voicemail(Step):
    """Takes a message.

    ```yaml
    - voicemail: "101"
    - voicemail: {box: support, greeting: {fr: "Le support est fermé.", en: "Support is closed."}}
    ```

    The box is a line's, by the line's number, or a shared one, by its name. The caller hears the greeting (the step's,
    else the box's, else the standard one), then a beep, and speaks until he hangs up, presses # or is silent for 8
    seconds. The message is kept also when he just hangs up; one that is shorter than the box's `min` is thrown away.
    The message lamps of the box are lit. Then the next step follows.
    """

    word = "voicemail"
    short = "box"
    takes_time = True

    box: BoxRef = Field(description="A line with voicemail, or a shared box")
    greeting: Prompt | None = Field(None, description="What the caller hears before the beep")

    @property
    def answers(self) -> bool:
        return True

    async def run(self, run: Run) -> None:
        call, box = run.call, run.plan.boxes[self.box]
        await run.play(self.greeting or box.greeting or _GREETING)
        began = call.clock.now()
        recorded = await call.capture(run.new_recording(), max_ms=box.max, silence_ms=_SILENCE_MS)
        if recorded is None:
            await run.play(_NOT_NOW)
        elif recorded.duration_ms < box.min:
            call.note("message_too_short", box=self.box, duration_ms=recorded.duration_ms)
            await call.discard(recorded.name)
            await run.play(_TOO_SHORT)
        else:
            # Until the lamp is lit nothing waits on the caller: he may be gone, and his message stays.
            kept = await self._keep(run, recorded, began)
            await run.play(_THANKS if kept else _NOT_NOW)

    async def _keep(self, run: Run, recorded: Recorded, began: datetime) -> bool:
        """Stores the message and lights the lamps; False when there is no room for it."""
        call = run.call
        message = Message(
            id=recorded.name, tenant=run.plan.tenant, box=self.box, call_id=call.id,
            caller_number=run.variables["caller"], caller_name=run.variables["caller_name"],
            recorded_at=began, duration_ms=recorded.duration_ms, file=recorded.name,
        )
        try:
            await run.services.store.add_message(message)
        except StoreError as error:
            log.error("call %s: recording %s stays without its message: %s", call.id, message.file, error)
            call.note("message_lost", box=self.box, recording=message.file)
            return False
        call.result = "voicemail"
        call.note("message", box=self.box, message=message.id, duration_ms=message.duration_ms)
        await run.light_lamps(self.box)
        return True
