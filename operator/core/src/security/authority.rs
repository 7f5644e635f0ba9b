//! The life of a certificate authority, as a state machine whose state is what lies in its Secret. Pure.
//!
//! ```text
//! (no Secret) ──Found──▶ Steady ──Introduce──▶ Overlap ──Switch──▶ Reissue ──Finish──▶ Steady
//!                                 both are trusted      the new one issues    only the new one is trusted
//! ```
//!
//! Keys of the Secret: `ca.crt` and `ca.key`, who issues; `next.crt` and `next.key`, who will; `trusted.crt`, who is
//! trusted still. Each stage is one write of that Secret, so that an operator that dies at any moment goes on where it
//! was. A Secret that a person deleted comes back in stage Overlap: what nodes trust is read from where they have it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::order::AuthorityChange;
use super::{
    ANNOTATION_ROTATE, ANNOTATION_ROTATED, ANNOTATION_STAGE_SINCE, CertificateFacts, Layer, SecretFacts,
};
use crate::snapshot::annotation;

/// Where a rotation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// One authority issues and is trusted.
    Steady,
    /// The next one is trusted as well, and does not issue yet.
    Overlap,
    /// The next one issues, and the former is trusted still.
    Reissue,
}

/// What the Secret of an authority says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Authority {
    /// Who issues; absent: nobody can, for its key is gone.
    pub issuer: Option<CertificateFacts>,
    /// Who will.
    pub next: Option<CertificateFacts>,
    /// Who is trusted, in order, each once: the issuer first.
    pub trusted: Vec<CertificateFacts>,
    /// When the present stage began.
    since: Option<Timestamp>,
    /// The value of the annotation by which a person asks for another authority, until that is answered.
    asked: Option<String>,
    lingers: bool,
}

impl Authority {
    /// Reads the Secret.
    pub fn of(secret: &SecretFacts) -> Self {
        let (issuer, next) = (secret.pair("ca").cloned(), secret.pair("next").cloned());
        let mut trusted: Vec<CertificateFacts> = Vec::new();
        for key in ["ca.crt", "next.crt", "trusted.crt"] {
            for certificate in secret.certificates(key) {
                if !trusted.iter().any(|known| known.fingerprint == certificate.fingerprint) {
                    trusted.push(certificate.clone());
                }
            }
        }
        let meta = &secret.metadata;
        let asked = annotation(meta, ANNOTATION_ROTATE);
        Self {
            issuer,
            next,
            trusted,
            since: annotation(meta, ANNOTATION_STAGE_SINCE).and_then(|since| since.parse().ok()),
            asked: asked
                .filter(|asked| annotation(meta, ANNOTATION_ROTATED) != Some(asked))
                .map(str::to_owned),
            lingers: !secret.certificates("trusted.crt").is_empty(),
        }
    }

    /// Where a rotation stands.
    pub fn stage(&self) -> Stage {
        match (&self.next, self.lingers) {
            (Some(_), _) => Stage::Overlap,
            (None, true) => Stage::Reissue,
            (None, false) => Stage::Steady,
        }
    }

    /// Everybody who is trusted, as PEM.
    pub fn bundle(&self) -> String {
        bundle(&self.trusted)
    }
}

/// Certificates one after another, as PEM.
pub fn bundle(certificates: &[CertificateFacts]) -> String {
    certificates.iter().map(|certificate| certificate.pem.as_str()).collect()
}

/// What a decision about an authority rests on.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// Layer.
    pub layer: Layer,
    /// Now.
    pub now: Timestamp,
    /// How long clients that cannot be asked have to load a bundle.
    pub overlap: Duration,
    /// Everybody who has to trust the authority does, or who does not.
    pub trusted: Result<(), String>,
    /// Every node shows a certificate of the issuer, or who does not.
    pub served: Result<(), String>,
    /// Nothing else disturbs the nodes, or what does.
    pub undisturbed: Result<(), String>,
    /// Certificates that are trusted somewhere already.
    pub known: Vec<CertificateFacts>,
}

/// What to do about an authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing, until then at least.
    Rest(Timestamp),
    /// The next stage; why.
    Go(AuthorityChange, &'static str),
    /// Nothing yet; what it waits for, and until when at most, where that is known.
    Wait(String, Option<Timestamp>),
}

/// Decides about an authority. `authority`: absent without a Secret.
pub fn decide(authority: Option<&Authority>, evidence: &Evidence) -> Decision {
    let Some(authority) = authority else {
        let trusted = bundle(&evidence.known);
        return Decision::Go(AuthorityChange::Found { trusted }, "there is none");
    };
    match authority.stage() {
        Stage::Steady => steady(authority, evidence),
        Stage::Overlap => overlap(authority, evidence),
        Stage::Reissue => reissue(evidence),
    }
}

fn steady(authority: &Authority, evidence: &Evidence) -> Decision {
    let why = match &authority.issuer {
        None => "its key does not belong to its certificate",
        Some(_) if authority.asked.is_some() => "a person asks for another one",
        Some(issuer) if issuer.renew_at() <= evidence.now => "two thirds of its life are nearly over",
        Some(issuer) => return Decision::Rest(issuer.renew_at()),
    };
    match &evidence.undisturbed {
        Ok(()) => Decision::Go(AuthorityChange::Introduce { asked: authority.asked.clone() }, why),
        Err(what) => Decision::Wait(format!("its rotation does not begin while {what}"), None),
    }
}

fn overlap(authority: &Authority, evidence: &Evidence) -> Decision {
    if let Err(who) = &evidence.trusted {
        return Decision::Wait(
            format!("the new one issues when everybody trusts it: waiting for {who}"),
            None,
        );
    }
    // Clients of HTTP mount the bundle; nobody can ask them whether they have read it.
    let is_over = |issuer: &CertificateFacts| issuer.not_after <= evidence.now;
    if evidence.layer == Layer::Http && !authority.issuer.as_ref().is_some_and(is_over) {
        let overlap = SignedDuration::try_from(evidence.overlap).unwrap_or(SignedDuration::MAX);
        let until = authority.since.and_then(|since| since.checked_add(overlap).ok());
        if until.is_none_or(|until| until > evidence.now) {
            return Decision::Wait("the new one issues when clients had time to load it".to_owned(), until);
        }
    }
    match &evidence.undisturbed {
        Ok(()) => Decision::Go(AuthorityChange::Switch, "everybody trusts the new one"),
        Err(what) => Decision::Wait(format!("its rotation does not go on while {what}"), None),
    }
}

fn reissue(evidence: &Evidence) -> Decision {
    if let Err(who) = &evidence.served {
        let text =
            format!("the former one is trusted until every node shows a new certificate: waiting for {who}");
        return Decision::Wait(text, None);
    }
    match &evidence.undisturbed {
        Ok(()) => Decision::Go(AuthorityChange::Finish, "every node shows a certificate of the new one"),
        Err(what) => Decision::Wait(format!("its rotation does not end while {what}"), None),
    }
}
