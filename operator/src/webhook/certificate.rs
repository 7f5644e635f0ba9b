//! The webhook's certificate: every replica shows what the Secret holds; the leader keeps the Secret, and the `caBundle`
//! of the webhook's configuration, as `searchcell_core::inject::certificate` says. At rest nothing is asked and nothing
//! is written. Effects: one Secret, one field of one MutatingWebhookConfiguration, randomness.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhook, MutatingWebhookConfiguration};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher::{Config, Error as WatchError, Event};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use searchcell_core::inject::certificate::{CERTIFICATE, Next, Trusted, next};
use searchcell_core::names::{FIELD_MANAGER, LABEL_APP, OPERATOR_APP};
use searchcell_core::security::authority::Authority;
use searchcell_core::security::leaf::Leaf;
use searchcell_core::security::{Layer, Lifetimes};
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::server::Shown;
use super::{SERVICE, WEBHOOK};
use crate::clock::Clock;
use crate::kube_io::client::OnRequest;
use crate::kube_io::requests::{Failed, call, create_new, replace};
use crate::leadership::Leadership;
use crate::security::data::{Data, advance, put_pair};
use crate::security::forge::{Forge, ForgeError, Signer};
use crate::security::parse;
use crate::security::sealed::Sealed;

/// How often is looked, in memory, whether something is due; also when a write that failed is tried again.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// So much of the time until something is due that a clock which jumps is noticed.
const LONGEST: Duration = Duration::from_secs(60);

/// Why a step was not done. It is tried again.
#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error("a request to the API server failed: {0:?}")]
    Request(Failed),
    #[error(transparent)]
    Forge(#[from] ForgeError),
    #[error("the Secret is not as it was observed")]
    Changed,
}

impl From<Failed> for KeepError {
    fn from(failed: Failed) -> Self {
        KeepError::Request(failed)
    }
}

/// Keeps the certificate.
pub struct Keeper {
    /// Client.
    pub client: Client,
    /// The operator's own namespace, where the Secret is.
    pub namespace: String,
    /// Name of the MutatingWebhookConfiguration.
    pub configuration: String,
    /// Names and addresses by which the API server calls.
    pub names: BTreeSet<String>,
    /// How long certificates live.
    pub lifetimes: Lifetimes,
    /// Who may write.
    pub leadership: Leadership,
    /// What is shown.
    pub shown: Arc<Shown>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Hears of requests.
    pub on_request: Arc<OnRequest>,
}

/// An object as its watch has it.
enum Known<T> {
    NotYet,
    Missing,
    There(Box<T>),
}

impl<T> Known<T> {
    fn take(&mut self, event: Result<Event<T>, WatchError>) {
        match event {
            Ok(Event::Apply(object) | Event::InitApply(object)) => *self = Known::There(Box::new(object)),
            Ok(Event::Delete(_)) => *self = Known::Missing,
            // Gone while nobody watched: the list that begins does not have it.
            Ok(Event::Init) => *self = Known::NotYet,
            Ok(Event::InitDone) => {
                if matches!(self, Known::NotYet) {
                    *self = Known::Missing;
                }
            }
            Err(error) => tracing::warn!(%error, "a watch of the webhook failed and is repeated"),
        }
    }
}

impl Keeper {
    /// Keeps it for as long as it runs.
    pub async fn run(self) {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let configurations: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
        let named = |name: &str| Config::default().fields(&format!("metadata.name={name}"));
        let secrets = watcher(secrets, named(SERVICE)).default_backoff();
        let configurations = watcher(configurations, named(&self.configuration)).default_backoff();
        tokio::pin!(secrets, configurations);
        let (mut secret, mut configuration) = (Known::NotYet, Known::NotYet);
        let mut look_at = Instant::now();
        loop {
            tokio::select! {
                event = secrets.next() => match event {
                    Some(event) => {
                        secret.take(event);
                        if let Known::There(secret) = &secret {
                            self.show(secret);
                        }
                    }
                    None => return,
                },
                event = configurations.next() => match event {
                    Some(event) => {
                        configuration.take(event);
                        self.check(&configuration);
                    }
                    None => return,
                },
                () = sleep_until(look_at) => {}
            }
            look_at = Instant::now() + LOOK_EVERY;
            if self.leadership.holds() {
                match self.step(&secret, &configuration).await {
                    Ok(Some(rest)) => look_at = Instant::now() + rest,
                    Ok(None) => {}
                    Err(error) => tracing::warn!(%error, "the webhook's certificate is not as it should be"),
                }
            }
        }
    }

