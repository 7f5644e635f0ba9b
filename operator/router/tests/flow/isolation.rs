//! One cluster that does not work harms no other, whatever is offered to it; memory stays within the budget.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use searchcell_router::flow::Core;
use searchcell_router::flow::answer::{Answer, Why};
use searchcell_router::flow::limits::Limits;
use tokio::time::{Instant, sleep};

use super::elastic::{Elastic, Rng, Weather, World};
use super::work::{Operation, Record, offer, settle};

pub struct Setup {
    pub core: Core,
    pub world: Arc<Mutex<World>>,
    pub record: Arc<Mutex<Record>>,
    number: u64,
}

impl Setup {
    pub fn new(limits: Limits) -> Self {
        let world = Arc::new(Mutex::new(World { max_body: 1 << 20, ..World::default() }));
        let rng = Arc::new(Mutex::new(Rng::new(1)));
        let elastic = Arc::new(Elastic { world: Arc::clone(&world), rng });
        let core = Core::start(elastic, limits, Arc::default(), 2, Duration::from_secs(20), 1);
        Self { core, world, record: Arc::default(), number: 0 }
    }

    /// Offers operations with a timeout of a minute; how many were taken.
    fn offer(&mut self, cluster: &str, index: &str, count: u64, padding: usize) -> u64 {
        let operation = |number| Operation {
            number,
            cluster: cluster.to_owned(),
            index: index.to_owned(),
            id: format!("d{number}"),
            delete: false,
            version: Some(1),
            poison: None,
            deadline: Some(Instant::now() + Duration::from_secs(60)),
            padding,
            lane: None,
            moves: false,
        };
        let first = self.number + 1;
        self.number += count;
        let taken = offer(&self.core, &self.record, (first..=self.number).map(operation).collect());
        if taken { count } else { 0 }
    }

    fn answers(&self, cluster: &str) -> Vec<(Answer, Duration)> {
        let record = self.record.lock().unwrap();
        let answers = record.answers.lock().unwrap();
        let asked = |number: &u64| record.accepted[number].deadline.unwrap() - Duration::from_secs(60);
        (answers.iter())
            .filter(|(number, _)| record.accepted[number].cluster == cluster)
            .map(|(number, (answer, at))| (answer.clone(), at.duration_since(asked(number))))
            .collect()
    }
}

pub fn weather(setup: &Setup, cluster: &str, weather: Weather) {
    setup.world.lock().unwrap().weather.insert(cluster.to_owned(), weather);
}

