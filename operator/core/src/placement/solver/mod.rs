//! Which cluster each index of a fleet belongs to: from what is wanted, what was measured and what was decided before
//! to an assignment. Pure, deterministic, integers only. `../README.md` explains it.

mod problem;
mod score;
mod solve;

pub use problem::{Assignment, Cluster, ClusterId, Fleet, Index, Limits, Load, Readiness, ZoneRoom};
pub use score::{BUSY_PERCENT, FULL_PERCENT, Refusal, Score};
pub use solve::{Move, Obstacle, Solution, solve};
