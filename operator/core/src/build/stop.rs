//! What a node does between the word that its pod goes and its end. Pure.

use k8s_openapi::api::core::v1::{ExecAction, Lifecycle, LifecycleHandler};

use crate::domain::ValidCell;
use crate::names::{READINESS_PORT, Role};

/// A node that clients talk to goes on serving until the Services have forgotten it.
const FORGET_SECONDS: u32 = 3;
/// A data node that somebody evicts stays until the operator has told Elasticsearch of it, and for so long after that: with it, the
/// elected master may have gone, and a node that vanishes in the middle of the next election holds that up.
const SETTLE_SECONDS: u32 = 3;
/// Whoever is to tell it may not be there.
const LONGEST_SECONDS: u32 = 8;

/// The hook of a role; a master just stops.
pub(super) fn lifecycle(cell: &ValidCell, role: Role, is_serving: bool) -> Option<Lifecycle> {
    let forget = if is_serving { FORGET_SECONDS } else { 0 };
    let command = match role {
        // Before, nothing says to the node itself that it is known.
        Role::Data if cell.version.has_readiness_port() => {
            vec!["bash".to_owned(), "-c".to_owned(), until_told(forget)]
        }
        Role::Data => vec!["sleep".to_owned(), FORGET_SECONDS.to_string()],
        _ if is_serving => vec!["sleep".to_owned(), FORGET_SECONDS.to_string()],
        _ => return None,
    };
    let exec = ExecAction { command: Some(command) };
    Some(Lifecycle {
        pre_stop: Some(LifecycleHandler { exec: Some(exec), ..Default::default() }),
        ..Default::default()
    })
}

/// The port of readiness is closed as soon as Elasticsearch is told that the node goes, and while there is no master. Of a node that
/// the operator restarts it is closed already.
fn until_told(forget: u32) -> String {
    let (settled, longest) = (SETTLE_SECONDS * 10, LONGEST_SECONDS * 10);
    format!(
        "is_open() {{ (exec 3<>/dev/tcp/127.0.0.1/{READINESS_PORT}) 2>/dev/null; }}
is_open || exec sleep {forget}
closed=0
for ((tenth = 0; tenth < {longest} && closed < {settled}; tenth++)); do
  if is_open; then closed=0; else closed=$((closed + 1)); fi
  sleep 0.1
done
"
    )
}