#[tokio::test(start_paused = true)]
async fn the_others_go_on_while_one_cluster_hangs_refuses_or_rejects() {
    let sick = [
        Weather { hangs: 100, ..Weather::default() },
        Weather { refused: 100, ..Weather::default() },
        Weather { rejected: 100, ..Weather::default() },
        Weather { no_master: 100, ..Weather::default() },
        Weather { unauthorized: 100, ..Weather::default() },
    ];
    for fault in sick {
        let mut setup = Setup::new(Limits { budget: 1 << 20, ..Limits::default() });
        weather(&setup, "sick", fault);
        let mut healthy = 0;
        for round in 0..400 {
            // Ten times what can be held.
            setup.offer("sick", &format!("i{}", round % 50), 20, 300);
            let taken = setup.offer("well", &format!("i{}", round % 50), 5, 300);
            assert_eq!(taken, 5, "{fault:?}: no room for the healthy in round {round}");
            healthy += 5;
            assert!(setup.core.budget().used() <= 1 << 20);
            sleep(Duration::from_millis(20)).await;
        }
        settle(&setup.core, &setup.record, Duration::from_secs(90)).await;
        let well = setup.answers("well");
        assert_eq!(well.len(), healthy);
        let slowest = well.iter().map(|(_, took)| *took).max().unwrap();
        assert!(well.iter().all(|(answer, _)| matches!(answer, Answer::Done(_))), "{fault:?}");
        assert!(slowest < Duration::from_millis(100), "{fault:?}: {slowest:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn memory_is_flat_while_nothing_works_and_what_was_taken_is_kept() {
    let limits = Limits { budget: 1 << 20, ..Limits::default() };
    let mut setup = Setup::new(limits);
    for cluster in ["x", "y"] {
        weather(&setup, cluster, Weather { refused: 100, ..Weather::default() });
    }
    // What does not fit is refused at the door, or where it waits: told in both cases, and kept in none.
    let mut refused = 0;
    for round in 0..3_000 {
        let taken = setup.offer(["x", "y"][round % 2], &format!("i{}", round % 9), 10, 500);
        refused += 10 - taken;
        sleep(Duration::from_millis(2)).await;
        assert!(setup.core.budget().used() <= 1 << 20);
    }
    let full = |(answer, _): &(Answer, Duration)| *answer == Answer::Unsent(Why::Full);
    let told = [setup.answers("x"), setup.answers("y")].concat().iter().filter(|answer| full(answer)).count();
    assert!(refused + told as u64 > 20_000, "{refused} {told}");
    setup.world.lock().unwrap().weather.clear();
    settle(&setup.core, &setup.record, Duration::from_secs(70)).await;
    let answers = [setup.answers("x"), setup.answers("y")].concat();
    let done = answers.iter().filter(|(answer, _)| matches!(answer, Answer::Done(_))).count();
    assert!(done > 500, "{done}");
    assert!(answers.iter().all(|answer| full(answer) || matches!(answer.0, Answer::Done(_))));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(setup.core.budget().used(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_hangs_leaves_room_for_its_neighbours() {
    let mut setup = Setup::new(Limits { budget: 1 << 20, ..Limits::default() });
    weather(&setup, "c", Weather { hangs: 100, ..Weather::default() });
    setup.offer("c", "sick", 50, 10);
    // It hangs; from now on the cluster works, and the destination is not known to.
    sleep(Duration::from_millis(10)).await;
    setup.world.lock().unwrap().weather.clear();
    for _ in 0..200 {
        setup.offer("c", "well", 5, 10);
        sleep(Duration::from_millis(50)).await;
    }
    let record = setup.record.lock().unwrap();
    let answers = record.answers.lock().unwrap();
    let well = record.accepted.values().filter(|operation| operation.index == "well");
    let done = well.filter(|o| matches!(answers.get(&o.number), Some((Answer::Done(_), _)))).count();
    assert!(done >= 995, "{done}");
}

/// Elasticsearch takes what it can: most of each bulk. Who waits longer each time gives it less than that.
#[tokio::test(start_paused = true)]
async fn a_destination_that_takes_only_a_part_of_each_bulk_gets_bulks_as_before() {
    let mut setup = Setup::new(Limits::default());
    weather(&setup, "c", Weather { partly_rejected: 30, ..Weather::default() });
    for _ in 0..60 {
        assert_eq!(setup.offer("c", "i", 1_000, 10), 1_000);
    }
    settle(&setup.core, &setup.record, Duration::from_secs(60)).await;
    let answers = setup.answers("c");
    assert!(answers.len() == 60_000 && answers.iter().all(|(answer, _)| matches!(answer, Answer::Done(_))));
    let slowest = answers.iter().map(|(_, took)| *took).max().unwrap();
    assert!(slowest < Duration::from_secs(25), "{slowest:?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_is_told_in_time_although_another_bulk_found_its_destination_blocked() {
    let setup = Setup::new(Limits::default());
    let operation = |number: u64| Operation {
        number,
        cluster: "c".to_owned(),
        index: "i".to_owned(),
        id: format!("d{number}"),
        delete: false,
        version: Some(1),
        poison: None,
        deadline: Some(Instant::now() + Duration::from_secs(1)),
        padding: 10,
        lane: None,
        moves: false,
    };
    weather(&setup, "c", Weather { hangs: 100, ..Weather::default() });
    offer(&setup.core, &setup.record, vec![operation(1)]);
    sleep(Duration::from_millis(10)).await;
    weather(&setup, "c", Weather { read_only: 100, ..Weather::default() });
    offer(&setup.core, &setup.record, vec![operation(2)]);
    // Long before the bulk that hangs is given up.
    settle(&setup.core, &setup.record, Duration::from_millis(1_100)).await;
    let record = setup.record.lock().unwrap();
    let answers = record.answers.lock().unwrap();
    assert_eq!(answers[&1].0, Answer::Unknown(Why::Timeout));
    assert!(
        matches!(&answers[&2].0, Answer::Refused(refused) if &*refused.kind == "cluster_block_exception")
    );
}

#[tokio::test(start_paused = true)]
async fn a_poison_document_sinks_nobody_else_wherever_it_is() {
    for position in 0..33_u64 {
        let setup = Setup::new(Limits::default());
        let operation = |number: u64| Operation {
            number,
            cluster: "c".to_owned(),
            index: "i".to_owned(),
            id: format!("d{number}"),
            delete: false,
            version: None,
            poison: (number == position).then_some("request"),
            deadline: Some(Instant::now() + Duration::from_secs(30)),
            padding: 10,
            lane: None,
            moves: false,
        };
        offer(&setup.core, &setup.record, (0..33).map(operation).collect());
        settle(&setup.core, &setup.record, Duration::from_secs(5)).await;
        for (number, (answer, _)) in setup.record.lock().unwrap().answers.lock().unwrap().iter() {
            assert_eq!(matches!(answer, Answer::Done(_)), *number != position, "{number}: {answer:?}");
        }
        let bulks = setup.world.lock().unwrap().bulks.len();
        assert!(bulks <= 1 + 2 * 6, "{bulks} bulks");
    }
}

#[tokio::test(start_paused = true)]
async fn queues_wait_for_more_and_a_cold_destination_waits_longer() {
    let setup = Setup::new(Limits::default());
    let started = Instant::now();
    for number in 0..40_u64 {
        let operation = Operation {
            number,
            cluster: "c".to_owned(),
            index: "i".to_owned(),
            id: format!("d{number}"),
            delete: false,
            version: Some(1),
            poison: None,
            deadline: None,
            padding: 10,
            lane: None,
            moves: false,
        };
        offer(&setup.core, &setup.record, vec![operation]);
        sleep(Duration::from_millis(500)).await;
    }
    setup.core.stop(Duration::from_secs(5)).await;
    assert!(started.elapsed() < Duration::from_secs(26));
    settle(&setup.core, &setup.record, Duration::from_secs(1)).await;
    let sizes: Vec<usize> = setup.world.lock().unwrap().bulks.iter().map(|(_, items)| *items).collect();
    assert!(sizes.iter().sum::<usize>() == 40 && sizes.len() <= 9, "{sizes:?}");
}
