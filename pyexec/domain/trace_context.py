"""The position of a span in a distributed trace, and the headers that carry it (W3C Trace Context)."""

import hashlib
import re
from collections.abc import Sequence

from attrs import frozen

TRACESTATE_LENGTH_MAX = 512
TRACESTATE_MEMBERS_MAX = 32
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_KEY = r"[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13}"
_MEMBER = re.compile(rf"({_KEY})=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{{0,255}}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")
_SAMPLED = 1


@frozen(kw_only=True)
class TraceContext:
    """A span: the ids of its trace and of itself, whether it is recorded, and what other vendors pass along."""

    trace_id: str
    span_id: str
    sampled: bool
    tracestate: str | None = None

    @property
    def traceparent(self) -> str:
        """The header that makes this span the parent of the receiver's spans."""
        return f"00-{self.trace_id}-{self.span_id}-{int(self.sampled):02x}"

    def headers(self) -> dict[str, str]:
        """Return the headers `traceparent` and, if there is one, `tracestate`."""
        headers = {"traceparent": self.traceparent}
        return headers if self.tracestate is None else {**headers, "tracestate": self.tracestate}


def parse_trace_context(traceparents: Sequence[str], tracestates: Sequence[str] = ()) -> TraceContext | None:
    """Parse the values of both headers. Return None if `traceparent` is missing, repeated or malformed.

    A malformed `tracestate` alone is dropped, as the specification demands."""
    if len(traceparents) != 1:
        return None
    found = _TRACEPARENT.fullmatch(traceparents[0].strip(" \t"))
    if found is None:
        return None
    version, trace_id, span_id, flags, rest = found.groups()
    is_known = version != "ff" and (version != "00" or rest is None)
    if not is_known or not int(trace_id, 16) or not int(span_id, 16):
        return None
    return TraceContext(
        trace_id=trace_id,
        span_id=span_id,
        sampled=bool(int(flags, 16) & _SAMPLED),
        tracestate=_parse_tracestate(tracestates),
    )


def execution_context(execution_id: str, parent: TraceContext | None, *, sampled: bool) -> TraceContext:
    """Return the context of the span of a whole execution.

    Every replica computes the same ids from the id of the execution, so the event log does not store them. Without a
    parent, the trace has an id of its own. Ids of executions contain a time, and samplers need evenly spread ids, hence
    the hash."""
    digest = hashlib.sha256(execution_id.encode()).hexdigest()
    return TraceContext(
        trace_id=digest[:32] if parent is None else parent.trace_id,
        span_id=digest[32:48],
        sampled=sampled,
        tracestate=None if parent is None else parent.tracestate,
    )


def _parse_tracestate(values: Sequence[str]) -> str | None:
    members = [member for value in values for part in value.split(",") if (member := part.strip(" \t"))]
    keys = set()
    for member in members:
        found = _MEMBER.fullmatch(member)
        if found is None or found[1] in keys:
            return None
        keys.add(found[1])
    joined = ",".join(members)
    is_small = len(members) <= TRACESTATE_MEMBERS_MAX and len(joined) <= TRACESTATE_LENGTH_MAX
    return joined if joined and is_small else None
