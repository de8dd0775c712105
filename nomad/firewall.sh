#!/bin/sh
# Block traffic from programs and setups with network access to this host and to the metadata address of the cloud. Other
# destinations, such as the internet, stay reachable.
#
#   firewall.sh up       add the missing rules; repeat it after a reboot, or after you recreated a network
#   firewall.sh down     remove the rules
#   firewall.sh status   print the state of each network; the exit code is 1 if a rule is missing
#
# Environment variables:
#
#   NETWORKS  names of the Docker networks (default: pyexec-run pyexec-setup, which the server creates)
#   BLOCKED   IPv4 ranges to block too (default: 169.254.0.0/16; add the ranges of your private networks)
#
# The script needs root, docker and iptables. It affects only traffic that comes from the bridges of these networks.
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
        2>/dev/null || die "there is no network $1; the server creates it at its first start"
}

# Print the rules for a bridge, one per line: the program, the chain, and the rule.
rules() {
    # Allow replies to connections that the host opened.
    echo "iptables INPUT -i $1 -m conntrack ! --ctstate RELATED,ESTABLISHED $REFUSE"
    for range in $BLOCKED; do
        echo "iptables DOCKER-USER -i $1 -d $range $REFUSE"
    done
    if ip6tables --list INPUT --numeric >/dev/null 2>&1; then
        echo "ip6tables INPUT -i $1 -m conntrack ! --ctstate RELATED,ESTABLISHED $REFUSE6"
        echo "ip6tables FORWARD -i $1 -d fd00:ec2::254/128 $REFUSE6"
    fi
}

has_rule() {
    program=$1 chain=$2
    shift 2
    "$program" --wait --check "$chain" "$@" 2>/dev/null
}

add() {
    has_rule "$@" && return
    program=$1 chain=$2
    shift 2
    "$program" --wait --insert "$chain" "$@"
}

remove() {
    program=$1 chain=$2
    while has_rule "$@"; do
        (shift 2 && "$program" --wait --delete "$chain" "$@")
    done
}

missing=0
case "${1:-}" in
    up) do=add ;;
    down) do=remove ;;
    status) do=has_rule ;;
    *) die "usage: firewall.sh up|down|status" ;;
esac
for network in $NETWORKS; do
    bridge=$(bridge_of "$network") || exit 2
    state=closed
    while read -r rule; do
        # shellcheck disable=SC2086 # a rule consists of several words
        $do $rule || state=open
    done <<END
$(rules "$bridge")
END
    [ "$1" = status ] && echo "$network ($bridge): $state"
    [ "$state" = closed ] || missing=1
done
exit $missing
