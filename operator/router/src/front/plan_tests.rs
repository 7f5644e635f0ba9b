//! Tests of `plan`.

use std::time::{Duration, UNIX_EPOCH};

use searchcell_core::names::ClusterKey;
use searchcell_core::routing::{Located, Override, Table, TableInput, TenantRules, Traffic, build_table};
use searchcell_crds::Versioning;

use super::super::pending::Pending;
use super::*;
use crate::hot::Hot;
use crate::settings::HotTenants;

fn route(versioning: Versioning, fan_out: bool, id_scope: IdScope) -> Routes {
    let at = |name: &str| Located {
        name: name.into(),
        cluster: ClusterKey::new("ns", "guilds", "a"),
        is_secure: false,
    };
    let input = TableInput {
        namespace: "ns".into(),
        collection: "messages".into(),
        tenant: TenantRules { field: "guild_id".into(), fan_out, id_scope },
        versioning,
        pool: Some(vec![Some(at("messages.p000.g1")), Some(at("messages.p001.g1"))]),
        dedicated: [("big".to_owned(), Some(at("messages.t.big.g1")))].into(),
    };
    [("messages".to_owned(), Arc::new(Route::new(build_table(&input, 1).unwrap())))].into()
}

/// Per operation: destination and lines of each copy, or the error.
fn plan(routes: &Routes, body: &str) -> Vec<Result<Vec<String>, Failure>> {
    let minter = Minter::new([0; 5]);
    let request = Request {
        routes,
        index: Some("messages"),
        routing: None,
        may_write: &|name| name != "secret",
        minter: &minter,
        now: UNIX_EPOCH,
    };
    let hot = Hot::new(HotTenants::default());
    let mut ingress = Ingress::new(&hot, false, Instant::now(), None);
    let plan = Plan::new(bulk::parse(body.as_bytes()).unwrap(), &request, &mut ingress);
    let lines = |copy: &Copy<'_>| {
        let place = plan.routes[copy.route].place(copy.position).unwrap();
        format!("{} {}", place.index, std::str::from_utf8(&plan.actions[copy.action.clone()]).unwrap().trim())
    };
    (plan.asked.iter())
        .map(|asked| asked.copies.clone().map(|range| plan.copies[range].iter().map(lines).collect()))
        .collect()
}

fn reasons(routes: &Routes, body: &str) -> Vec<String> {
    plan(routes, body)
        .into_iter()
        .map(|item| item.map_or_else(|f| f.reason, |copies| copies.join("; ")))
        .collect()
}

