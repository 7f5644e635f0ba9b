//! The rules of a SearchCell. Pure.

use std::collections::BTreeSet;

use searchcell_crds::{Approval, ClusterPlacement, Reason, SearchCell, SearchCellSpec, SecurityMode};

use super::{
    Problem, Problems, is_cell_name, is_dns_label, is_label_key, is_label_value, nodes, security, settings,
};
use crate::domain::{EsVersion, ValidCell, ValidCluster, ValidZone};
use crate::names::{MAX_STATEFUL_SET_NAME, Role};

/// Names that no cluster may have: with a cell's name in front they would be names of other objects.
const RESERVED_CLUSTER_NAMES: [&str; 6] = ["master", "ingest", "data", "transport", "http", "bootstrap"];
/// Dashes and the longest role name between cell, cluster and zone: `<cell>-<cluster>-master-<zone>`.
const NAME_OVERHEAD: usize = 9;

/// Checks a SearchCell: either all that the operator needs, or everything that is wrong, sorted by path.
pub fn validate_cell(cell: &SearchCell) -> Result<ValidCell, Vec<Problem>> {
    let mut problems = Problems::default();
    let spec = &cell.spec;
    let name = cell.metadata.name.clone().unwrap_or_default();

    not_supported_yet(spec, &mut problems);
    rollout(spec, &mut problems);
    names(&name, spec, &mut problems);
    let version = version(spec, &mut problems);
    let zones = zones(spec, &mut problems);
    let clusters = clusters(spec, &mut problems);
    image_and_topology(spec, &mut problems);
    security::check(&name, spec, version, &mut problems);

    let master_count = spec.nodes.master.count;
    if ![1, 3, 5].contains(&master_count) {
        problems.invalid(
            "spec.nodes.master.count",
            "must be 1, 3 or 5: an even number of masters survives no more failures than one fewer",
        );
    }
    let data_per_zone = spec.nodes.data.per_zone;
    if !(1..=100).contains(&data_per_zone) {
        problems.invalid("spec.nodes.data.perZone", "must be from 1 to 100: choose such a number");
    }

    let common = settings::of_cluster("spec.settings", &spec.settings, &mut problems);
    let cluster_settings =
        settings::of_cluster("spec.clusterSettings", &spec.cluster_settings, &mut problems);
    let (master, data) = (&spec.nodes.master, &spec.nodes.data);
    let mut role = |role, options, volume| nodes::role(role, options, volume, spec, &common, &mut problems);
    let master = role(Role::Master, &master.options, Some(&master.storage));
    let data = role(Role::Data, &data.options, Some(&data.storage));
    let ingest = spec.nodes.ingest.as_ref().map(|ingest| {
        let valid = role(Role::Ingest, &ingest.options, None);
        (ingest, valid)
    });
    let ingest = ingest.map(|(ingest, valid)| (nodes::ingest_scale(ingest, &mut problems), valid));

    let (Some(version), true) = (version, problems.is_empty()) else {
        return Err(problems.sorted());
    };
    Ok(ValidCell {
        namespace: cell.metadata.namespace.clone().unwrap_or_default(),
        name,
        uid: cell.metadata.uid.clone().unwrap_or_default(),
        created_at: cell.metadata.creation_timestamp.as_ref().map(|time| time.0),
        version,
        image: spec.image(),
        topology_key: spec.topology_key.clone(),
        zones,
        clusters,
        master_count,
        master,
        data_per_zone,
        data,
        ingest,
        cluster_settings,
        deletion_policy: spec.deletion_policy,
        soak: spec.rollout.soak(),
        unit: spec.rollout.unit,
        canary: spec.rollout.canary.clone(),
        is_approved_by_hand: spec.rollout.approval == Approval::Manual,
        max_unavailable_clusters: spec.rollout.max_unavailable_clusters,
        waived: spec.rollout.waive.clone(),
        restarted_at: spec.rollout.restarted_at.clone(),
        suspend: spec.suspend,
        is_secure: spec.security_mode() == SecurityMode::Managed,
        keystore: security::keystore(spec),
        hashes: Default::default(),
    })
}

/// Fields that the API has and this version of the operator does not act on.
fn not_supported_yet(spec: &SearchCellSpec, problems: &mut Problems) {
    for cluster in &spec.clusters {
        if cluster.placement() == ClusterPlacement::Drain {
            problems.not_yet(
                format!("spec.clusters[{}].placement", cluster.name),
                "Drain is not supported yet: set it to Closed, so that nothing new lands here",
            );
        }
        if cluster.is_disposable() {
            problems.not_yet(
                format!("spec.clusters[{}].disposable", cluster.name),
                "is not supported yet: remove it",
            );
        }
    }
}

fn rollout(spec: &SearchCellSpec, problems: &mut Problems) {
    let rollout = &spec.rollout;
    if let Some(canary) = &rollout.canary
        && !spec.clusters.iter().any(|cluster| cluster.name == *canary)
    {
        problems.invalid(
            "spec.rollout.canary",
            "is not the name of a cluster of spec.clusters: name one of them, or remove it",
        );
    }
    if !(1..=64).contains(&rollout.max_unavailable_clusters) {
        problems.invalid("spec.rollout.maxUnavailableClusters", "must be from 1 to 64: choose such a number");
    }
    if !rollout.has_soak() {
        problems
            .invalid("spec.rollout.soak", "must be a duration from 0s to 24h: write it like 90s or 1h30m");
    }
    let length = rollout.restarted_at.as_ref().map(String::len);
    if length.is_some_and(|length| !(1..=64).contains(&length)) {
        problems
            .invalid("spec.rollout.restartedAt", "must have 1 to 64 characters: write a date, or remove it");
    }
}

