//! Who may do what: the users of the file realm, their roles, and how their passwords rotate without an outage. Pure.
//!
//! A user of the file realm has one hash, and nodes load a changed file one after another. So everybody has two users
//! that take turns, and the one whose turn is next stands by: every node knows it already, and its password waits in a
//! Secret of the operator. When the Secret of a credential is deleted, it comes back with the one that stood by; the
//! former one goes when its clients are on the new one, and then another one stands by in its place. In the file, the
//! current one comes first.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::order::{CredentialOrder, Order, Standby, StandbyOrder, UserLine, UsersOrder};
use super::roles::roles;
use super::{ANNOTATION_STAGE_SINCE, CredentialFacts, Lifetimes, SecretFacts, UsersFacts};
use crate::drift;
use crate::snapshot::annotation;
use crate::step::Kind;

/// Everybody with a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum User {
    /// The operator itself.
    Operator,
    /// Routers: they write and search, in indices of placements.
    Router,
    /// Exporters of metrics.
    Exporter,
    /// The administrator.
    Admin,
}

impl User {
    /// In the order of the file.
    pub const ALL: [User; 4] = [User::Operator, User::Router, User::Exporter, User::Admin];

    /// In names.
    pub fn as_str(self) -> &'static str {
        match self {
            User::Operator => "operator",
            User::Router => "router",
            User::Exporter => "exporter",
            User::Admin => "admin",
        }
    }

    /// The Secret of its credential.
    pub fn secret(self, cell: &str) -> String {
        format!("{cell}-{}", self.as_str())
    }

    /// The users that take turns.
    pub fn slots(self) -> Vec<String> {
        (1..=2).map(|slot| format!("searchcell-{}-{slot}", self.as_str())).collect()
    }

    pub(super) fn role(self) -> String {
        match self {
            // Elasticsearch's own: it may do everything.
            User::Admin => "superuser".to_owned(),
            _ => format!("searchcell_{}", self.as_str()),
        }
    }
}

/// The Secret of the file realm.
pub fn users_secret(cell: &str) -> String {
    format!("{cell}-users")
}

/// The Secret of the credentials that stand by; the operator's alone.
pub fn standby_secret(cell: &str) -> String {
    format!("{cell}-standby")
}

/// How long a new file needs to reach every node: the kubelet's minute and a half, and Elasticsearch's seconds.
const DELIVERY: SignedDuration = SignedDuration::from_secs(120);

/// What the users of a cell are judged by.
pub struct UsersView<'a> {
    /// Name of the cell.
    pub cell: &'a str,
    /// UID of the cell.
    pub uid: &'a str,
    /// Metadata of a Secret of the cell.
    pub metadata: &'a dyn Fn(String) -> k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    /// Secrets of the cell.
    pub secrets: &'a [SecretFacts],
    /// The user that each cluster took the operator for, when it was read; absent: it was not.
    pub known_as: Vec<Option<&'a str>>,
    /// Rotation.
    pub lifetimes: Lifetimes,
    /// Now.
    pub now: Timestamp,
}

/// What is to be done about users.
#[derive(Debug, Default)]
pub struct UsersPlan {
    /// With why.
    pub orders: Vec<(Order, String)>,
    /// What is wrong with a Secret, for a person.
    pub problems: Vec<String>,
    /// When to look again.
    pub wake_at: Option<Timestamp>,
}

impl UsersPlan {
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |wake| wake.min(at)));
    }
}

