#!/bin/sh
# Closes what programs and setups with network must not reach: this host's own services, and the cloud's metadata.
# Everything else, the world above all, stays open to them.
#
#   firewall.sh up       adds the rules that are missing; again after a reboot, or when you made one of yours anew
#   firewall.sh down     takes them away
#   firewall.sh status   says of each network whether they are there; exit code 1 when one is missing
#
# NETWORKS  Docker's names of the networks              (default: pyexec-run pyexec-setup, which the server makes)
# BLOCKED   IPv4 ranges that must not be reached either (default: 169.254.0.0/16; add those of your own network)
#
# It needs root, docker and iptables, and touches no traffic but that which comes in from these networks' bridges.
set -eu

NETWORKS=${NETWORKS:-pyexec-run pyexec-setup}
BLOCKED=${BLOCKED:-169.254.0.0/16}
REFUSE="-j REJECT --reject-with icmp-admin-prohibited"
REFUSE6="-j REJECT --reject-with icmp6-adm-prohibited"

die() {
    echo "firewall.sh: $*" >&2
    exit 2
}

bridge_of() {
    docker network inspect --format \
        '{{with index .Options "com.docker.network.bridge.name"}}{{.}}{{else}}br-{{slice .Id 0 12}}{{end}}' "$1" \
        2>/dev/null || die "there is no network $1; the server makes it at its first start"
}

# Every rule of a bridge, a line each: the program, the chain, and what it says.
rules() {
    # Answers to what the host itself began are let through.
    echo "iptables INPUT -i $1 -m conntrack ! --ctstate RELATED,ESTABLISHED $REFUSE"
    for range in $BLOCKED; do
        echo "iptables DOCKER-USER -i $1 -d $range $REFUSE"
    done
    if ip6tables --list INPUT --numeric >/dev/null 2>&1; then
        echo "ip6tables INPUT -i $1 -m conntrack ! --ctstate RELATED,ESTABLISHED $REFUSE6"
        echo "ip6tables FORWARD -i $1 -d fd00:ec2::254/128 $REFUSE6"
    fi
}

is_there() {
    program=$1 chain=$2
    shift 2
    "$program" --wait --check "$chain" "$@" 2>/dev/null
}

add() {
    is_there "$@" && return
    program=$1 chain=$2
    shift 2
    "$program" --wait --insert "$chain" "$@"
}

remove() {
    program=$1 chain=$2
    while is_there "$@"; do
        (shift 2 && "$program" --wait --delete "$chain" "$@")
    done
}

missing=0
case "${1:-}" in
    up) do=add ;;
    down) do=remove ;;
    status) do=is_there ;;
    *) die "say up, down or status" ;;
esac
for network in $NETWORKS; do
    bridge=$(bridge_of "$network") || exit 2
    state=closed
    while read -r rule; do
        # shellcheck disable=SC2086 # a rule is words
        $do $rule || state=open
    done <<END
$(rules "$bridge")
END
    [ "$1" = status ] && echo "$network ($bridge): $state"
    [ "$state" = closed ] || missing=1
done
exit $missing
