//! How full Elasticsearch lets disks get before it puts no further shard there, by its own settings. Pure.

/// The low watermark, where no setting says otherwise: 85 %, and on big disks all but 200 GiB.
const DEFAULT_LOW_WATERMARK: Watermark = Watermark::Used { per_mille: 850, headroom: Some(200 << 30) };
const WATERMARK_LOW: &str = "cluster.routing.allocation.disk.watermark.low";
const THRESHOLD_ENABLED: &str = "cluster.routing.allocation.disk.threshold_enabled";
/// Disks without a limit have this many bytes: enough, and far from overflow.
const UNLIMITED: i64 = i64::MAX / 1_000;

/// How much of a disk Elasticsearch fills before it puts no further shard there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watermark {
    /// It does not look.
    None,
    /// So much of the disk, or all of it but the headroom where that is more.
    Used { per_mille: i64, headroom: Option<i64> },
    /// All but so many bytes.
    Free(i64),
}

impl Watermark {
    /// The low watermark of a cluster, by the settings that its nodes have.
    pub(crate) fn low(setting: impl Fn(&str) -> Option<String>) -> Self {
        if setting(THRESHOLD_ENABLED).as_deref() == Some("false") {
            return Watermark::None;
        }
        setting(WATERMARK_LOW).and_then(|text| Watermark::parse(&text)).unwrap_or(DEFAULT_LOW_WATERMARK)
    }

    /// `85%`, `0.85` or `50gb`.
    fn parse(text: &str) -> Option<Self> {
        let used = |share: f64| {
            let share = (0.0..=1.0).contains(&share).then_some(share)?;
            Some(Watermark::Used { per_mille: (share * 1000.0).round() as i64, headroom: None })
        };
        if let Some(percent) = text.strip_suffix('%') {
            return used(percent.trim().parse::<f64>().ok()? / 100.0);
        }
        if let Ok(share) = text.parse::<f64>() {
            return used(share);
        }
        let lower = text.to_ascii_lowercase();
        let (number, unit) = lower.split_at_checked(lower.find(|c: char| c.is_ascii_alphabetic())?)?;
        let shift = match unit {
            "b" => 0,
            "k" | "kb" => 10,
            "m" | "mb" => 20,
            "g" | "gb" => 30,
            "t" | "tb" => 40,
            "p" | "pb" => 50,
            _ => return None,
        };
        let bytes = number.trim().parse::<i64>().ok()?.checked_mul(1 << shift)?;
        (bytes >= 0).then_some(Watermark::Free(bytes))
    }

    /// Bytes of a disk of this size that may be used.
    pub(crate) fn allowed(self, total: i64) -> i64 {
        match self {
            Watermark::None => UNLIMITED,
            Watermark::Free(bytes) => total.saturating_sub(bytes).max(0),
            Watermark::Used { per_mille, headroom } => {
                let share = i64::try_from(i128::from(total) * i128::from(per_mille) / 1000).unwrap_or(total);
                headroom.map_or(share, |headroom| share.max(total.saturating_sub(headroom)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watermarks_are_read_as_elasticsearch_reads_them() {
        let used = |per_mille| Some(Watermark::Used { per_mille, headroom: None });
        for (text, expected) in [
            ("85%", used(850)),
            ("92.5%", used(925)),
            ("0.9", used(900)),
            ("1gb", Some(Watermark::Free(1 << 30))),
            ("500MB", Some(Watermark::Free(500 << 20))),
            ("10b", Some(Watermark::Free(10))),
            ("120%", None),
            ("many", None),
            ("", None),
        ] {
            assert_eq!(Watermark::parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn small_disks_keep_a_share_free_and_big_ones_a_headroom() {
        let (gib, tib) = (1_i64 << 30, 1_i64 << 40);
        assert_eq!(DEFAULT_LOW_WATERMARK.allowed(1_000 * gib), 850 * gib);
        assert_eq!(DEFAULT_LOW_WATERMARK.allowed(10 * tib), 10 * tib - 200 * gib);
        assert_eq!(Watermark::Free(50 * gib).allowed(10 * gib), 0);
        assert_eq!(Watermark::None.allowed(1), UNLIMITED);
    }
}
