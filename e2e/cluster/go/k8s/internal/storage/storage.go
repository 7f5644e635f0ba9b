// Package storage is the node-storage agent: a dynamic provisioner of `local` volumes, one per node.
//
// Volumes stay on their node (node affinity), survive its power-off, grow on request, and are removed
// with their claim. `kind: directory` is a plain folder; `kind: xfs` is a file system of the exact
// size on a loop device, so that a full disk and a grown one look to a pod as they do in production.
package storage

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

const (
	provisioner       = "e2e.searchcell.dev/node-storage"
	provisionedBy     = "pv.kubernetes.io/provisioned-by"
	selectedNode      = "volume.kubernetes.io/selected-node"
	kindAnnotation    = "e2e.searchcell.dev/kind"
	resync            = 10 * time.Second
	pauseAfterFailure = time.Second
)

type agent struct {
	node    string
	disk    disk
	client  kubernetes.Interface
	claims  corelisters.PersistentVolumeClaimLister
	volumes corelisters.PersistentVolumeLister
	classes storagelisters.StorageClassLister
}

func NewCommand() *cobra.Command {
	var kubeconfig, node, root string
	command := &cobra.Command{
		Use:          "node-storage",
		Short:        "dynamic provisioner of local volumes on one node",
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
			return run(cmd.Context(), client, node, disk{root: root})
		},
	}
	command.Flags().StringVar(&kubeconfig, "kubeconfig", "", "how to reach the API server")
	command.Flags().StringVar(&node, "node", "", "name of this node")
	command.Flags().StringVar(&root, "root", "/var/lib/node-storage", "folder of the volumes")
	return command
}

func run(ctx context.Context, client kubernetes.Interface, node string, disk disk) error {
	if err := disk.mountAll(); err != nil { // after a power-off
		return err
	}
	factory := informers.NewSharedInformerFactory(client, resync)
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
	core := factory.Core().V1()
	a := &agent{
		node: node, disk: disk, client: client,
		claims:  core.PersistentVolumeClaims().Lister(),
		volumes: core.PersistentVolumes().Lister(),
		classes: factory.Storage().V1().StorageClasses().Lister(),
	}
	for _, informer := range []cache.SharedIndexInformer{
		core.PersistentVolumeClaims().Informer(), core.PersistentVolumes().Informer(),
	} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return err
		}
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			if !a.reconcile(ctx) {
				time.AfterFunc(pauseAfterFailure, notify)
			}
		}
	}
}

// reconcile brings every claim and volume of this node one step on; false asks for another try.
func (a *agent) reconcile(ctx context.Context) bool {
	claims, err := a.claims.List(labels.Everything())
	if err != nil {
		return false
	}
	volumes, err := a.volumes.List(labels.Everything())
	if err != nil {
		return false
	}
	ok := true
	try := func(what, name string, err error) {
		if err != nil {
			klog.ErrorS(err, "failed to "+what, "name", name)
			ok = false
		}
	}
	for _, claim := range claims {
		if class := a.classOf(claim); class != nil {
			try("provision", claim.Namespace+"/"+claim.Name, a.provision(ctx, claim, class))
		}
	}
	for _, volume := range volumes {
		if !a.owns(volume) {
			continue
		}
		try("expand", volume.Name, a.expand(ctx, volume))
		try("delete", volume.Name, a.delete(ctx, volume))
	}
	return ok
}

// classOf is the class of an unbound claim that the scheduler sent to this node.
func (a *agent) classOf(claim *corev1.PersistentVolumeClaim) *storagev1.StorageClass {
	if claim.Spec.VolumeName != "" || claim.Spec.StorageClassName == nil ||
		claim.DeletionTimestamp != nil || claim.Annotations[selectedNode] != a.node {
		return nil
	}
	class, err := a.classes.Get(*claim.Spec.StorageClassName)
	if err != nil || class.Provisioner != provisioner {
		return nil
	}
	return class
}

func (a *agent) owns(volume *corev1.PersistentVolume) bool {
	return volume.Annotations[provisionedBy] == provisioner && volume.Labels[corev1.LabelHostname] == a.node
}

