//! Carries out orders: reads the live Secrets that an order rests on, makes what is to be made, writes one Secret with
//! its resource version as the precondition. Two operators, or a lost answer, cannot make two authorities: one of the
//! writes loses. Effects: writes to the API server, randomness.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use searchcell_core::names::LABEL_CELL;
use searchcell_core::security::facts::CertificateFacts;
use searchcell_core::security::keystore::{ANNOTATION_SINCE, SEED};
use searchcell_core::security::order::{
    AuthorityChange, AuthorityOrder, CertificatesOrder, CredentialOrder, KeystoreOrder, Order, Source,
    StandbyOrder, UsersOrder,
};
use searchcell_core::security::{ANNOTATION_STAGE_SINCE, Lifetimes, whole_seconds};
use searchcell_core::step::Target;

use super::data::{Data, advance, put, put_pair};
use super::forge::{Forge, Signer};
use super::parse::{self, HASH, HASHED, PASSWORD, ROLES, USERNAME, USERS, USERS_ROLES, standby_key};
use super::sealed::{Hidden, Sealed};
use crate::execute::Owner;
use crate::failure::StepError;
use crate::leadership::Leadership;
use crate::ports::{KubeApi, KubeError};

/// Carries out orders for one cell.
pub(crate) struct Orders<'a, K> {
    pub(crate) kube: &'a K,
    pub(crate) forge: &'a Forge,
    pub(crate) leadership: &'a Leadership,
    pub(crate) lifetimes: Lifetimes,
    pub(crate) now: Timestamp,
    pub(crate) owner: Owner<'a>,
}

