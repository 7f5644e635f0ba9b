//! Contents of the Secrets of authorities: what each stage of a rotation changes in them. Effects: none but those of what
//! makes an authority.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use searchcell_core::security::order::AuthorityChange;
use searchcell_core::security::{ANNOTATION_ROTATED, ANNOTATION_STAGE_SINCE, whole_seconds};

use super::forge::{ForgeError, Pair};

/// Contents of a Secret.
pub(crate) type Data = BTreeMap<String, ByteString>;

/// Takes an authority to its next stage; the annotations that go with it. `None`: it is not at the stage before.
pub(crate) fn advance(
    data: &mut Data,
    change: &AuthorityChange,
    make: impl Fn() -> Result<Pair, ForgeError>,
    now: Timestamp,
) -> Result<Option<BTreeMap<String, String>>, ForgeError> {
    let mut annotations =
        BTreeMap::from([(ANNOTATION_STAGE_SINCE.to_owned(), whole_seconds(now).to_string())]);
    match change {
        AuthorityChange::Found { trusted } if trusted.is_empty() => put_pair(data, "ca", make()?),
        AuthorityChange::Found { trusted } => {
            put_pair(data, "next", make()?);
            put(data, "trusted.crt", trusted);
        }
        AuthorityChange::Introduce { asked } => {
            put_pair(data, "next", make()?);
            annotations.extend(asked.iter().map(|asked| (ANNOTATION_ROTATED.to_owned(), asked.clone())));
        }
        AuthorityChange::Switch => {
            let (Some(certificate), Some(key)) = (data.remove("next.crt"), data.remove("next.key")) else {
                return Ok(None);
            };
            let mut trusted = data.remove("ca.crt").map(|former| former.0).unwrap_or_default();
            trusted.extend(data.remove("trusted.crt").map(|others| others.0).unwrap_or_default());
            data.insert("ca.crt".to_owned(), certificate);
            data.insert("ca.key".to_owned(), key);
            data.insert("trusted.crt".to_owned(), ByteString(trusted));
        }
        AuthorityChange::Finish => {
            data.remove("trusted.crt");
        }
    }
    Ok(Some(annotations))
}

/// Puts text under a key.
pub(crate) fn put(data: &mut Data, key: &str, text: &str) {
    data.insert(key.to_owned(), ByteString(text.as_bytes().to_vec()));
}

/// Puts a certificate and its key under `<stem>.crt` and `<stem>.key`.
pub(crate) fn put_pair(data: &mut Data, stem: &str, pair: Pair) {
    put(data, &format!("{stem}.crt"), &pair.certificate);
    put(data, &format!("{stem}.key"), pair.key.reveal());
}
