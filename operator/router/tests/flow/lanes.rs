//! Lanes: who writes much does not stand before its neighbours; and the fence around tenants who are being moved.

use std::sync::Arc;
use std::time::Duration;

use searchcell_router::fence::{self, Fence};
use searchcell_router::flow::answer::{Answer, Why};
use searchcell_router::flow::limits::Limits;
use searchcell_router::meters::Meters;
use searchcell_router::routes::Directory;
use tokio::time::{Instant, sleep};

use super::elastic::Weather;
use super::isolation::{Setup, weather};
use super::work::{Operation, offer, settle};

fn operation(number: u64, lane: Option<u64>, padding: usize) -> Operation {
    Operation {
        number,
        cluster: "c".to_owned(),
        index: "i".to_owned(),
        id: format!("d{number}"),
        delete: false,
        version: Some(1),
        poison: None,
        deadline: Some(Instant::now() + Duration::from_secs(120)),
        padding,
        lane,
        moves: false,
    }
}

fn answers(setup: &Setup) -> Vec<(u64, Answer, Instant)> {
    let record = setup.record.lock().unwrap();
    let answers = record.answers.lock().unwrap();
    answers.iter().map(|(number, (answer, at))| (*number, answer.clone(), *at)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_neighbour_of_a_hot_tenant_waits_for_one_bulk_and_not_for_all_of_them() {
    for (lane, before_all) in [(Some(7), true), (None, false)] {
        let one = Limits { concurrency_start: 1, concurrency_max: 1, bulk_items: 50, ..Limits::default() };
        let setup = Setup::new(one);
        for request in 0..40_u64 {
            offer(
                &setup.core,
                &setup.record,
                (0..50).map(|n| operation(request * 50 + n, lane, 10)).collect(),
            );
        }
        sleep(Duration::from_millis(1)).await;
        offer(&setup.core, &setup.record, vec![operation(10_000, None, 10)]);
        settle(&setup.core, &setup.record, Duration::from_secs(30)).await;
        let answers = answers(&setup);
        let neighbour = answers.iter().find(|(number, ..)| *number == 10_000).unwrap().2;
        let later = answers.iter().filter(|(.., at)| *at > neighbour).count();
        assert_eq!(later >= 1_800, before_all, "{lane:?}: {later} operations were done after it");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hot_tenant_leaves_room_for_its_neighbours_in_the_same_index() {
    let setup = Setup::new(Limits { budget: 1 << 20, ..Limits::default() });
    weather(&setup, "c", Weather { hangs: 100, ..Weather::default() });
    for number in 0..60 {
        offer(&setup.core, &setup.record, vec![operation(number, Some(number % 2), 10_000)]);
    }
    for number in 100..110 {
        offer(&setup.core, &setup.record, vec![operation(number, None, 10_000)]);
    }
    sleep(Duration::from_millis(10)).await;
    let full: Vec<u64> = answers(&setup)
        .into_iter()
        .map(|(number, answer, _)| {
            assert_eq!(answer, Answer::Unsent(Why::Full));
            number
        })
        .collect();
    assert!(full.len() >= 30 && full.iter().all(|number| *number < 100), "{full:?}");
    weather(&setup, "c", Weather::default());
    settle(&setup.core, &setup.record, Duration::from_secs(120)).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(setup.core.budget().used(), 0);
    // What its lanes held is given back, too: as much fits again.
    for number in 200..220 {
        offer(&setup.core, &setup.record, vec![operation(number, Some(1), 10_000)]);
    }
    settle(&setup.core, &setup.record, Duration::from_secs(10)).await;
    let done = answers(&setup)
        .into_iter()
        .filter(|(number, answer, _)| *number >= 200 && matches!(answer, Answer::Done(_)));
    assert_eq!(done.count(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_router_that_nobody_hears_of_stops_writing_where_tenants_are_moved_and_only_there() {
    let setup = Setup::new(Limits::default());
    let meters = Arc::new(Meters::default());
    let fence = Arc::new(Fence::new(Some(Duration::from_secs(60)), Instant::now()));
    let directory = Arc::new(Directory::default());
    let changes = directory.changes();
    let core = Arc::new(setup.core);
    let end = {
        let core = Arc::clone(&core);
        move || core.fence()
    };
    let watch = tokio::spawn(fence::watch(Arc::clone(&fence), directory, Arc::clone(&meters), end));
    let weather = Weather { refused: 100, ..Weather::default() };
    setup.world.lock().unwrap().weather.insert("c".to_owned(), weather);
    let started = Instant::now();
    // Both have more time than the fence; it is read just before that is over.
    let late = Some(started + Duration::from_secs(300));
    offer(&core, &setup.record, vec![Operation { deadline: late, moves: true, ..operation(1, None, 10) }]);
    offer(&core, &setup.record, vec![Operation { deadline: late, ..operation(2, None, 10) }]);
    sleep(Duration::from_secs(50)).await;
    assert!(!fence.read(Instant::now()).fenced);
    sleep(Duration::from_secs(59)).await;
    assert!(setup.record.lock().unwrap().answers.lock().unwrap().is_empty());
    sleep(Duration::from_secs(4)).await;
    let told = setup.record.lock().unwrap().answers.lock().unwrap().clone();
    let (answer, at) = &told[&1];
    assert_eq!((told.len(), answer), (1, &Answer::Unsent(Why::Fenced)));
    let after = at.duration_since(started);
    assert!(after >= Duration::from_secs(110) && after < Duration::from_secs(113), "{after:?}");
    assert_eq!(meters.fenced.get(), 1);
    assert!(!changes.has_changed().unwrap());
    // Read: who waits for it looks again.
    assert!(fence.read(Instant::now()).fenced);
    setup.world.lock().unwrap().weather.clear();
    sleep(Duration::from_secs(7)).await;
    assert!(changes.has_changed().unwrap() && meters.fenced.get() == 0);
    let told = setup.record.lock().unwrap().answers.lock().unwrap().clone();
    assert!(matches!(told[&2].0, Answer::Done(_)), "{:?}", told[&2]);
    watch.abort();
}
