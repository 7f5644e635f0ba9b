//! TLS and users of the simulated nodes: what each process has loaded of the Secrets that it mounts, some time after
//! they changed, and whether nodes and the operator can still talk to each other.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use searchcell_core::security::leaf::SHARED;
use searchcell_core::security::{CertificateFacts, SecretFacts, Served};
use searchcell_core::snapshot::{CellSnapshot, Reading};
use searchcell_operator::ports::SearchError;
use searchcell_operator::security::access::Access;
use searchcell_operator::security::parse;
use searchcell_operator::security::sealed::Sealed;

use crate::world::World;

/// Nodes of a cluster accept each other's certificates at every moment.
pub const NODES_TRUST: &str = "nodes_trust_each_other";
/// Whatever a node of a cell shows, the clients of the cell that have read the bundle accept.
pub const CLIENTS_TRUST: &str = "clients_trust_nodes";

/// A password is in its Secret when every node knows it.
pub const PASSWORDS_KNOWN: &str = "passwords_known";

/// The kubelet's and Elasticsearch's time together, at most.
const RELOAD_MS: u64 = 95_000;

/// What a process has loaded.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Resource versions of the Secrets of certificates and of the realm.
    versions: (Option<String>, Option<String>),
    pub http: CertificateFacts,
    transport: CertificateFacts,
    trust: Vec<CertificateFacts>,
    /// User names with the fingerprints of their hashes.
    pub users: Vec<(String, String)>,
    reload_at: Option<u64>,
}

impl Loaded {
    /// What whoever connects sees.
    pub fn served(&self) -> Served {
        Served {
            http: Some(self.http.fingerprint.clone()),
            transport: Some(self.transport.fingerprint.clone()),
            trusted: self.trust.iter().map(|one| one.subject.clone()).collect(),
        }
    }
}

/// The operator made a Secret. A client that mounts it uses it from now on. After a jump of the operator's clock, what is
/// a matter of minutes can be one of none.
pub fn is_made(world: &mut World, secret: &Sealed) {
    let facts = parse::facts(secret);
    let Some(credential) = facts.credential.filter(|_| !world.clock_jumped) else { return };
    let Some(hash) = credential.hash else { return };
    let user = (credential.username, hash);
    let strangers: Vec<String> = (world.containers.values())
        .filter(|c| c.secure.as_ref().is_some_and(|loaded| !loaded.users.contains(&user)))
        .filter(|c| is_of_a_living_cell(world, &c.name))
        .map(|c| c.name.clone())
        .collect();
    if !strangers.is_empty() {
        world.violated(PASSWORDS_KNOWN, format!("{}: {strangers:?} would refuse {}", secret.name(), user.0));
    }
}

/// The Secrets that a pod mounts: of certificates, and of the realm.
fn mounted(pod: &Pod) -> Option<(String, String)> {
    let volumes = pod.spec.as_ref()?.volumes.as_ref()?;
    let of = |name: &str| {
        let volume = volumes.iter().find(|volume| volume.name == name)?;
        volume.secret.as_ref()?.secret_name.clone()
    };
    Some((of("searchcell-certificates")?, of("searchcell-realm")?))
}

fn facts(world: &World, name: &str) -> Option<SecretFacts> {
    Some(parse::facts(&Sealed(world.store.get::<Secret>(name)?.clone())))
}

/// True for a pod without Secrets, and for one whose Secrets have all that it needs: the init container waits for that.
pub fn can_start(world: &World, pod: &Pod) -> bool {
    mounted(pod).is_none() || load(world, pod).is_some()
}

/// What a process that starts now, or whose kubelet has just looked, has.
pub fn load(world: &World, pod: &Pod) -> Option<Loaded> {
    let (certificates, realm) = mounted(pod)?;
    let (certificates, realm) = (facts(world, &certificates)?, facts(world, &realm)?);
    let name = pod.metadata.name.as_deref()?;
    let pair = |layer: &str| {
        let own = certificates.pair(&format!("{name}.{layer}"));
        own.or_else(|| certificates.pair(&format!("{SHARED}.{layer}"))).cloned()
    };
    Some(Loaded {
        versions: (certificates.metadata.resource_version.clone(), realm.metadata.resource_version.clone()),
        http: pair("http")?,
        transport: pair("transport")?,
        trust: certificates.certificates("transport-ca.crt").to_vec(),
        users: realm.users.as_ref()?.users.clone(),
        reload_at: None,
    })
}

/// Kubelets bring new contents, processes load them. One that cannot be loaded is left where it is.
pub fn tick(world: &mut World) {
    let names: Vec<String> =
        (world.containers.values()).filter(|c| c.secure.is_some()).map(|c| c.name.clone()).collect();
    for name in names {
        let Some(pod) = world.store.get::<Pod>(&name).cloned() else { continue };
        let Some((certificates, realm)) = mounted(&pod) else { continue };
        let version =
            |name: &str| world.store.get::<Secret>(name).and_then(|s| s.metadata.resource_version.clone());
        let live = (version(&certificates), version(&realm));
        let Some(loaded) = world.containers.get(&name).and_then(|c| c.secure.as_ref()) else { continue };
        if live == loaded.versions || live.0.is_none() || live.1.is_none() {
            continue;
        }
        match loaded.reload_at {
            None => {
                let most = if world.calm { RELOAD_MS / 3 } else { RELOAD_MS };
                let at = world.ms + world.rng.range(1_000, most);
                if let Some(loaded) = world.containers.get_mut(&name).and_then(|c| c.secure.as_mut()) {
                    loaded.reload_at = Some(at);
                }
            }
            Some(at) if at <= world.ms => {
                if let Some(new) = load(world, &pod) {
                    if let Some(container) = world.containers.get_mut(&name) {
                        container.secure = Some(new);
                    }
                    check(world, &name);
                }
            }
            Some(_) => {}
        }
    }
}

