//! Elasticsearch versions: parsing, order, which ones this operator runs. Pure.

use std::fmt;
use std::str::FromStr;

/// A released version, `x.y.z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EsVersion {
    /// `x`
    pub major: u32,
    /// `y`
    pub minor: u32,
    /// `z`
    pub patch: u32,
}

impl EsVersion {
    /// The oldest line that can be run, as the start of an upgrade: 7.17.
    pub const OLDEST: EsVersion = EsVersion { major: 7, minor: 17, patch: 0 };
    /// The newest major.
    pub const NEWEST_MAJOR: u32 = 9;

    /// True when this operator knows how to run the version.
    pub fn is_supported(self) -> bool {
        self >= Self::OLDEST && self.major <= Self::NEWEST_MAJOR
    }

    /// `readiness.port` exists since 8.2.
    pub fn has_readiness_port(self) -> bool {
        (self.major, self.minor) >= (8, 2)
    }

    /// Security can be kept by the operator: it is part of every build since 8.0, and since 8.2 readiness can be told
    /// without a user.
    pub fn has_managed_security(self) -> bool {
        self.has_readiness_port()
    }

    /// Security has to be switched off by name since 8.0; in 7 it is off unless asked for, and builds without
    /// x-pack refuse the setting.
    pub fn has_security_by_default(self) -> bool {
        self.major >= 8
    }
}

impl fmt::Display for EsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl FromStr for EsVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let problem = || format!("{text:?} is not a version of the form x.y.z");
        let mut parts = text.split('.');
        let mut next = || -> Result<u32, String> {
            let part = parts.next().ok_or_else(problem)?;
            if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
                return Err(problem());
            }
            part.parse().map_err(|_| problem())
        };
        let version = EsVersion { major: next()?, minor: next()?, patch: next()? };
        match parts.next() {
            None => Ok(version),
            Some(_) => Err(problem()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        let v = |text: &str| text.parse::<EsVersion>().unwrap();
        assert!(v("9.10.0") > v("9.9.9"));
        assert_eq!(v("8.19.21").to_string(), "8.19.21");
        for bad in ["9", "9.1", "9.1.0.0", "9.1.x", "v9.1.0", "9..0", " 9.1.0", "9.1.0-SNAPSHOT", "+9.1.0"] {
            assert!(bad.parse::<EsVersion>().is_err(), "{bad}");
        }
    }

    #[test]
    fn supported_lines() {
        let supported = |text: &str| text.parse::<EsVersion>().unwrap().is_supported();
        assert!(supported("7.17.29") && supported("8.0.0") && supported("9.5.3"));
        assert!(!supported("7.16.3") && !supported("6.8.23") && !supported("10.0.0"));
    }
}
