//! For each layer and cluster: from where certificates come, whom nodes trust, and what is proved of it. Pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use searchcell_crds::Reason;

use super::security::{Scope, Upkeep, served};
use crate::drift;
use crate::names::{ClusterKey, http_authority, http_trust};
use crate::security::leaf::Workload;
use crate::security::order::Source;
use crate::security::{
    ANNOTATION_STAGE_SINCE, Authority, CertificateFacts, Layer, SecretFacts, Stage, Supplied,
};
use crate::snapshot::{CellObjects, annotation, role_and_zone};

/// One layer of one cluster.
#[derive(Clone, Debug)]
pub(super) struct LayerPlan {
    /// From where new certificates come, and what they are recognised by: the authority, or the certificate itself.
    /// Absent: there are none now, and nodes keep what they have.
    pub(super) source: Option<(Source, CertificateFacts)>,
    /// Whom nodes, and for HTTP clients, are to trust.
    pub(super) trust: Vec<CertificateFacts>,
    /// Whom they have been told to trust.
    pub(super) known: Vec<CertificateFacts>,
    /// Every Secret, and on the transport layer every node, trusts all of `trust`; or who does not.
    pub(super) trusted: Result<(), String>,
    /// Every node shows a certificate from the present source; or who does not.
    pub(super) served: Result<(), String>,
    /// True while any of this is not at rest.
    pub(super) moves: bool,
}

impl LayerPlan {
    fn at_rest(
        source: Option<(Source, CertificateFacts)>,
        trust: Vec<CertificateFacts>,
        known: Vec<CertificateFacts>,
    ) -> Self {
        Self { source, trust, known, trusted: Ok(()), served: Ok(()), moves: false }
    }
}

/// All layers of a cell's clusters.
pub(super) struct Layers {
    http: Option<LayerPlan>,
    transport: Vec<LayerPlan>,
    nothing: LayerPlan,
}

type Cluster = (ClusterKey, CellObjects, Vec<Workload>);

impl Layers {
    pub(super) fn new(scope: &Scope<'_>, upkeep: &mut Upkeep) -> Self {
        let all: Vec<&Cluster> = scope.clusters.iter().collect();
        let http = (!all.is_empty())
            .then(|| plan(scope, Layer::Http, &all, &http_authority(scope.name), None, upkeep));
        let transport = (all.iter())
            .map(|cluster| {
                let name = cluster.0.transport_authority();
                let of = Some(cluster.0.cluster.as_str());
                plan(scope, Layer::Transport, &[cluster], &name, of, upkeep)
            })
            .collect();
        let nothing = LayerPlan::at_rest(None, Vec::new(), Vec::new());
        Self { http, transport, nothing }
    }

    /// A layer of the cluster at this place of the scope.
    pub(super) fn of(&self, layer: Layer, index: usize) -> &LayerPlan {
        match layer {
            Layer::Http => self.http.as_ref().unwrap_or(&self.nothing),
            Layer::Transport => self.transport.get(index).unwrap_or(&self.nothing),
        }
    }
}

fn plan(
    scope: &Scope<'_>,
    layer: Layer,
    clusters: &[&Cluster],
    authority: &str,
    cluster: Option<&str>,
    upkeep: &mut Upkeep,
) -> LayerPlan {
    let known = known(scope, layer, clusters);
    if let Some(name) = scope.supplied.get(&layer) {
        return supplied(scope, layer, clusters, name, known, cluster, upkeep);
    }
    let secrets = &scope.snapshot.objects.secrets;
    let live = drift::find(secrets, |secret| &secret.metadata, authority, scope.uid).ours();
    let Some(live) = live else {
        // Until it is there again, nodes go on with what they have.
        let moves = !known.is_empty();
        return LayerPlan { moves, ..LayerPlan::at_rest(None, known.clone(), known) };
    };
    let authority = Authority::of(live);
    let issuer = authority.issuer.clone().filter(|issuer| issuer.not_after > scope.now);
    let source = issuer.map(|issuer| {
        let (secret, fingerprint) = (live.name().to_owned(), issuer.fingerprint.clone());
        (Source::Authority { secret, fingerprint }, issuer)
    });
    let moves = authority.stage() != Stage::Steady;
    let trust = authority.trusted.clone();
    if let Some(source) = source.clone()
        && known.iter().any(|one| !is_in(one, &trust))
    {
        let what = format!("the {layer} authority");
        return adopt(scope, layer, clusters, source, trust, known, &what, cluster, upkeep);
    }
    let (trusted, served) = if moves {
        (trusts(scope, layer, clusters, &trust), shows(scope, layer, clusters, source.as_ref()))
    } else {
        (Ok(()), Ok(()))
    };
    LayerPlan { source, trust, known, trusted, served, moves }
}