    /// Says so when the API server calls somebody else.
    fn check(&self, configuration: &Known<MutatingWebhookConfiguration>) {
        let Known::There(configuration) = configuration else { return };
        let Some(service) = ours(configuration).and_then(|webhook| webhook.client_config.service.as_ref())
        else {
            return;
        };
        if service.namespace != self.namespace {
            tracing::warn!(
                configuration = self.configuration,
                called = service.namespace,
                own = self.namespace,
                "the webhook's configuration names the Service of another namespace: set clientConfig.service.namespace"
            );
        }
    }

    /// Shows what the Secret holds, when it can be used.
    fn show(&self, secret: &Secret) {
        let sealed = Sealed(secret.clone());
        let is_pair = parse::facts(&sealed).pair(CERTIFICATE).is_some();
        match certified(&sealed).filter(|_| is_pair) {
            Some(certificate) => self.shown.show(Arc::new(certificate)),
            // It has an authority first, and a certificate a moment later.
            None => tracing::info!("the webhook's Secret holds no certificate: what is shown stays as it is"),
        }
    }

    /// One step; how long to rest when there is none.
    async fn step(
        &self,
        secret: &Known<Secret>,
        configuration: &Known<MutatingWebhookConfiguration>,
    ) -> Result<Option<Duration>, KeepError> {
        let live = match secret {
            Known::NotYet => return Ok(None),
            Known::Missing => None,
            Known::There(secret) => Some(Sealed(Secret::clone(secret))),
        };
        let trusted = match configuration {
            Known::NotYet => return Ok(None),
            Known::Missing => Trusted::Nowhere,
            Known::There(configuration) => trusted_by(configuration),
        };
        let facts = live.as_ref().map(parse::facts);
        let now = self.clock.now();
        match next(facts.as_ref(), &trusted, &self.names, now) {
            Next::Rest(until) => {
                let rest = Duration::try_from(until.duration_since(now)).unwrap_or(Duration::ZERO);
                return Ok(Some(rest.clamp(LOOK_EVERY, LONGEST)));
            }
            Next::Publish(bundle) => {
                if let Known::There(configuration) = configuration {
                    self.publish(configuration, &bundle).await?;
                    tracing::info!("the API server trusts the webhook's authority");
                }
            }
            Next::Authority(change, why) => {
                let mut data = live.as_ref().and_then(|live| live.0.data.clone()).unwrap_or_default();
                let forge = Forge::default();
                let subject = format!("{}/{SERVICE}", self.namespace);
                let make = || forge.authority(&subject, self.lifetimes.authority, now);
                let annotations = advance(&mut data, &change, make, now)?.ok_or(KeepError::Changed)?;
                self.write(live, data, annotations).await?;
                tracing::info!(?change, why, "the webhook's authority");
            }
            Next::Issue => {
                let live = live.ok_or(KeepError::Changed)?;
                let mut data = live.0.data.clone().unwrap_or_default();
                let pair = self.issue(&live, now)?;
                put_pair(&mut data, CERTIFICATE, pair);
                self.write(Some(live), data, BTreeMap::new()).await?;
                tracing::info!("the webhook has a new certificate");
            }
        }
        Ok(None)
    }

