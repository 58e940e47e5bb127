"""Hangup causes (Q.850) and SIP answers, as Asterisk's PJSIP channel turns one into the other."""

from __future__ import annotations

TEXTS = {
    1: "Unallocated (unassigned) number", 16: "Normal Clearing", 17: "User busy", 18: "No user responding",
    19: "User alerting, no answer", 20: "Subscriber absent", 21: "Call Rejected", 26: "Answered elsewhere",
    27: "Destination out of order", 34: "Circuit/channel congestion", 38: "Network out of order",
    41: "Temporary failure", 127: "Interworking, unspecified",
}

_CAUSES = {
    401: 21, 403: 21, 404: 1, 407: 21, 408: 18, 410: 22, 480: 19, 484: 28, 485: 1, 486: 17, 488: 58, 500: 38, 502: 27,
    503: 34, 600: 17, 603: 21, 604: 1, 606: 58,
}
_ANSWERS = {
    1: 404, 3: 404, 17: 486, 18: 408, 19: 480, 20: 480, 21: 403, 22: 410, 27: 502, 28: 484, 34: 503, 38: 500, 58: 488,
}


def cause_of(status: int) -> int:
    """The cause with which a leg ends when its far end refuses with this SIP status."""
    return _CAUSES.get(status, 127)


def status_of(cause: int) -> int:
    """The SIP status a caller gets who is hung up with this cause before the answer."""
    return _ANSWERS.get(cause, 603)
