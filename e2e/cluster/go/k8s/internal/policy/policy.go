// Package policy is the node-policy agent: it enforces NetworkPolicy for the pods of one node with
// nftables. Every change yields a whole new table, loaded in one transaction.
//
// Supported: ingress and egress, podSelector, namespaceSelector, ipBlock with except, ports (numbers,
// names, ranges). Not: SCTP, host-network pods as peers. As the API demands, a node's own probes and
// replies of allowed connections always pass.
package policy

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	networkinglisters "k8s.io/client-go/listers/networking/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

const settle = 50 * time.Millisecond // gathers a burst of events into one ruleset

type agent struct {
	node       string
	pods       corelisters.PodLister
	namespaces corelisters.NamespaceLister
	policies   networkinglisters.NetworkPolicyLister
}

func NewCommand() *cobra.Command {
	var kubeconfig, node string
	command := &cobra.Command{
		Use:          "node-policy",
		Short:        "enforces NetworkPolicy on one node",
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
			if err != nil {
				return err
			}
			client, err := kubernetes.NewForConfig(config)
			if err != nil {
				return err
			}
			return run(cmd.Context(), client, node)
		},
	}
	command.Flags().StringVar(&kubeconfig, "kubeconfig", "", "how to reach the API server")
	command.Flags().StringVar(&node, "node", "", "name of this node")
	return command
}

func run(ctx context.Context, client kubernetes.Interface, node string) error {
	factory := informers.NewSharedInformerFactory(client, 0)
	core, networking := factory.Core().V1(), factory.Networking().V1()
	a := &agent{
		node: node, pods: core.Pods().Lister(), namespaces: core.Namespaces().Lister(),
		policies: networking.NetworkPolicies().Lister(),
	}
	changed := make(chan struct{}, 1)
	notify := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { notify() },
		UpdateFunc: func(any, any) { notify() },
		DeleteFunc: func(any) { notify() },
	}
	for _, informer := range []cache.SharedIndexInformer{
		core.Pods().Informer(), core.Namespaces().Informer(), networking.NetworkPolicies().Informer(),
	} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return err
		}
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	var loaded string
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			time.Sleep(settle)
			ruleset, err := a.ruleset()
			if err == nil && ruleset != loaded {
				err = load(ruleset)
			}
			if err != nil {
				klog.ErrorS(err, "failed to load the ruleset")
				time.AfterFunc(time.Second, notify)
				continue
			}
			loaded = ruleset
		}
	}
}

func load(ruleset string) error {
	nft := exec.Command("nft", "-f", "-")
	nft.Stdin = strings.NewReader(ruleset)
	if output, err := nft.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s\n%s", err, output, ruleset)
	}
	klog.InfoS("Loaded", "bytes", len(ruleset))
	return nil
}

// ruleset is the whole table. One chain per isolated pod and direction; what its policies allow is
// accepted, the rest dropped. The sender's node checks egress, the receiver's ingress; a packet
// between two pods of one node passes both, so "accept" of one direction is `return`.
func (a *agent) ruleset() (string, error) {
	pods, err := a.pods.List(labels.Everything())
	if err != nil {
		return "", err
	}
	policies, err := a.policies.List(labels.Everything())
	if err != nil {
		return "", err
	}
	byName := func(x, y metav1.Object) int {
		return strings.Compare(x.GetNamespace()+"/"+x.GetName(), y.GetNamespace()+"/"+y.GetName())
	}
	slices.SortFunc(pods, func(x, y *corev1.Pod) int { return byName(x, y) })
	slices.SortFunc(policies, func(x, y *networkingv1.NetworkPolicy) int { return byName(x, y) })

	var chains, hook bytes.Buffer
	for _, pod := range pods {
		if pod.Spec.NodeName != a.node || !reachable(pod) {
			continue
		}
		for _, direction := range []networkingv1.PolicyType{networkingv1.PolicyTypeEgress, networkingv1.PolicyTypeIngress} {
			isolated, rules := a.rules(pod, direction, policies, pods)
			if !isolated {
				continue
			}
			ours := map[networkingv1.PolicyType]string{
				networkingv1.PolicyTypeEgress: "saddr", networkingv1.PolicyTypeIngress: "daddr",
			}[direction]
			chain := strings.ToLower(string(direction)) + "-" + strings.ReplaceAll(pod.Status.PodIP, ".", "-")
			fmt.Fprintf(&chains, "  chain %s {\n%s    drop\n  }\n", chain, rules)
			fmt.Fprintf(&hook, "    ip %s %s jump %s\n", ours, pod.Status.PodIP, chain)
		}
	}
	// `add` before `delete` makes the first load work as well; the file is one transaction
	return fmt.Sprintf(`table inet searchcell-policy {}
delete table inet searchcell-policy
table inet searchcell-policy {
%s  chain forward {
    type filter hook forward priority filter; policy accept;
    ct state established,related accept
%s  }
}
`, chains.String(), hook.String()), nil
}