fn is_in(one: &CertificateFacts, all: &[CertificateFacts]) -> bool {
    all.iter().any(|other| other.fingerprint == one.fingerprint)
}

/// Nodes have been told to trust others than those whom they are to trust, because certificates came from elsewhere
/// before: the new ones are first trusted beside the former, then shown, then trusted alone.
#[allow(clippy::too_many_arguments)]
fn adopt(
    scope: &Scope<'_>,
    layer: Layer,
    clusters: &[&Cluster],
    source: (Source, CertificateFacts),
    mut trust: Vec<CertificateFacts>,
    known: Vec<CertificateFacts>,
    what: &str,
    cluster: Option<&str>,
    upkeep: &mut Upkeep,
) -> LayerPlan {
    let shown = shows(scope, layer, clusters, Some(&source));
    let mut trusted = trusts(scope, layer, clusters, &trust);
    if layer == Layer::Http && shown.is_err() && trusted.is_ok() {
        trusted = clients_know(scope, &trust, upkeep);
    }
    if let Err(who) = trusted.as_ref().and(shown.as_ref()) {
        // Not everybody shows it: who was trusted before is trusted still.
        let former: Vec<_> = known.iter().filter(|one| !is_in(one, &trust)).cloned().collect();
        trust.extend(former);
        let text = format!("{what} is on its way to the nodes: waiting for {who}");
        upkeep.hold(cluster, Reason::RotatingCertificates, text);
    }
    upkeep.rotates = true;
    LayerPlan { source: trusted.is_ok().then_some(source), trust, known, trusted, served: shown, moves: true }
}

/// Whether clients of HTTP have been told to trust all of `trust`, and had the time to load it. Nobody can ask them.
fn clients_know(scope: &Scope<'_>, trust: &[CertificateFacts], upkeep: &mut Upkeep) -> Result<(), String> {
    let name = http_trust(scope.name);
    let waits = || "clients, that they load it".to_owned();
    let maps = &scope.snapshot.objects.config_maps;
    let live = drift::find(maps, |map| &map.metadata, &name, scope.uid).ours().ok_or_else(waits)?;
    let published = live.data.as_ref().and_then(|data| data.get("ca.crt")).ok_or_else(waits)?;
    let since = annotation(&live.metadata, ANNOTATION_STAGE_SINCE);
    let since = since.and_then(|since| since.parse::<Timestamp>().ok()).ok_or_else(waits)?;
    let overlap = SignedDuration::try_from(scope.snapshot.lifetimes.overlap).unwrap_or(SignedDuration::MAX);
    let until = since.checked_add(overlap).map_err(|_| waits())?;
    if !trust.iter().all(|one| published.contains(&one.pem)) {
        return Err(waits());
    }
    if until > scope.now {
        upkeep.wake(until);
        return Err(waits());
    }
    Ok(())
}

/// Whom nodes of these clusters, those that are there, have been told to trust.
fn known(scope: &Scope<'_>, layer: Layer, clusters: &[&Cluster]) -> Vec<CertificateFacts> {
    let mut known: Vec<CertificateFacts> = Vec::new();
    let secrets = clusters.iter().flat_map(|cluster| {
        let there = move |workload: &Workload| is_there(&cluster.1, workload);
        secrets_of(scope, cluster).filter(move |(workload, _)| there(workload))
    });
    for (_, secret) in secrets {
        for certificate in secret.certificates(layer.trust_file()) {
            if certificate.not_after > scope.now && !is_in(certificate, &known) {
                known.push(certificate.clone());
            }
        }
    }
    known
}

