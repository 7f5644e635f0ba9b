//! When versions of Elasticsearch were built, where their numbers do not tell which is the later one. Pure.
//!
//! Source: `Build-Date` in the manifests of `org.elasticsearch:elasticsearch-core` on Maven Central, as of September 2026. Versions
//! that are released together are built within a few days. A version that is not here was built between its neighbours.

use jiff::civil::{Date, date};

use super::EsVersion;

/// Builds closer to each other than this are of one release.
const DAYS_OF_A_RELEASE: i32 = 5;

/// Major and minor version, and its patches with the days on which they were built.
type Line = (u32, u32, &'static [(u32, Date)]);

const LINES: &[Line] = &[
    (8, 0, &[(0, date(2022, 2, 3)), (1, date(2022, 2, 24))]),
    (8, 1, &[(0, date(2022, 3, 3)), (1, date(2022, 3, 17)), (2, date(2022, 3, 29)), (3, date(2022, 4, 19))]),
    (8, 2, &[(0, date(2022, 4, 20)), (1, date(2022, 5, 19)), (2, date(2022, 5, 25)), (3, date(2022, 6, 8))]),
    (8, 3, &[(0, date(2022, 6, 23)), (1, date(2022, 6, 29)), (2, date(2022, 7, 6)), (3, date(2022, 7, 23))]),
    (8, 4, &[(0, date(2022, 8, 19)), (1, date(2022, 8, 26)), (2, date(2022, 9, 14)), (3, date(2022, 10, 4))]),
    (8, 5, &[(0, date(2022, 10, 24)), (1, date(2022, 11, 9)), (3, date(2022, 12, 5))]),
    (8, 6, &[(0, date(2023, 1, 4))]),
    (8, 7, &[(0, date(2023, 3, 27)), (1, date(2023, 4, 27))]),
    (8, 8, &[(0, date(2023, 5, 23)), (1, date(2023, 6, 5)), (2, date(2023, 6, 26))]),
    (8, 9, &[(0, date(2023, 7, 19)), (1, date(2023, 8, 10)), (2, date(2023, 8, 31))]),
    (
        8,
        10,
        &[
            (0, date(2023, 9, 7)),
            (1, date(2023, 9, 14)),
            (2, date(2023, 9, 19)),
            (3, date(2023, 10, 5)),
            (4, date(2023, 10, 11)),
        ],
    ),
    (
        8,
        11,
        &[
            (0, date(2023, 11, 4)),
            (1, date(2023, 11, 11)),
            (2, date(2023, 12, 5)),
            (3, date(2023, 12, 8)),
            (4, date(2024, 1, 8)),
        ],
    ),
    (8, 12, &[(0, date(2024, 1, 16)), (1, date(2024, 2, 1)), (2, date(2024, 2, 19))]),
    (
        8,
        13,
        &[
            (0, date(2024, 3, 22)),
            (1, date(2024, 3, 29)),
            (2, date(2024, 4, 5)),
            (3, date(2024, 4, 29)),
            (4, date(2024, 5, 6)),
        ],
    ),
    (8, 14, &[(0, date(2024, 6, 3)), (1, date(2024, 6, 10)), (2, date(2024, 7, 1)), (3, date(2024, 7, 7))]),
    (
        8,
        15,
        &[
            (0, date(2024, 8, 5)),
            (1, date(2024, 9, 2)),
            (2, date(2024, 9, 19)),
            (3, date(2024, 10, 9)),
            (4, date(2024, 11, 7)),
            (5, date(2024, 11, 21)),
        ],
    ),
    (
        8,
        16,
        &[
            (0, date(2024, 11, 8)),
            (1, date(2024, 11, 19)),
            (2, date(2024, 12, 12)),
            (3, date(2025, 1, 10)),
            (4, date(2025, 2, 7)),
            (5, date(2025, 2, 27)),
            (6, date(2025, 3, 20)),
        ],
    ),
    (
        8,
        17,
        &[
            (0, date(2024, 12, 11)),
            (1, date(2025, 1, 10)),
            (2, date(2025, 2, 5)),
            (3, date(2025, 2, 28)),
            (4, date(2025, 3, 20)),
            (5, date(2025, 4, 9)),
            (6, date(2025, 4, 30)),
            (7, date(2025, 5, 21)),
            (8, date(2025, 6, 18)),
            (9, date(2025, 7, 16)),
            (10, date(2025, 8, 8)),
        ],
    ),
    (
        8,
        18,
        &[
            (0, date(2025, 4, 10)),
            (1, date(2025, 4, 30)),
            (2, date(2025, 5, 23)),
            (3, date(2025, 6, 18)),
            (4, date(2025, 7, 16)),
            (5, date(2025, 8, 6)),
            (6, date(2025, 8, 25)),
            (7, date(2025, 9, 10)),
            (8, date(2025, 10, 2)),
        ],
    ),
    (
        8,
        19,
        &[
            (0, date(2025, 7, 23)),
            (1, date(2025, 8, 5)),
            (2, date(2025, 8, 11)),
            (3, date(2025, 8, 26)),
            (4, date(2025, 9, 16)),
            (5, date(2025, 10, 3)),
            (6, date(2025, 10, 21)),
            (7, date(2025, 11, 7)),
            (8, date(2025, 11, 26)),
            (9, date(2025, 12, 16)),
            (10, date(2026, 1, 8)),
            (11, date(2026, 1, 28)),
            (12, date(2026, 2, 23)),
            (13, date(2026, 3, 16)),
            (14, date(2026, 4, 2)),
            (20, date(2026, 8, 5)),
            (21, date(2026, 8, 26)),
        ],
    ),
    (
        9,
        0,
        &[
            (0, date(2025, 4, 8)),
            (1, date(2025, 4, 30)),
            (2, date(2025, 5, 28)),
            (3, date(2025, 6, 18)),
            (4, date(2025, 7, 16)),
            (5, date(2025, 8, 6)),
            (6, date(2025, 8, 24)),
            (7, date(2025, 9, 10)),
            (8, date(2025, 10, 2)),
        ],
    ),
    (
        9,
        1,
        &[
            (0, date(2025, 7, 23)),
            (1, date(2025, 8, 5)),
            (2, date(2025, 8, 11)),
            (3, date(2025, 8, 24)),
            (4, date(2025, 9, 16)),
            (5, date(2025, 10, 2)),
            (6, date(2025, 10, 21)),
            (7, date(2025, 11, 7)),
            (8, date(2025, 11, 26)),
            (9, date(2025, 12, 16)),
            (10, date(2026, 1, 8)),
        ],
    ),
    (
        9,
        2,
        &[
            (0, date(2025, 10, 21)),
            (1, date(2025, 11, 6)),
            (2, date(2025, 11, 27)),
            (3, date(2025, 12, 16)),
            (4, date(2026, 1, 8)),
            (5, date(2026, 1, 28)),
            (6, date(2026, 2, 23)),
            (7, date(2026, 3, 16)),
            (8, date(2026, 4, 2)),
        ],
    ),
    (
        9,
        3,
        &[
            (0, date(2026, 1, 29)),
            (1, date(2026, 2, 23)),
            (2, date(2026, 3, 16)),
            (3, date(2026, 4, 1)),
            (4, date(2026, 4, 22)),
        ],
    ),
    (9, 5, &[(2, date(2026, 8, 18)), (3, date(2026, 9, 1))]),
];

/// Whether `version` was certainly released before `other`.
pub(super) fn is_released_before(version: EsVersion, other: EsVersion) -> bool {
    let latest = patches(version).filter(|(patch, _)| *patch >= version.patch).map(|(_, day)| day).next();
    let earliest = patches(other).filter(|(patch, _)| *patch <= other.patch).map(|(_, day)| day).last();
    latest.zip(earliest).is_some_and(|(latest, earliest)| days(latest, earliest) > DAYS_OF_A_RELEASE)
}

/// The first version after `wanted`, by number, that was not released before `from`.
pub(super) fn next_after(from: EsVersion, wanted: EsVersion) -> Option<EsVersion> {
    let all = LINES.iter().flat_map(|(major, minor, patches)| {
        patches.iter().map(|(patch, _)| EsVersion { major: *major, minor: *minor, patch: *patch })
    });
    all.filter(|version| *version > wanted).find(|version| !is_released_before(*version, from))
}

fn patches(version: EsVersion) -> impl Iterator<Item = (u32, Date)> {
    let of_line = move |line: &&Line| (line.0, line.1) == (version.major, version.minor);
    LINES.iter().filter(of_line).flat_map(|(_, _, patches)| patches.iter().copied())
}

/// Days from one to the other.
fn days(from: Date, to: Date) -> i32 {
    from.until(to).map_or(0, |span| span.get_days())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v(text: &str) -> EsVersion {
        text.parse().unwrap()
    }

    #[test]
    fn numbers_do_not_tell_what_is_later() {
        assert!(is_released_before(v("9.1.0"), v("8.19.21")));
        assert!(is_released_before(v("9.1.0"), v("9.0.5")));
        assert!(!is_released_before(v("9.1.0"), v("9.0.4")));
        // Released together, built on different days.
        assert!(!is_released_before(v("9.1.3"), v("8.19.3")));
        assert!(is_released_before(v("9.1.1"), v("8.19.2")));
    }

    #[test]
    fn of_a_version_that_is_not_known_its_neighbours_tell() {
        assert!(is_released_before(v("9.3.0"), v("8.19.16")), "after 8.19.14");
        assert!(is_released_before(v("8.19.16"), v("9.5.3")), "before 8.19.20");
        assert!(!is_released_before(v("9.4.7"), v("8.19.21")), "nobody knows");
        assert!(!is_released_before(v("9.5.4"), v("8.19.99")), "nobody knows");
        assert!(!is_released_before(v("10.0.0"), v("9.5.3")));
    }

    #[test]
    fn the_next_one_is_later_in_both() {
        assert_eq!(next_after(v("8.19.21"), v("9.1.0")), Some(v("9.5.3")));
        assert_eq!(next_after(v("8.19.2"), v("9.1.0")), Some(v("9.1.2")));
        assert_eq!(next_after(v("9.5.3"), v("9.5.3")), None);
    }

    #[test]
    fn patches_ascend_in_number_and_in_time() {
        for (major, minor, patches) in LINES {
            assert!(patches.is_sorted_by_key(|(patch, _)| *patch), "{major}.{minor}");
            assert!(patches.is_sorted_by_key(|(_, day)| *day), "{major}.{minor}");
        }
        assert!(LINES.is_sorted_by_key(|(major, minor, _)| (*major, *minor)));
    }
}