/// Decides about users.
pub fn plan(view: &UsersView<'_>) -> UsersPlan {
    let mut plan = UsersPlan::default();
    let file_name = users_secret(view.cell);
    let file = view.find(&file_name);
    let nothing = UsersFacts::default();
    let present = file.and_then(|secret| secret.users.as_ref()).unwrap_or(&nothing);
    let standby = view.find(&standby_secret(view.cell));

    let mut lines: Vec<UserLine> = Vec::new();
    let mut is_complete = true;
    let (mut make, mut keep) = (BTreeMap::new(), BTreeSet::new());
    for user in User::ALL {
        let of = Of {
            user,
            slots: user.slots(),
            in_file: present.users.iter().filter(|(name, _)| user.slots().contains(name)).collect(),
            standby: standby.and_then(|secret| secret.standby.get(user.as_str())),
        };
        let current = of.current(view, file, &mut plan);
        match &current {
            Some((credential, line)) => {
                lines.push(line.clone());
                match of.second(view, credential, file.is_some(), &mut plan) {
                    Second::StandsBy(line) => {
                        keep.insert(user.as_str().to_owned());
                        lines.push(line);
                    }
                    Second::Former(line) => lines.push(line),
                    Second::Make(username) => {
                        make.insert(user.as_str().to_owned(), username);
                    }
                    Second::Nobody => {}
                }
            }
            // Whatever is wrong with its Secret, who is in the file stays.
            None => {
                is_complete &= !of.in_file.is_empty();
                let next = of.stands_by().map(|(standby, hash)| of.standby_line(view, standby, hash));
                let is_next =
                    |name: &String| next.as_ref().is_some_and(|line: &UserLine| line.username == *name);
                lines.extend(of.in_file.iter().filter(|(name, _)| !is_next(name)).map(|found| stays(found)));
                if let Some(line) = next {
                    keep.insert(user.as_str().to_owned());
                    lines.push(line);
                } else if file.is_some() && !view.is_taken(&user.secret(view.cell)) {
                    // Nodes learn of a user before anybody else does.
                    make.insert(user.as_str().to_owned(), of.free_slot());
                }
            }
        }
    }
    plan_standby(view, standby, make, keep, &mut plan);
    // The first file has everybody.
    if file.is_none() && (!is_complete || view.is_taken(&file_name)) {
        return plan;
    }
    let (users_roles, roles) = (users_roles(&lines), roles());
    let wanted: Vec<(String, String)> =
        lines.iter().map(|line| (line.username.clone(), line.hash.clone())).collect();
    if file.is_none()
        || wanted != present.users
        || users_roles != present.users_roles
        || roles != present.roles
    {
        let why = if wanted == present.users { "their rights change" } else { "users come or go" };
        let order = UsersOrder {
            metadata: (view.metadata)(file_name),
            replaces: file.map(|secret| drift::exact_target(Kind::Secret, &secret.metadata)),
            users: lines,
            users_roles,
            roles,
        };
        plan.orders.push((Order::Users(order), why.to_owned()));
    }
    plan
}

impl<'a> UsersView<'a> {
    fn find(&self, name: &str) -> Option<&'a SecretFacts> {
        drift::find(self.secrets, |secret| &secret.metadata, name, self.uid).ours()
    }

    /// True when there is a Secret of that name, whoever it belongs to.
    fn is_taken(&self, name: &str) -> bool {
        self.secrets.iter().any(|secret| secret.name() == name)
    }
}

/// What is known of one of `User::ALL`.
struct Of<'a> {
    user: User,
    slots: Vec<String>,
    /// User names with hashes, in the order of the file.
    in_file: Vec<&'a (String, String)>,
    standby: Option<&'a CredentialFacts>,
}

/// Who is beside the current user.
enum Second {
    /// Whose turn is next.
    StandsBy(UserLine),
    /// Whose turn is over, while there may be clients that use it.
    Former(UserLine),
    /// Nobody: a user of this name is to be made, and stands by.
    Make(String),
    /// Nobody for now.
    Nobody,
}

