"""Every step of the language, in the order of the manual. A new step is its file, its line here, and its test."""

from __future__ import annotations

from pbx.step import Step
from pbx.steps.answer import Answer
from pbx.steps.ask import Ask
from pbx.steps.call import CallFlow
from pbx.steps.dial import Dial
from pbx.steps.goto import Goto
from pbx.steps.hangup import Hangup
from pbx.steps.hours import WhenOpen
from pbx.steps.if_ import If
from pbx.steps.menu import Menu
from pbx.steps.messages import Messages
from pbx.steps.play import Play
from pbx.steps.record import Record
from pbx.steps.reject import Reject
from pbx.steps.ring import Ring
from pbx.steps.say import Say
from pbx.steps.set_ import Set
from pbx.steps.voicemail import Voicemail
from pbx.steps.wait import Wait

STEPS: tuple[type[Step], ...] = (
    Answer,
    Ring,
    Say,
    Play,
    Menu,
    Ask,
    Dial,
    Voicemail,
    Messages,
    Record,
    WhenOpen,
    If,
    Set,
    Goto,
    CallFlow,
    Wait,
    Reject,
    Hangup,
)
