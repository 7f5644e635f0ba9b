//! Which version may follow which in a cluster whose nodes change one after the other. Pure.
//!
//! Source: the upgrade guide of Elasticsearch. Within 8 and within 9 any later version; from 7.17 to any 8; from 8.18 to 9.0
//! and from 8.19 to 9.1 and later; and never to a version that was released before the one that runs, whatever its number:
//! it does not know what the later one has written.

use super::EsVersion;
use super::releases::{is_released_before, next_after};

/// Whether nodes of version `to` may join a cluster of version `from`; the error says what to write instead.
pub fn may_follow(from: EsVersion, to: EsVersion) -> Result<(), String> {
    if to == from {
        return Ok(());
    }
    let through = |line: &str| {
        Err(format!("{from} does not change to {to} in one step: set spec.version to {line} first"))
    };
    match (from.major, to.major) {
        (7, 9) => return through("the latest 8.19"),
        (8, 9) if (from.minor, to.minor) == (18, 0) => {}
        (8, 9) if from.minor < 19 => return through("the latest 8.19"),
        (8, 9) if to.minor == 0 => {
            return Err(format!(
                "{from} changes to 9.1 or later, not to {to}: set spec.version to such a version"
            ));
        }
        (from, to) if to == from || to == from + 1 => {}
        _ => return through("the next major version"),
    }
    if is_released_before(to, from) {
        let next = next_after(from, to);
        let next = next.map_or_else(|| "a later version".to_owned(), |next| format!("{next} or later"));
        return Err(format!("{to} was released before {from}, which runs: set spec.version to {next}"));
    }
    Ok(())
}

/// Whether a node of version `version` opens an index that was created by the version with this id (`index.version.created`).
/// `is_read_only`: it is blocked for writes for good.
pub fn opens(version: EsVersion, created: u64, is_read_only: bool) -> bool {
    // Ids are the version in decimal digits, major first: 7172999 is 7.17.29; since 8.11 they only begin with the major.
    let major = created / 1_000_000;
    let version = u64::from(version.major);
    major + 1 >= version || (is_read_only && major + 2 >= version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may(from: &str, to: &str) -> Result<(), String> {
        may_follow(from.parse().unwrap(), to.parse().unwrap())
    }

    #[test]
    fn what_elasticsearch_supports_may_follow() {
        for (from, to) in [
            ("7.17.29", "8.19.21"),
            ("7.17.0", "8.0.0"),
            ("8.0.0", "8.19.21"),
            ("8.18.0", "9.0.0"),
            ("8.19.0", "9.1.0"),
            ("9.1.0", "9.5.3"),
            ("8.19.21", "9.5.3"),
            ("9.5.3", "9.5.3"),
            ("9.5.3", "9.99.0"),
        ] {
            assert_eq!(may(from, to), Ok(()), "{from} {to}");
        }
    }

    #[test]
    fn what_it_does_not_names_the_next_version() {
        for (from, to, says) in [
            ("7.17.29", "9.5.3", "the latest 8.19 first"),
            ("8.17.4", "9.0.0", "the latest 8.19 first"),
            ("8.18.4", "9.1.0", "the latest 8.19 first"),
            ("8.19.0", "9.0.4", "9.1 or later"),
            ("8.19.21", "9.1.0", "was released before 8.19.21"),
            ("9.0.5", "9.1.0", "was released before 9.0.5"),
        ] {
            let error = may(from, to).unwrap_err();
            assert!(error.contains(says), "{from} {to}: {error}");
            assert!(error.contains("set spec.version to"), "{error}");
        }
    }

    #[test]
    fn indices_of_the_major_before_are_opened_and_older_ones_only_to_be_read() {
        let version = |text: &str| text.parse::<EsVersion>().unwrap();
        assert!(opens(version("8.19.21"), 7_172_999, false));
        assert!(!opens(version("8.19.21"), 6_082_399, false));
        assert!(!opens(version("9.5.3"), 7_172_999, false));
        assert!(opens(version("9.5.3"), 7_172_999, true));
        assert!(!opens(version("9.5.3"), 6_082_399, true));
        assert!(opens(version("9.5.3"), 8_000_099, false));
        assert!(opens(version("9.5.3"), 8_536_000, false));
    }
}