/// Whether a workload has, or is about to have, nodes. What one has left that went long ago may be of authorities that nobody
/// trusts any more.
fn is_there(objects: &CellObjects, workload: &Workload) -> bool {
    let is_it = |meta: &ObjectMeta| meta.name.as_deref() == Some(workload.name.as_str());
    let prefix = format!("{}-", workload.name);
    let is_of_it = |name: &String| name.starts_with(&prefix);
    objects.stateful_sets.iter().any(|set| is_it(&set.metadata))
        || objects.deployments.iter().any(|of| is_it(&of.metadata))
        || objects.pods.iter().any(|pod| pod.metadata.name.as_ref().is_some_and(is_of_it))
}

/// The workloads of a cluster that have a Secret of certificates.
fn secrets_of<'a>(
    scope: &'a Scope<'_>,
    (_, objects, workloads): &'a Cluster,
) -> impl Iterator<Item = (&'a Workload, &'a SecretFacts)> {
    workloads.iter().filter_map(|workload| {
        let name = workload.secret();
        let secret = drift::find(&objects.secrets, |secret| &secret.metadata, &name, scope.uid).ours()?;
        Some((workload, secret))
    })
}

/// Whether every Secret has `trust`, and on the transport layer whether every node says so itself.
fn trusts(
    scope: &Scope<'_>,
    layer: Layer,
    clusters: &[&Cluster],
    trust: &[CertificateFacts],
) -> Result<(), String> {
    for cluster in clusters {
        for (_, secret) in secrets_of(scope, cluster) {
            let has = secret.certificates(layer.trust_file());
            if !trust.iter().all(|wanted| is_in(wanted, has)) {
                return Err(format!("Secret {}", secret.name()));
            }
        }
        if layer == Layer::Http {
            continue;
        }
        for pod in &cluster.1.pods {
            let name = pod.metadata.name.clone().unwrap_or_default();
            let Ok(served) = served(scope.snapshot, pod.metadata.uid.as_ref()) else { return Err(name) };
            if !trust.iter().all(|wanted| served.trusted.contains(&wanted.subject)) {
                return Err(name);
            }
        }
    }
    Ok(())
}

/// Whether every node shows the certificate that its Secret has, and that one is from the source.
fn shows(
    scope: &Scope<'_>,
    layer: Layer,
    clusters: &[&Cluster],
    source: Option<&(Source, CertificateFacts)>,
) -> Result<(), String> {
    let Some((source, from)) = source else { return Err("an authority that can sign".to_owned()) };
    for cluster in clusters {
        let secrets: Vec<(&Workload, &SecretFacts)> = secrets_of(scope, cluster).collect();
        for (workload, secret) in &secrets {
            let is_new = |leaf: &crate::security::leaf::Leaf| {
                secret.pair(&leaf.file).is_some_and(|found| match source {
                    Source::Authority { .. } => found.is_signed_by(from),
                    Source::Supplied { fingerprint, .. } => found.fingerprint == *fingerprint,
                })
            };
            let mut leaves = workload.leaves(&cluster.0);
            leaves.retain(|leaf| leaf.layer == layer);
            if !leaves.iter().all(is_new) {
                return Err(format!("Secret {}", secret.name()));
            }
        }
        for pod in &cluster.1.pods {
            let name = pod.metadata.name.clone().unwrap_or_default();
            let (role, zone) = role_and_zone(&pod.metadata);
            let of = secrets.iter().find(|(workload, _)| {
                Some(workload.role.as_str()) == role && workload.zone.as_deref() == zone
            });
            let expected = of.and_then(|(workload, secret)| {
                secret.pair(&format!("{}.{layer}", workload.node_of(&name))).map(|leaf| &leaf.fingerprint)
            });
            let shown =
                served(scope.snapshot, pod.metadata.uid.as_ref()).ok().and_then(|served| match layer {
                    Layer::Http => served.http.as_ref(),
                    Layer::Transport => served.transport.as_ref(),
                });
            if expected.is_none() || shown != expected {
                return Err(name);
            }
        }
    }
    Ok(())
}

