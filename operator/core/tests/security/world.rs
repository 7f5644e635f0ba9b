//! A cell with certificates that are facts only: orders are carried out by writing down what they would have made.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use searchcell_core::domain::ValidCell;
use searchcell_core::names::FINALIZER;
use searchcell_core::plan::{Upkeep, nodes_to_ask, plan_security};
use searchcell_core::security::order::{AuthorityChange, Order, Source};
use searchcell_core::security::{
    ANNOTATION_ROTATED, ANNOTATION_STAGE_SINCE, CertificateFacts, CredentialFacts, Lifetimes, SecretFacts,
    Served, UsersFacts,
};
use searchcell_core::snapshot::{CellObjects, CellSnapshot, Reading, label};
use searchcell_core::step::{Action, Object};
use searchcell_core::validate::validate_cell;
use searchcell_crds::SearchCell;
use serde_json::{Value, json};

pub const DAY: i64 = 86_400;

pub fn start() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

pub fn cell_object() -> SearchCell {
    serde_json::from_value(json!({
        "apiVersion": "searchcell.dev/v1alpha1", "kind": "SearchCell",
        "metadata": {"name": "guilds", "namespace": "search", "uid": "cell-uid", "generation": 1,
            "resourceVersion": "1", "creationTimestamp": "2026-11-21T11:00:00Z", "finalizers": [FINALIZER]},
        "spec": {
            "version": "9.5.3",
            "zones": [{"name": "a"}, {"name": "b"}, {"name": "c"}],
            "clusters": [{"name": "a"}, {"name": "b"}],
            "nodes": {
                "master": {"count": 3, "storage": {"size": "1Gi"}},
                "ingest": {"replicas": 2},
                "data": {"perZone": 1, "storage": {"size": "1Gi"}},
            },
        },
    }))
    .unwrap()
}

pub struct World {
    pub snapshot: CellSnapshot,
    pub now: Timestamp,
    pub serial: u64,
}

impl World {
    pub fn new() -> Self {
        let snapshot = CellSnapshot {
            cell: cell_object(),
            objects: CellObjects::default(),
            elastic: BTreeMap::new(),
            placements: Vec::new(),
            served: BTreeMap::new(),
            supplied: BTreeMap::new(),
            secure_settings: BTreeMap::new(),
            restarts_nodes: false,
            disruptions: Vec::new(),
            most_disruptions: 5,
            lifetimes: Lifetimes::default(),
            operator_namespace: "searchcell-system".to_owned(),
        };
        World { snapshot, now: start(), serial: 0 }
    }

    pub fn edit(&mut self, change: impl FnOnce(&mut Value)) {
        let mut value = serde_json::to_value(&self.snapshot.cell).unwrap();
        change(&mut value);
        self.snapshot.cell = serde_json::from_value(value).unwrap();
    }

    pub fn valid(&self) -> ValidCell {
        validate_cell(&self.snapshot.cell).unwrap()
    }

    pub fn pass_time(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    pub fn plan(&self) -> Upkeep {
        plan_security(Some(&self.valid()), &self.snapshot, self.now)
    }

    pub fn secret(&self, name: &str) -> &SecretFacts {
        self.snapshot
            .objects
            .secrets
            .iter()
            .find(|secret| secret.name() == name)
            .unwrap_or_else(|| panic!("{name}"))
    }

    pub fn delete(&mut self, name: &str) {
        self.snapshot.objects.secrets.retain(|secret| secret.name() != name);
    }

    /// Plans once and carries everything out; names of the steps.
    pub fn pass(&mut self) -> Vec<String> {
        let plan = self.plan();
        let names = plan.steps.iter().map(|step| match &step.action {
            Action::Secure(order) => format!("{} {}", step.action.name(), order.name()),
            other => other.name().to_owned(),
        });
        let names = names.collect();
        for step in plan.steps {
            self.carry_out(step.action);
        }
        names
    }

    /// Until nothing is to be done.
    pub fn settle(&mut self) {
        for _ in 0..10 {
            if self.pass().is_empty() {
                return;
            }
        }
        panic!("{:#?}", self.plan());
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Create(Object::ConfigMap(map)) | Action::Apply { object: Object::ConfigMap(map), .. } => {
                let maps = &mut self.snapshot.objects.config_maps;
                maps.retain(|found| found.metadata.name != map.metadata.name);
                maps.push(*map);
            }
            Action::Secure(order) => self.order(*order),
            other => panic!("{other:?}"),
        }
    }