func (a *agent) provision(ctx context.Context, claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass) error {
	name := "pvc-" + string(claim.UID)
	if _, err := a.volumes.Get(name); err == nil {
		return nil
	}
	size := claim.Spec.Resources.Requests[corev1.ResourceStorage]
	kind := class.Parameters["kind"]
	path, err := a.disk.create(name, kind, size.Value())
	if err != nil {
		return err
	}
	volume := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name:        name,
			Labels:      map[string]string{corev1.LabelHostname: a.node},
			Annotations: map[string]string{provisionedBy: provisioner, kindAnnotation: kind},
		},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: size},
			AccessModes:                   claim.Spec.AccessModes,
			VolumeMode:                    claim.Spec.VolumeMode,
			StorageClassName:              class.Name,
			PersistentVolumeReclaimPolicy: *class.ReclaimPolicy,
			PersistentVolumeSource:        corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: path}},
			ClaimRef: &corev1.ObjectReference{
				APIVersion: "v1", Kind: "PersistentVolumeClaim",
				Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID, ResourceVersion: claim.ResourceVersion,
			},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{
				NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{
					{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{a.node}},
				}}},
			}},
		},
	}
	_, err = a.client.CoreV1().PersistentVolumes().Create(ctx, volume, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	klog.InfoS("Provisioned", "volume", name, "claim", klog.KObj(claim), "size", size.String(), "kind", kind)
	return err
}

// expand grows the volume to what its claim asks for: the file system, then the PersistentVolume,
// then the claim's status, each only once the one before is done.
func (a *agent) expand(ctx context.Context, volume *corev1.PersistentVolume) error {
	ref := volume.Spec.ClaimRef
	if ref == nil || volume.Status.Phase != corev1.VolumeBound {
		return nil
	}
	claim, err := a.claims.PersistentVolumeClaims(ref.Namespace).Get(ref.Name)
	if err != nil || claim.UID != ref.UID || claim.Spec.VolumeName != volume.Name || claim.DeletionTimestamp != nil {
		return nil
	}
	want := claim.Spec.Resources.Requests[corev1.ResourceStorage]
	have := volume.Spec.Capacity[corev1.ResourceStorage]
	if want.Cmp(have) > 0 {
		if err := a.disk.grow(volume.Name, volume.Annotations[kindAnnotation], want.Value()); err != nil {
			return err
		}
		_, err := a.client.CoreV1().PersistentVolumes().Patch(ctx, volume.Name, types.MergePatchType,
			capacity("spec", want), metav1.PatchOptions{})
		klog.InfoS("Expanded", "volume", volume.Name, "from", have.String(), "to", want.String())
		if err != nil {
			return err
		}
		have = want
	}
	if seen := claim.Status.Capacity[corev1.ResourceStorage]; !seen.IsZero() && seen.Cmp(have) < 0 {
		_, err := a.client.CoreV1().PersistentVolumeClaims(claim.Namespace).Patch(ctx, claim.Name, types.MergePatchType,
			capacity("status", have), metav1.PatchOptions{}, "status")
		return err
	}
	return nil
}

func capacity(part string, size resource.Quantity) []byte {
	patch, err := json.Marshal(map[string]any{part: map[string]any{"capacity": map[string]any{"storage": size.String()}}})
	if err != nil {
		panic(fmt.Sprintf("a patch of plain strings: %v", err))
	}
	return patch
}

func (a *agent) delete(ctx context.Context, volume *corev1.PersistentVolume) error {
	if volume.Status.Phase != corev1.VolumeReleased || volume.DeletionTimestamp != nil ||
		volume.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete {
		return nil
	}
	if err := a.disk.remove(volume.Name, volume.Annotations[kindAnnotation]); err != nil {
		return err
	}
	err := a.client.CoreV1().PersistentVolumes().Delete(ctx, volume.Name, metav1.DeleteOptions{})
	klog.InfoS("Deleted", "volume", volume.Name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
