# shellcheck shell=bash
# Certificates and kubeconfigs, once per run of the cluster (`down` deletes them). P-256 everywhere but the
# service-account key (RS256).

pki() {
  [ ! -e "$PKI/done" ] || return 0
  rm -rf "$PKI"; mkdir -p "$PKI"
  (
    cd "$PKI"
    authority ca kubernetes-ca
    authority front front-proxy-ca
    server apiserver kube-apiserver \
      "IP:127.0.0.1,IP:$NET.1,IP:$SERVICE_NET.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
    server metrics-server metrics-server "IP:$NET.1,DNS:metrics-server.kube-system.svc"
    client admin /O=system:masters/CN=admin
    client kcm /CN=system:kube-controller-manager
    client scheduler /CN=system:kube-scheduler
    client proxy /CN=system:kube-proxy
    client coredns /CN=searchcell-e2e:coredns
    client metrics /CN=searchcell-e2e:metrics-server
    client storage /CN=searchcell-e2e:node-storage
    client policy /CN=searchcell-e2e:node-policy
    client kubelet-client /O=system:masters/CN=apiserver-kubelet-client
    certificate front-client /CN=front-proxy-client extendedKeyUsage=clientAuth front
    for n in $(nodes); do
      client "n$n" "/O=system:nodes/CN=system:node:n$n"
      certificate "n$n-server" "/O=system:nodes/CN=system:node:n$n" \
        "extendedKeyUsage=serverAuth"$'\n'"subjectAltName=IP:$NET.1$n,DNS:n$n" ca
    done
    openssl genrsa -out sa.key 2048 2>/dev/null
    openssl rsa -in sa.key -pubout -out sa.pub 2>/dev/null
    for name in admin kcm scheduler proxy coredns metrics storage policy $(nodes | sed s/^/n/); do kubeconfig "$name"; done
    touch "done"
  )
}

key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"; }
authority() {
  key "$1"
  openssl req -x509 -new -key "$1.key" -days 3650 -subj "/CN=$2" -out "$1.crt" 2>/dev/null
}
# certificate NAME SUBJECT EXTENSIONS AUTHORITY
certificate() {
  key "$1"
  openssl req -new -key "$1.key" -subj "$2" 2>/dev/null |
    openssl x509 -req -CA "$4.crt" -CAkey "$4.key" -CAcreateserial -days 3650 -extfile <(echo "$3") -out "$1.crt" 2>/dev/null
}
client() { certificate "$1" "$2" extendedKeyUsage=clientAuth ca; }
server() { certificate "$1" "/CN=$2" "extendedKeyUsage=serverAuth"$'\n'"subjectAltName=$3" ca; }
kubeconfig() {
  cat >"$1.kubeconfig" <<YAML
apiVersion: v1
kind: Config
clusters: [{name: searchcell-e2e, cluster: {server: "https://$NET.1:6443", certificate-authority: $PKI/ca.crt}}]
users: [{name: $1, user: {client-certificate: $PKI/$1.crt, client-key: $PKI/$1.key}}]
contexts: [{name: searchcell-e2e, context: {cluster: searchcell-e2e, user: $1}}]
current-context: searchcell-e2e
YAML
}
