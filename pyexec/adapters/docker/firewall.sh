#!/bin/sh
# Block traffic from programs and setups with network access to this host and to the metadata address of the cloud, and
# limit their connections. Other destinations, such as the internet, stay reachable.
#
#   firewall.sh up       add the rules, unless all exist; repeat it after a reboot, or after you recreated a network
#   firewall.sh down     remove the rules
#   firewall.sh status   print the state of each network; the exit code is 1 if a rule is missing
#
# Environment variables (use the same ones for all three commands):
#
#   NETWORKS     names of the Docker networks (default: pyexec-run pyexec-setup, which the server creates);
#                with NAME=BRIDGE, the script does not ask Docker for the bridge
#   BLOCKED      IPv4 ranges to block too (default: 169.254.0.0/16; add the ranges of your private networks).
#                Port 53 stays open, because name servers may be in such a range
#   ALLOWED      ADDRESS:PORT of services on this host that stay reachable, such as a package index (default: none)
#   CONNECTIONS  maximum number of open connections of one container (default: 512)
#   RATE         maximum number of new connections of one container per second, after the first 1000 (default: 100)
#
# The script needs root and iptables, and docker unless all bridges are given. It affects only traffic that comes from the
# bridges of these networks.
set -eu

NETWORKS=${NETWORKS:-pyexec-run pyexec-setup}
BLOCKED=${BLOCKED:-169.254.0.0/16}
ALLOWED=${ALLOWED:-}
CONNECTIONS=${CONNECTIONS:-512}
RATE=${RATE:-100}
REFUSE="-j REJECT --reject-with icmp-admin-prohibited"
REFUSE6="-j REJECT --reject-with icmp6-adm-prohibited"

die() {
    echo "firewall.sh: $*" >&2
    exit 2
}

bridge_of() {
    case "$1" in *=*) echo "${1#*=}" && return ;; esac
    docker network inspect --format \
        '{{with index .Options "com.docker.network.bridge.name"}}{{.}}{{else}}br-{{slice .Id 0 12}}{{end}}' "$1" \
        2>/dev/null || die "there is no network $1; the server creates it at its first start"
}

# Print the rules for a bridge, one per line: the program, the chain, and the rule. Each rule takes precedence over those
# above it.
rules() {
    # Allow replies to connections that the host opened.
    echo "iptables INPUT -i $1 -m conntrack ! --ctstate RELATED,ESTABLISHED $REFUSE"
    for service in $ALLOWED; do
        for protocol in tcp udp; do
            echo "iptables INPUT -i $1 -d ${service%:*} -p $protocol --dport ${service##*:} -j ACCEPT"
        done
    done
    for range in $BLOCKED; do
        for protocol in tcp udp; do
            echo "iptables DOCKER-USER -i $1 -d $range -p $protocol ! --dport 53 $REFUSE"
        done
    done
    # The kernel's table of connections is shared by the whole machine. A closed connection stays in it for a while, so
    # the rate needs a limit, too.
    new="-i $1 -m conntrack --ctstate NEW"
    echo "iptables DOCKER-USER $new -m connlimit --connlimit-above $CONNECTIONS --connlimit-mask 32 $REFUSE"
    echo "iptables DOCKER-USER $new -m hashlimit --hashlimit-above $RATE/second --hashlimit-burst 1000" \
        "--hashlimit-mode srcip --hashlimit-name $1 $REFUSE"
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

# Call a function with each rule for a bridge. Return 1 if it fails for one of them.
for_each_rule() {
    do=$1 result=0
    while read -r rule; do
        # shellcheck disable=SC2086 # a rule consists of several words
        $do $rule || result=1
    done <<END
$(rules "$2")
END
    return $result
}

missing=0
command=${1:-}
case "$command" in up | down | status) ;; *) die "usage: firewall.sh up|down|status" ;; esac
for network in $NETWORKS; do
    bridge=$(bridge_of "$network") || exit 2
    state=closed
    case "$command" in
        # Add all rules again if one is missing: their order matters.
        up) for_each_rule has_rule "$bridge" || { for_each_rule remove "$bridge" && for_each_rule add "$bridge"; } || missing=1 ;;
        down) for_each_rule remove "$bridge" ;;
        status)
            for_each_rule has_rule "$bridge" || state=open missing=1
            echo "${network%%=*} ($bridge): $state"
            ;;
    esac
done
exit $missing