fn names(cell: &str, spec: &SearchCellSpec, problems: &mut Problems) {
    if !is_cell_name(cell) {
        problems.invalid(
            "metadata.name",
            "must be a DNS label that begins with a letter: create the cell under such a name",
        );
    }
    let longest = |lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or(0);
    let cluster = longest(&mut spec.clusters.iter().map(|cluster| cluster.name.len()));
    let zone = longest(&mut spec.zones.iter().map(|zone| zone.name.len()));
    if cell.len() + cluster + zone + NAME_OVERHEAD > MAX_STATEFUL_SET_NAME {
        problems.invalid(
            "metadata.name",
            "has more than 43 characters together with the longest names of clusters and zones: choose shorter \
             names",
        );
    }
}

fn version(spec: &SearchCellSpec, problems: &mut Problems) -> Option<EsVersion> {
    match spec.version.parse::<EsVersion>() {
        Ok(version) if version.is_supported() => Some(version),
        Ok(version) => {
            problems.add(
                Reason::UnsupportedVersion,
                "spec.version",
                format!("{version} is not supported: choose one of 7.17, 8 or 9"),
            );
            None
        }
        Err(_) => {
            problems
                .invalid("spec.version", "is not of the form x.y.z: write a released version, like 9.5.3");
            None
        }
    }
}

fn zones(spec: &SearchCellSpec, problems: &mut Problems) -> Vec<ValidZone> {
    if !(1..=6).contains(&spec.zones.len()) {
        problems.invalid("spec.zones", "must have 1 to 6 zones: add or remove zones");
    }
    let (mut names, mut values) = (BTreeSet::new(), BTreeSet::new());
    for zone in &spec.zones {
        let path = format!("spec.zones[{}]", zone.name);
        if !is_dns_label(&zone.name, 20) {
            problems.invalid(
                format!("{path}.name"),
                "must be at most 20 lower-case letters, digits and dashes, with no dash at either end: rename \
                 the zone and give the label value as value",
            );
        }
        if !is_label_value(zone.value()) {
            problems.invalid(
                format!("{path}.value"),
                "must be the value of a label: write the one of your nodes",
            );
        }
        if !names.insert(zone.name.as_str()) {
            problems.invalid(format!("{path}.name"), "is there twice: give each zone a name of its own");
        }
        if !values.insert(zone.value()) {
            problems.invalid(
                format!("{path}.value"),
                "is the value of another zone too: give each zone a value of its own",
            );
        }
    }
    if spec.active_zones().next().is_none() && !spec.zones.is_empty() {
        problems.invalid("spec.zones", "must have one that is Active: keep a zone, or delete the cell");
    }
    // A zone that is retiring is one that has nodes, and is to have none.
    let mut zones: Vec<ValidZone> = (spec.active_zones())
        .map(|zone| ValidZone { name: zone.name.clone(), value: zone.value().to_owned() })
        .collect();
    zones.sort_by(|a, b| a.name.cmp(&b.name));
    zones
}

fn clusters(spec: &SearchCellSpec, problems: &mut Problems) -> Vec<ValidCluster> {
    if !(1..=64).contains(&spec.clusters.len()) {
        problems.invalid("spec.clusters", "must have 1 to 64 clusters: add or remove clusters");
    }
    let mut names = BTreeSet::new();
    for cluster in &spec.clusters {
        let path = format!("spec.clusters[{}].name", cluster.name);
        let name = cluster.name.as_str();
        let is_legal = is_dns_label(name, 15)
            && !name.contains('-')
            && name.starts_with(|c: char| c.is_ascii_lowercase());
        if !is_legal {
            problems.invalid(
                &path,
                "must be a lower-case letter followed by at most 14 letters and digits: choose such a name",
            );
        }
        if RESERVED_CLUSTER_NAMES.contains(&name) {
            problems.invalid(
                &path,
                "must not be master, ingest, data, transport, http or bootstrap: choose another name",
            );
        }
        if !names.insert(name) {
            problems.invalid(path, "is there twice: give each cluster a name of its own");
        }
    }
    (spec.clusters.iter())
        .map(|cluster| ValidCluster { name: cluster.name.clone(), placement: cluster.placement() })
        .collect()
}

fn image_and_topology(spec: &SearchCellSpec, problems: &mut Problems) {
    let image = spec.image();
    let inside = |b: u8| b.is_ascii_alphanumeric() || b"-._/:@".contains(&b);
    let is_reference = (1..=512).contains(&image.len())
        && image.bytes().all(inside)
        && image.starts_with(|c: char| c.is_ascii_alphanumeric())
        && !image.contains("://");
    if !is_reference {
        problems.invalid(
            "spec.image",
            "is not an image without a scheme: write it like registry.example/elasticsearch:9.5.3",
        );
    }
    if !is_label_key(&spec.topology_key) {
        problems.invalid(
            "spec.topologyKey",
            "is not the key of a label of Kubernetes nodes: write it like topology.kubernetes.io/zone",
        );
    }
}