/// True while the cell that a process was started for is there: what is left of a deleted one only waits for its end.
fn is_of_a_living_cell(world: &World, name: &str) -> bool {
    let workload = |uid: &String| {
        let sets = world.store.all::<StatefulSet>().map(|set| &set.metadata);
        let all = sets.chain(world.store.all::<Deployment>().map(|deployment| &deployment.metadata));
        all.into_iter().find(|meta| meta.uid.as_ref() == Some(uid))
    };
    let owners = |meta: &ObjectMeta| -> Vec<String> {
        meta.owner_references.iter().flatten().map(|owner| owner.uid.clone()).collect()
    };
    let Some(pod) = world.store.get::<Pod>(name) else { return false };
    (owners(&pod.metadata).iter().filter_map(workload))
        .any(|meta| owners(meta).iter().any(|uid| world.store.is_live(uid)))
}

/// A process has loaded something new: it and its peers must accept each other, and clients must accept it.
pub fn check(world: &mut World, name: &str) {
    let Some(own) = world.containers.get(name) else { return };
    let Some(loaded) = own.secure.as_ref().filter(|_| is_of_a_living_cell(world, name)) else { return };
    let accepts = |one: &Loaded, other: &Loaded| one.trust.iter().any(|ca| other.transport.is_signed_by(ca));
    let peers =
        world.containers.values().filter(|peer| peer.identity == own.identity && peer.name != own.name);
    let strangers: BTreeSet<String> = peers
        .filter(|peer| {
            peer.secure.as_ref().is_some_and(|peer| !accepts(loaded, peer) || !accepts(peer, loaded))
        })
        .filter(|peer| is_of_a_living_cell(world, &peer.name))
        .map(|peer| peer.name.clone())
        .collect();
    let clients = own.identity.split_once('/').map(|(cell, _)| cell.to_owned()).and_then(|cell| {
        let name = searchcell_core::names::http_trust(&cell);
        let map = world.store.get::<k8s_openapi::api::core::v1::ConfigMap>(&name)?;
        parse::certificates(map.data.as_ref()?.get("ca.crt")?.as_bytes())
    });
    let unknown = clients.is_some_and(|trust| !trust.iter().any(|ca| loaded.http.is_signed_by(ca)));
    if !strangers.is_empty() {
        world.violated(NODES_TRUST, format!("{name} and {strangers:?} do not accept each other"));
    }
    if unknown {
        world.violated(CLIENTS_TRUST, format!("{name} shows a certificate that no client trusts"));
    }
}

/// What nodes would show if they had loaded what their Secrets have: what a careless operator believes.
pub fn as_mounted(snapshot: &CellSnapshot) -> BTreeMap<String, Reading<Served>> {
    let of = |pod: &Pod| {
        let name = pod.metadata.name.as_deref()?;
        let all = &snapshot.objects.secrets;
        let certificates = all.iter().find(|secret| {
            (secret.name().strip_suffix("-certificates"))
                .is_some_and(|workload| name.starts_with(&format!("{workload}-")))
        })?;
        let shown = |layer: &str| {
            let own = certificates.pair(&format!("{name}.{layer}"));
            own.or_else(|| certificates.pair(&format!("{SHARED}.{layer}")))
                .map(|leaf| leaf.fingerprint.clone())
        };
        let trusted =
            certificates.certificates("transport-ca.crt").iter().map(|one| one.subject.clone()).collect();
        let served = Served { http: shown("http"), transport: shown("transport"), trusted };
        Some((pod.metadata.uid.clone()?, Reading::Known(served)))
    };
    snapshot.objects.pods.iter().filter_map(of).collect()
}

/// The operator as a client of one cluster: whom it trusts, and who it is.
pub enum Client {
    Plain,
    Secured { trust: Vec<CertificateFacts>, users: Vec<(String, String)> },
    NotYet(&'static str),
}

impl Client {
    /// From what the caches of a process have; `last` is the user that worked before.
    pub fn new(access: &Access, own: Option<(String, String)>, last: Option<(String, String)>) -> Self {
        match access {
            Access::Plain => Client::Plain,
            Access::NotYet(why) => Client::NotYet(why),
            Access::Secured { trust, .. } => Client::Secured {
                trust: parse::certificates(trust.as_bytes()).unwrap_or_default(),
                users: own.into_iter().chain(last).collect(),
            },
        }
    }

    /// Connects to a process: as whom, or why not.
    pub fn connect(&self, node: Option<&Loaded>) -> Result<Option<(String, String)>, SearchError> {
        let refused = |why: &str| Err(SearchError::Unreachable(why.to_owned()));
        match (self, node) {
            (Client::Plain, None) => Ok(None),
            (Client::Plain, Some(_)) | (Client::Secured { .. }, None) => {
                refused("the other speaks another protocol")
            }
            (Client::NotYet(why), _) => refused(why),
            (Client::Secured { trust, users }, Some(node)) => {
                if !trust.iter().any(|ca| node.http.is_signed_by(ca)) {
                    return refused("its certificate is not one that the operator trusts");
                }
                match users.iter().find(|user| node.users.contains(user)) {
                    Some(user) => Ok(Some(user.clone())),
                    None => Err(SearchError::Refused("unable to authenticate user".to_owned())),
                }
            }
        }
    }
}
