"""What a program in a network reaches that it should not: judged by where a probe's knocking was answered."""

from collections.abc import Mapping, Sequence

from attrs import frozen


@frozen(kw_only=True)
class Reached:
    """What answered on one network. `host` is the host's address there, None on a network without a way out."""

    host: str | None
    open: Sequence[int]
    refused: Sequence[int]
    """Ports of the host at which nothing listens; the host itself answered, so no firewall stands before it."""
    metadata: bool


def network_exposures(reached: Mapping[str, Reached]) -> Sequence[str]:
    """A sentence for each network from which something is reached, by the networks' names."""
    return [
        f"programs on the network {name} reach {' and '.join(what)}"
        for name, found in sorted(reached.items())
        if (what := list(_reached(found)))
    ]


def _reached(found: Reached) -> Sequence[str]:
    what = []
    if found.open:
        ports = ", ".join(map(str, found.open))
        what.append(f"this host's services at {found.host} (port {ports})")
    elif found.refused:
        what.append(f"this host at {found.host}")
    if found.metadata:
        what.append("the cloud's metadata address")
    return what
