//! What an operation may say in a collection: what is refused by name, and whose versions count. Pure.

use searchcell_crds::Versioning;

use super::bulk::{Action, Meta, Verb, Word};
use super::error::Failure;
use crate::routes::Route;

/// Refuses by name what no operation may say.
pub fn refuse(action: &Action<'_>) -> Result<(), Failure> {
    let meta = &action.meta;
    let refused = [
        ("update", action.verb == Verb::Update),
        ("pipeline", meta.pipeline.as_ref().is_some_and(|Word(name)| name != "_none")),
        ("require_alias", meta.require_alias == Some(true)),
        ("require_data_stream", meta.require_data_stream == Some(true)),
        ("dynamic_templates", meta.dynamic_templates.is_some()),
    ];
    match refused.iter().find(|(_, is_there)| *is_there) {
        Some((name, _)) => Err(Failure::unsupported(name)),
        None => Ok(()),
    }
}

/// What is sent of versions.
#[derive(Debug, Default)]
pub struct Versions {
    /// Version from the source of truth.
    pub external: Option<i64>,
    /// Sequence number and primary term that the document must have.
    pub condition: Option<(i64, i64)>,
}

/// The versions of an operation, as far as its collection has them.
pub fn versions(meta: &Meta<'_>, verb: Verb, route: &Route) -> Result<Versions, Failure> {
    let kind = meta.version_type.as_ref().map(|Word(kind)| kind.as_ref());
    let condition = meta.if_seq_no.or(meta.if_primary_term);
    match route.table.versioning {
        Versioning::External => {
            if verb == Verb::Create {
                return Err(Failure::illegal(
                    "[create] has no version, and versioning of this collection is External: use [index]",
                ));
            }
            if condition.is_some() {
                return Err(Failure::illegal(
                    "[if_seq_no] cannot be used: versioning of this collection is External",
                ));
            }
            if !matches!(kind, None | Some("external")) {
                return Err(Failure::illegal("[version_type] must be [external] in this collection"));
            }
            match meta.version {
                Some(version) if version >= 0 => Ok(Versions { external: Some(version), condition: None }),
                Some(version) => Err(Failure::illegal(format!(
                    "illegal version value [{version}] for version type [EXTERNAL]"
                ))),
                None => {
                    Err(Failure::illegal("[version] is required: versioning of this collection is External"))
                }
            }
        }
        Versioning::None => {
            if meta.version.is_some() || !matches!(kind, None | Some("internal")) {
                return Err(Failure::illegal(
                    "[version] and [version_type] cannot be used: versioning of this collection is None",
                ));
            }
            match (meta.if_seq_no, meta.if_primary_term) {
                (None, None) => Ok(Versions::default()),
                (Some(_), Some(_)) if route.table.tenant.fan_out => {
                    Err(Failure::illegal("[if_seq_no] cannot be used where a document has several copies"))
                }
                (Some(seq_no), Some(term)) => {
                    Ok(Versions { external: None, condition: Some((seq_no, term)) })
                }
                _ => Err(Failure::illegal("[if_seq_no] and [if_primary_term] belong together")),
            }
        }
    }
}
