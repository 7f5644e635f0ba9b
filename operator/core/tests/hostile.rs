//! What a tenant may write into a spec, by somebody who means harm: each is refused by name, or what is rendered of it
//! can be shown to do none.
//!
//! The list is the promise: `docs/operations/threat-model.md` refers to it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod attacks;

use std::collections::BTreeMap;

use attacks::{Attack, Expect, On, attacks};
use k8s_openapi::api::core::v1::{Container, PodTemplateSpec};
use searchcell_core::build;
use searchcell_core::domain::ValidCell;
use searchcell_core::names::{ANNOTATION_ELASTICSEARCH_YML, ANNOTATION_JVM_OPTIONS, Role};
use searchcell_core::security::is_operators_alone;
use searchcell_core::validate::{Problem, validate_cell, validate_placement};
use searchcell_crds::{IndexPlacement, SearchCell};
use serde_json::{Value, json};

#[test]
fn every_hostile_spec_is_refused_or_harmless() {
    let attacks = attacks();
    assert!(attacks.len() >= 100, "{}", attacks.len());
    let mut failures = Vec::new();
    for attack in &attacks {
        for object in modes(attack) {
            if let Err(why) = survive(attack, &object) {
                failures.push(format!("{}: {why}", attack.name));
            }
        }
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), attacks.len(), failures.join("\n"));
    let names: std::collections::BTreeSet<&str> = attacks.iter().map(|attack| attack.name.as_str()).collect();
    assert_eq!(names.len(), attacks.len(), "each has a name of its own");
}

/// What is aimed at a cell without security is tried on one with security as well.
fn modes(attack: &Attack) -> Vec<Value> {
    let mut objects = vec![attack.object.clone()];
    if attack.on == On::Cell && attack.object["spec"]["security"] == json!({"mode": "Disabled"}) {
        objects.push(attacks::merged(
            attack.object.clone(),
            &json!({"spec": {"security": {"mode": "Managed"}}}),
        ));
    }
    objects
}

fn survive(attack: &Attack, object: &Value) -> Result<(), String> {
    let found = match attack.on {
        On::Cell => cell_problems(object),
        On::Placement => placement_problems(object),
    };
    match (&attack.expect, found) {
        // The schema of the API server says no before the operator sees it, and the types say it again.
        (Expect::Refused(_), Err(_unreadable)) => Ok(()),
        (Expect::Harmless, Err(unreadable)) => Err(unreadable.to_string()),
        (Expect::Refused(part), Ok(problems)) => {
            let text = problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n");
            if problems.is_empty() {
                return Err("accepted".to_owned());
            }
            // A message may be shown on a terminal.
            if text.contains(|c: char| c != '\n' && (c.is_control() || c == '\u{202e}')) {
                return Err(format!("the message repeats what it should escape: {text:?}"));
            }
            if text.contains(part) { Ok(()) } else { Err(format!("no word of {part:?} in: {text}")) }
        }
        (Expect::Harmless, Ok(problems)) if !problems.is_empty() => Err(format!("refused: {problems:?}")),
        (Expect::Harmless, Ok(_)) => match attack.on {
            On::Cell => nodes_are_sound(object),
            On::Placement => indices_are_sound(object),
        },
    }
}

fn cell_problems(object: &Value) -> Result<Vec<Problem>, serde_json::Error> {
    let cell: SearchCell = serde_json::from_value(object.clone())?;
    Ok(validate_cell(&cell).err().unwrap_or_default())
}

fn placement_problems(object: &Value) -> Result<Vec<Problem>, serde_json::Error> {
    let placement: IndexPlacement = serde_json::from_value(object.clone())?;
    let cell: SearchCell = serde_json::from_value(attacks::cell()).unwrap();
    Ok(validate_placement(&placement, Some(&cell), &[]).err().unwrap_or_default())
}

