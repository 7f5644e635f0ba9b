use std::sync::Arc;

use super::*;
use crate::security::CertificateFacts;

const DAY: i64 = 86_400;

fn at(day: i64) -> Timestamp {
    Timestamp::from_second(day * DAY).unwrap()
}

fn certificate(name: &str, signer: Option<&str>, from: i64, days: i64) -> CertificateFacts {
    CertificateFacts {
        fingerprint: name.to_owned(),
        public_key: name.to_owned(),
        key_id: Some(name.to_owned()),
        signer: signer.map(str::to_owned),
        subject: name.to_owned(),
        names: BTreeSet::from(["hook.system.svc".to_owned()]),
        is_authority: signer.is_none(),
        not_before: at(from),
        not_after: at(from + days),
        pem: format!("<{name}>"),
    }
}

/// The Secret as the effect would make it.
#[derive(Default)]
struct World {
    secret: SecretFacts,
    trusted: Option<String>,
    count: usize,
    day: i64,
}

impl World {
    fn put(&mut self, name: &str, certificate: CertificateFacts) {
        self.secret.keys.insert(format!("{name}.key"), certificate.public_key.clone());
        self.secret.certificates.insert(format!("{name}.crt"), Arc::new(vec![certificate]));
    }

    fn authority(&mut self) -> CertificateFacts {
        self.count += 1;
        certificate(&format!("ca{}", self.count), None, self.day, 100)
    }

    fn issuer(&self) -> CertificateFacts {
        self.secret.pair("ca").unwrap().clone()
    }

    fn names() -> BTreeSet<String> {
        BTreeSet::from(["hook.system.svc".to_owned()])
    }

    fn next(&self) -> Next {
        let secret = (!self.secret.certificates.is_empty()).then_some(&self.secret);
        let trusted = self.trusted.clone().map_or(Trusted::Nowhere, Trusted::Bundle);
        next(secret, &trusted, &Self::names(), at(self.day))
    }

    /// Whoever calls trusts what is shown, at any time after the first certificate.
    fn check(&self) {
        let Some(shown) = self.secret.pair(CERTIFICATE) else { return };
        let signer = shown.signer.clone().unwrap();
        if let Some(trusted) = &self.trusted {
            assert!(trusted.contains(&format!("<{signer}>")), "{signer} is not in {trusted}");
        }
        assert!(at(self.day) < shown.not_after);
    }

    /// Does what is said until there is nothing to do; says what it did.
    fn settle(&mut self) -> (Vec<String>, Timestamp) {
        let mut done = Vec::new();
        loop {
            match self.next() {
                Next::Authority(change, _) => {
                    done.push(format!("{change:?}").split([' ', '{']).next().unwrap().to_owned());
                    match change {
                        AuthorityChange::Found { .. } => {
                            let made = self.authority();
                            self.put("ca", made);
                        }
                        AuthorityChange::Introduce { .. } => {
                            let made = self.authority();
                            self.put("next", made);
                        }
                        AuthorityChange::Switch => {
                            let next = self.secret.pair("next").unwrap().clone();
                            // Also when its key is lost: it is trusted still.
                            let former = self.secret.certificates["ca.crt"].clone();
                            self.put("ca", next);
                            self.secret.certificates.insert("trusted.crt".into(), former);
                            self.secret.certificates.remove("next.crt");
                        }
                        AuthorityChange::Finish => {
                            self.secret.certificates.remove("trusted.crt");
                        }
                    }
                }
                Next::Issue => {
                    done.push("Issue".to_owned());
                    self.count += 1;
                    let issuer = self.issuer().key_id;
                    let leaf = certificate(&format!("leaf{}", self.count), issuer.as_deref(), self.day, 30);
                    self.put(CERTIFICATE, leaf);
                }
                Next::Publish(bundle) => {
                    done.push(format!("Publish {bundle}"));
                    self.trusted = Some(bundle);
                }
                Next::Rest(until) => return (done, until),
            }
            self.check();
            assert!(done.len() < 12, "{done:?}");
        }
    }
}

#[test]
fn it_is_founded_trusted_issued_and_then_rests() {
    let mut world = World { trusted: Some(String::new()), ..World::default() };
    let (done, until) = world.settle();
    assert_eq!(done, ["Found", "Publish <ca1>", "Issue"]);
    assert_eq!(until, at(18), "six tenths of thirty days");
    world.day = 17;
    assert!(world.settle().0.is_empty());
    world.day = 18;
    assert_eq!(world.settle().0, ["Issue"]);
}

#[test]
fn an_authority_is_trusted_before_it_issues_and_until_nothing_of_it_is_shown() {
    let mut world = World { trusted: Some(String::new()), ..World::default() };
    world.settle();
    for day in [18, 36, 54] {
        world.day = day;
        world.settle();
    }
    world.day = 60;
    let (done, _) = world.settle();
    let former = world.trusted.clone().unwrap();
    assert_eq!(done[0], "Introduce");
    assert!(done[1].starts_with("Publish <ca1><ca"), "{done:?}");
    assert_eq!(done[2], "Switch");
    assert!(done[3].starts_with("Publish <ca") && done[3].ends_with("<ca1>"), "{done:?}");
    assert_eq!(&done[4..6], ["Issue", "Finish"]);
    assert!(done[6].starts_with("Publish") && !former.contains("<ca1>"), "{done:?}");
}

#[test]
fn what_somebody_took_away_comes_back() {
    let mut world = World { trusted: Some(String::new()), ..World::default() };
    world.settle();
    world.trusted = Some("somebody else's".to_owned());
    assert_eq!(world.settle().0, ["Publish <ca1>"]);
    world.secret.keys.remove("tls.key");
    assert_eq!(world.settle().0, ["Issue"]);
    world.secret.keys.remove("ca.key");
    let (done, _) = world.settle();
    assert_eq!(
        (done[0].as_str(), done.last().map(String::as_str).unwrap().starts_with("Publish")),
        ("Introduce", true)
    );
    world.secret = SecretFacts::default();
    let (done, _) = world.settle();
    assert_eq!(done[0], "Found");
    assert_eq!(done.last().unwrap(), "Issue");
}

#[test]
fn a_name_by_which_it_is_called_has_to_be_in_it() {
    let mut world = World { trusted: None, ..World::default() };
    assert_eq!(world.settle().0, ["Found", "Issue"], "without a configuration nobody has to trust it");
    let other = BTreeSet::from(["10.0.0.1".to_owned()]);
    assert_eq!(next(Some(&world.secret), &Trusted::Nowhere, &other, at(0)), Next::Issue);
}
