"""Every Prometheus metric of the engine, named once. Modules import what they feed; `/metrics` prints them all."""

from __future__ import annotations

import platform

from prometheus_client import Counter
from prometheus_client import Gauge
from prometheus_client import Histogram
from prometheus_client import Info

from pbx import __version__

# Seconds; a call's work is a few milliseconds, a stuck Asterisk shows as seconds.
_LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0)
_STEP = (0.01, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800)

build = Info("pbx_build", "Version of the engine and of Python")
build.info({"version": __version__, "python": platform.python_version()})

calls = Counter("pbx_calls", "Calls ended, by outcome", ["tenant", "direction", "outcome"])
calls_now = Gauge("pbx_calls_now", "Calls in progress", ["tenant"])
legs = Counter("pbx_legs", "Outbound legs ended, by outcome", ["tenant", "outcome"])
step_seconds = Histogram("pbx_step_seconds", "Time spent in a step of a flow", ["step"], buckets=_STEP)

ari_requests = Counter(
    "pbx_ari_requests", "ARI requests, by operation and HTTP status (0: no answer)", ["operation", "status"]
)
ari_seconds = Histogram(
    "pbx_ari_request_seconds", "Time from an ARI request to its answer", ["operation"], buckets=_LATENCY
)
ari_events = Counter("pbx_ari_events", "ARI events received, by type", ["type"])
ari_event_lag_seconds = Histogram(
    "pbx_ari_event_lag_seconds", "Time from Asterisk's stamp on an event to its handling", buckets=_LATENCY
)
ari_connections = Counter("pbx_ari_connections", "Event streams opened; the first is 1, each more is a reconnect")

policy_decisions = Counter(
    "pbx_policy_decisions", "Answers of policies: admitted, narrowed, refused, failed or late", ["policy", "verdict"]
)
policy_seconds = Histogram("pbx_policy_seconds", "Time that a policy took to decide", ["policy"], buckets=_LATENCY)

asterisk_up = Gauge("pbx_asterisk_up", "1 while Asterisk answers, 0 while it does not")
asterisk_starts = Counter("pbx_asterisk_starts", "Starts of the private Asterisk; more than one means that it died")

records_written = Counter("pbx_records_written", "Call records written to the database")
records_waiting = Gauge("pbx_records_waiting", "Call records waiting for the database")
speech_made = Counter("pbx_speech_made", "Texts spoken into a file because the cache had none", ["language"])