    fn order(&mut self, order: Order) {
        match order {
            Order::Authority(order) => {
                let mut secret = self.take(&order.metadata, order.replaces.is_some());
                match order.change {
                    AuthorityChange::Found { trusted } if trusted.is_empty() => {
                        self.put_authority(&mut secret, "ca")
                    }
                    AuthorityChange::Found { trusted } => {
                        self.put_authority(&mut secret, "next");
                        let known = self.by_pem(&trusted);
                        secret.certificates.insert("trusted.crt".into(), known.into());
                    }
                    AuthorityChange::Introduce { asked } => {
                        self.put_authority(&mut secret, "next");
                        if let Some(asked) = asked {
                            annotate(&mut secret, ANNOTATION_ROTATED, asked);
                        }
                    }
                    AuthorityChange::Switch => {
                        let mut trusted = secret.certificates("ca.crt").to_vec();
                        trusted.extend_from_slice(secret.certificates("trusted.crt"));
                        let next = secret.certificates.remove("next.crt").unwrap();
                        let key = secret.keys.remove("next.key").unwrap();
                        secret.certificates.insert("ca.crt".into(), next);
                        secret.keys.insert("ca.key".into(), key);
                        secret.certificates.insert("trusted.crt".into(), trusted.into());
                    }
                    AuthorityChange::Finish => {
                        secret.certificates.remove("trusted.crt").unwrap();
                    }
                }
                annotate(&mut secret, ANNOTATION_STAGE_SINCE, self.now.to_string());
                self.snapshot.objects.secrets.push(secret);
            }
            Order::Certificates(order) => {
                let mut secret = self.take(&order.metadata, order.replaces.is_some());
                secret.certificates.retain(|key, _| order.keep.contains(key));
                secret.keys.retain(|key, _| order.keep.contains(key));
                for (file, pem) in &order.trust {
                    secret.certificates.insert(file.clone(), self.by_pem(pem).into());
                }
                for wanted in order.issue {
                    let certificate = match &wanted.source {
                        Source::Authority { secret, fingerprint } => {
                            let authority = self.secret(secret).pair("ca").unwrap().clone();
                            assert_eq!(authority.fingerprint, *fingerprint);
                            self.certificate(90 * DAY, Some(&authority), wanted.leaf.names.clone())
                        }
                        Source::Supplied { .. } => match &self.snapshot.supplied[&wanted.leaf.layer] {
                            searchcell_core::security::Supplied::Read { facts, .. } => {
                                facts.pair("tls").unwrap().clone()
                            }
                            other => panic!("{other:?}"),
                        },
                    };
                    put_pair(&mut secret, &wanted.leaf.file, certificate);
                }
                self.snapshot.objects.secrets.push(secret);
            }
            Order::Credential(order) => {
                let hash = match order.standby {
                    Some(standby) => {
                        let found = &self.secret(&standby.secret).standby[&standby.role];
                        assert_eq!(found.username, order.username);
                        assert_eq!(found.hash.as_ref(), Some(&standby.hash));
                        standby.hash
                    }
                    None => self.unique("hash"),
                };
                let mut secret = self.take(&order.metadata, false);
                secret.credential = Some(CredentialFacts { username: order.username, hash: Some(hash) });
                self.snapshot.objects.secrets.push(secret);
            }
            Order::Standby(order) => {
                let mut secret = self.take(&order.metadata, order.replaces.is_some());
                secret.standby.retain(|role, _| order.keep.contains(role));
                for (role, username) in order.make {
                    let made = CredentialFacts { username, hash: Some(self.unique("hash")) };
                    secret.standby.insert(role, made);
                }
                self.snapshot.objects.secrets.push(secret);
            }
            Order::Hash { target, .. } => {
                let hash = self.unique("hash");
                let secret =
                    self.snapshot.objects.secrets.iter_mut().find(|s| s.name() == target.name).unwrap();
                secret.credential.as_mut().unwrap().hash = Some(hash);
            }
            Order::Keystore(order) => panic!("{order:?}"),
            Order::Users(order) => {
                let mut secret = self.take(&order.metadata, order.replaces.is_some());
                let users = order.users.into_iter().map(|line| (line.username, line.hash)).collect();
                secret.users = Some(UsersFacts { users, users_roles: order.users_roles, roles: order.roles });
                annotate(&mut secret, ANNOTATION_STAGE_SINCE, self.now.to_string());
                self.snapshot.objects.secrets.push(secret);
            }
        }
    }

    fn take(&mut self, metadata: &ObjectMeta, replaces: bool) -> SecretFacts {
        let secrets = &mut self.snapshot.objects.secrets;
        let at = secrets.iter().position(|secret| secret.metadata.name == metadata.name);
        assert_eq!(at.is_some(), replaces, "{:?}", metadata.name);
        let mut secret = match at {
            Some(at) => secrets.remove(at),
            None => SecretFacts { metadata: metadata.clone(), ..SecretFacts::default() },
        };
        let version = self.unique("");
        secret.metadata.resource_version = Some(version.clone());
        secret.metadata.uid.get_or_insert(version);
        secret.metadata.creation_timestamp.get_or_insert(Time(self.now));
        secret
    }

    pub fn unique(&mut self, what: &str) -> String {
        self.serial += 1;
        format!("{what}{}", self.serial)
    }

