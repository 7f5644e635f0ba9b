# shellcheck shell=bash
# SEARCHCELL_CLUSTER=kind: a cluster called "searchcell" of kind, in docker. Effects: that cluster, and
# its kubeconfig in the cache; the user's own kubeconfig stays as it is.

KIND_KUBECONFIG=$CACHE/kind/kubeconfig

cluster_build() { :; }

cluster_up() {
  command -v kind >/dev/null || die "kind is not installed"
  mkdir -p "$CACHE/kind"
  if kind get clusters 2>/dev/null | grep -qx searchcell; then
    kind export kubeconfig --name searchcell --kubeconfig "$KIND_KUBECONFIG" >/dev/null
  else
    step "creating a kind cluster" kind create cluster --config "$CLUSTER_DIR/../kind.yaml" --name searchcell \
      --kubeconfig "$KIND_KUBECONFIG" --wait 120s
  fi
  say "kind has no metrics-server: where autoscaling is tested, install one (with --kubelet-insecure-tls)"
}

cluster_down() {
  ! command -v kind >/dev/null || kind delete cluster --name searchcell --kubeconfig "$KIND_KUBECONFIG"
}

cluster_env() {
  [ -e "$KIND_KUBECONFIG" ] || die "the cluster is down: run \`$0 up\`"
  printf 'export KUBECONFIG=%q PATH="$PATH"\n' "$KIND_KUBECONFIG"
}

cluster_run() { KUBECONFIG=$KIND_KUBECONFIG exec "$@"; }

cluster_load() {
  local archive
  for archive; do kind load image-archive "$archive" --name searchcell; done
}

cluster_node() {
  local verb=$1 container
  case $2 in
  cp) container=searchcell-control-plane ;;
  1 | n1) container=searchcell-worker ;;
  *) container=searchcell-worker${2#n} ;;
  esac
  shift 2
  case $verb in
  off) docker stop -t 0 "$container" >/dev/null ;;
  on) docker start "$container" >/dev/null ;;
  cut) docker network disconnect kind "$container" ;;
  heal) docker network connect kind "$container" ;;
  exec) docker exec "$container" "$@" ;;
  stop) docker exec "$container" pkill -STOP -x "${1:?which process?}" ;;
  cont) docker exec "$container" pkill -CONT -x "${1:?which process?}" ;;
  *) impossible "node $verb" ;;
  esac
}

cluster_audit_log() { impossible "audit-log"; }

cluster_status() {
  if ! kind get clusters 2>/dev/null | grep -qx searchcell; then
    echo "kind cluster: down"
    return 1
  fi
  echo "kind cluster: up"
  kubectl --kubeconfig "$KIND_KUBECONFIG" get nodes -L topology.kubernetes.io/zone
}

cluster_logs() { kind export logs "$1" --name searchcell; }
