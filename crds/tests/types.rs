//! What the types work out by themselves: conditions, reasons, defaults, durations, shard counts. No effects.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use searchcell_crds::common::parse_duration;
use searchcell_crds::conditions::{
    ConditionStatus::{False, True, Unknown},
    DEGRADED, MAX_MESSAGE, READY, RECONCILING, STALLED, condition, find, is_true, merge, same,
};
use searchcell_crds::index_placement::{LUCENE_MAX_DOCUMENTS, MAX_EXPECTED_DOCUMENTS_PER_SHARD};
use searchcell_crds::{
    Cluster, ClusterPlacement, ConditionStatus, DedicatedTenant, Reason, Rollout, SearchCellSpec, Security,
    SecurityMode, Zone, ZoneState,
};

fn at(second: i64) -> Time {
    Time(Timestamp::from_second(second).unwrap())
}

fn made(type_: &str, status: ConditionStatus, reason: Reason, second: i64) -> Condition {
    condition(type_, status, reason, "why", Some(3), &at(second))
}

#[test]
fn a_condition_keeps_its_transition_time_until_its_status_changes() {
    let old = vec![made(READY, True, Reason::Serving, 1)];
    let kept = merge(&old, vec![made(READY, True, Reason::RollingOut, 9)]);
    assert_eq!((kept[0].last_transition_time.clone(), kept[0].reason.as_str()), (at(1), "RollingOut"));
    let changed = merge(&old, vec![made(READY, False, Reason::NoMaster, 9)]);
    assert_eq!(changed[0].last_transition_time, at(9));
}

#[test]
fn conditions_that_are_no_longer_desired_go_and_foreign_ones_stay() {
    let foreign = made("example.com/Audited", True, Reason::Serving, 1);
    let old = vec![
        made(RECONCILING, True, Reason::Pending, 1),
        foreign.clone(),
        made(READY, Unknown, Reason::Pending, 1),
    ];
    let desired = vec![
        made(STALLED, True, Reason::InvalidSpec, 2),
        made(DEGRADED, False, Reason::FullRedundancy, 2),
        made(READY, True, Reason::Serving, 2),
    ];
    let merged = merge(&old, desired);
    let types: Vec<_> = merged.iter().map(|condition| condition.type_.as_str()).collect();
    assert_eq!(types, [READY, DEGRADED, STALLED, "example.com/Audited"]);
    assert_eq!(merged[3], foreign);
    assert!(is_true(&merged, READY) && !is_true(&merged, DEGRADED) && find(&merged, RECONCILING).is_none());
}

#[test]
fn comparison_ignores_order_and_times_only() {
    let a = vec![made(READY, True, Reason::Serving, 1), made(DEGRADED, False, Reason::FullRedundancy, 1)];
    let b = vec![made(DEGRADED, False, Reason::FullRedundancy, 7), made(READY, True, Reason::Serving, 8)];
    assert!(same(&a, &b));
    assert!(!same(&a, &a[..1]));
    for change in [
        |condition: &mut Condition| condition.status = "False".to_owned(),
        |condition: &mut Condition| condition.reason = "Other".to_owned(),
        |condition: &mut Condition| condition.message = "other".to_owned(),
        |condition: &mut Condition| condition.observed_generation = Some(4),
    ] {
        let mut other = a.clone();
        change(&mut other[0]);
        assert!(!same(&a, &other));
    }
}

#[test]
fn a_message_that_is_too_long_is_cut_at_a_character() {
    let long = condition(READY, False, Reason::InvalidSpec, "ä".repeat(MAX_MESSAGE), None, &at(0));
    assert!(long.message.len() <= MAX_MESSAGE && long.message.ends_with('ä'));
    let odd =
        condition(READY, False, Reason::InvalidSpec, format!("x{}", "ä".repeat(MAX_MESSAGE)), None, &at(0));
    assert_eq!(odd.message.len(), MAX_MESSAGE - 1);
}

#[test]
fn reasons_are_unique_camel_case_and_explained() {
    let names: BTreeSet<_> = Reason::all().iter().map(|reason| reason.as_str()).collect();
    assert_eq!(names.len(), Reason::all().len());
    for reason in Reason::all() {
        let name = reason.as_str();
        assert!(name.starts_with(|first: char| first.is_ascii_uppercase()), "{name}");
        assert!(name.chars().all(|letter| letter.is_ascii_alphanumeric()), "{name}");
        let meaning = reason.meaning();
        assert!(
            meaning.ends_with('.') && !meaning.contains('\n') && meaning.len() >= 20,
            "{name}: {meaning}"
        );
    }
}

#[test]
fn durations_are_whole_hours_minutes_and_seconds() {
    for (text, seconds) in
        [("0s", 0), ("90s", 90), ("5m", 300), ("1h30m", 5400), ("24h", 86_400), ("1h0m5s", 3605)]
    {
        assert_eq!(parse_duration(text), Some(Duration::from_secs(seconds)), "{text}");
    }
    for text in [
        "",
        "60",
        "s",
        "-1s",
        "1.5h",
        "1s1h",
        "1s1s",
        "1d",
        " 1s",
        "99999999999999999999h",
        "9999999999999999h",
    ] {
        assert_eq!(parse_duration(text), None, "{text}");
    }
    assert_eq!(Rollout::default().soak(), Duration::from_secs(60));
    assert_eq!(Rollout { soak: "nonsense".to_owned(), ..Rollout::default() }.soak(), Duration::from_secs(60));
}

#[test]
fn shards_are_computed_from_documents_rounded_up() {
    let tenant =
        |expected_documents, shards| DedicatedTenant { id: "a".to_owned(), expected_documents, shards };
    for (documents, stated, shards) in [
        (1, None, 1),
        (1_000_000_000, None, 1),
        (1_000_000_001, None, 2),
        (3_500_000_000, None, 4),
        (i64::MAX, None, 9_223_372_037),
        (5_000_000_000, Some(7), 7),
        (0, None, 1),
    ] {
        assert_eq!(tenant(documents, stated).primary_shards(1_000_000_000), shards, "{documents}");
    }
    assert_eq!(tenant(5, None).primary_shards(0), 5);
    assert_eq!(MAX_EXPECTED_DOCUMENTS_PER_SHARD, LUCENE_MAX_DOCUMENTS * 9 / 10);
}

#[test]
fn what_is_absent_has_its_meaning() {
    let zone = Zone { name: "a".to_owned(), ..Zone::default() };
    assert_eq!((zone.value(), zone.is_retiring()), ("a", false));
    let zone = Zone { value: Some("x".to_owned()), state: Some(ZoneState::Retiring), ..zone };
    assert_eq!((zone.value(), zone.is_retiring()), ("x", true));
    let cluster = Cluster::default();
    assert_eq!((cluster.placement(), cluster.is_disposable()), (ClusterPlacement::Open, false));
    let mut spec = SearchCellSpec { version: "9.5.3".to_owned(), ..SearchCellSpec::default() };
    assert_eq!(spec.image(), "docker.elastic.co/elasticsearch/elasticsearch:9.5.3");
    assert_eq!(spec.security_mode(), SecurityMode::Managed);
    spec.security = Some(Security { mode: Some(SecurityMode::Disabled), ..Security::default() });
    assert_eq!(spec.security_mode(), SecurityMode::Disabled);
}
