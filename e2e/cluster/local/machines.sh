# shellcheck shell=bash disable=SC2034
# Machines of the local cluster. A machine is a set of Linux namespaces (net, mount, pid, uts, ipc) held
# by one init process, with its own /run, /var and cgroups. `cp` is the control plane, `n1`.. are the
# nodes. Killing the init is pulling the plug: the kernel ends every process, mount and interface of
# that machine at once. Nothing is searched by name, so no stranger's process can be hit.

NODES=3
NET=10.77.0              # machines: cp is .1, node N is .1N
POD_NET=10.244           # pods of node N: $POD_NET.N.0/24
SERVICE_NET=10.96        # services: $SERVICE_NET.0.0/16
DNS_IP=$SERVICE_NET.0.10
PREFIX=sc                # of the cgroups
CGROUPS=(cpu cpuacct cpuset memory devices freezer blkio pids systemd) # v1, every controller on its own
LOCAL=$CACHE/local       # all state of the local cluster: one per user of the computer, not per checkout
BIN=$LOCAL/bin PKI=$LOCAL/pki RUN=$LOCAL/run LOG=$LOCAL/log AUDIT=$LOCAL/audit IMAGES=$LOCAL/images

nodes() { seq 1 "$NODES"; }
machines() { nodes | sed s/^/n/; echo cp; }
zone() { printf 'zone-%b' "\\x$(printf %x $((96 + $1)))"; }

# A process is ours only while it is the one we started: pid and start time are remembered.
started_at() { awk '{sub(/.*\) /, ""); print $20}' "/proc/$1/stat" 2>/dev/null; }
recorded() { # recorded FILE: the pid in it, if that process still lives
  local pid start
  read -r pid start 2>/dev/null <"$RUN/$1" || return 1
  [ "$(started_at "$pid")" = "$start" ] && echo "$pid"
}
machine_pid() { recorded "$1.machine"; }

# detached LOG COMMAND...: start a daemon which has nothing of the caller: no terminal, no open files
# (locks, pipes of make), no environment, no working folder
detached() {
  local log=$1
  shift
  (
    exec </dev/null >>"$log" 2>&1
    for fd in /proc/"$BASHPID"/fd/*; do
      fd=${fd##*/}
      case $fd in 0 | 1 | 2 | 255) ;; *) eval "exec $fd>&-" ;; esac # bash closes 255 by itself
    done
    trap - EXIT HUP INT TERM
    cd /
    umask 022
    exec setsid env -i PATH="$BIN:$BIN/runtime:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
      HOME=/root LANG=C.UTF-8 "$@"
  ) &
  DETACHED_PID=$!
}

# machine_on NAME: make the namespaces; the machine has an empty /run and its own, lasting /var
machine_on() {
  local name=$1 dir=$LOCAL/$1 pid
  ! machine_pid "$name" >/dev/null || return 0
  mkdir -p "$dir/var"/{lib,log,tmp}
  ln -sfn ../run "$dir/var/run"
  # the name of the state folder is for `stranger`
  detached /dev/null unshare --mount --net --pid --uts --ipc --fork --kill-child --mount-proc --propagation private \
    "$BIN/init" "$LOCAL"
  disown
  echo "$DETACHED_PID $(started_at "$DETACHED_PID")" >"$RUN/$name.parent" # what machine_off needs if we fail below
  wait_for 20 "machine $name" pgrep -P "$DETACHED_PID"
  pid=$(pgrep -P "$DETACHED_PID")
  # the child execs init only after its namespaces and /proc are there
  wait_for 20 "init of $name" test "/proc/$pid/exe" -ef "$BIN/init"
  cgroups_on "$name" "$pid"
  echo "$pid $(started_at "$pid")" >"$RUN/$name.machine"
  machine_exec "$name" sh -euc '
    hostname "$1"
    mount --make-rshared /
    mount -t tmpfs -o mode=755 run /run
    mount --bind "$2/var" /var
    if [ -e "$2/resolv.conf" ]; then
      resolv=$(readlink -m /etc/resolv.conf) # often a link into /run, which is empty now
      [ -e "$resolv" ] || { mkdir -p "$(dirname "$resolv")"; : >"$resolv"; }
      mount --bind "$2/resolv.conf" "$resolv"
    fi
    ip link set lo up' sh "$name" "$dir"
}

machine_exec() {
  local name=$1 pid
  shift
  pid=$(machine_pid "$name") || die "machine $name is off"
  PATH=$BIN:$BIN/runtime:$PATH nsenter -t "$pid" -m -n -p -u -i -- "$@"
}

# net_exec MACHINE COMMAND...: in its network only
net_exec() {
  local name=$1 pid
  shift
  pid=$(machine_pid "$name") || die "machine $name is off"
  PATH=$BIN:$PATH KUBECONFIG=$PKI/admin.kubeconfig nsenter -t "$pid" -n -- "$@"
}