func reachable(pod *corev1.Pod) bool {
	return !pod.Spec.HostNetwork && pod.Status.PodIP != "" &&
		pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed
}

// rules of one pod in one direction, and whether any policy isolates it at all
func (a *agent) rules(pod *corev1.Pod, direction networkingv1.PolicyType,
	policies []*networkingv1.NetworkPolicy, pods []*corev1.Pod,
) (isolated bool, rules string) {
	var out bytes.Buffer
	for _, policy := range policies {
		if policy.Namespace != pod.Namespace || !applies(policy, direction) || !matches(&policy.Spec.PodSelector, pod.Labels) {
			continue
		}
		isolated = true
		if direction == networkingv1.PolicyTypeIngress {
			for _, rule := range policy.Spec.Ingress {
				a.allow(&out, "saddr", policy.Namespace, rule.From, rule.Ports, []*corev1.Pod{pod}, pods)
			}
		} else {
			for _, rule := range policy.Spec.Egress {
				a.allow(&out, "daddr", policy.Namespace, rule.To, rule.Ports, nil, pods)
			}
		}
	}
	return isolated, out.String()
}

func applies(policy *networkingv1.NetworkPolicy, direction networkingv1.PolicyType) bool {
	if len(policy.Spec.PolicyTypes) > 0 { // the API server defaults it, so this is every policy
		return slices.Contains(policy.Spec.PolicyTypes, direction)
	}
	return direction == networkingv1.PolicyTypeIngress || len(policy.Spec.Egress) > 0
}

// allow writes one rule. targets own the port names; nil means the peers do (egress).
func (a *agent) allow(out *bytes.Buffer, field, namespace string, peers []networkingv1.NetworkPolicyPeer,
	ports []networkingv1.NetworkPolicyPort, targets, pods []*corev1.Pod,
) {
	var addresses []string // matches on the peer; an empty one matches all
	var peerPods []*corev1.Pod
	if len(peers) == 0 {
		addresses, peerPods = []string{""}, pods
	}
	for _, peer := range peers {
		if peer.IPBlock != nil {
			match := fmt.Sprintf("ip %s %s ", field, peer.IPBlock.CIDR)
			if len(peer.IPBlock.Except) > 0 {
				match += fmt.Sprintf("ip %s != { %s } ", field, strings.Join(peer.IPBlock.Except, ", "))
			}
			addresses = append(addresses, match)
			continue
		}
		for _, pod := range pods {
			if reachable(pod) && a.selects(peer, namespace, pod) {
				peerPods = append(peerPods, pod)
				addresses = append(addresses, fmt.Sprintf("ip %s %s ", field, pod.Status.PodIP))
			}
		}
	}
	if targets == nil {
		targets = peerPods
	}
	for _, address := range addresses {
		if len(ports) == 0 {
			fmt.Fprintf(out, "    %sreturn\n", address)
		}
		for _, port := range ports {
			for _, match := range portMatches(port, targets) {
				fmt.Fprintf(out, "    %s%s return\n", address, match)
			}
		}
	}
}

func (a *agent) selects(peer networkingv1.NetworkPolicyPeer, namespace string, pod *corev1.Pod) bool {
	if peer.NamespaceSelector == nil {
		if pod.Namespace != namespace {
			return false
		}
	} else {
		ns, err := a.namespaces.Get(pod.Namespace)
		if err != nil || !matches(peer.NamespaceSelector, ns.Labels) {
			return false
		}
	}
	return peer.PodSelector == nil || matches(peer.PodSelector, pod.Labels)
}

func matches(selector *metav1.LabelSelector, set map[string]string) bool {
	parsed, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && parsed.Matches(labels.Set(set))
}

func portMatches(port networkingv1.NetworkPolicyPort, targets []*corev1.Pod) []string {
	protocol := "tcp"
	if port.Protocol != nil {
		protocol = strings.ToLower(string(*port.Protocol))
	}
	switch {
	case port.Port == nil:
		return []string{"meta l4proto " + protocol}
	case port.Port.Type == intstr.String:
		numbers := map[int32]bool{}
		for _, pod := range targets {
			for _, container := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
				for _, p := range container.Ports {
					if p.Name == port.Port.StrVal && strings.EqualFold(string(p.Protocol), protocol) {
						numbers[p.ContainerPort] = true
					}
				}
			}
		}
		var out []string
		for number := range numbers {
			out = append(out, fmt.Sprintf("%s dport %d", protocol, number))
		}
		slices.Sort(out)
		return out
	case port.EndPort != nil:
		return []string{fmt.Sprintf("%s dport %d-%d", protocol, port.Port.IntVal, *port.EndPort)}
	default:
		return []string{fmt.Sprintf("%s dport %d", protocol, port.Port.IntVal)}
	}
}
