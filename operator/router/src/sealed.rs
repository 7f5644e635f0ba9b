//! Types for what must not be shown: nothing here prints its contents, whoever asks. No effects.

use std::fmt;

use zeroize::Zeroizing;

/// Text that must not be shown: a password, a token, a header that has one.
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

    /// Whether it is `other`, in a time that does not depend on where they differ.
    pub fn is(&self, other: &[u8]) -> bool {
        let digest = |bytes: &[u8]| ring::digest::digest(&ring::digest::SHA256, bytes);
        digest(self.0.as_bytes()).as_ref() == digest(other).as_ref()
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_shown() {
        let hidden = Hidden::new("hunter2".to_owned());
        assert_eq!(format!("{hidden:?}"), "(hidden)");
        assert!(hidden.is(b"hunter2") && !hidden.is(b"hunter3"));
    }
}
