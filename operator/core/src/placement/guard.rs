//! Shards that grow too large: what of each is past which limit, how fast the largest one grows, and when it will be past
//! the next limit. Pure.

use std::borrow::Cow;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use searchcell_crds::conditions::{SHARD_PRESSURE, find};
use searchcell_crds::index_placement::{
    LUCENE_MAX_DOCUMENTS, MANY_BYTES, MANY_DOCUMENTS, MAX_EXPECTED_DOCUMENTS_PER_SHARD, VERY_MANY_DOCUMENTS,
};
use searchcell_crds::{Forecast, IndexPlacementStatus, Reason, ShardSample};

use super::Found;
use crate::snapshot::IndexCounts;
use crate::status::two_significant_digits;

/// The largest shard is noted this often at most: a sample is a write of status.
const SAMPLE_EVERY: SignedDuration = SignedDuration::from_hours(6);
/// Samples that are kept: four days of a growth that does not stop.
const MOST_SAMPLES: usize = 16;
/// A forecast of what hurts is a warning when it is that near: a migration takes days.
const NEAR_DAYS: i64 = 14;
/// A shard is past a limit until it is so many percent below it: merges take deleted documents away all the time.
const BELOW_PERCENT: i64 = 95;
const SECONDS_OF_A_DAY: f64 = 86_400.0;

/// From where on a shard is large: a matter of opinion, and of hardware. The other limits are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardLimits {
    /// Documents, deleted ones included.
    pub documents: i64,
    /// Bytes.
    pub bytes: i64,
}

impl Default for ShardLimits {
    fn default() -> Self {
        Self { documents: MANY_DOCUMENTS, bytes: MANY_BYTES }
    }
}

impl ShardLimits {
    /// Limits in documents, deleted ones included, from the lowest on.
    fn of_documents(self) -> [(i64, Reason); 4] {
        [
            (self.documents, Reason::ShardLarge),
            (VERY_MANY_DOCUMENTS, Reason::ShardVeryLarge),
            (MAX_EXPECTED_DOCUMENTS_PER_SHARD, Reason::ShardAlmostFull),
            (LUCENE_MAX_DOCUMENTS, Reason::ShardFull),
        ]
    }
}

/// How bad it is; 0: it is no such reason.
pub(super) fn rank(reason: Reason) -> usize {
    match reason {
        Reason::ShardFull => 5,
        Reason::ShardAlmostFull => 4,
        Reason::ShardVeryLarge => 3,
        Reason::ShardGrowing => 2,
        Reason::ShardLarge => 1,
        _ => 0,
    }
}

/// The highest limit that the largest shard of an index is past. `before`: what was said of the placement so far.
fn past(counts: &IndexCounts, before: usize, limits: ShardLimits) -> Option<Reason> {
    let is_past = |amount: i64, limit: i64, reason: Reason| {
        let low = (i128::from(limit) * i128::from(BELOW_PERCENT) / 100).try_into().unwrap_or(limit);
        amount >= limit || before >= rank(reason) && amount >= low
    };
    let of_documents = limits.of_documents();
    let documents = of_documents.iter().rev().find(|(limit, reason)| {
        // More than Lucene stores there never is.
        is_past(counts.largest_shard_documents, *limit, *reason)
    });
    let is_big = is_past(counts.largest_shard_bytes, limits.bytes, Reason::ShardLarge);
    documents.map(|(_, reason)| *reason).or(is_big.then_some(Reason::ShardLarge))
}

/// What the previous status said, as a rank.
fn said(previous: Option<&IndexPlacementStatus>) -> usize {
    let condition = previous.and_then(|previous| find(&previous.conditions, SHARD_PRESSURE));
    let reason = condition.map(|condition| condition.reason.as_str());
    Reason::all().iter().find(|known| Some(known.as_str()) == reason).map_or(0, |reason| rank(*reason))
}

/// Indices with a shard that is past a limit, with the limit, the worst first.
pub(super) fn large<'a>(
    owned: &[Found<'a>],
    previous: Option<&IndexPlacementStatus>,
    limits: ShardLimits,
) -> Vec<(&'a str, Reason)> {
    let before = said(previous);
    let mut large: Vec<(&str, Reason)> = (owned.iter())
        .filter_map(|found| {
            Some((found.name, past(found.elastic.counts.as_ref()?.get(found.name)?, before, limits)?))
        })
        .collect();
    large.sort_by_key(|(name, reason)| (std::cmp::Reverse(rank(*reason)), *name));
    large
}