#[test]
fn tenants_come_from_the_routing_or_the_document() {
    let routes = route(Versioning::None, false, IdScope::Tenant);
    let planned = plan(
        &routes,
        "{\"index\":{\"_id\":\"1\",\"routing\":\"big\"}}\n{\"guild_id\":5}\n{\"create\":{\"_id\":\"\\\"\"}}\n{\"guild_id\":5}\n\
         {\"index\":{\"_id\":\"3\"}}\n{\"guild_id\":\"5\"}\n{\"delete\":{\"_id\":\"4\",\"routing\":5}}\n",
    );
    let copy = |position: usize| planned[position].clone().unwrap()[0].clone();
    assert_eq!(copy(0), r#"messages.t.big.g1 {"index":{"_id":"big~1"}}"#);
    assert!(copy(1).ends_with(r#"g1 {"create":{"_id":"5~\"","routing":"5"}}"#), "{}", copy(1));
    assert!(copy(2).ends_with(r#"{"index":{"_id":"5~3","routing":"5"}}"#));
    assert!(copy(3).ends_with(r#"{"delete":{"_id":"5~4","routing":"5"}}"#));
}

#[test]
fn what_is_wrong_with_one_is_told_of_that_one() {
    let routes = route(Versioning::None, false, IdScope::Tenant);
    let long = "x".repeat(520);
    let body = format!(
        "{{\"index\":{{\"_id\":\"1\"}}}}\n{{}}\n{{\"index\":{{\"_id\":\"1\"}}}}\n{{\"guild_id\":1.5}}\n\
         {{\"index\":{{\"_id\":\"1\"}}}}\n{{broken\n{{\"delete\":{{\"_id\":\"1\"}}}}\n{{\"update\":{{\"_id\":\"1\",\"routing\":\"a\"}}}}\n{{}}\n\
         {{\"index\":{{\"_index\":\"other\",\"routing\":\"a\"}}}}\n{{}}\n{{\"index\":{{\"pipeline\":\"p\",\"routing\":\"a\"}}}}\n{{}}\n\
         {{\"index\":{{\"_id\":\"{long}\",\"routing\":\"a\"}}}}\n{{}}\n{{\"index\":{{\"version\":1,\"routing\":\"a\"}}}}\n{{}}\n\
         {{\"delete\":{{\"routing\":\"a\"}}}}\n{{\"index\":{{\"_id\":\"\",\"routing\":\"a\"}}}}\n{{}}\n{{\"index\":{{\"routing\":\"\"}}}}\n{{}}\n\
         {{\"index\":{{\"routing\":\"a\",\"if_seq_no\":1}}}}\n{{}}\n{{\"index\":{{\"_id\":\"fine\",\"routing\":\"a\"}}}}\n{{}}\n"
    );
    let got = reasons(&routes, &body);
    let expected = [
        "routing is required",
        "string or an integer",
        "key must be a string",
        "routing is required",
        "[update]",
        "no such index [other]",
        "[pipeline]",
        "too long",
        "versioning of this collection is None",
        "id must be provided",
        "must not be empty",
        "1 to 128",
        "belong together",
        "a~fine",
    ];
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(expected) {
        assert!(got.contains(expected), "{got} / {expected}");
    }
}

#[test]
fn external_versions_are_required_and_sent() {
    let routes = route(Versioning::External, false, IdScope::Collection);
    let got = reasons(
        &routes,
        "{\"index\":{\"_id\":\"1\",\"routing\":\"big\",\"version\":7}}\n{}\n{\"index\":{\"_id\":\"1\",\"routing\":\"big\"}}\n{}\n\
         {\"create\":{\"_id\":\"1\",\"routing\":\"big\",\"version\":7}}\n{}\n\
         {\"index\":{\"routing\":\"big\",\"version\":7,\"version_type\":\"external_gte\"}}\n{}\n\
         {\"index\":{\"routing\":\"big\",\"version\":-1}}\n{}\n{\"index\":{\"routing\":\"big\",\"version\":1,\"if_seq_no\":1,\"if_primary_term\":1}}\n{}\n\
         {\"delete\":{\"_id\":\"1\",\"routing\":\"big\",\"version\":8,\"version_type\":\"external\"}}\n",
    );
    assert_eq!(got[0], r#"messages.t.big.g1 {"index":{"_id":"1","version":7,"version_type":"external"}}"#);
    for (got, expected) in got[1..6].iter().zip(["is required", "[create]", "external", "-1", "[if_seq_no]"])
    {
        assert!(got.contains(expected), "{got}");
    }
    assert!(got[6].contains(r#"{"delete":{"_id":"1","version":8,"version_type":"external"}}"#));
}

#[test]
fn each_participant_gets_a_copy_once() {
    let routes = route(Versioning::None, true, IdScope::Tenant);
    let planned = plan(
        &routes,
        "{\"index\":{\"_id\":\"1\"}}\n{\"guild_id\":[\"big\",7,\"big\"]}\n{\"delete\":{\"_id\":\"1\",\"routing\":\"big,7\"}}\n\
         {\"index\":{\"_id\":\"2\"}}\n{\"guild_id\":[]}\n{\"index\":{\"_id\":\"3\"}}\n{\"guild_id\":7}\n\
         {\"index\":{\"_id\":\"4\"}}\n{\"guild_id\":[7,{}]}\n",
    );
    let count = |position: usize| planned[position].clone().map(|copies| copies.len()).ok();
    assert_eq!((0..5).map(count).collect::<Vec<_>>(), [Some(2), Some(2), None, Some(1), None]);
}

/// Why operations wait, by position; `change` is done to the table of [`route`] first.
fn waits(
    fenced: bool,
    latest: Option<Duration>,
    change: impl FnOnce(&mut Table),
    body: &str,
) -> Vec<(usize, &'static str)> {
    let mut table = route(Versioning::None, true, IdScope::Tenant)["messages"].table.clone();
    change(&mut table);
    let routes: Routes = [("messages".to_owned(), Arc::new(Route::new(table)))].into();
    let minter = Minter::new([0; 5]);
    let (routing, may_write, now) = (None, &|_: &str| true, Instant::now());
    let request = Request {
        routes: &routes,
        index: Some("messages"),
        routing,
        may_write,
        minter: &minter,
        now: UNIX_EPOCH,
    };
    let hot = Hot::new(HotTenants::default());
    let mut ingress = Ingress::new(&hot, fenced, now, latest.map(|latest| now + latest));
    let plan = Plan::new(bulk::parse(body.as_bytes()).unwrap(), &request, &mut ingress);
    let goes = |asked: &Asked| asked.copies.as_ref().map_or(0, ExactSizeIterator::len);
    assert_eq!(plan.asked.iter().map(goes).sum::<usize>(), plan.copies(), "what waits has no copies");
    for waiting in &plan.waiting {
        assert_eq!(plan.asked[waiting.position].copies.as_ref().unwrap_err().status, 429);
        assert!(!plan.asked[waiting.position].id.is_empty());
    }
    plan.waiting.iter().map(|waiting| (waiting.position, waiting.wait.name())).collect()
}

fn line(id: &str, tenants: &str) -> String {
    format!("{{\"index\":{{\"_id\":\"{id}\",\"routing\":\"{tenants}\"}}}}\n{{}}\n")
}

#[test]
fn only_who_cannot_go_waits_and_what_comes_after_it_with_its_id() {
    let body: String = [line("1", "big"), line("1", "7"), line("2", "7,big"), line("2", "7"), line("3", "7")]
        .concat()
        + "{\"delete\":{\"_id\":\"1\",\"routing\":\"7\"}}\n{\"index\":{\"routing\":\"big\"}}\n{}\n";
    let nowhere = |table: &mut Table| table.overrides.get_mut("big").unwrap().to = Destination::nowhere();
    // A copy for one of two tenants would be half of a document; what follows for the other one would be overwritten.
    let expected = [(0, "nowhere"), (2, "nowhere"), (3, "behind"), (6, "nowhere")];
    assert_eq!(waits(false, None, nowhere, &body), expected);
    let paused = |table: &mut Table| {
        let big = table.lookup("big").unwrap().read.unwrap();
        table.indices[usize::try_from(big).unwrap()].traffic = Traffic::Paused;
    };
    let expected = [(0, "paused"), (2, "paused"), (3, "behind"), (6, "paused")];
    assert_eq!(waits(false, None, paused, &body), expected);
}

#[test]
fn the_fence_is_around_those_who_are_moved_and_nobody_else() {
    let body = [line("1", "big"), line("1", "7")].concat();
    let to = |write: &'static [u32]| {
        move |table: &mut Table| {
            let at = table.overrides["big"].to.read;
            let write = write.iter().map(|index| (index + at.unwrap()) % 3).collect();
            table.overrides.get_mut("big").unwrap().to = Destination { read: at, write };
        }
    };
    for (write, waiting) in [(&[][..], 0), (&[0], 0), (&[0, 1], 1), (&[1], 1)] {
        assert_eq!(waits(true, None, to(write), &body).len(), waiting, "{write:?}");
        assert_eq!(waits(false, None, to(write), &body).len(), 0, "{write:?}");
    }
}

#[test]
fn a_limit_is_for_its_tenant_and_ends_with_the_time_that_the_request_has() {
    let body: String = (0..30).map(|id| line(&id.to_string(), ["big", "7"][id % 2])).collect();
    let limit = |table: &mut Table| table.overrides.get_mut("big").unwrap().documents_per_second = Some(4);
    let expected: Vec<_> = (8..30).step_by(2).map(|position| (position, "limit")).collect();
    assert_eq!(waits(false, None, limit, &body), expected);
    // Four at once, and four in the second that there is; the others are refused, and do not wait.
    assert_eq!(waits(false, Some(Duration::from_secs(1)), limit, &body), expected[..4]);
}

#[test]
fn a_lane_of_its_own_is_a_segment_of_its_own() {
    let mut table = route(Versioning::None, false, IdScope::Tenant)["messages"].table.clone();
    let to = table.lookup("7").unwrap().clone();
    let same = (8..100)
        .map(|tenant| tenant.to_string())
        .find(|tenant| *table.lookup(tenant).unwrap() == to)
        .unwrap();
    let says = Override { to, documents_per_second: None, lane: Some("loud".to_owned()) };
    table.overrides.insert("7".to_owned(), says);
    let routes: Routes = [("messages".to_owned(), Arc::new(Route::new(table)))].into();
    let body = [line("1", "7"), line("1", &same), line("2", "7")].concat();
    let (minter, hot) = (Minter::new([0; 5]), Hot::new(HotTenants::default()));
    let request = Request {
        routes: &routes,
        index: Some("messages"),
        routing: None,
        may_write: &|_| true,
        minter: &minter,
        now: UNIX_EPOCH,
    };
    let mut ingress = Ingress::new(&hot, false, Instant::now(), None);
    let plan = Plan::new(bulk::parse(body.as_bytes()).unwrap(), &request, &mut ingress);
    let pending = Arc::new(Pending::new(3));
    let ticket = |slot| Some(Ticket::new(Arc::clone(&pending) as _, slot));
    let parcels = plan.parcels(ticket, Some(Instant::now()), Instant::now(), (1 << 20, 2_000));
    let lanes: Vec<_> =
        parcels.iter().map(|parcel| (parcel.segment.lane.is_some(), parcel.segment.len())).collect();
    assert_eq!(lanes, [(false, 1), (true, 2)]);
    assert_eq!(parcels[0].index, parcels[1].index);
}

#[test]
fn segments_are_of_one_destination_and_no_larger_than_a_bulk() {
    let routes = route(Versioning::None, false, IdScope::Tenant);
    let body: String = (0..100)
        .map(|n| format!("{{\"index\":{{\"_id\":\"{n}\",\"routing\":\"t{}\"}}}}\n{{\"n\":{n}}}\n", n % 7))
        .collect();
    let minter = Minter::new([0; 5]);
    let request = Request {
        routes: &routes,
        index: Some("messages"),
        routing: None,
        may_write: &|_| true,
        minter: &minter,
        now: UNIX_EPOCH,
    };
    let hot = Hot::new(HotTenants::default());
    let mut ingress = Ingress::new(&hot, false, Instant::now(), None);
    let plan = Plan::new(bulk::parse(body.as_bytes()).unwrap(), &request, &mut ingress);
    let pending = Arc::new(Pending::new(plan.copies()));
    let ticket = |slot| Some(Ticket::new(Arc::clone(&pending) as _, slot));
    let parcels = plan.parcels(ticket, Some(Instant::now()), Instant::now(), (700, 20));
    let cost: usize = parcels.iter().map(|parcel| parcel.segment.cost()).sum();
    assert_eq!((plan.cost(), plan.copies()), (cost, 100));
    assert_eq!(parcels.iter().map(|parcel| parcel.segment.len()).sum::<usize>(), 100);
    assert!(parcels.iter().all(|parcel| parcel.segment.bytes() <= 700 && parcel.segment.len() <= 20));
    let route = &routes["messages"];
    for parcel in &parcels {
        let body = parcel.segment.body();
        for action in bulk::parse(&body).unwrap() {
            let tenant = action.meta.routing.unwrap().0;
            let place = route.place(route.table.lookup(&tenant).unwrap().read.unwrap()).unwrap();
            assert_eq!(place.index, parcel.index);
        }
    }
}
