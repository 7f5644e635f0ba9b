# shellcheck shell=bash
# SEARCHCELL_CLUSTER=local: a real Kubernetes of three nodes in three zones on this computer, without
# docker. State lies in $LOCAL; `up` and `down` are the only ones to make and to remove it.

for part in machines build pki net control-plane images node; do
  # shellcheck source=/dev/null
  . "$CLUSTER_DIR/local/$part.sh"
done

is_up() { [ -e "$RUN/up" ] && machine_pid cp >/dev/null; }
need_up() { is_up || die "the cluster is down: run \`$0 up\`"; }

cluster_build() { local_build; }

cluster_up() {
  [ -d /sys/fs/cgroup/pids ] || die "the local cluster needs cgroup v1 controllers below /sys/fs/cgroup; use kind here"
  local began
  is_up || cluster_build
  lock local 300
  began=${EPOCHREALTIME/./}
  if is_up; then
    [ "$BIN/kubelet" -ef "$(go_dir k8s)/k8s" ] || say "the running cluster was built from other sources than these; \`down\` first to change it"
    local_repair
  else
    [ -d "$(go_dir k8s)" ] || die "the cluster was taken down just now: once more, please"
    local_refuse_stranger
    local_remove # what a killed `up` may have left
    # a failed or interrupted `up` leaves nothing; SEARCHCELL_KEEP=1 leaves it for a look
    trap local_undo EXIT
    local_make
    touch "$RUN/up"
    trap step_end EXIT
  fi
  say "$NODES nodes ready after $(((${EPOCHREALTIME/./} - began) / 1000)) ms; in a shell: eval \"\$($0 env)\""
}

local_undo() {
  local code=$?
  [ "$code" != 0 ] || return 0
  trap '' HUP INT TERM
  # shellcheck disable=SC2046
  kill $(jobs -p) 2>/dev/null || true
  wait
  if [ -z "${SEARCHCELL_KEEP:-}" ]; then
    say "taking down what was begun; logs: $LOG"
    local_remove
  fi
  exit "$code"
}

local_make() {
  local n pid starting=()
  rm -rf "$LOG" "$AUDIT"
  mkdir -p "$RUN" "$LOG" "$AUDIT"
  local_link
  local_shell
  sysctls_save
  pki
  store_build
  control_plane
  local_manifests
  start_addons
  for n in $(nodes); do
    node_up "$n" &
    starting+=($!)
  done
  for pid in "${starting[@]}"; do wait "$pid"; done
  local_ready
}

