"""Deliver webhooks: the leader sends the result of each ended execution that requested it, until it is received.

The body is the result, bounded (docs/webhooks.md)."""

import codecs
import json
import logging
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from time import time
from typing import Any

import anyio
from attrs import define, evolve, field

from pyexec.aio import Broadcast, FailureLog, retry
from pyexec.codec import timestamp, to_json
from pyexec.correlation import correlate
from pyexec.domain.execution import Execution, Phase, fold
from pyexec.domain.output_log import OutputLog, Stream
from pyexec.domain.result import result_without_output, summarize
from pyexec.domain.webhook_schedule import Attempt, Delivery, Outcome, Schedule
from pyexec.domain.webhooks import WebhookPolicy, signed_headers
from pyexec.errors import CorruptLog, InvalidRequest, Unavailable, shorten
from pyexec.metrics import NOOP_METER, WEBHOOK_ATTEMPTS, WEBHOOKS_DROPPED, Meter
from pyexec.ports import BlobStore, EventLog, WebhookSender
from pyexec.services.event_log import CorruptLogReporter
from pyexec.services.output_store import load_output

logger = logging.getLogger(__name__)

EVENT_TYPE = "execution.completed"
STREAM_BYTES_MAX = 16 * 1024
"""Maximum size of `stdout` and of `stderr` in a webhook."""
BODY_BYTES_MAX = 64 * 1024
"""Maximum size of the body."""
LOAD_SECONDS = 30.0
"""How long the blob store may take for the output of one execution."""


@define(eq=False, kw_only=True)
class WebhookDeliveries:
    """Delivers webhooks while its replica is the leader.

    A webhook is outstanding from the first event of its execution on, until it is delivered or dropped. The log keeps
    that. The number of attempts is not stored: a new leader begins again with the first one."""

    log: EventLog
    blobs: BlobStore
    sender: WebhookSender
    policy: WebhookPolicy
    shows_tenant: bool
    corrupt_logs: CorruptLogReporter
    meter: Meter = NOOP_METER
    _schedule: Schedule = field(factory=Schedule, init=False)
    _outstanding: Mapping[str, str] = field(factory=dict, init=False)
    _open: Mapping[str, int] | None = field(default=None, init=False)
    """The open executions; None while they are not watched."""
    _done: set[str] = field(factory=set, init=False)
    """Delivered or dropped executions that the last listing of outstanding webhooks still contains."""
    _changed: Broadcast = field(factory=Broadcast, init=False)
    _loading: anyio.Lock = field(factory=anyio.Lock, init=False)
    """Locked while an output is in memory. It may be large, and only its beginning is sent."""

    @property
    def waiting(self) -> int:
        """The number of ended executions whose webhook is outstanding, if this replica is the leader; else 0."""
        return len(self._schedule)

    async def run(self) -> None:
        """Deliver webhooks until cancelled."""
        with self._reset_at_end():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._watch_outstanding, name="watch outstanding webhooks")
                tasks.start_soon(self._watch_open, name="watch ends of executions with a webhook")
                while True:
                    changed = self._changed.next_event()
                    for delivery in self._schedule.due(anyio.current_time()):
                        self._schedule.start(delivery)
                        tasks.start_soon(self._attempt, delivery, name=f"webhook of {delivery.execution_id}")
                    next_due = self._schedule.next_due()
                    wait = None if next_due is None else max(0.0, next_due - anyio.current_time())
                    with anyio.move_on_after(wait):
                        await changed.wait()

    @contextmanager
    def _reset_at_end(self) -> Iterator[None]:
        try:
            yield
        finally:
            self._schedule, self._outstanding, self._open, self._done = Schedule(), {}, None, set()

    async def _watch_outstanding(self) -> None:
        failures = FailureLog(logger, "watching the outstanding webhooks")
        version: int | None = None
        while True:
            found = await retry(partial(self.log.webhooks, version), failures)
            version, self._outstanding = found.version, found.receivers
            self._done &= found.receivers.keys()
            self._update()

    async def _watch_open(self) -> None:
        """Watch the open executions, as long as webhooks are outstanding."""
        failures = FailureLog(logger, "watching the open executions for webhooks")
        version: int | None = None
        while True:
            while not self._outstanding:
                version = self._open = None
                await self._changed.wait()
            opened = await retry(partial(self.log.open_executions, version), failures)
            version, self._open = opened.version, opened.lengths
            self._update()

    def _update(self) -> None:
        """Schedule the webhooks of executions that are not open."""
        if self._open is not None or not self._outstanding:
            others = self._done.union(self._open or ())
            ended = {name: receiver for name, receiver in self._outstanding.items() if name not in others}
            self._schedule.update(ended, anyio.current_time())
        self._changed.notify_all()

    async def _attempt(self, delivery: Delivery) -> None:
        correlate(delivery.execution_id)
        attempt = await self._send(delivery)
        if attempt.outcome in (Outcome.DELIVERED, Outcome.GONE):
            failures = FailureLog(logger, f"recording the webhook of {delivery.execution_id}")
            await retry(partial(self.log.remove_webhook, delivery.execution_id), failures)
            self._done.add(delivery.execution_id)
        retried = self._schedule.finish(delivery, attempt, anyio.current_time(), random.random())  # noqa: S311
        self._report(delivery, attempt, retried)
        if attempt.outcome is Outcome.NOT_ENDED:
            self._changed.notify_all()  # it is scheduled again when the open executions change
        else:
            self._update()  # it may have been deleted meanwhile

    async def _send(self, delivery: Delivery) -> Attempt:
        """Read the execution and send its result."""
        execution_id = delivery.execution_id
        try:
            events = await self.log.read(execution_id)
            if not events:
                return Attempt(outcome=Outcome.GONE, reason="the execution no longer exists")
            execution = fold(execution_id, events)
            url = execution.spec.webhook_url
            if execution.phase is not Phase.ENDED or url is None:
                return Attempt(outcome=Outcome.NOT_ENDED, reason="the execution has not ended")
            correlate(execution_id, tenant=execution.spec.tenant)
            self.policy.check(url, execution.spec.tenant)
            body = await self._body(execution)
        except CorruptLog as error:
            self.corrupt_logs.report(execution_id, error)
            return Attempt(outcome=Outcome.REFUSED, reason="its log is corrupt")
        except (InvalidRequest, Unavailable) as error:
            return Attempt(outcome=Outcome.REFUSED, reason=str(error))
        secrets = self.policy.secrets_of(execution.spec.tenant)
        return await self.sender.send(url, signed_headers(execution_id, int(time()), body, secrets), body)

    async def _body(self, execution: Execution) -> bytes:
        async with self._loading:
            with anyio.move_on_after(LOAD_SECONDS):
                output_log = await load_output(self.blobs, execution)
                return webhook_body(execution, output_log, shows_tenant=self.shows_tenant)
        raise Unavailable(f"the blob store did not answer within {LOAD_SECONDS:g} s")

    def _report(self, delivery: Delivery, attempt: Attempt, retried: Delivery | None) -> None:
        label = f"webhook of {delivery.execution_id} to {shorten(delivery.receiver)}"
        if attempt.outcome is Outcome.NOT_ENDED:
            return
        self.meter.count(WEBHOOK_ATTEMPTS, "delivered" if attempt.outcome is Outcome.DELIVERED else "failed")
        if attempt.outcome is Outcome.DELIVERED:
            logger.info("%s delivered: %s (attempt %d)", label, attempt.reason, delivery.failures + 1)
        elif retried is None:
            self.meter.count(WEBHOOKS_DROPPED)
            logger.error("%s dropped: %s", label, attempt.reason)
        else:
            wait = retried.due_at - anyio.current_time()
            logger.warning("%s failed; retrying in %.0f s: %s", label, wait, attempt.reason)


