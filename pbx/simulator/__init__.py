"""The same engine on an in-memory Asterisk and a clock that jumps: thousands of calls per second, in any order.

    @virtual
    async def test_a_caller_hears_the_menu() -> None:
        asterisk = Asterisk(seed=1)
        asterisk.handset("acme-101", answers(after=2))
        ...                                     # Ari(asterisk, "pbx-w1"), an engine
        caller = asterisk.call("trunk-x", "+33199000100", caller="+33199000177")
        await caller.hears("sound:welcome")
        caller.press("1")
        assert (await caller.meets()).address == "acme-101"
"""

from pbx.simulator.asterisk import Asterisk
from pbx.simulator.loop import Deadlock
from pbx.simulator.loop import Leftover
from pbx.simulator.loop import VirtualClock
from pbx.simulator.loop import VirtualLoop
from pbx.simulator.loop import run
from pbx.simulator.loop import virtual
from pbx.simulator.people import Behaviour
from pbx.simulator.people import Handset
from pbx.simulator.people import Party
from pbx.simulator.people import announces
from pbx.simulator.people import answers
from pbx.simulator.people import busy
from pbx.simulator.people import refuses
from pbx.simulator.people import rings
from pbx.simulator.people import silent
from pbx.simulator.sounds import SoundFiles
from pbx.simulator.trace import Tap
from pbx.simulator.trace import Trace

__all__ = [
    "Asterisk", "Behaviour", "Deadlock", "Handset", "Leftover", "Party", "SoundFiles", "Tap", "Trace", "VirtualClock",
    "VirtualLoop", "announces", "answers", "busy", "refuses", "rings", "run", "silent", "virtual",
]
