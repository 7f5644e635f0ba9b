# shellcheck shell=bash
# SEARCHCELL_CLUSTER=current: the cluster of the current kubeconfig, which is neither made nor removed
# here. Images must be pullable, or be there already.

cluster_build() { :; }
cluster_up() {
  kubectl version --request-timeout=10s >/dev/null || die "kubectl reaches no cluster"
  say "using the current cluster: $(kubectl config current-context 2>/dev/null || echo "without a context")"
}
cluster_down() { say "the current cluster is left as it is"; }
cluster_env() { printf 'export KUBECONFIG=%q PATH="$PATH"\n' "${KUBECONFIG:-$HOME/.kube/config}"; }
cluster_run() { exec "$@"; }
cluster_load() { impossible "load (push the image to a registry of that cluster instead)"; }
cluster_node() { impossible "node $1"; }
cluster_audit_log() { impossible "audit-log"; }
cluster_status() { kubectl get nodes -L topology.kubernetes.io/zone; }
cluster_logs() { impossible "logs"; }