# machine_spawn NAME PROCESS COMMAND...: start a daemon in the machine and its cgroups; its pid, which
# is one of the machine's own numbering, is remembered in the machine's /run
machine_spawn() {
  local name=$1 process=$2 pid
  shift 2
  pid=$(machine_pid "$name") || die "machine $name is off"
  ! machine_runs "$name" "$process" || return 0
  mkdir -p "$LOG"
  # shellcheck disable=SC2016
  local inner='echo $$ >"/run/$0.pid"; exec "$@"'
  # In the background, so that the machine's init becomes its parent and reaps it: as its parent outside,
  # nsenter would stop along with it and then keep the machine from ending.
  # shellcheck disable=SC2016
  detached "$LOG/$name-$process.log" nsenter -t "$pid" -m -n -p -u -i -- sh -euc '
    for dir in /sys/fs/cgroup/*/"$0"; do echo 0 >"$dir/cgroup.procs"; done
    rm -f "/run/$2.pid"
    ulimit -n "$(ulimit -Hn)"
    setsid sh -c "$@" &' "$PREFIX-$name" "$inner" "$process" "$@"
  wait "$DETACHED_PID" || die "$process of $name did not start"
  wait_for 20 "start of $process of $name" machine_exec "$name" test -e "/run/$process.pid"
}

machine_signal() { # machine_signal NAME PROCESS SIGNAL
  # shellcheck disable=SC2016
  machine_exec "$1" sh -c 'kill -"$1" "$(cat "/run/$0.pid")"' "$2" "$3"
}
machine_kill() { # machine_kill NAME PROCESS: and wait until it is gone, so that its ports are free again
  machine_signal "$1" "$2" KILL
  wait_for 30 "end of $2 of $1" eval "! machine_runs '$1' '$2'"
}
machine_runs() { # a zombie, which nobody has reaped yet, runs no more
  # shellcheck disable=SC2016
  machine_exec "$1" sh -c '[ -e "/run/$0.pid" ] && kill -0 "$(cat "/run/$0.pid")"' "$2" 2>/dev/null
}
machine_processes() { machine_exec "$1" sh -c 'cd /run; for f in *.pid; do echo "${f%.pid}"; done'; }

machine_off() {
  local name=$1 record pid
  for record in "$name.machine" "$name.parent"; do # the parent takes its child along
    if pid=$(recorded "$record"); then
      kill -KILL "$pid"
      wait_for 30 "end of $name" test ! -d "/proc/$pid"
    fi
    rm -f "$RUN/$record"
  done
  cgroups_off "$name"
}

# strangers: machines (their init, or the unshare before it) which no record of ours knows, of this or of
# another state folder: lines of pid and folder
strangers() {
  local pid
  for pid in $(pgrep -f '/local/bin/init /.*/local$'); do
    case $(readlink "/proc/$pid/exe") in */init | */unshare) ;; *) continue ;; esac
    ! grep -qsx "$pid .*" "$RUN"/*.machine "$RUN"/*.parent || continue
    tr '\0' '\n' <"/proc/$pid/cmdline" | awk -v pid="$pid" 'END {print pid, $0}'
  done
}

# --- cgroups ----------------------------------------------------------------------------------------

cgroups_on() {
  local name=$1 pid=$2 c dir
  for c in "${CGROUPS[@]}"; do
    dir=/sys/fs/cgroup/$c/$PREFIX-$name
    mkdir -p "$dir"
    if [ "$c" = cpuset ]; then
      cat /sys/fs/cgroup/cpuset/cpuset.cpus >"$dir/cpuset.cpus"
      cat /sys/fs/cgroup/cpuset/cpuset.mems >"$dir/cpuset.mems"
    fi
    echo "$pid" >"$dir/cgroup.procs"
  done
}

cgroups_off() {
  local c dir
  for c in "${CGROUPS[@]}" unified; do # runc also makes one in the otherwise unused v2 hierarchy
    dir=/sys/fs/cgroup/$c/$PREFIX-$1
    for _ in 1 2 3 4 5 6 7 8 9 10; do
      [ -d "$dir" ] || break
      find "$dir" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.1
    done
  done
}

# --- host-wide sysctls ------------------------------------------------------------------------------

# The kubelet rewrites the first three for the whole host; Elasticsearch needs the fourth; three
# kubelets and containerds need the last.
SYSCTLS=(vm.overcommit_memory kernel.panic kernel.panic_on_oops vm.max_map_count fs.inotify.max_user_instances)
sysctls_save() {
  if [ ! -e "$RUN/sysctls" ]; then
    sysctl "${SYSCTLS[@]}" >"$RUN/sysctls.part"
    mv "$RUN/sysctls.part" "$RUN/sysctls"
  fi
  sysctl -qw vm.max_map_count=1048576 fs.inotify.max_user_instances=1024
}
sysctls_restore() {
  [ -e "$RUN/sysctls" ] || return 0
  sysctl -qp "$RUN/sysctls"
  rm "$RUN/sysctls"
}
