//! What came of many runs: shares with their least, median and greatest. Pure.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::offer::Outcome;

/// One run of one peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Number of the round that it was in: runs of one round stood beside each other.
    pub round: u32,
    /// What was measured.
    pub scenario: String,
    /// Whose.
    pub peer: String,
    /// What came.
    pub outcome: Outcome,
    /// What the Elasticsearch counted: documents of a bulk.
    #[serde(rename = "perBulk")]
    pub per_bulk: f64,
}

/// What the names of those end with whom others are compared with, in scenarios of that kind.
pub const BASELINE: &str = ", all work";

/// Name of the router among peers.
pub const OURS: &str = "router";

/// Least, median, greatest.
pub fn spread(values: impl IntoIterator<Item = f64>) -> Option<(f64, f64, f64)> {
    let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    Some((*values.first()?, values[values.len() / 2], *values.last()?))
}

fn show(values: Option<(f64, f64, f64)>, digits: usize) -> String {
    match values {
        Some((least, median, most)) if least.to_bits() == most.to_bits() => format!("{median:.digits$}"),
        Some((least, median, most)) => format!("{median:.digits$} ({least:.digits$}–{most:.digits$})"),
        None => "–".to_owned(),
    }
}

/// Tables in Markdown, one for each scenario, in the order in which they came.
pub fn tables(runs: &[Run]) -> String {
    let mut scenarios: Vec<&str> = Vec::new();
    for run in runs {
        if !scenarios.contains(&run.scenario.as_str()) {
            scenarios.push(&run.scenario);
        }
    }
    let mut out = String::new();
    for scenario in scenarios {
        let of: Vec<&Run> = runs.iter().filter(|run| run.scenario == scenario).collect();
        let ours: BTreeMap<u32, &Run> =
            of.iter().filter(|run| run.peer == OURS).map(|run| (run.round, *run)).collect();
        let mut peers: Vec<&str> = of.iter().map(|run| run.peer.as_str()).collect();
        peers.sort_unstable_by_key(|peer| (*peer != OURS, *peer));
        peers.dedup();
        writeln!(out, "\n### {scenario}\n").unwrap();
        out.push_str("| | CPU of a document, µs | × the router's | thousand documents of a core-second | thousand documents/s | of a core, % | of a bulk | p50 / p99 / p99.9, ms | memory, MiB | failed at first, % |\n");
        out.push_str("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n");
        for peer in peers {
            let mine: Vec<&&Run> = of.iter().filter(|run| run.peer == peer).collect();
            let each = |value: &dyn Fn(&Outcome) -> f64, digits| {
                show(spread(mine.iter().map(|run| value(&run.outcome))), digits)
            };
            // Whose processors were not watched has none.
            let cpu = |outcome: &Outcome| match outcome.cpu {
                0.0 => f64::NAN,
                cpu => cpu * 1e6 / outcome.settled.max(1) as f64,
            };
            let share = |cpu: f64| if cpu == 0.0 { f64::NAN } else { 100.0 * cpu };
            let ratios =
                mine.iter().filter_map(|run| Some(cpu(&run.outcome) / cpu(&ours.get(&run.round)?.outcome)));
            let latency = |value: fn(&Outcome) -> Option<f64>| match spread(
                mine.iter().filter_map(|run| value(&run.outcome)),
            ) {
                Some((_, median, _)) => format!("{median:.1}"),
                None => "–".to_owned(),
            };
            writeln!(
                out,
                "| {peer} | {} | {} | {} | {} | {} | {} | {} / {} / {} | {} | {} |",
                each(&cpu, 2),
                show(spread(ratios), 2),
                each(&|outcome| 1e3 / cpu(outcome), 0),
                each(&|outcome| outcome.settled as f64 / outcome.seconds / 1e3, 1),
                each(&|outcome| share(outcome.cpu) / outcome.seconds, 0),
                show(spread(mine.iter().map(|run| run.per_bulk)), 1),
                latency(|outcome| outcome.p50),
                latency(|outcome| outcome.p99),
                latency(|outcome| outcome.p999),
                each(&|outcome| outcome.memory as f64 / f64::from(1 << 20), 0),
                each(&|outcome| 100.0 * outcome.failed_at_first as f64 / outcome.documents.max(1) as f64, 2),
            )
            .unwrap();
        }
        against_baseline(&of, &mut out);
    }
    out
}

/// Beside the same while all work: rate and p99, of runs of one round.
fn against_baseline(runs: &[&Run], out: &mut String) {
    let baseline = |run: &Run| {
        let (name, _) = run.peer.split_once(", ")?;
        let is = |other: &&&Run| other.round == run.round && other.peer == format!("{name}{BASELINE}");
        runs.iter().find(is).copied()
    };
    let mut ratios: BTreeMap<&str, (Vec<f64>, Vec<f64>)> = BTreeMap::new();
    for run in runs.iter().filter(|run| !run.peer.ends_with(BASELINE)) {
        let Some(before) = baseline(run) else { continue };
        let rate = |run: &Run| run.outcome.settled as f64 / run.outcome.seconds;
        let (rates, latencies) = ratios.entry(&run.peer).or_default();
        rates.push(rate(run) / rate(before));
        latencies.extend(run.outcome.p99.zip(before.outcome.p99).map(|(now, before)| now / before));
    }
    if ratios.is_empty() {
        return;
    }
    out.push_str("\n| against the same while all work | documents/s | p99 |\n| --- | --- | --- |\n");
    for (peer, (rates, latencies)) in ratios {
        writeln!(out, "| {peer} | {} | {} |", show(spread(rates), 3), show(spread(latencies), 2)).unwrap();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_runs_of_one_round() {
        let run = |round, peer: &str, cpu| Run {
            round,
            scenario: "A".into(),
            peer: peer.into(),
            outcome: Outcome {
                documents: 1_000_000,
                settled: 1_000_000,
                seconds: 2.0,
                cpu,
                ..Outcome::default()
            },
            per_bulk: 50.0,
        };
        let runs = [run(1, OURS, 1.0), run(1, "peer", 3.0), run(2, OURS, 2.0), run(2, "peer", 8.0)];
        let text = tables(&runs);
        assert!(text.contains("| peer | 8.00 (3.00–8.00) | 4.00 (3.00–4.00) |"), "{text}");
        assert!(text.contains("| router | 2.00 (1.00–2.00) | 1.00 |"), "{text}");
        let runs = [run(1, "router, all work", 1.0), run(1, "router, one hangs", 1.0)];
        assert!(tables(&runs).contains("| router, one hangs | 1.000 | – |"), "{}", tables(&runs));
        assert_eq!(spread([3.0, 1.0, f64::NAN, 2.0]), Some((1.0, 2.0, 3.0)));
    }
}
