"""Decide which webhooks are due, without a clock and without a network. All times are on one monotonic clock.

A delivery that its receiver has refused is retried alone, with exponential back-off. A receiver that does not answer
is paused: all of its deliveries wait, and then one of them is tried. So it delays no other receiver.

Each tenant has receivers and attempts of its own, so the deliveries of another tenant do not wait for them."""

from bisect import insort
from collections import Counter
from collections.abc import Mapping, Sequence
from enum import Enum
from math import inf

from attrs import define, evolve, field, frozen

from pyexec.domain.tenants import DEFAULT_TENANT
from pyexec.domain.webhooks import receiver_of

IN_FLIGHT_MAX = 16
"""Maximum number of attempts of a tenant at the same time."""
RECEIVER_MAX = 4
"""Maximum number of attempts at the same time for one receiver."""
RETRY_FIRST_SECONDS, RETRY_FACTOR, RETRY_MAX_SECONDS = 1.0, 3.0, 3600.0
PAUSE_MAX_SECONDS = 300.0
"""A receiver that does not answer is tried again after this time at the latest, unless it asks for more."""
_STEPS_MAX = 20
_OVERLOADED = frozenset({429, 502, 503, 504})


class Outcome(Enum):
    """The outcome of one attempt.

    `REFUSED` concerns the delivery, `UNREACHABLE` its receiver. After `GONE` the receiver wants no further attempt.
    `NOT_ENDED`: nothing was sent, because the execution has not ended."""

    DELIVERED = "delivered"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    GONE = "gone"
    NOT_ENDED = "not_ended"


@frozen(kw_only=True)
class Attempt:
    """The outcome of an attempt, the reason in words, and the receiver's Retry-After."""

    outcome: Outcome
    reason: str
    retry_after: float | None = None


def receiver_name(url: str, tenant: str) -> str:
    """Return the name of a receiver: its scheme, host and port, and the tenant, unless that is the default one."""
    receiver = receiver_of(url)
    return receiver if tenant == DEFAULT_TENANT else f"{receiver} {tenant}"


def _tenant_of(receiver: str) -> str:
    return receiver.partition(" ")[2]


def outcome_of_status(status: int) -> Outcome:
    """Return the outcome of an attempt that was answered with this HTTP status. A redirect is not followed."""
    if 200 <= status < 300:
        return Outcome.DELIVERED
    if status == 410:
        return Outcome.GONE
    return Outcome.UNREACHABLE if status in _OVERLOADED else Outcome.REFUSED


@frozen(kw_only=True)
class Delivery:
    """A webhook that has not been delivered, the time of its next attempt, and the number of those that failed."""

    execution_id: str
    receiver: str
    due_at: float
    failures: int = 0


@frozen
class _Pause:
    until: float
    failures: int


def retry_seconds(failures: int, jitter: float, maximum: float, retry_after: float | None = None) -> float:
    """Return how long to wait after this many failures. `jitter` is from 0 to 1: half of the time is random.

    `retry_after` is the receiver's Retry-After."""
    steps = min(failures - 1, _STEPS_MAX)
    full = min(RETRY_FIRST_SECONDS * RETRY_FACTOR**steps, maximum)
    return max(full * (1 + jitter) / 2, min(retry_after or 0.0, RETRY_MAX_SECONDS))