/// What is wrong with one index, and what to do.
pub(super) fn advice(reason: Reason, limits: ShardLimits) -> Cow<'static, str> {
    let text = match reason {
        Reason::ShardFull => {
            "a shard holds as many documents as Lucene stores: Elasticsearch refuses to add any; delete documents, or migrate"
        }
        Reason::ShardAlmostFull => {
            "a shard holds 90 % of the documents that Lucene stores, deleted ones included: migrate to more shards now"
        }
        Reason::ShardVeryLarge => "a shard has more than 1 billion documents: migrate to more shards",
        Reason::ShardGrowing => {
            "a shard is to be past 1 billion documents, or what Lucene stores, within two weeks: plan a migration"
        }
        _ => {
            let told = |amount: i64, unit: i64, name: &str, single: &str| match amount % unit {
                0 => format!("{} {name}", amount / unit),
                _ => format!("{amount} {single}"),
            };
            let documents = told(limits.documents, 1_000_000, "million documents", "documents");
            let bytes = told(limits.bytes, 1_000_000_000, "GB", "bytes");
            let text = "it is slow to search and to move; plan for more shards";
            return format!("a shard has more than {documents} or {bytes}: {text}").into();
        }
    };
    text.into()
}

/// The samples after this pass. `measured`: documents and bytes of the largest shard.
pub(super) fn sample(
    previous: &IndexPlacementStatus,
    measured: Option<(i64, i64)>,
    now: Timestamp,
) -> Vec<ShardSample> {
    // A clock that went back: what lies ahead of it says nothing.
    let mut samples: Vec<ShardSample> =
        previous.growth.iter().filter(|sample| sample.at.0 <= now).cloned().collect();
    let Some((documents, bytes)) = measured else { return samples };
    let is_due = match samples.last() {
        None => true,
        // What does not grow any more is noted until that shows in the forecast, and then not.
        Some(last) => {
            let moved = (last.documents, last.bytes) != (documents, bytes);
            now.duration_since(last.at.0) >= SAMPLE_EVERY && (moved || previous.forecast.is_some())
        }
    };
    if is_due {
        samples.push(ShardSample { at: Time(now), documents, bytes });
    }
    let surplus = samples.len().saturating_sub(MOST_SAMPLES);
    samples.split_off(surplus)
}

/// When the largest shard is past the next limit that it is not past yet, at the pace of its samples.
pub(super) fn forecast(samples: &[ShardSample], limits: ShardLimits) -> Option<Forecast> {
    let documents =
        limits.of_documents().map(|(limit, reason)| (days(samples, |s| s.documents, limit), reason));
    let bytes = (days(samples, |s| s.bytes, limits.bytes), Reason::ShardLarge);
    let mut all: Vec<(i64, Reason)> =
        (documents.into_iter().chain([bytes])).filter_map(|(days, reason)| Some((days?, reason))).collect();
    // The next one; but what hurts and is near goes before what does not.
    all.sort_by_key(|(days, reason)| {
        (*days > NEAR_DAYS || rank(*reason) < rank(Reason::ShardVeryLarge), *days)
    });
    all.first().map(|(days, reason)| Forecast {
        days: two_significant_digits(*days),
        reason: reason.as_str().to_owned(),
    })
}

/// True when a forecast is a warning.
pub(super) fn is_near(forecast: &Forecast) -> bool {
    let limits = ShardLimits::default().of_documents();
    let hurts = |reason: Reason| rank(reason) >= rank(Reason::ShardVeryLarge);
    forecast.days <= NEAR_DAYS
        && limits.iter().any(|(_, reason)| hurts(*reason) && reason.as_str() == forecast.reason)
}

