# shellcheck shell=bash
# One bridge in the control plane's network namespace, one veth to every node. No interface, address,
# route or rule is made in the root namespace, and no machine has a way out: traffic cannot leave.

net_cp() {
  net_exec cp sh -euc '
    ip link show br0 >/dev/null 2>&1 && exit
    ip link add br0 type bridge
    ip addr add "$1.1/24" dev br0
    ip link set br0 up
    ip route add unreachable default
    ip route add "$2.0.0/16" dev br0' sh "$NET" "$SERVICE_NET"
}

net_node() {
  local n=$1 other pid
  ! net_exec "n$n" ip link show eth0 >/dev/null 2>&1 || return 0
  pid=$(machine_pid "n$n")
  net_exec cp sh -euc '
    ip link add "sc$1" type veth peer name eth0 netns "$2"
    ip link set "sc$1" master br0 up
    ip route replace "$4.$1.0/24" via "$3.1$1"' sh "$n" "$pid" "$NET" "$POD_NET"
  net_exec "n$n" sh -euc '
    ip addr add "$2.1$1/24" dev eth0
    ip link set eth0 up
    ip route replace unreachable default
    ip route add "$3.0.0/16" dev eth0
    sysctl -qw net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1' sh "$n" "$NET" "$SERVICE_NET"
  for other in $(nodes); do
    [ "$other" = "$n" ] || net_exec "n$n" ip route add "$POD_NET.$other.0/24" via "$NET.1$other"
  done
}

net_link() { net_exec cp ip link set "sc$1" "$2"; } # net_link N up|down