fn templates(cell: &ValidCell) -> Vec<PodTemplateSpec> {
    let key = cell.key(&cell.clusters[0].name);
    let zone = &cell.zones[0];
    let mut templates: Vec<PodTemplateSpec> = [Role::Master, Role::Data]
        .map(|role| build::stateful_set(cell, &key, role, zone, 1).spec.unwrap().template)
        .to_vec();
    templates
        .extend(build::ingest_deployment(cell, &key, Some(1)).map(|object| object.spec.unwrap().template));
    templates
}

fn annotation<'a>(template: &'a PodTemplateSpec, name: &str) -> &'a str {
    &template.metadata.as_ref().unwrap().annotations.as_ref().unwrap()[name]
}

/// Whatever was accepted: the files say what the operator says, and the pods are as confined as always.
fn nodes_are_sound(object: &Value) -> Result<(), String> {
    let valid = |object: &Value| validate_cell(&serde_json::from_value(object.clone()).unwrap()).unwrap();
    let security = object["spec"]["security"].clone();
    let usual = attacks::merged(attacks::cell(), &json!({"spec": {"security": security}}));
    let (cell, plain) = (valid(object), valid(&usual));
    for (template, usual) in templates(&cell).iter().zip(templates(&plain)) {
        let yml = annotation(template, ANNOTATION_ELASTICSEARCH_YML);
        let read: BTreeMap<String, Value> = serde_yaml::from_str(yml).map_err(|error| error.to_string())?;
        if read.len() != yml.lines().count() {
            return Err(format!("{} settings in {} lines:\n{yml}", read.len(), yml.lines().count()));
        }
        let usual_yml: BTreeMap<String, Value> =
            serde_yaml::from_str(annotation(&usual, ANNOTATION_ELASTICSEARCH_YML)).unwrap();
        for (key, value) in &usual_yml {
            if read.get(key) != Some(value) {
                return Err(format!("{key} is {:?}, not {value}", read.get(key)));
            }
        }
        let options = annotation(template, ANNOTATION_JVM_OPTIONS);
        if options.lines().any(|line| {
            !line.trim_start_matches(|c: char| c.is_ascii_digit() || ":-".contains(c)).starts_with(['X', 'D'])
        }) {
            return Err(format!("no option of Java:\n{options}"));
        }
        confined(template, &usual)?;
        secrets_stay(template, &usual)?;
    }
    Ok(())
}

fn confined(template: &PodTemplateSpec, usual: &PodTemplateSpec) -> Result<(), String> {
    let (spec, usual) = (template.spec.as_ref().unwrap(), usual.spec.as_ref().unwrap());
    let pod = spec.security_context.as_ref().unwrap();
    let host = [spec.host_network, spec.host_pid, spec.host_ipc, spec.share_process_namespace];
    if host.iter().any(Option::is_some)
        || spec.automount_service_account_token != Some(false)
        || pod.run_as_non_root != Some(true)
        || pod.run_as_user.is_none_or(|user| user == 0)
        || pod.seccomp_profile.as_ref().is_none_or(|profile| profile.type_ == "Unconfined")
    {
        return Err(format!("the pod is not confined: {pod:?}"));
    }
    for volume in spec.volumes.iter().flatten() {
        if volume.host_path.is_some() || volume.nfs.is_some() {
            return Err(format!("volume {}", volume.name));
        }
    }
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    for container in containers {
        let context = container.security_context.as_ref().ok_or("a container without a security context")?;
        let dropped = context.capabilities.as_ref().and_then(|capabilities| capabilities.drop.clone());
        if context.allow_privilege_escalation != Some(false)
            || context.privileged == Some(true)
            || !dropped.is_some_and(|dropped| dropped.contains(&"ALL".to_owned()))
        {
            return Err(format!("container {} is not confined: {context:?}", container.name));
        }
    }
    let named = |containers: &[Container], name: &str| containers.iter().find(|c| c.name == name).cloned();
    let configure = |spec: &k8s_openapi::api::core::v1::PodSpec| {
        named(spec.init_containers.as_deref().unwrap_or_default(), "configure")
            .map(|container| container.command)
    };
    if configure(spec) != configure(usual) {
        return Err("the script that assembles the configuration differs".to_owned());
    }
    let node = named(&spec.containers, "elasticsearch").ok_or("no container elasticsearch")?;
    if node.command.is_some() || node.args.is_some() {
        return Err("the container elasticsearch runs something else".to_owned());
    }
    Ok(())
}