local_manifests() {
  local file
  for file in "$CLUSTER_DIR"/manifests/*.yaml; do
    echo ---
    cat "$file"
  done | sed "s/@CA_BUNDLE@/$(base64 -w0 <"$PKI/ca.crt")/" |
    net_exec cp kubectl apply --server-side --force-conflicts -f - >"$LOG/manifests.log"
}

local_ready() {
  local n
  for n in $(nodes); do
    wait_for 120 "node n$n" net_exec cp kubectl get node "n$n"
  done
  net_exec cp kubectl wait --for=condition=Ready node --all --timeout=120s >/dev/null
  wait_for 60 "the default ServiceAccount" net_exec cp kubectl get serviceaccount default
}

# Undo whatever faults a test has left.
local_repair() {
  local name process
  for process in $(machine_processes cp); do machine_signal cp "$process" CONT 2>/dev/null || true; done
  for process in etcd kube-apiserver kube-controller-manager kube-scheduler coredns metrics-server kube-proxy; do
    cp_start "$process"
  done
  for name in $(nodes); do
    if machine_pid "n$name" >/dev/null; then
      for process in $(machine_processes "n$name"); do machine_signal "n$name" "$process" CONT 2>/dev/null || true; done
      net_link "$name" up
    fi
    node_up "$name"
  done
  local_ready
}

local_remove() {
  local name pid folder ending=() left=0
  # e.g. someone deleted the cache under a running cluster, or `up` was killed at the wrong moment
  while read -r pid folder; do
    [ "$folder" != "$LOCAL" ] || kill -KILL "$pid" 2>/dev/null || true
  done < <(strangers)
  for name in $(machines) import; do
    machine_off "$name" &
    ending+=($!)
  done
  for pid in "${ending[@]}"; do wait "$pid" || left=1; done
  [ $left = 0 ] || die "some machine did not end"
  if [ -d "$RUN" ]; then sysctls_restore; fi
  for name in $(machines) import pki run bin path; do rm -rf "${LOCAL:?}/$name"; done
}

local_refuse_stranger() {
  local pid folder
  while read -r pid folder; do
    [ "$folder" = "$LOCAL" ] || die "another local cluster is up, of the cache ${folder%/local} (process $pid): take it down first," \
      "with SEARCHCELL_CACHE=${folder%/local} $0 down"
  done < <(strangers)
}

cluster_down() {
  local began=$SECONDS
  mkdir -p "$RUN"
  lock local 300
  local_remove
  say "down after $((SECONDS - began)) s"
}

# local_shell: commands for a shell of the host; they know the state folder, not the checkout
local_shell() {
  mkdir -p "$LOCAL/path"
  cat >"$LOCAL/path/searchcell-enter" <<SH
#!/bin/bash
# searchcell-enter COMMAND...: run it in the local cluster's network, with the cluster's DNS: API server,
# pods, ClusterIPs and names like NAME.NAMESPACE.svc are reachable, nothing outside is. Signals, exit
# code and files are the caller's.
set -euo pipefail
state=$(printf %q "$LOCAL")
pid= start=
read -r pid start 2>/dev/null <"\$state/run/cp.machine" || true
if [ -z "\$pid" ] || [ "\$(awk '{sub(/.*\\) /, ""); print \$20}' "/proc/\$pid/stat" 2>/dev/null)" != "\$start" ]; then
  echo "the local cluster is down" >&2
  exit 1
fi
unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY # unreachable from there
export KUBECONFIG=\${KUBECONFIG:-\$state/pki/admin.kubeconfig}
case :\$PATH: in *:"\$state/path":*) ;; *) PATH=\$state/path:\$PATH ;; esac
exec nsenter -t "\$pid" -n -- unshare --mount --propagation private -- \\
  sh -c 'mount --bind "\$0" /etc/resolv.conf && exec "\$@"' "\$state/cp/resolv.conf" "\$@"
SH
  cat >"$LOCAL/path/kubectl" <<SH
#!/bin/bash
# kubectl ARGUMENT...: the local cluster's kubectl, in its network
exec $(printf %q "$LOCAL/path/searchcell-enter") $(printf %q "$LOCAL/bin/kubectl") "\$@"
SH
  chmod 755 "$LOCAL/path/"*
}

cluster_env() {
  need_up
  printf 'export KUBECONFIG=%q PATH=%q:"$PATH"\n' "$PKI/admin.kubeconfig" "$LOCAL/path"
}

cluster_run() {
  need_up
  KUBECONFIG=$PKI/admin.kubeconfig exec "$LOCAL/path/searchcell-enter" "$@"
}

cluster_load() { local_load "$@"; }

# cluster_node VERB N [PROCESS|COMMAND...]
cluster_node() {
  local verb=$1 name=$2 n
  shift 2
  need_up
  n=${name#n}
  case $n in
  cp) name="cp" ;;
  [1-"$NODES"]) name=n$n ;;
  *) die "no such node: $name (1 to $NODES, or cp)" ;;
  esac
  case $verb:$name in
  exec:*) machine_exec "$name" "$@" ;;
  kill:*) machine_kill "$name" "${1:?which process?}" ;;
  stop:*) machine_signal "$name" "${1:?which process?}" STOP ;;
  cont:*) machine_signal "$name" "${1:?which process?}" CONT ;;
  start:cp) cp_start "${1:?which process?}" ;;
  start:*) node_start "$n" "${1:?which process?}" ;;
  *:cp) impossible "node $verb cp" ;;
  off:*) machine_off "$name" ;;
  on:*) node_up "$n" ;;
  cut:*) net_link "$n" down ;;
  heal:*) net_link "$n" up ;;
  *) usage ;;
  esac
}

cluster_audit_log() { echo "$AUDIT/audit.log"; }

cluster_status() {
  local name
  if ! is_up; then
    echo "local cluster: down"
    return 1
  fi
  echo "local cluster: up, state in $LOCAL"
  for name in $(machines); do
    if machine_pid "$name" >/dev/null; then
      echo "$name: on, running: $(local_running "$name")"
    else
      echo "$name: off"
    fi
  done
  net_exec cp kubectl get nodes -L topology.kubernetes.io/zone --request-timeout=5s
}
local_running() {
  local process
  for process in $(machine_processes "$1"); do
    if machine_runs "$1" "$process"; then printf '%s ' "$process"; else printf '%s(dead) ' "$process"; fi
  done
}

# cluster_logs DIR: of the components (also after `down`, until the next `up`), and of the pods
cluster_logs() {
  local n
  mkdir -p "$1"
  cp -r "$LOG/." "$1/"
  for n in $(nodes); do
    if [ -d "$LOCAL/n$n/var/log/pods" ]; then
      mkdir -p "$1/pods/n$n"
      cp -r "$LOCAL/n$n/var/log/pods/." "$1/pods/n$n/"
    fi
  done
}
