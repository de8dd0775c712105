#!/bin/sh
# Block traffic from programs and setups with network access to this host and to the metadata address of the cloud, and
# limit their connections. Other destinations, such as the internet, stay reachable.
#
#   firewall.sh up       set the rules; repeat it after a reboot, or after you recreated a network
#   firewall.sh down     remove the rules
#   firewall.sh status   print the state of each network; the exit code is 1 if it has not exactly these rules
#
# Environment variables (use the same ones for all three commands):
#
#   NETWORKS     names of the Docker networks (default: pyexec-run pyexec-setup, which the server creates);
#                with NAME=BRIDGE, the script does not ask Docker for the bridge
#   BLOCKED      IPv4 ranges to block too (default: 169.254.0.0/16; add the ranges of your private networks).
#                Port 53 stays open, because name servers may be in such a range
#   ALLOWED      ADDRESS:PORT of services on this host that stay reachable, such as a package index (default: none)
#   CONNECTIONS  maximum number of open connections of one container (default: 512); in addition, as many to ALLOWED
#   RATE         maximum number of new connections of one container per second, after the first 1000 (default: 100)
#
# The script needs root and iptables, and docker unless all bridges are given. It affects only traffic that comes from the
# bridges of these networks: each bridge has chains of its own. `up` replaces their rules in one step.
set -eu

NETWORKS=${NETWORKS:-pyexec-run pyexec-setup}
BLOCKED=${BLOCKED:-169.254.0.0/16}
# Metadata services with other addresses, which are always blocked: those of Alibaba Cloud, Azure and Oracle Cloud.
METADATA="100.100.100.200 168.63.129.16 192.0.0.192"
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

# Print the chains of a bridge, one per line: the program, the chain that jumps to it, and its name (at most 28 characters).
chains() {
    echo "iptables INPUT PYEXEC-IN-$1"
    echo "iptables DOCKER-USER PYEXEC-OUT-$1"
    if ip6tables --list INPUT --numeric >/dev/null 2>&1; then
        echo "ip6tables INPUT PYEXEC-IN-$1"
        echo "ip6tables FORWARD PYEXEC-OUT-$1"
    fi
}

# Print the rules that limit the connections of a container. The kernel's table of connections is shared by the whole
# machine. A closed connection stays in it for a while, so the rate needs a limit, too.
limits() {
    echo "-m conntrack --ctstate NEW -m hashlimit --hashlimit-above $RATE/second --hashlimit-burst 1000" \
        "--hashlimit-mode srcip --hashlimit-name $1 $REFUSE"
    echo "-m conntrack --ctstate NEW -m connlimit --connlimit-above $CONNECTIONS --connlimit-mask 32 $REFUSE"
}

# Print the rules of a bridge's chain, one per line. The first rule that matches decides.
rules() {
    bridge=$1 program=$2
    case "$program $3" in
        "iptables PYEXEC-IN-"*)
            [ -z "$ALLOWED" ] || limits "$bridge"
            for service in $ALLOWED; do
                for protocol in tcp udp; do
                    echo "-d ${service%:*} -p $protocol --dport ${service##*:} -j ACCEPT"
                done
            done
            # Allow replies to connections that the host opened.
            echo "-m conntrack ! --ctstate RELATED,ESTABLISHED $REFUSE"
            ;;
        "iptables PYEXEC-OUT-"*)
            limits "$bridge"
            for range in $BLOCKED $METADATA; do
                for protocol in tcp udp; do
                    echo "-d $range -p $protocol ! --dport 53 $REFUSE"
                done
                # Programs can send echo requests, and so would learn the hosts in this range.
                echo "-d $range -p icmp --icmp-type echo-request $REFUSE"
            done
            ;;
        "ip6tables PYEXEC-IN-"*) echo "-m conntrack ! --ctstate RELATED,ESTABLISHED $REFUSE6" ;;
        "ip6tables PYEXEC-OUT-"*) echo "-d fd00:ec2::254/128 $REFUSE6" ;;
    esac
}

# Replace a chain's rules in one step, and jump to it from its parent.
set_chain() {
    bridge=$1 program=$2 parent=$3 chain=$4
    {
        echo "*filter"
        echo ":$chain - [0:0]"
        rules "$bridge" "$program" "$chain" | sed "s/^/-A $chain /"
        echo "COMMIT"
    } | "$program-restore" --wait --noflush || return 1
    "$program" --wait --check "$parent" -i "$bridge" -j "$chain" 2>/dev/null ||
        "$program" --wait --insert "$parent" -i "$bridge" -j "$chain"
}

remove_chain() {
    bridge=$1 program=$2 parent=$3 chain=$4
    while "$program" --wait --check "$parent" -i "$bridge" -j "$chain" 2>/dev/null; do
        "$program" --wait --delete "$parent" -i "$bridge" -j "$chain"
    done
    "$program" --wait --list "$chain" --numeric >/dev/null 2>&1 || return 0
    "$program" --wait --flush "$chain" && "$program" --wait --delete-chain "$chain"
}

# Return 1 unless a chain has exactly its rules, and its parent jumps to it.
check_chain() {
    bridge=$1 program=$2 parent=$3 chain=$4
    "$program" --wait --check "$parent" -i "$bridge" -j "$chain" 2>/dev/null || return 1
    expected=$(rules "$bridge" "$program" "$chain")
    [ "$("$program" --wait --list-rules "$chain" | grep -c "^-A")" = "$(echo "$expected" | wc -l)" ] || return 1
    while read -r rule; do
        # shellcheck disable=SC2086 # a rule consists of several words
        "$program" --wait --check "$chain" $rule 2>/dev/null || return 1
    done <<END
$expected
END
}

# Call a function with each chain of a bridge. Return 1 if it fails for one of them.
for_each_chain() {
    do=$1 failed=0
    while read -r program parent chain; do
        $do "$2" "$program" "$parent" "$chain" || failed=1
    done <<END
$(chains "$2")
END
    return $failed
}

result=0
command=${1:-}
case "$command" in up | down | status) ;; *) die "usage: firewall.sh up|down|status" ;; esac
for network in $NETWORKS; do
    bridge=$(bridge_of "$network") || exit 2
    state=closed
    case "$command" in
        up) for_each_chain set_chain "$bridge" || result=1 ;;
        down) for_each_chain remove_chain "$bridge" || result=1 ;;
        status)
            for_each_chain check_chain "$bridge" || state=open result=1
            echo "${network%%=*} ($bridge): $state"
            ;;
    esac
done
exit $result