    pub fn certificate(
        &mut self,
        seconds: i64,
        signer: Option<&CertificateFacts>,
        names: BTreeSet<String>,
    ) -> CertificateFacts {
        let number = self.unique("");
        CertificateFacts {
            fingerprint: format!("certificate-{number}"),
            public_key: format!("key-{number}"),
            key_id: Some(format!("id-{number}")),
            signer: signer.and_then(|signer| signer.key_id.clone()),
            subject: format!("subject-{number}"),
            names,
            is_authority: signer.is_none(),
            not_before: self.now,
            not_after: self.now + SignedDuration::from_secs(seconds),
            pem: format!("<{number}>\n"),
        }
    }

    fn put_authority(&mut self, secret: &mut SecretFacts, stem: &str) {
        let certificate = self.certificate(3650 * DAY, None, BTreeSet::new());
        put_pair(secret, stem, certificate);
    }

    /// Certificates that some Secret has, by their PEM.
    fn by_pem(&self, pem: &str) -> Vec<CertificateFacts> {
        let supplied = self.snapshot.supplied.values().filter_map(|supplied| match supplied {
            searchcell_core::security::Supplied::Read { facts, .. } => Some(facts.as_ref()),
            _ => None,
        });
        let all: Vec<&CertificateFacts> = (self.snapshot.objects.secrets.iter().chain(supplied))
            .flat_map(|secret| secret.certificates.values().flat_map(|found| found.iter()))
            .collect();
        pem.lines()
            .map(|line| all.iter().find(|found| found.pem.trim() == line).copied().cloned().unwrap())
            .collect()
    }

    /// Pods of everything that has certificates.
    pub fn run_pods(&mut self) {
        self.snapshot.objects.pods.clear();
        for secret in self.snapshot.objects.secrets.clone() {
            let Some(workload) = secret.name().strip_suffix("-certificates") else { continue };
            let ordinals = if workload.ends_with("-ingest") { vec!["x7", "k2"] } else { vec!["0"] };
            for ordinal in ordinals {
                let name = format!("{workload}-{ordinal}");
                let pod: Pod = serde_json::from_value(json!({
                    "metadata": {"name": name, "uid": format!("pod-{name}"), "labels": secret.metadata.labels},
                    "status": {"podIP": "10.0.0.1"},
                }))
                .unwrap();
                self.snapshot.objects.pods.push(pod);
            }
            let replicas = 1;
            let role = label(&secret.metadata, "searchcell.dev/role").unwrap();
            let object = json!({
                "metadata": {"name": workload, "labels": secret.metadata.labels, "uid": format!("set-{workload}"),
                    "ownerReferences": secret.metadata.owner_references},
                "spec": {"replicas": replicas, "selector": {}, "serviceName": "s",
                    "template": {"metadata": {}, "spec": {"containers": []}}},
            });
            if role == "ingest" {
                self.snapshot.objects.deployments.retain(|o| o.metadata.name.as_deref() != Some(workload));
                self.snapshot.objects.deployments.push(serde_json::from_value(object).unwrap());
            } else {
                self.snapshot.objects.stateful_sets.retain(|o| o.metadata.name.as_deref() != Some(workload));
                self.snapshot.objects.stateful_sets.push(serde_json::from_value(object).unwrap());
            }
        }
    }

    /// The nodes that are to be asked answer; `lags`: this one still shows what it showed before.
    pub fn serve(&mut self, lags: Option<&str>) {
        let asked = nodes_to_ask(&self.snapshot, self.now);
        let mut served = BTreeMap::new();
        for node in asked {
            let name = node.uid.strip_prefix("pod-").unwrap();
            if lags == Some(name) {
                let before = self.snapshot.served.get(&node.uid).cloned();
                served.insert(node.uid.clone(), before.unwrap_or(Reading::Unavailable("it lags".into())));
                continue;
            }
            let workload = name.rsplit_once('-').unwrap().0;
            let secret = self.secret(&format!("{workload}-certificates"));
            let file = if workload.ends_with("-ingest") { "ingest" } else { name };
            let shown =
                |layer: &str| secret.pair(&format!("{file}.{layer}")).map(|leaf| leaf.fingerprint.clone());
            let trusted =
                secret.certificates("transport-ca.crt").iter().map(|one| one.subject.clone()).collect();
            let new = Served { http: shown("http"), transport: shown("transport"), trusted };
            served.insert(node.uid.clone(), Reading::Known(new));
        }
        self.snapshot.served = served;
    }
}

pub fn put_pair(secret: &mut SecretFacts, stem: &str, certificate: CertificateFacts) {
    secret.keys.insert(format!("{stem}.key"), certificate.public_key.clone());
    secret.certificates.insert(format!("{stem}.crt"), vec![certificate].into());
}

pub fn annotate(secret: &mut SecretFacts, key: &str, value: String) {
    secret.metadata.annotations.get_or_insert_default().insert(key.to_owned(), value);
}
