//! Tests of the order of steps, of what is skipped after a failure, and of leadership.

use std::sync::Mutex;
use std::time::Duration;

use super::*;
use crate::ports::KubeError;

/// Every step's `why` says what becomes of it: `ok`, `fail`, `conflict`, `slow`, `resign`.
struct Script {
    log: Mutex<Vec<String>>,
    leadership: Leadership,
}

impl Perform for Script {
    async fn perform(&self, step: &Step) -> Result<(), StepError> {
        let (name, fate) = step.why.split_once(':').unwrap();
        if fate == "slow" {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        self.log.lock().unwrap().push(name.to_owned());
        match fate {
            "fail" => Err(KubeError::Refused("no".into()).into()),
            "conflict" => Err(KubeError::Conflict("changed".into()).into()),
            "resign" => {
                self.leadership.give_up();
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

async fn execute(steps: &[(&str, &str)]) -> (Executed, Vec<String>) {
    let steps: Vec<Step> = (steps.iter())
        .map(|(cluster, why)| Step {
            cluster: (!cluster.is_empty()).then(|| (*cluster).to_owned()),
            action: if why.starts_with("release") { Action::RemoveFinalizer } else { Action::AddFinalizer },
            why: (*why).to_owned(),
        })
        .collect();
    let leadership = Leadership::none();
    leadership.extend(tokio::time::Instant::now() + Duration::from_secs(3600));
    let script = Script { log: Mutex::default(), leadership: leadership.clone() };
    let executed = run(&steps, &leadership, 8, &script).await;
    (executed, script.log.into_inner().unwrap())
}

fn short(executed: &Executed) -> String {
    (executed.outcomes.iter())
        .map(|outcome| match outcome {
            Outcome::Done => 'D',
            Outcome::Skipped => 'S',
            Outcome::Failed { .. } => 'F',
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_failure_stops_its_cluster_and_no_other() {
    let (executed, log) = execute(&[
        ("", "finalizer:ok"),
        ("a", "a1:ok"),
        ("b", "b1:fail"),
        ("a", "a2:ok"),
        ("b", "b2:ok"),
        ("", "release:ok"),
    ])
    .await;
    assert_eq!(short(&executed), "DDFDSS");
    assert_eq!(executed.worst, Some(Class::UserFixable));
    assert!(!executed.released && !log.contains(&"b2".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn steps_of_a_cluster_keep_their_order_and_clusters_do_not_wait_for_each_other() {
    let start = tokio::time::Instant::now();
    let (executed, log) = execute(&[
        ("a", "a1:slow"),
        ("b", "b1:ok"),
        ("a", "a2:ok"),
        ("c", "c1:slow"),
        ("b", "b2:ok"),
        ("", "release:ok"),
    ])
    .await;
    assert_eq!((short(&executed).as_str(), executed.released), ("DDDDDD", true));
    assert_eq!(start.elapsed(), Duration::from_secs(1));
    assert_eq!(log[..2], ["b1", "b2"]);
    assert_eq!(log.last().unwrap(), "release");
}

#[tokio::test(start_paused = true)]
async fn a_failing_step_of_the_whole_object_stops_everything() {
    let (executed, log) = execute(&[("", "finalizer:fail"), ("a", "a1:ok"), ("b", "b1:ok")]).await;
    assert_eq!((short(&executed).as_str(), log.len()), ("FSS", 1));
}

#[tokio::test(start_paused = true)]
async fn a_conflict_is_skipped_and_worth_a_look() {
    let (executed, _) = execute(&[("a", "a1:conflict"), ("a", "a2:ok")]).await;
    assert_eq!((short(&executed).as_str(), executed.worst), ("SS", Some(Class::Conflict)));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_after_leadership_was_lost() {
    let (executed, log) = execute(&[("a", "a1:resign"), ("a", "a2:ok"), ("", "release:ok")]).await;
    assert_eq!((short(&executed).as_str(), log.len()), ("DSS", 1));
    assert!(!executed.released);
}