@define
class Schedule:
    """The deliveries that wait, those in progress, and the paused receivers."""

    _waiting: dict[str, list[Delivery]] = field(factory=dict)
    _receivers: dict[str, str] = field(factory=dict)
    _in_flight: dict[str, Delivery] = field(factory=dict)
    _pauses: dict[str, _Pause] = field(factory=dict)

    def __len__(self) -> int:
        """Return the number of deliveries, those in progress included."""
        return len(self._receivers) + len(self._in_flight)

    def update(self, ended: Mapping[str, str], now: float) -> bool:
        """Set the executions whose webhooks are outstanding, with their receivers. Return True if that changes what
        waits."""
        added = [name for name in ended if name not in self._receivers and name not in self._in_flight]
        removed = [name for name in self._receivers if name not in ended]
        for execution_id in removed:
            self._remove(execution_id)
        for execution_id in added:
            self._add(Delivery(execution_id=execution_id, receiver=ended[execution_id], due_at=now))
        self._forget_pauses()
        return bool(added or removed)

    def due(self, now: float) -> Sequence[Delivery]:
        """Return the deliveries to attempt now, the longest due first."""
        in_flight = Counter(delivery.receiver for delivery in self._in_flight.values())
        found = [
            delivery
            for receiver, queue in self._waiting.items()
            for delivery in queue[: self._room(receiver, in_flight[receiver], now)]
            if delivery.due_at <= now
        ]
        found.sort(key=lambda delivery: (delivery.due_at, delivery.execution_id))
        by_tenant, chosen = self._count_by_tenant(), []
        for delivery in found:
            tenant = _tenant_of(delivery.receiver)
            if by_tenant[tenant] < IN_FLIGHT_MAX:
                by_tenant[tenant] += 1
                chosen.append(delivery)
        return chosen

    def next_due(self) -> float | None:
        """Return the time at which a delivery becomes due if nothing else changes before; None if none does.

        If deliveries are due already, the time has passed."""
        by_tenant = self._count_by_tenant()
        in_flight = Counter(delivery.receiver for delivery in self._in_flight.values())
        moments = [
            max(queue[0].due_at, pause.until if (pause := self._pauses.get(receiver)) else -inf)
            for receiver, queue in self._waiting.items()
            if self._room(receiver, in_flight[receiver], inf)
            and by_tenant[_tenant_of(receiver)] < IN_FLIGHT_MAX
        ]
        return min(moments, default=None)

    def start(self, delivery: Delivery) -> None:
        """Record that an attempt begins."""
        self._remove(delivery.execution_id)
        self._in_flight[delivery.execution_id] = delivery

    def finish(self, delivery: Delivery, attempt: Attempt, now: float, jitter: float) -> Delivery | None:
        """Record the outcome of an attempt. Return the delivery with its next attempt; None if there is none."""
        del self._in_flight[delivery.execution_id]
        retried = self._retried(delivery, attempt, now, jitter)
        if retried is not None:
            self._add(retried)
        self._forget_pauses()
        return retried

    def _count_by_tenant(self) -> Counter[str]:
        """Return the number of attempts in progress of each tenant."""
        return Counter(_tenant_of(delivery.receiver) for delivery in self._in_flight.values())

    def _retried(self, delivery: Delivery, attempt: Attempt, now: float, jitter: float) -> Delivery | None:
        """Update the receiver's pause, and return the delivery with the time of its next attempt, if there is one.

        Even while its receiver does not answer, a delivery backs off: otherwise one path of a receiver that never
        answers would pause the receiver repeatedly."""
        if attempt.outcome is Outcome.NOT_ENDED:
            return None
        if attempt.outcome is Outcome.UNREACHABLE:
            self._pause(delivery.receiver, attempt, now, jitter)
        else:
            self._pauses.pop(delivery.receiver, None)
        if attempt.outcome in (Outcome.DELIVERED, Outcome.GONE):
            return None
        failures = delivery.failures + 1
        maximum = PAUSE_MAX_SECONDS if attempt.outcome is Outcome.UNREACHABLE else RETRY_MAX_SECONDS
        delay = retry_seconds(failures, jitter, maximum, attempt.retry_after)
        return evolve(delivery, due_at=now + delay, failures=failures)

    def _pause(self, receiver: str, attempt: Attempt, now: float, jitter: float) -> None:
        """Pause the receiver. Attempts that began before the pause do not extend it."""
        before = self._pauses.get(receiver)
        if before is not None and now < before.until:
            return
        failures = before.failures + 1 if before else 1
        seconds = retry_seconds(failures, jitter, PAUSE_MAX_SECONDS, attempt.retry_after)
        self._pauses[receiver] = _Pause(now + seconds, failures)

    def _room(self, receiver: str, in_flight: int, now: float) -> int:
        """Return how many more attempts may begin for a receiver: one at a time after a pause, to test it."""
        pause = self._pauses.get(receiver)
        if pause is None:
            return max(0, RECEIVER_MAX - in_flight)
        return 0 if now < pause.until else max(0, 1 - in_flight)

    def _add(self, delivery: Delivery) -> None:
        self._receivers[delivery.execution_id] = delivery.receiver
        insort(self._waiting.setdefault(delivery.receiver, []), delivery, key=lambda each: each.due_at)

    def _remove(self, execution_id: str) -> None:
        receiver = self._receivers.pop(execution_id)
        queue = [each for each in self._waiting[receiver] if each.execution_id != execution_id]
        if queue:
            self._waiting[receiver] = queue
        else:
            del self._waiting[receiver]

    def _forget_pauses(self) -> None:
        """Forget the pauses of receivers without deliveries."""
        if self._pauses:
            known = self._waiting.keys() | {delivery.receiver for delivery in self._in_flight.values()}
            self._pauses = {receiver: pause for receiver, pause in self._pauses.items() if receiver in known}
