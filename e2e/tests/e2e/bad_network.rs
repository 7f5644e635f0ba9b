//! Two operators at once, without a lease, behind a network that loses answers and tells late: what they make is what one on a
//! good network makes.

use std::time::{Duration, Instant};

use searchcell_e2e::bad_network::Faults;
use searchcell_e2e::objects::{items, text};
use searchcell_e2e::scenario::image;
use searchcell_e2e::traffic::Traffic;
use searchcell_e2e::wait::{LIMIT, ensure};
use searchcell_e2e::{Level, run, say, wait_for};

use crate::rolling::{Watcher, rolled};
use crate::upgrades::{ask_for, created_by};

const FAULTS: Faults = Faults { lost_answers: 20, refused: 10, stale: Duration::from_secs(8) };
/// Fewer would show nothing.
const LEAST: u64 = 10;

/// Two leaders, stale caches and lost answers, all the time: while a cell with security forms, while its nodes change their
/// version, while data nodes come and go. One cluster forms, each node restarts once, one at a time, nobody who writes or
/// reads notices, and nothing is left behind.
#[test]
fn two_leaders_behind_a_bad_network_do_as_one_behind_a_good_one() {
    run("two_leaders_behind_a_bad_network_do_as_one_behind_a_good_one", Level::Full, async |t| {
        let network = t.bad_network(FAULTS).await;
        let (mut first, second) =
            (t.spawn_operator_behind(&network).await, t.spawn_operator_behind(&network).await);
        let mut cell = created_by(t, "9.1.0", "Managed").await;
        let uuid = t.elastic("cell", "a").uuid().await.unwrap();
        say(format!("formed: {}", network.told()));

        image(t.env, "9.5.3").await;
        let traffic = Traffic::start(&t.elastic("cell", "a"), "messages.p000.g1").await;
        let watcher = Watcher::start(&t.objects);
        let began = Instant::now();
        ask_for(t, &mut cell, "9.5.3").await;
        let took = rolled(t, &cell, began).await;
        let course = watcher.stop().await;
        say(format!("9.5.3 after {:.0} s: {}", took.as_secs_f64(), network.told()));
        let restarted = course.restarted();
        assert_eq!(restarted.len(), 6, "{course:#?}");
        assert!(restarted.values().all(|times| *times == 1), "each node once: {restarted:?}");
        assert_eq!(course.most_away, 1, "{course:#?}");

        for per_zone in [2, 1] {
            cell.per_zone = per_zone;
            t.apply(&cell.object()).await;
            wait_for(&format!("{per_zone} data nodes in each zone"), LIMIT, async || {
                let nodes = t.elastic("cell", "a").nodes().await?;
                ensure(nodes.len() == usize::try_from(cell.nodes()).unwrap(), || {
                    format!("{:?}", nodes.keys())
                })?;
                let object = t.objects.expect("searchcells", "cell").await;
                let cluster = &items(&object, "/status/clusters")[0];
                ensure(cluster.get("operation").is_none(), || cluster["operation"].to_string())?;
                let phase = text(cluster, "/phase");
                ensure(phase == "Ready", || phase.to_owned())
            })
            .await;
        }
        let seen = traffic.stop().await;
        say(format!("{seen}; {}", network.told()));
        seen.assert_unnoticed();
        assert_eq!(t.elastic("cell", "a").uuid().await.unwrap(), uuid, "one cluster, and the same");
        let told = network.told();
        let faults = [told.lost_answers(), told.refused(), told.held_back()];
        assert!(faults.iter().all(|times| *times >= LEAST), "{told}");

        // one of them, and everything arrives again
        second.kill().await;
        network.heal();
        t.cell_ready(&cell).await;
        t.placement_ready("pool").await;
        let settings = t.elastic("cell", "a").settings().await.unwrap();
        let left: Vec<&String> = settings
            .keys()
            .filter(|name| name.contains("allocation.exclude") || name.contains("allocation.enable"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
        assert!(first.exited().is_none(), "{}", first.log_tail());
        first.kill().await;
    });
}
