//! Who may do what: the users of the file realm, their roles, and how their passwords rotate without an outage. Pure.
//!
//! A user of the file realm has one hash, so whoever is not a person has two users that take turns: the Secret names
//! the one that is current, and the other goes when its clients are on the new one. In the file, the current one comes
//! first.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use searchcell_crds::IndexPlacement;
use serde_json::json;

use super::order::{CredentialOrder, Order, UserLine, UsersOrder};
use super::{CredentialFacts, Lifetimes, SecretFacts, UsersFacts};
use crate::drift;
use crate::step::Kind;

/// Everybody with a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum User {
    /// The operator itself.
    Operator,
    /// Routers: they write and search, in the indices of this cell's placements.
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
        match self {
            User::Admin => vec!["searchcell-admin".to_owned()],
            _ => (1..=2).map(|slot| format!("searchcell-{}-{slot}", self.as_str())).collect(),
        }
    }

    fn role(self) -> String {
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

/// Names that indices of placements have, whatever their collection.
const MANAGED: &str = r"/[a-z][a-z0-9-]*\.(p[0-9]+|t\.[a-z0-9-]+)\.g[0-9]+/";

/// `roles.yml`: the least that works. `docs/operations/security.md` says which call needs what.
pub fn roles(placements: &[IndexPlacement]) -> String {
    let routed = patterns(placements);
    let roles = [
        (
            User::Operator,
            json!(["monitor", "cluster:admin/settings/update", "cluster:admin/nodes/reload_secure_settings"]),
            json!([
                {"names": ["*"], "privileges": ["monitor", "view_index_metadata"]},
                {"names": [MANAGED], "privileges": ["create_index", "delete_index"]},
            ]),
        ),
        (
            User::Router,
            json!(["cluster:monitor/main"]),
            if routed.is_empty() {
                json!([])
            } else {
                json!([{"names": routed, "privileges": ["read", "write", "indices:admin/refresh*"]}])
            },
        ),
        (User::Exporter, json!(["monitor"]), json!([{"names": ["*"], "privileges": ["monitor"]}])),
    ];
    let role = |(user, cluster, indices): &(User, serde_json::Value, serde_json::Value)| {
        format!("{}:\n  cluster: {cluster}\n  indices: {indices}\n", user.role())
    };
    roles.iter().map(role).collect()
}

/// Names of the indices of the cell's placements, as patterns.
fn patterns(placements: &[IndexPlacement]) -> Vec<String> {
    // The schema says the same of collections; an object can be older than the schema.
    let is_plain = |name: &&str| {
        name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    let collections: BTreeSet<&str> =
        placements.iter().map(|placement| placement.spec.collection.as_str()).filter(is_plain).collect();
    collections.iter().flat_map(|name| [format!("{name}.p*"), format!("{name}.t.*")]).collect()
}

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
    /// Placements of the cell.
    pub placements: &'a [IndexPlacement],
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

/// Decides about users.
pub fn plan(view: &UsersView<'_>) -> UsersPlan {
    let mut plan = UsersPlan::default();
    let find = |name: &str| drift::find(view.secrets, |secret| &secret.metadata, name, view.uid).ours();
    let file_name = users_secret(view.cell);
    let file = find(&file_name);
    let nothing = UsersFacts::default();
    let present = file.and_then(|secret| secret.users.as_ref()).unwrap_or(&nothing);

    let mut lines: Vec<UserLine> = Vec::new();
    let mut is_complete = true;
    for user in User::ALL {
        let secret_name = user.secret(view.cell);
        let slots = user.slots();
        let in_file: Vec<&(String, String)> =
            present.users.iter().filter(|(name, _)| slots.contains(name)).collect();
        let stays = |(username, hash): &(String, String)| UserLine {
            username: username.clone(),
            secret: None,
            hash: hash.clone(),
        };
        let secret = find(&secret_name);
        let current = secret.and_then(|secret| secret.credential.as_ref());
        match (secret, current) {
            (None, _) if view.secrets.iter().any(|secret| secret.name() == secret_name) => {
                // Somebody else's, or on its way out.
            }
            (None, _) => {
                let first = in_file.first().map(|(name, _)| name);
                let username = slots.iter().find(|slot| Some(*slot) != first).or(slots.first()).cloned();
                let metadata = (view.metadata)(secret_name.clone());
                let order = CredentialOrder { metadata, username: username.unwrap_or_default() };
                plan.orders.push((
                    Order::Credential(order),
                    format!("there is no credential of the {}", user.as_str()),
                ));
            }
            (Some(_), Some(CredentialFacts { username, .. })) if !slots.contains(username) => {
                plan.problems.push(format!(
                    "Secret {secret_name} names a user that is not {}: delete the Secret, and it is made anew",
                    slots.join(" or ")
                ));
            }
            (Some(_), None) => plan.problems.push(format!(
                "Secret {secret_name} has no username and password: delete it, and it is made anew"
            )),
            (Some(secret), Some(CredentialFacts { username, hash: None })) => {
                let target = drift::exact_target(Kind::Secret, &secret.metadata);
                let order = Order::Hash { target, username: username.clone() };
                plan.orders.push((order, "its password has no hash yet".to_owned()));
            }
            (Some(secret), Some(CredentialFacts { username, hash: Some(hash) })) => {
                lines.push(UserLine {
                    username: username.clone(),
                    secret: Some(secret_name),
                    hash: hash.clone(),
                });
                let former = in_file.iter().find(|(name, _)| name != username);
                if let Some(former) = former {
                    match retires(user, username, secret, view) {
                        Retires::Now => {}
                        Retires::At(at) => {
                            plan.wake_at = Some(plan.wake_at.map_or(at, |wake| wake.min(at)));
                            lines.push(stays(former));
                        }
                        Retires::Later => lines.push(stays(former)),
                    }
                }
                continue;
            }
        }
        // Whatever is wrong with its Secret, who is in the file stays.
        is_complete &= !in_file.is_empty();
        lines.extend(in_file.into_iter().map(stays));
    }
    // The first file has everybody.
    if file.is_none() && (!is_complete || view.secrets.iter().any(|secret| secret.name() == file_name)) {
        return plan;
    }
    let (users_roles, roles) = (users_roles(&lines), roles(view.placements));
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
fn retires(user: User, username: &str, secret: &SecretFacts, view: &UsersView<'_>) -> Retires {
    if user == User::Operator {
        let is_known =
            !view.known_as.is_empty() && view.known_as.iter().all(|known| *known == Some(username));
        return if is_known { Retires::Now } else { Retires::Later };
    }
    let Some(made) = &secret.metadata.creation_timestamp else { return Retires::Later };
    let grace = SignedDuration::try_from(view.lifetimes.credential_grace).unwrap_or(SignedDuration::MAX);
    match made.0.checked_add(grace) {
        Ok(at) if at <= view.now => Retires::Now,
        Ok(at) => Retires::At(at),
        Err(_) => Retires::Later,
    }
}
