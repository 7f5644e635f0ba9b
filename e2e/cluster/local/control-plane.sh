# shellcheck shell=bash
# etcd, kube-apiserver, kube-controller-manager, kube-scheduler, CoreDNS, metrics-server and a
# kube-proxy (so that processes entered into this machine reach ClusterIPs), all in machine `cp`.

control_plane() {
  mkdir -p "$LOCAL/cp"
  cp "$CLUSTER_DIR/audit-policy.yaml" "$LOCAL/cp/"
  printf 'nameserver %s.1\nsearch svc.cluster.local cluster.local\noptions ndots:2\n' "$NET" >"$LOCAL/cp/resolv.conf"
  machine_on cp
  net_cp
  start_etcd
  start_apiserver
  wait_for 120 kube-apiserver net_exec cp curl -sf --cacert "$PKI/ca.crt" --cert "$PKI/admin.crt" --key "$PKI/admin.key" \
    "https://$NET.1:6443/readyz"
  start_controller_manager
  start_scheduler
}

start_etcd() {
  machine_spawn cp etcd etcd --data-dir /var/lib/etcd --unsafe-no-fsync --log-level warn \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
    --initial-cluster default=http://127.0.0.1:2380
}

start_apiserver() {
  mkdir -p "$AUDIT"
  machine_spawn cp kube-apiserver kube-apiserver \
    --etcd-servers=http://127.0.0.1:2379 \
    --bind-address=0.0.0.0 --advertise-address="$NET.1" --secure-port=6443 \
    --tls-cert-file="$PKI/apiserver.crt" --tls-private-key-file="$PKI/apiserver.key" --client-ca-file="$PKI/ca.crt" \
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
    --feature-gates="${FEATURE_GATES:-MutatingAdmissionPolicy=true}" \
    --runtime-config="${RUNTIME_CONFIG:-admissionregistration.k8s.io/v1beta1=true}" \
    --default-not-ready-toleration-seconds=10 --default-unreachable-toleration-seconds=10 \
    --service-account-issuer=https://kubernetes.default.svc.cluster.local \
    --service-account-key-file="$PKI/sa.pub" --service-account-signing-key-file="$PKI/sa.key" \
    --service-cluster-ip-range="$SERVICE_NET.0.0/16" --allow-privileged=true \
    --kubelet-client-certificate="$PKI/kubelet-client.crt" --kubelet-client-key="$PKI/kubelet-client.key" \
    --kubelet-certificate-authority="$PKI/ca.crt" --kubelet-preferred-address-types=InternalIP \
    --requestheader-client-ca-file="$PKI/front.crt" --requestheader-allowed-names=front-proxy-client \
    --requestheader-extra-headers-prefix=X-Remote-Extra- --requestheader-group-headers=X-Remote-Group \
    --requestheader-username-headers=X-Remote-User \
    --proxy-client-cert-file="$PKI/front-client.crt" --proxy-client-key-file="$PKI/front-client.key" \
    --enable-aggregator-routing=true --profiling=false \
    --audit-policy-file="$LOCAL/cp/audit-policy.yaml" --audit-log-path="$AUDIT/audit.log" --audit-log-format=json \
    --audit-log-maxsize=1000 --audit-log-maxbackup=3
}

start_controller_manager() {
  local c=$PKI/kcm.kubeconfig
  machine_spawn cp kube-controller-manager kube-controller-manager \
    --kubeconfig="$c" --authentication-kubeconfig="$c" --authorization-kubeconfig="$c" \
    --bind-address=127.0.0.1 --leader-elect=false --use-service-account-credentials \
    --service-account-private-key-file="$PKI/sa.key" --root-ca-file="$PKI/ca.crt" \
    --cluster-signing-cert-file="$PKI/ca.crt" --cluster-signing-key-file="$PKI/ca.key" \
    --kube-api-qps=300 --kube-api-burst=600 \
    --allocate-node-cidrs=false --node-monitor-period=2s --node-monitor-grace-period=16s \
    --horizontal-pod-autoscaler-sync-period=5s --horizontal-pod-autoscaler-cpu-initialization-period=10s \
    --horizontal-pod-autoscaler-initial-readiness-delay=5s --horizontal-pod-autoscaler-downscale-stabilization=30s
}

start_scheduler() {
  local c=$PKI/scheduler.kubeconfig
  machine_spawn cp kube-scheduler kube-scheduler \
    --kubeconfig="$c" --authentication-kubeconfig="$c" --authorization-kubeconfig="$c" \
    --bind-address=127.0.0.1 --leader-elect=false --kube-api-qps=300 --kube-api-burst=600
}

# Programs which need the objects of manifests/
start_addons() {
  start_coredns
  start_metrics_server
  start_proxy cp "$NET.1" n1 # cp is no Node, and kube-proxy would wait 30 s for one
}

start_coredns() {
  cat >"$LOCAL/cp/Corefile" <<CONF
cluster.local:53 in-addr.arpa:53 ip6.arpa:53 {
  bind $NET.1
  errors
  kubernetes {
    kubeconfig $PKI/coredns.kubeconfig
    pods insecure
    ttl 2
  }
  cache {
    success 2000 2 0
    denial 2000 1 0
  }
}
.:53 {
  bind $NET.1
  ready $NET.1:8181
  template ANY ANY {
    rcode NXDOMAIN
  }
}
CONF
  machine_spawn cp coredns coredns -conf "$LOCAL/cp/Corefile"
}

start_metrics_server() {
  local c=$PKI/metrics.kubeconfig
  machine_spawn cp metrics-server metrics-server \
    --kubeconfig="$c" --authentication-kubeconfig="$c" --authorization-kubeconfig="$c" \
    --bind-address="$NET.1" --secure-port=4443 \
    --tls-cert-file="$PKI/metrics-server.crt" --tls-private-key-file="$PKI/metrics-server.key" \
    --kubelet-preferred-address-types=InternalIP --kubelet-certificate-authority="$PKI/ca.crt" \
    --metric-resolution=10s --kubelet-request-timeout=5s # the one must exceed the other, or it panics
}

# cp_start PROCESS: also to bring a killed one back
cp_start() {
  case $1 in
  etcd) start_etcd ;;
  kube-apiserver) start_apiserver ;;
  kube-controller-manager) start_controller_manager ;;
  kube-scheduler) start_scheduler ;;
  coredns) start_coredns ;;
  metrics-server) start_metrics_server ;;
  kube-proxy) start_proxy cp "$NET.1" n1 ;;
  *) die "unknown process $1 of cp" ;;
  esac
}

# start_proxy MACHINE IP [NODE]; a kube-proxy ends itself when its configuration is written again, be it the same
start_proxy() {
  mkdir -p "$LOCAL/$1"
  put "$LOCAL/$1/kube-proxy.yaml" <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
hostnameOverride: ${3:-$1}
bindAddress: $2
clusterCIDR: $POD_NET.0.0/16
clientConnection: {kubeconfig: $PKI/proxy.kubeconfig}
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
linux: {oomScoreAdj: 0}
metricsBindAddress: 127.0.0.1:10249
YAML
  machine_spawn "$1" kube-proxy kube-proxy --config="$LOCAL/$1/kube-proxy.yaml"
}
