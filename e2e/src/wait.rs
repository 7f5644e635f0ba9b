//! Waiting on conditions, never on times: a slow machine makes a test slow, not red.

use std::time::{Duration, Instant};

use crate::say;

/// How long most conditions may take. Generous: about five times what the slowest machine seen needs.
pub const LIMIT: Duration = Duration::from_secs(600);

/// Calls `check` until it answers `Ok`, and panics with its last answer when `limit` is over. Says every 20 seconds
/// what it still waits for.
pub async fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut check: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let began = Instant::now();
    let limit = limit.mul_f64(patience());
    let mut next_word = Duration::from_secs(20);
    loop {
        let answer = match tokio::time::timeout(Duration::from_secs(60), check()).await {
            Ok(answer) => answer,
            Err(_) => Err("looking took more than 60 s".to_owned()),
        };
        match answer {
            Ok(value) => {
                let took = began.elapsed();
                if took > Duration::from_secs(3) {
                    say(format!("{what}: after {:.1} s", took.as_secs_f64()));
                }
                return value;
            }
            Err(not_yet) => {
                let waited = began.elapsed();
                assert!(waited < limit, "{what}: not within {} s; last: {not_yet}", limit.as_secs());
                if waited >= next_word {
                    let short: String = not_yet.chars().take(160).collect();
                    say(format!("{what}: {} s, {short}", waited.as_secs()));
                    next_word = waited + Duration::from_secs(20);
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// `Ok` when `holds`, else the text: for the end of a check.
pub fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

/// Factor on all limits: SEARCHCELL_E2E_PATIENCE, default 1.
fn patience() -> f64 {
    std::env::var("SEARCHCELL_E2E_PATIENCE").ok().and_then(|text| text.parse().ok()).unwrap_or(1.0)
}