impl Of<'_> {
    /// The user that the Secret of the credential names. Absent: there is none that can be used, and what is to be done
    /// about that is in `plan`.
    fn current(
        &self,
        view: &UsersView<'_>,
        file: Option<&SecretFacts>,
        plan: &mut UsersPlan,
    ) -> Option<(CredentialFacts, UserLine)> {
        let name = self.user.secret(view.cell);
        let Some(secret) = view.find(&name) else {
            if !view.is_taken(&name) {
                self.make_current(view, file, name, plan);
            }
            return None;
        };
        let Some(credential) = &secret.credential else {
            let problem =
                format!("Secret {name} has no username and password: delete it, and it is made anew");
            plan.problems.push(problem);
            return None;
        };
        let username = credential.username.clone();
        if !self.slots.contains(&username) {
            plan.problems.push(format!(
                "Secret {name} names a user that is not {}: delete the Secret, and it is made anew",
                self.slots.join(" or ")
            ));
            return None;
        }
        let Some(hash) = credential.hash.clone() else {
            let target = drift::exact_target(Kind::Secret, &secret.metadata);
            plan.orders.push((Order::Hash { target, username }, "its password has no hash yet".to_owned()));
            return None;
        };
        Some((credential.clone(), UserLine { username, secret: Some(name), standby: None, hash }))
    }

    fn make_current(
        &self,
        view: &UsersView<'_>,
        file: Option<&SecretFacts>,
        name: String,
        plan: &mut UsersPlan,
    ) {
        let (username, standby) = match self.stands_by() {
            Some((standby, hash)) => {
                // Nodes that do not know it yet would refuse it. Who has the former password mounted still has it.
                let is_in =
                    self.in_file.iter().any(|(name, found)| *name == standby.username && found == hash);
                let since = file.and_then(|file| annotation(&file.metadata, ANNOTATION_STAGE_SINCE));
                let since = since.and_then(|since| since.parse::<Timestamp>().ok());
                match since.and_then(|since| since.checked_add(DELIVERY).ok()) {
                    _ if !is_in => return,
                    Some(at) if at > view.now => return plan.wake(at),
                    _ => {}
                }
                let (secret, role) = (standby_secret(view.cell), self.user.as_str().to_owned());
                (standby.username.clone(), Some(Standby { secret, role, hash: hash.clone() }))
            }
            // Somebody is to stand by first.
            None if file.is_some() => return,
            None => (self.free_slot(), None),
        };
        let order = CredentialOrder { metadata: (view.metadata)(name), username, standby };
        let why = format!("there is no credential of the {}", self.user.as_str());
        plan.orders.push((Order::Credential(order), why));
    }

    /// Whose turn is next while there is no current one, with the fingerprint of the hash. Who comes first in the file
    /// has had the turn.
    fn stands_by(&self) -> Option<(&CredentialFacts, &String)> {
        let first = self.in_file.first().map(|(name, _)| name);
        let standby = self.standby.filter(|standby| Some(&standby.username) != first)?;
        Some((standby, standby.hash.as_ref()?))
    }

    /// The user name that is not in use.
    fn free_slot(&self) -> String {
        let first = self.in_file.first().map(|(name, _)| name);
        let free = self.slots.iter().find(|slot| Some(*slot) != first);
        free.or(self.slots.first()).cloned().unwrap_or_default()
    }

    fn standby_line(&self, view: &UsersView<'_>, standby: &CredentialFacts, hash: &str) -> UserLine {
        UserLine {
            username: standby.username.clone(),
            secret: Some(standby_secret(view.cell)),
            standby: Some(self.user.as_str().to_owned()),
            hash: hash.to_owned(),
        }
    }

    fn second(
        &self,
        view: &UsersView<'_>,
        current: &CredentialFacts,
        has_file: bool,
        plan: &mut UsersPlan,
    ) -> Second {
        let is_other =
            |standby: &&CredentialFacts| standby.username != current.username && standby.hash != current.hash;
        if let Some(standby) = self.standby.filter(is_other)
            && let Some(hash) = &standby.hash
        {
            return Second::StandsBy(self.standby_line(view, standby, hash));
        }
        let former = self.in_file.iter().find(|(name, _)| *name != current.username);
        if let Some(former) = former {
            match retires(self.user, current, view) {
                Retires::Now => {}
                Retires::At(at) => {
                    plan.wake(at);
                    return Second::Former(stays(former));
                }
                Retires::Later => return Second::Former(stays(former)),
            }
        }
        // A cell is not kept waiting for who is not needed yet.
        match self.slots.iter().find(|slot| **slot != current.username) {
            Some(slot) if has_file => Second::Make(slot.clone()),
            _ => Second::Nobody,
        }
    }
}

/// A user of the file, as it is.
fn stays((username, hash): &(String, String)) -> UserLine {
    UserLine { username: username.clone(), secret: None, standby: None, hash: hash.clone() }
}

/// Those who stand by are made, and who is current by now does not stand by any more.
fn plan_standby(
    view: &UsersView<'_>,
    standby: Option<&SecretFacts>,
    make: BTreeMap<String, String>,
    keep: BTreeSet<String>,
    plan: &mut UsersPlan,
) {
    let name = standby_secret(view.cell);
    let has: BTreeSet<String> = standby.iter().flat_map(|secret| secret.standby.keys().cloned()).collect();
    if (make.is_empty() && has == keep) || (standby.is_none() && view.is_taken(&name)) {
        return;
    }
    let why = if make.is_empty() { "some do not stand by any more" } else { "nobody stands by for some" };
    let replaces = standby.map(|secret| drift::exact_target(Kind::Secret, &secret.metadata));
    let order = StandbyOrder { metadata: (view.metadata)(name), replaces, make, keep };
    plan.orders.push((Order::Standby(order), why.to_owned()));
}

fn users_roles(lines: &[UserLine]) -> String {
    User::ALL
        .iter()
        .map(|user| {
            let slots = user.slots();
            let mut names: Vec<&str> = lines.iter().map(|line| line.username.as_str()).collect();
            names.retain(|name| slots.iter().any(|slot| slot == name));
            format!("{}:{}\n", user.role(), names.join(","))
        })
        .collect()
}

enum Retires {
    Now,
    At(Timestamp),
    Later,
}

/// When the former user of a pair goes.
fn retires(user: User, current: &CredentialFacts, view: &UsersView<'_>) -> Retires {
    if user == User::Operator {
        let is_known = !view.known_as.is_empty()
            && view.known_as.iter().all(|known| *known == Some(current.username.as_str()));
        return if is_known { Retires::Now } else { Retires::Later };
    }
    let secret = view.find(&user.secret(view.cell));
    let Some(made) = secret.and_then(|secret| secret.metadata.creation_timestamp.as_ref()) else {
        return Retires::Later;
    };
    let grace = SignedDuration::try_from(view.lifetimes.credential_grace).unwrap_or(SignedDuration::MAX);
    match made.0.checked_add(grace) {
        Ok(at) if at <= view.now => Retires::Now,
        Ok(at) => Retires::At(at),
        Err(_) => Retires::Later,
    }
}