/// What a user supplied: first trusted beside what is there, then shown, then trusted alone.
fn supplied(
    scope: &Scope<'_>,
    layer: Layer,
    clusters: &[&Cluster],
    name: &str,
    known: Vec<CertificateFacts>,
    cluster: Option<&str>,
    upkeep: &mut Upkeep,
) -> LayerPlan {
    let path = format!("spec.security.certificates.{layer}");
    let mut refuse = |reason, problem: String| {
        let stays =
            if known.is_empty() { "no node starts before it is good" } else { "nodes keep what they have" };
        upkeep.hold(cluster, reason, format!("{path}: Secret {name} {problem}; {stays}"));
        LayerPlan::at_rest(None, known.clone(), known.clone())
    };
    let (facts, untrusted) = match scope.snapshot.supplied.get(&layer) {
        Some(Supplied::Read { facts, untrusted }) => (facts, untrusted),
        Some(Supplied::Missing) => {
            return refuse(
                Reason::InvalidCertificate,
                "does not exist: create it with tls.crt, tls.key and ca.crt".into(),
            );
        }
        Some(Supplied::Unavailable(why)) => {
            return refuse(Reason::KubernetesError, format!("could not be read: {why}"));
        }
        None => return refuse(Reason::KubernetesError, "has not been read yet".into()),
    };
    if let Some(problem) = problem(scope, layer, clusters, facts, untrusted.as_deref()) {
        return refuse(Reason::InvalidCertificate, problem);
    }
    let Some(leaf) = facts.pair("tls") else {
        return refuse(Reason::InvalidCertificate, "has no pair".into());
    };
    let mut trust = facts.certificates("ca.crt").to_vec();
    trust.retain(|authority| !is_over(authority, scope.now));
    let source = Source::Supplied { secret: name.to_owned(), fingerprint: leaf.fingerprint.clone() };
    let source = (source, leaf.clone());
    // Nodes that trust these authorities and no others: that is the record of a change that came to its end.
    let is_settled = known.iter().all(|one| is_in(one, &trust)) && trust.iter().all(|one| is_in(one, &known));
    if known.is_empty() || is_settled {
        return LayerPlan::at_rest(Some(source), trust, known);
    }
    let what = format!("{path}: the certificate of Secret {name}");
    adopt(scope, layer, clusters, source, trust, known, &what, cluster, upkeep)
}

/// What is wrong with a supplied Secret, and what to do about it.
fn problem(
    scope: &Scope<'_>,
    layer: Layer,
    clusters: &[&Cluster],
    facts: &SecretFacts,
    untrusted: Option<&str>,
) -> Option<String> {
    let certificate = match facts.certificates("tls.crt").first() {
        Some(certificate) => certificate,
        None => return Some("has no certificate in tls.crt: put one there, as PEM".into()),
    };
    let Some(key) = facts.keys.get("tls.key") else {
        return Some("has no private key in tls.key that can be read: put one there, as PKCS#8 PEM".into());
    };
    if *key != certificate.public_key {
        return Some("has a tls.key that does not belong to tls.crt: put a pair there".into());
    }
    if facts.certificates("ca.crt").is_empty() {
        return Some("has no ca.crt: put the authority there that signed tls.crt".into());
    }
    if is_over(certificate, scope.now) {
        return Some("has a certificate that has expired: renew it".into());
    }
    if certificate.not_before > scope.now {
        return Some("has a certificate that is not valid yet: wait, or issue another one".into());
    }
    if let Some(why) = untrusted {
        return Some(format!(
            "has a certificate that its ca.crt does not vouch for ({why}): put the right authority there"
        ));
    }
    if layer == Layer::Http {
        let wanted = clusters.iter().flat_map(|(key, _, _)| {
            [key.name(), key.http_service()].map(|service| format!("{service}.{}.svc", key.namespace))
        });
        let missing: Vec<String> = wanted.filter(|name| !covers(certificate, name)).collect();
        if !missing.is_empty() {
            return Some(format!(
                "has a certificate without names that clients use: issue one with {}",
                missing.join(", ")
            ));
        }
    }
    None
}

fn is_over(certificate: &CertificateFacts, now: Timestamp) -> bool {
    certificate.not_after <= now
}

/// True when a certificate is for a name, by itself or by a wildcard of its first label.
fn covers(certificate: &CertificateFacts, name: &str) -> bool {
    let wildcard = name.split_once('.').map(|(_, rest)| format!("*.{rest}"));
    certificate.names.contains(name) || wildcard.is_some_and(|wildcard| certificate.names.contains(&wildcard))
}