    fn issue(&self, live: &Sealed, now: Timestamp) -> Result<crate::security::forge::Pair, KeepError> {
        let issuer = Authority::of(&parse::facts(live)).issuer.ok_or(KeepError::Changed)?;
        let text = |key: &str| live.text(key).ok_or(KeepError::Changed);
        let signer = Signer::new(SERVICE, text("ca.crt")?, text("ca.key")?, issuer.not_after)?;
        let leaf = Leaf {
            file: CERTIFICATE.to_owned(),
            layer: Layer::Http,
            common_name: SERVICE.to_owned(),
            names: self.names.clone(),
        };
        Ok(Forge::default().leaf(&leaf, &signer, self.lifetimes.certificate, now)?)
    }

    /// Creates the Secret, or replaces `live`, which must be what is there.
    async fn write(
        &self,
        live: Option<Sealed>,
        data: Data,
        annotations: BTreeMap<String, String>,
    ) -> Result<(), KeepError> {
        match live {
            None => {
                let secret = Secret {
                    metadata: ObjectMeta {
                        name: Some(SERVICE.to_owned()),
                        namespace: Some(self.namespace.clone()),
                        // Without the label of what belongs to cells: it is of none.
                        labels: Some(BTreeMap::from([(LABEL_APP.to_owned(), OPERATOR_APP.to_owned())])),
                        annotations: Some(annotations),
                        ..ObjectMeta::default()
                    },
                    data: Some(data),
                    type_: Some("Opaque".to_owned()),
                    ..Secret::default()
                };
                self.count("create", create_new(&self.client, &self.namespace, &secret).await)
            }
            Some(Sealed(mut secret)) => {
                secret.metadata.annotations.get_or_insert_default().extend(annotations);
                secret.metadata.managed_fields = None;
                secret.data = Some(data);
                self.count("replace", replace(&self.client, &self.namespace, &secret).await)
            }
        }
    }

    /// Server-side apply of this one field: whoever applies the rest of the object does not own it.
    async fn publish(
        &self,
        configuration: &MutatingWebhookConfiguration,
        bundle: &str,
    ) -> Result<(), KeepError> {
        let bundle = k8s_openapi::ByteString(bundle.as_bytes().to_vec());
        let ours = json!({
            "apiVersion": MutatingWebhookConfiguration::api_version(&()),
            "kind": MutatingWebhookConfiguration::kind(&()),
            "metadata": {"name": self.configuration, "uid": configuration.metadata.uid},
            "webhooks": [{"name": WEBHOOK, "clientConfig": {"caBundle": bundle}}],
        });
        let api: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let applied = call(api.patch(&self.configuration, &params, &Patch::Apply(&ours))).await;
        self.count("apply", applied.map(|_| ()))
    }

    fn count(&self, verb: &'static str, result: Result<(), Failed>) -> Result<(), KeepError> {
        let outcome = result.as_ref().map_or_else(Failed::outcome, |()| "success");
        (self.on_request)(verb, outcome);
        Ok(result?)
    }
}

fn ours(configuration: &MutatingWebhookConfiguration) -> Option<&MutatingWebhook> {
    configuration.webhooks.iter().flatten().find(|webhook| webhook.name == WEBHOOK)
}

/// Whom a configuration trusts; one without our webhook is none of ours.
fn trusted_by(configuration: &MutatingWebhookConfiguration) -> Trusted {
    let Some(webhook) = ours(configuration) else { return Trusted::Nowhere };
    let bundle = webhook.client_config.ca_bundle.as_ref().map(|bundle| bundle.0.as_slice());
    Trusted::Bundle(String::from_utf8_lossy(bundle.unwrap_or_default()).into_owned())
}

/// The certificate of a Secret, ready to be shown.
fn certified(secret: &Sealed) -> Option<CertifiedKey> {
    let certificate = secret.bytes(&format!("{CERTIFICATE}.crt"))?;
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(certificate).collect::<Result<_, _>>().ok()?;
    let key = PrivateKeyDer::from_pem_slice(secret.bytes(&format!("{CERTIFICATE}.key"))?).ok()?;
    let key = rustls::crypto::ring::sign::any_supported_type(&key).ok()?;
    (!chain.is_empty()).then(|| CertifiedKey::new(chain, key))
}
