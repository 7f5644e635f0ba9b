//! Types for what must not be shown: nothing here prints its contents, whoever asks. No effects.

use std::fmt;

use k8s_openapi::api::core::v1::Secret;
use zeroize::Zeroizing;

const HIDDEN: &str = "(hidden)";

/// Text that must not be shown: a password, a private key, a hash.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(Zeroizing<String>);

impl Hidden {
    /// Hides it.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// Shows it, to what needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl fmt::Display for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

/// A Secret of the API. Its metadata may be shown.
#[derive(Clone, Default, PartialEq)]
pub struct Sealed(pub Secret);

impl Sealed {
    /// Bytes under a key.
    pub fn bytes(&self, key: &str) -> Option<&[u8]> {
        self.0.data.as_ref()?.get(key).map(|bytes| bytes.0.as_slice())
    }

    /// Text under a key.
    pub fn text(&self, key: &str) -> Option<&str> {
        std::str::from_utf8(self.bytes(key)?).ok()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.0.metadata.name.as_deref().unwrap_or_default()
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<&String> = self.0.data.iter().flat_map(|data| data.keys()).collect();
        f.debug_struct("Secret").field("name", &self.name()).field("keys", &keys).finish_non_exhaustive()
    }
}

/// A user name with its password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// User name.
    pub username: String,
    /// Password.
    pub password: Hidden,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("username", &self.username).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    #[test]
    fn nothing_prints_what_is_hidden() {
        let hidden = Hidden::new("hunter2".to_owned());
        let credential = Credential { username: "u".to_owned(), password: hidden.clone() };
        let data = Some([("password".to_owned(), ByteString(b"hunter2".to_vec()))].into());
        let secret = Secret { data, ..Secret::default() };
        let text = format!("{hidden} {hidden:?} {credential:?} {:?}", Sealed(secret));
        // Neither as text nor as numbers or base64.
        assert!(
            !text.contains("hunter2") && !text.contains("104, 117") && !text.contains("aHVudGVy"),
            "{text}"
        );
        assert!(text.contains("password"));
    }
}