def webhook_body(execution: Execution, output_log: OutputLog, *, shows_tenant: bool) -> bytes:
    """Return the body of the webhook of an ended execution, as JSON.

    `left_out` names the fields of the result that are cut or missing. If the body would be too large, it has the
    fields of a list of executions, with long texts cut."""
    if execution.terminal is None:
        raise ValueError(f"{execution.id} has not ended")
    result = result_without_output(execution, output_log)
    left_out = [stream for stream in (Stream.STDOUT, Stream.STDERR) if _is_cut(output_log, stream)]
    if output_log.size_of(Stream.DISPLAY):
        left_out.append(Stream.DISPLAY)
    data = to_json(
        evolve(
            result,
            tenant=result.tenant if shows_tenant else None,
            stdout=_beginning(output_log, Stream.STDOUT),
            stderr=_beginning(output_log, Stream.STDERR),
            displays=None,
        )
    )
    names = ["displays" if stream is Stream.DISPLAY else str(stream) for stream in left_out]
    body = _encode(execution, data, names)
    if len(body) <= BODY_BYTES_MAX:
        return body
    summary = summarize(execution)
    short = to_json(summary if shows_tenant else evolve(summary, tenant=None))
    return _encode(
        execution, short, sorted({*names, *(name for name in data if data[name] != short.get(name))})
    )


def _encode(execution: Execution, data: Mapping[str, Any], left_out: list[str]) -> bytes:
    ended_at = execution.terminal.at if execution.terminal is not None else execution.created_at
    body: dict[str, Any] = {"type": EVENT_TYPE, "timestamp": timestamp(ended_at), "data": data}
    if left_out:
        body["left_out"] = left_out
    return json.dumps(body).encode()


def _is_cut(output_log: OutputLog, stream: Stream) -> bool:
    return output_log.size_of(stream) > STREAM_BYTES_MAX


def _beginning(output_log: OutputLog, stream: Stream) -> str:
    """Return the beginning of a stream as text. A character that the limit would split is left out."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(output_log.bytes_of(stream)[:STREAM_BYTES_MAX])
    return text if _is_cut(output_log, stream) else text + decoder.decode(b"", final=True)