/// The operator's volumes are what they are and where they are, and nobody else has them but the logs.
fn secrets_stay(template: &PodTemplateSpec, usual: &PodTemplateSpec) -> Result<(), String> {
    let (spec, usual) = (template.spec.as_ref().unwrap(), usual.spec.as_ref().unwrap());
    let volumes: Vec<_> = spec.volumes.iter().flatten().collect();
    let own: Vec<_> = usual.volumes.iter().flatten().collect();
    for volume in &own {
        if !volumes.contains(volume) {
            return Err(format!("volume {} differs", volume.name));
        }
    }
    for volume in volumes.iter().filter(|volume| !own.contains(volume)) {
        let secret = volume.secret.as_ref().and_then(|secret| secret.secret_name.as_deref());
        if secret.is_some_and(|name| is_operators_alone("guilds", name)) {
            return Err(format!("volume {} has {secret:?}", volume.name));
        }
    }
    let all = |spec: &k8s_openapi::api::core::v1::PodSpec| {
        spec.init_containers.iter().flatten().chain(&spec.containers).cloned().collect::<Vec<_>>()
    };
    let usual = all(usual);
    for container in all(spec) {
        let mounts = container.volume_mounts.unwrap_or_default();
        let Some(ours) = usual.iter().find(|usual| usual.name == container.name) else {
            // The claim of a node is no volume of its template.
            let is_own =
                |name: &str| name == "data" || own.iter().any(|own| own.name == name && name != "logs");
            if let Some(mount) = mounts.iter().find(|mount| is_own(&mount.name)) {
                return Err(format!("container {} has {}", container.name, mount.name));
            }
            continue;
        };
        for mount in ours.volume_mounts.iter().flatten() {
            if !mounts.contains(mount) {
                return Err(format!(
                    "container {}: {} is not at {}",
                    ours.name, mount.name, mount.mount_path
                ));
            }
        }
    }
    Ok(())
}

/// Whatever was accepted: names are index names, and the operator's fields are the operator's.
fn indices_are_sound(object: &Value) -> Result<(), String> {
    let placement: IndexPlacement = serde_json::from_value(object.clone()).unwrap();
    let cell: SearchCell = serde_json::from_value(attacks::cell()).unwrap();
    let valid = validate_placement(&placement, Some(&cell), &[]).unwrap();
    for index in &valid.indices {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b);
        if !index.name.bytes().all(legal) || index.name.contains("..") || index.name.len() > 100 {
            return Err(format!("index {:?}", index.name));
        }
        let body = build::index_body(&valid, index, 1);
        if body["settings"]["index.number_of_shards"] != json!(index.shards)
            || body["mappings"]["_meta"]["searchcell"]["placement"] != json!(valid.name)
            || body["mappings"]["properties"]["searchcell_deleted"] != json!({"type": "boolean"})
        {
            return Err(format!("{body}"));
        }
    }
    Ok(())
}

/// Nothing of the above can be shown of what nobody tried; this is what tries.
#[test]
fn a_good_cell_and_a_good_placement_pass() {
    assert_eq!(cell_problems(&attacks::cell()).unwrap(), []);
    assert_eq!(placement_problems(&attacks::placement()).unwrap(), []);
    nodes_are_sound(&attacks::cell()).unwrap();
    let secure = attacks::merged(attacks::cell(), &json!({"spec": {"security": {"mode": "Managed"}}}));
    assert_eq!(cell_problems(&secure).unwrap(), []);
    nodes_are_sound(&secure).unwrap();
    indices_are_sound(&attacks::placement()).unwrap();
}
