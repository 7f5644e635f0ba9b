//! What the API server fills in: an operator that compares naively would write for ever.

use k8s_openapi::api::core::v1::{Container, PodTemplateSpec};

use crate::objects::Obj;

pub fn apply(object: &mut Obj) {
    match object {
        Obj::StatefulSet(set) => {
            let Some(spec) = &mut set.spec else { return };
            spec.replicas.get_or_insert(1);
            spec.revision_history_limit.get_or_insert(10);
            template(&mut spec.template);
            for claim in spec.volume_claim_templates.iter_mut().flatten() {
                if let Some(spec) = &mut claim.spec {
                    spec.volume_mode.get_or_insert_with(|| "Filesystem".to_owned());
                }
                claim.status.get_or_insert_default().phase.get_or_insert_with(|| "Pending".to_owned());
            }
        }
        Obj::Deployment(deployment) => {
            let Some(spec) = &mut deployment.spec else { return };
            // The trap of every hand-over to an autoscaler: a removed field comes back as 1.
            spec.replicas.get_or_insert(1);
            spec.revision_history_limit.get_or_insert(10);
            spec.progress_deadline_seconds.get_or_insert(600);
            template(&mut spec.template);
        }
        Obj::Service(service) => {
            let Some(spec) = &mut service.spec else { return };
            spec.type_.get_or_insert_with(|| "ClusterIP".to_owned());
            spec.session_affinity.get_or_insert_with(|| "None".to_owned());
            spec.internal_traffic_policy.get_or_insert_with(|| "Cluster".to_owned());
            spec.cluster_ip.get_or_insert_with(|| "10.0.0.10".to_owned());
            spec.ip_families.get_or_insert_with(|| vec!["IPv4".to_owned()]);
            for port in spec.ports.iter_mut().flatten() {
                port.protocol.get_or_insert_with(|| "TCP".to_owned());
            }
        }
        Obj::Autoscaler(autoscaler) => {
            autoscaler.spec.min_replicas.get_or_insert(1);
        }
        _ => {}
    }
}

fn template(template: &mut PodTemplateSpec) {
    let Some(spec) = &mut template.spec else { return };
    spec.restart_policy.get_or_insert_with(|| "Always".to_owned());
    spec.dns_policy.get_or_insert_with(|| "ClusterFirst".to_owned());
    spec.scheduler_name.get_or_insert_with(|| "default-scheduler".to_owned());
    spec.termination_grace_period_seconds.get_or_insert(30);
    spec.security_context.get_or_insert_default();
    spec.containers.iter_mut().for_each(container);
    spec.init_containers.iter_mut().flatten().for_each(container);
}

fn container(container: &mut Container) {
    container.termination_message_path.get_or_insert_with(|| "/dev/termination-log".to_owned());
    container.termination_message_policy.get_or_insert_with(|| "File".to_owned());
    container.image_pull_policy.get_or_insert_with(|| "IfNotPresent".to_owned());
    for port in container.ports.iter_mut().flatten() {
        port.protocol.get_or_insert_with(|| "TCP".to_owned());
    }
    for probe in [&mut container.readiness_probe, &mut container.startup_probe].into_iter().flatten() {
        probe.period_seconds.get_or_insert(10);
        probe.success_threshold.get_or_insert(1);
        probe.timeout_seconds.get_or_insert(1);
        probe.failure_threshold.get_or_insert(3);
    }
}