impl<K: KubeApi> Orders<'_, K> {
    /// Carries out one order.
    pub(crate) async fn carry_out(&self, order: &Order) -> Result<(), StepError> {
        match order {
            Order::Authority(order) => self.authority(order).await,
            Order::Certificates(order) => self.certificates(order).await,
            Order::Credential(order) => self.credential(order).await,
            Order::Hash { target, username } => self.hash(target, username).await,
            Order::Standby(order) => self.standby(order).await,
            Order::Users(order) => self.users(order).await,
            Order::Keystore(order) => self.keystore(order).await,
        }
    }

    async fn authority(&self, order: &AuthorityOrder) -> Result<(), StepError> {
        let live = self.live_target(order.replaces.as_ref()).await?;
        if matches!(order.change, AuthorityChange::Switch | AuthorityChange::Finish) {
            // A node that the caches did not know yet was not asked.
            let pods = self.kube.pods_live(self.owner.namespace, &order.selector).await?;
            if !pods.is_subset(&order.pods) {
                return Err(KubeError::Conflict("there are nodes that were not asked".to_owned()).into());
            }
        }
        let mut data = live.as_ref().map(data_of).unwrap_or_default();
        let make = || self.forge.authority(&order.subject, self.lifetimes.authority, self.now);
        let Some(annotations) = advance(&mut data, &order.change, make, self.now)? else {
            return Err(changed(order.metadata.name.as_deref()));
        };
        self.write(&order.metadata, live, data, annotations).await
    }

    async fn certificates(&self, order: &CertificatesOrder) -> Result<(), StepError> {
        let live = self.live_target(order.replaces.as_ref()).await?;
        let mut data = live.as_ref().map(data_of).unwrap_or_default();
        data.retain(|key, _| order.keep.contains(key));
        for (file, pem) in &order.trust {
            put(&mut data, file, pem);
        }
        let mut signers: BTreeMap<&Source, Origin> = BTreeMap::new();
        for wanted in &order.issue {
            if !signers.contains_key(&wanted.source) {
                signers.insert(&wanted.source, self.source(&wanted.source).await?);
            }
            match signers.get(&wanted.source) {
                Some(Origin::Signer(signer)) => {
                    let pair = self.forge.leaf(&wanted.leaf, signer, self.lifetimes.certificate, self.now)?;
                    put_pair(&mut data, &wanted.leaf.file, pair);
                }
                Some(Origin::Copy { certificate, key }) => {
                    put(&mut data, &format!("{}.crt", wanted.leaf.file), certificate);
                    put(&mut data, &format!("{}.key", wanted.leaf.file), key.reveal());
                }
                None => return Err(changed(Some(wanted.source.secret()))),
            }
        }
        self.write(&order.metadata, live, data, BTreeMap::new()).await
    }

    /// The authority, or the pair of a user, that an order rests on; it must be the observed one.
    async fn source(&self, source: &Source) -> Result<Origin, StepError> {
        let name = source.secret();
        let Some(live) = self.kube.secret_live(self.owner.namespace, name).await? else {
            return Err(changed(Some(name)));
        };
        let facts = parse::facts(&live);
        let (stem, fingerprint) = match source {
            Source::Authority { fingerprint, .. } => ("ca", fingerprint),
            Source::Supplied { fingerprint, .. } => ("tls", fingerprint),
        };
        let found: &CertificateFacts = facts
            .pair(stem)
            .filter(|found| found.fingerprint == *fingerprint)
            .ok_or_else(|| changed(Some(name)))?;
        let text = |ending: &str| live.text(&format!("{stem}.{ending}")).ok_or_else(|| changed(Some(name)));
        let (certificate, key) = (text("crt")?, text("key")?);
        Ok(match source {
            Source::Authority { .. } => {
                Origin::Signer(Box::new(Signer::new(name, certificate, key, found.not_after)?))
            }
            Source::Supplied { .. } => {
                Origin::Copy { certificate: certificate.to_owned(), key: Hidden::new(key.to_owned()) }
            }
        })
    }

    async fn credential(&self, order: &CredentialOrder) -> Result<(), StepError> {
        let mut data = Data::new();
        match &order.standby {
            None => self.put_credential(&mut data, "", &order.username).await?,
            Some(standby) => {
                let live = self.kube.secret_live(self.owner.namespace, &standby.secret).await?;
                let text =
                    |key: &str| live.as_ref().and_then(|live| live.text(&standby_key(&standby.role, key)));
                let hash = text(HASH).filter(|hash| parse::fingerprint(hash.as_bytes()) == standby.hash);
                if hash.is_none() || text(USERNAME) != Some(&order.username) {
                    return Err(changed(Some(&standby.secret)));
                }
                for key in [USERNAME, PASSWORD, HASH, HASHED] {
                    put(&mut data, key, text(key).ok_or_else(|| changed(Some(&standby.secret)))?);
                }
            }
        }
        self.write(&order.metadata, None, data, BTreeMap::new()).await
    }

    async fn standby(&self, order: &StandbyOrder) -> Result<(), StepError> {
        let live = self.live_target(order.replaces.as_ref()).await?;
        let mut data = live.as_ref().map(data_of).unwrap_or_default();
        data.retain(|key, _| key.split_once('.').is_some_and(|(role, _)| order.keep.contains(role)));
        for (role, username) in &order.make {
            self.put_credential(&mut data, role, username).await?;
        }
        self.write(&order.metadata, live, data, BTreeMap::new()).await
    }

    /// A new password with its hash. `role`: whose, in a Secret of those who stand by; else empty.
    async fn put_credential(&self, data: &mut Data, role: &str, username: &str) -> Result<(), StepError> {
        let mut own = Data::new();
        let password = self.forge.password()?;
        put(&mut own, USERNAME, username);
        put(&mut own, PASSWORD, password.reveal());
        self.put_hash(&mut own, username, &password).await?;
        let key = |key: String| if role.is_empty() { key } else { standby_key(role, &key) };
        data.extend(own.into_iter().map(|(name, value)| (key(name), value)));
        Ok(())
    }

    async fn hash(&self, target: &Target, username: &str) -> Result<(), StepError> {
        let Some(live) = self.live_target(Some(target)).await? else {
            return Err(changed(Some(&target.name)));
        };
        let password = match (live.text(USERNAME), live.text(PASSWORD)) {
            (Some(found), Some(password)) if found == username => Hidden::new(password.to_owned()),
            _ => return Err(changed(Some(&target.name))),
        };
        let mut data = data_of(&live);
        self.put_hash(&mut data, username, &password).await?;
        let metadata = live.0.metadata.clone();
        self.write(&metadata, Some(live), data, BTreeMap::new()).await
    }

    async fn put_hash(&self, data: &mut Data, username: &str, password: &Hidden) -> Result<(), StepError> {
        let hash = self.forge.hash(password).await?;
        put(data, HASH, hash.reveal());
        put(data, HASHED, &parse::digest_of(username, password.reveal()));
        Ok(())
    }

    async fn users(&self, order: &UsersOrder) -> Result<(), StepError> {
        let live = self.live_target(order.replaces.as_ref()).await?;
        let file = live.as_ref().and_then(|live| live.text(USERS)).unwrap_or_default();
        let before: BTreeMap<&str, &str> = parse::user_lines(file).collect();
        let mut lines = zeroize::Zeroizing::new(String::new());
        for user in &order.users {
            let hash = match &user.secret {
                None => before.get(user.username.as_str()).map(|hash| Hidden::new((*hash).to_owned())),
                Some(secret) => {
                    let live = self.kube.secret_live(self.owner.namespace, secret).await?;
                    let key = |key: &str| match &user.standby {
                        Some(role) => standby_key(role, key),
                        None => key.to_owned(),
                    };
                    let live = live.filter(|live| live.text(&key(USERNAME)) == Some(&user.username));
                    live.and_then(|live| live.text(&key(HASH)).map(|hash| Hidden::new(hash.to_owned())))
                }
            };
            let hash = hash.filter(|hash| parse::fingerprint(hash.reveal().as_bytes()) == user.hash);
            let Some(hash) = hash else { return Err(changed(user.secret.as_deref())) };
            lines.push_str(&format!("{}:{}\n", user.username, hash.reveal()));
        }
        let mut data = Data::new();
        put(&mut data, USERS, &lines);
        put(&mut data, USERS_ROLES, &order.users_roles);
        put(&mut data, ROLES, &order.roles);
        let since =
            BTreeMap::from([(ANNOTATION_STAGE_SINCE.to_owned(), whole_seconds(self.now).to_string())]);
        self.write(&order.metadata, live, data, since).await
    }

    /// Entries by themselves, from which the next files are made, and the files.
    async fn keystore(&self, order: &KeystoreOrder) -> Result<(), StepError> {
        let mut live = self.live_target(order.replaces.as_ref()).await?;
        if live.is_some() && !order.is_running {
            // A node that the caches did not know yet may have it.
            let selector = BTreeMap::from([(LABEL_CELL.to_owned(), self.owner.cell.to_owned())]);
            if !self.kube.pods_live(self.owner.namespace, &selector).await?.is_subset(&order.pods) {
                return Err(KubeError::Conflict("there are nodes that were not known".to_owned()).into());
            }
        }
        let mut data = live.as_ref().map(data_of).unwrap_or_default();
        data.retain(|key, _| order.keep.contains(key));
        let mut sources: BTreeMap<&str, Sealed> = BTreeMap::new();
        for (name, wanted) in &order.take {
            if !sources.contains_key(wanted.secret.as_str()) {
                let source = self.kube.secret_live(self.owner.namespace, &wanted.secret).await?;
                sources.insert(&wanted.secret, source.ok_or_else(|| changed(Some(&wanted.secret)))?);
            }
            let value = sources.get(wanted.secret.as_str()).and_then(|source| source.bytes(name));
            let value = value.filter(|value| parse::entry(value) == wanted.entry);
            let value = value.ok_or_else(|| changed(Some(&wanted.secret)))?;
            data.insert(name.clone(), ByteString(value.to_vec()));
        }
        if !data.contains_key(SEED) {
            put(&mut data, SEED, self.forge.password()?.reveal());
        }
        let files = self.forge.keystore(data.clone()).await?;
        data.extend(files);
        if let Some(annotations) = live.as_mut().and_then(|live| live.0.metadata.annotations.as_mut()) {
            annotations.remove(ANNOTATION_SINCE);
        }
        let since = (ANNOTATION_SINCE.to_owned(), whole_seconds(self.now).to_string());
        let annotations = order.is_running.then_some(since).into_iter().collect();
        self.write(&order.metadata, live, data, annotations).await
    }

    /// The Secret that an order changes, as the API server has it: it must be the observed one.
    async fn live_target(&self, target: Option<&Target>) -> Result<Option<Sealed>, StepError> {
        let Some(target) = target else { return Ok(None) };
        let live = self.kube.secret_live(self.owner.namespace, &target.name).await?;
        let is_same = |live: &Sealed| {
            live.0.metadata.uid.as_deref() == Some(&target.uid)
                && live.0.metadata.resource_version == target.resource_version
        };
        live.filter(is_same).map(Some).ok_or_else(|| changed(Some(&target.name)))
    }

    /// Creates the Secret, or replaces `live`.
    async fn write(
        &self,
        metadata: &ObjectMeta,
        live: Option<Sealed>,
        data: Data,
        annotations: BTreeMap<String, String>,
    ) -> Result<(), StepError> {
        // Reading and making took time.
        if !self.leadership.holds() {
            return Err(StepError::NotLeading);
        }
        let namespace = self.owner.namespace;
        match live {
            None => {
                let annotations = (!annotations.is_empty()).then_some(annotations);
                let metadata = ObjectMeta { annotations, ..metadata.clone() };
                let secret =
                    Secret { metadata, data: Some(data), type_: Some("Opaque".into()), ..Secret::default() };
                Ok(self.kube.create_secret(namespace, &Sealed(secret), self.owner.uid).await?)
            }
            Some(Sealed(mut secret)) => {
                secret.metadata.annotations.get_or_insert_default().extend(annotations);
                secret
                    .metadata
                    .labels
                    .get_or_insert_default()
                    .extend(metadata.labels.clone().unwrap_or_default());
                secret.data = Some(data);
                Ok(self.kube.replace_secret(namespace, &Sealed(secret)).await?)
            }
        }
    }
}

/// Where a certificate comes from.
enum Origin {
    Signer(Box<Signer>),
    Copy { certificate: String, key: Hidden },
}

fn changed(name: Option<&str>) -> StepError {
    KubeError::Conflict(format!("Secret {} is not as it was observed", name.unwrap_or_default())).into()
}

fn data_of(secret: &Sealed) -> Data {
    secret.0.data.clone().unwrap_or_default()
}