/// Whole days from the last sample on, by the line that fits the samples best; absent: it is past the limit, does not
/// grow, or takes longer than anybody plans for.
fn days(samples: &[ShardSample], amount: fn(&ShardSample) -> i64, limit: i64) -> Option<i64> {
    let (first, last) = (samples.first()?, samples.last()?);
    let left = limit.checked_sub(amount(last)).filter(|left| *left > 0)?;
    let points: Vec<(f64, f64)> = (samples.iter())
        .map(|sample| {
            let days = sample.at.0.duration_since(first.at.0).as_secs_f64() / SECONDS_OF_A_DAY;
            (days, (amount(sample) - amount(first)) as f64)
        })
        .collect();
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    let slope = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum::<f64>() / spread;
    let days = left as f64 / slope;
    // A century; also where nothing grows and the quotient is no number.
    (slope > 0.0 && days < 36_525.0).then_some(days as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ShardLimits = ShardLimits { documents: MANY_DOCUMENTS, bytes: MANY_BYTES };
    const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

    fn hours(n: i64) -> Timestamp {
        NOW + SignedDuration::from_hours(n)
    }

    fn counts(documents: i64, bytes: i64) -> IndexCounts {
        IndexCounts { documents, largest_shard_documents: documents, largest_shard_bytes: bytes }
    }

    #[test]
    fn each_limit_has_its_reason() {
        for (documents, bytes, expected) in [
            (199_999_999, 0, None),
            (200_000_000, 0, Some(Reason::ShardLarge)),
            (0, 50_000_000_000, Some(Reason::ShardLarge)),
            (0, 49_999_999_999, None),
            (1_000_000_000, 0, Some(Reason::ShardVeryLarge)),
            (1_932_735_167, 0, Some(Reason::ShardAlmostFull)),
            (2_147_483_519, 0, Some(Reason::ShardFull)),
        ] {
            assert_eq!(past(&counts(documents, bytes), 0, LIMITS), expected, "{documents} {bytes}");
        }
    }

    #[test]
    fn what_was_past_a_limit_stays_so_until_it_is_well_below() {
        let before = rank(Reason::ShardVeryLarge);
        assert_eq!(past(&counts(960_000_000, 0), before, LIMITS), Some(Reason::ShardVeryLarge));
        assert_eq!(past(&counts(940_000_000, 0), before, LIMITS), Some(Reason::ShardLarge));
        assert_eq!(
            past(&counts(1_900_000_000, 0), before, LIMITS),
            Some(Reason::ShardVeryLarge),
            "it never was"
        );
    }

    /// Measures every five minutes for so many hours, as the operator does.
    fn measured(hours_long: i64, documents: impl Fn(i64) -> i64) -> IndexPlacementStatus {
        let mut status = IndexPlacementStatus::default();
        for minute in (0..hours_long * 60).step_by(5) {
            let now = NOW + SignedDuration::from_mins(minute);
            let documents = documents(minute);
            status.growth = sample(&status, Some((documents, 100)), now);
            status.forecast = forecast(&status.growth, LIMITS);
        }
        status
    }

    #[test]
    fn a_steady_growth_is_forecast_within_a_tenth_of_the_truth() {
        for per_day in [1_000_000_i64, 7_777_777, 50_000_000] {
            for days in [1, 3, 7] {
                let start = 600_000_000;
                let status = measured(24 * days, |minute| start + per_day * minute / 1440);
                let last = status.growth.last().unwrap();
                let truth = (1_000_000_000 - last.documents) as f64 / per_day as f64;
                let forecast = status.forecast.unwrap();
                assert_eq!(forecast.reason, "ShardVeryLarge");
                let error = (forecast.days as f64 - truth).abs();
                // A whole day is what it is told in.
                assert!(error <= (truth / 10.0).max(1.0), "{forecast:?}, in truth {truth}");
                assert!(status.growth.len() <= MOST_SAMPLES && status.growth.len() >= 4);
            }
        }
    }

    #[test]
    fn what_does_not_grow_has_no_forecast_and_is_not_written_down() {
        let idle = measured(24 * 30, |_| 5_000);
        assert_eq!((idle.growth.len(), idle.forecast), (1, None));
        // It grew once: noted until the forecast says so, and then no more.
        let grew = |minute: i64| 1_000_000 * minute.min(1440);
        let (week, month) = (measured(24 * 7, grew), measured(24 * 30, grew));
        assert_eq!(week.forecast, None, "{:?}", week.growth);
        assert_eq!(week.growth, month.growth);
    }

    #[test]
    fn the_next_limit_is_told_unless_one_that_hurts_is_near() {
        let growing = |start: i64, per_day: i64| measured(48, |minute| start + per_day * minute / 1440);
        let next = growing(1_000, 1_000_000).forecast.unwrap();
        assert_eq!((next.reason.as_str(), is_near(&next)), ("ShardLarge", false));
        let near = growing(100_000_000, 90_000_000).forecast.unwrap();
        assert_eq!((near.reason.as_str(), is_near(&near)), ("ShardVeryLarge", true), "{near:?}");
    }

    #[test]
    fn a_clock_that_went_back_is_survived() {
        let mut status = measured(48, |minute| minute * 1_000);
        let samples = sample(&status, Some((1, 1)), hours(13));
        assert!(samples.iter().all(|sample| sample.at.0 <= hours(13)), "{samples:?}");
        status.growth = Vec::new();
        assert_eq!(sample(&status, None, NOW), []);
    }
}
