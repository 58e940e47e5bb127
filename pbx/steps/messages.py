from __future__ import annotations

import hmac
import logging
from typing import Literal

from pydantic import Field

from pbx import speech
from pbx.prompt import Prompt
from pbx.prompt import spoken
from pbx.step import Run
from pbx.step import Step
from pbx.store import Message
from pbx.store import StoreError
from pbx.tenant import BoxRef

log = logging.getLogger(__name__)

_TRIES = 3
_PIN_MS = 20_000
_KEY_MS = 8_000

_PIN = spoken("Tapez votre code, puis dièse.", "Please enter your PIN, followed by the hash key.")
_WRONG_PIN = spoken("Ce code n'est pas le bon.", "That PIN is not correct.")
_NO_BOX = spoken("Ce poste n'a pas de messagerie.", "This line has no voicemail.")
_NOT_NOW = spoken(
    "La messagerie n'est pas disponible. Rappelez plus tard.", "Voicemail is not available. Please call again later."
)
_NONE = spoken("Vous n'avez pas de message.", "You have no messages.")
_NO_MORE = spoken("Vous n'avez plus d'autre message.", "There are no more messages.")
_NEW = spoken("Nouveau message, reçu le", "New message, received on")
_OLD = spoken("Message conservé, reçu le", "Saved message, received on")
_FROM = spoken("du numéro", "from")
_KEYS = spoken(
    "Pour réécouter, tapez 1. Pour conserver, tapez 2. Pour effacer, tapez 3.",
    "To listen again, press 1. To save, press 2. To delete, press 3.",
)
_SAVED = spoken("Message conservé.", "Message saved.")
_DELETED = spoken("Message effacé.", "Message deleted.")

_Choice = Literal["again", "save", "delete"]
_CHOICES: dict[str, _Choice] = {"1": "again", "2": "save", "3": "delete"}


class Messages(Step):
    """Lets somebody listen to the messages of a voicemail box.

    ```yaml
    - messages
    - messages: support
    ```

    Without a box it is the calling line's own; a handset that dials *98 comes here. The caller is asked for the PIN of
    the box, three times at most. He hears each message with its day, time and number, the new ones first, and
    presses 1 to listen again, 2 to save and 3 to delete; a key cuts everything short. Then the next step follows.
    """

    word = "messages"
    short = "box"
    takes_time = True

    box: BoxRef | None = Field(None, description="A line with voicemail, or a shared box; else the calling line's own")

    @property
    def answers(self) -> bool:
        return True

    async def run(self, run: Run) -> None:
        name = self.box or (run.plan.box_of(run.line) if run.line else None)
        if name is None:
            await run.play(_NO_BOX)
        elif await self._pin_known(run, run.plan.boxes[name].pin):
            try:
                await self._listen(run, name)
            except StoreError as error:
                log.error("call %s: %s", run.call.id, error)
                run.call.note("box_unavailable", box=name)
                await run.play(_NOT_NOW)

    async def _pin_known(self, run: Run, pin: str) -> bool:
        prompt: Prompt = _PIN
        for attempt in range(_TRIES):
            asked = await run.call.ask(await run.sounds(prompt), max_digits=10, total_ms=_PIN_MS)
            if hmac.compare_digest(asked.digits, pin):
                return True
            run.call.note("wrong_pin", attempt=attempt + 1)
            prompt = (*_WRONG_PIN, *_PIN)
        await run.play(_WRONG_PIN)
        return False

    async def _listen(self, run: Run, box: str) -> None:
        messages = await run.services.store.messages(run.plan.tenant, box)
        await run.play(() if messages else _NONE)
        for message in messages:
            choice: _Choice = "again"
            while choice == "again":
                choice = await self._hear(run, message)
            await self._settle(run, message, choice)
        await run.play(_NO_MORE if messages else ())

    async def _hear(self, run: Run, message: Message) -> _Choice:
        """Plays one message, and waits for the key that says what becomes of it; without one it is saved."""
        sounds = [*await self._about(run, message), f"recording:{message.file}", *await run.sounds(_KEYS)]
        asked = await run.call.ask(sounds, first_ms=_KEY_MS, terminator="")
        if asked.digits and asked.digits not in _CHOICES:
            return "again"
        return _CHOICES.get(asked.digits, "save")

    async def _about(self, run: Run, message: Message) -> list[str]:
        when = message.recorded_at.astimezone(run.plan.zone)
        language = run.language
        about = [
            *await run.sounds(_OLD if message.heard_at else _NEW),
            *speech.date(when.date(), language),
            *speech.time(when, language),
        ]
        if message.caller_number:
            about += [*await run.sounds(_FROM), *speech.digits(message.caller_number, language)]
        return about

    async def _settle(self, run: Run, message: Message, choice: _Choice) -> None:
        store = run.services.store
        run.call.note("message_" + choice, message=message.id)
        if choice == "delete":
            await store.delete_message(message.id)
            await run.call.discard(message.file)
        else:
            await store.mark_heard(message.id)
        await run.light_lamps(message.box)
        await run.play(_DELETED if choice == "delete" else _SAVED)
