//! A placement, its cell and what Elasticsearch says of it, for tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use searchcell_core::domain::ValidPlacement;
use searchcell_core::names::{FINALIZER, OWNED_SETTINGS};
use searchcell_core::placement::{PlacementSnapshot, ShardLimits, placement_status, plan_placement};
use searchcell_core::routing::{Published, TableSnapshot, plan_table};
use searchcell_core::snapshot::{
    ElasticFacts, ElasticNode, IndexFacts, NodeDisk, OwnershipMark, Reading, ShardCopy, ShardState,
};
use searchcell_core::step::{Action, Object, Outcome, Plan};
use searchcell_core::validate::validate_placement;
use searchcell_crds::{IndexPlacement, IndexPlacementStatus, Reason, SearchCell};
use serde_json::{Value, json};

pub fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

pub fn cell(clusters: &[&str]) -> SearchCell {
    let list = |make: fn(&str) -> Value| clusters.iter().map(|name| make(name)).collect::<Vec<Value>>();
    serde_json::from_value(json!({
        "apiVersion": "searchcell.dev/v1alpha1", "kind": "SearchCell",
        "metadata": {"name": "guilds", "namespace": "search"},
        "spec": {
            "version": "9.5.3", "zones": [{"name": "a"}, {"name": "b"}, {"name": "c"}],
            "clusters": list(|name| json!({"name": name})),
            "nodes": {"master": {"count": 3, "storage": {"size": "1Gi"}}, "data": {"perZone": 1, "storage": {"size": "1Gi"}}},
            "security": {"mode": "Disabled"},
        },
        "status": {"clusters": list(|name| json!({"name": name, "uuid": format!("uuid-{name}"), "phase": "Ready"}))},
    }))
    .unwrap()
}

pub fn pool(indices: i32) -> IndexPlacement {
    serde_json::from_value(json!({
        "apiVersion": "searchcell.dev/v1alpha1", "kind": "IndexPlacement",
        "metadata": {"name": "messages", "namespace": "search", "uid": "u", "generation": 1, "finalizers": [FINALIZER]},
        "spec": {"cell": "guilds", "collection": "messages", "tenant": {"field": "guild_id"}, "pool": {"indices": indices}},
    }))
    .unwrap()
}

pub fn facts(cluster: &str) -> ElasticFacts {
    let node = |zone: &str| {
        let node = ElasticNode {
            version: "9.5.3".into(),
            roles: vec!["data".into()],
            zone: Some(zone.into()),
            id: zone.into(),
        };
        (format!("data-{zone}"), node)
    };
    ElasticFacts {
        uuid: Some(format!("uuid-{cluster}")),
        master: Some("m".into()),
        nodes: ["a", "b", "c"].into_iter().map(node).collect(),
        settings: BTreeMap::from([
            ("cluster.routing.allocation.awareness.attributes".into(), json!("zone")),
            (OWNED_SETTINGS.into(), json!("x")),
        ]),
        counts: Some(Arc::default()),
        disks: Some(
            ["a", "b", "c"]
                .into_iter()
                .map(|zone| {
                    (format!("data-{zone}"), NodeDisk { total: 1 << 40, available: 1 << 39, shards: 0 })
                })
                .collect(),
        ),
        ..ElasticFacts::default()
    }
}

pub struct World(pub PlacementSnapshot);

impl World {
    pub fn new(placement: IndexPlacement, clusters: &[&str]) -> Self {
        let elastic = clusters.iter().map(|name| ((*name).to_owned(), Reading::Known(facts(name)))).collect();
        let cell = Some(cell(clusters));
        World(PlacementSnapshot {
            placement,
            cell,
            siblings: vec![],
            table: None,
            elastic,
            pooled: BTreeMap::new(),
            largest: BTreeMap::new(),
            limits: ShardLimits::default(),
        })
    }

    pub fn valid(&self) -> ValidPlacement {
        validate_placement(&self.0.placement, self.0.cell.as_ref(), &self.0.siblings).unwrap()
    }

    pub fn plan(&self) -> Plan {
        plan_placement(&self.valid(), &self.0, now())
    }

    pub fn facts(&mut self, cluster: &str) -> &mut ElasticFacts {
        match self.0.elastic.get_mut(cluster).unwrap() {
            Reading::Known(facts) => facts,
            Reading::Unavailable(why) => panic!("{why}"),
        }
    }

    pub fn indices(&mut self, cluster: &str) -> &mut BTreeMap<String, IndexFacts> {
        Arc::make_mut(&mut self.facts(cluster).indices)
    }

    pub fn status(&self) -> IndexPlacementStatus {
        let plan = self.plan();
        placement_status(&self.0, Ok(&self.valid()), &plan, &vec![Outcome::Done; plan.steps.len()], now())
    }

    /// Records what the plan decides, as the end of a pass does.
    pub fn record(&mut self) -> Plan {
        self.0.placement.status = Some(self.status());
        self.plan()
    }

    /// Decides, records and creates what the placement asks for, with a started copy in each zone.
    pub fn create(&mut self) -> usize {
        let plan = self.record();
        for step in &plan.steps {
            let Action::CreateIndex { name, body } = &step.action else { panic!("{step:?}") };
            let number = |key: &str| i32::try_from(body["settings"][key].as_i64().unwrap()).unwrap();
            let (primaries, replicas) =
                (number("index.number_of_shards"), number("index.number_of_replicas"));
            let mark: OwnershipMark =
                serde_json::from_value(body["mappings"]["_meta"]["searchcell"].clone()).unwrap();
            let copies = (0..primaries).flat_map(|shard| {
                ["a", "b", "c"].into_iter().take(replicas as usize + 1).enumerate().map(move |(n, zone)| {
                    ShardCopy {
                        shard,
                        primary: n == 0,
                        state: ShardState::Started,
                        node: Some(format!("data-{zone}")),
                        new_since: None,
                    }
                })
            });
            let index = IndexFacts {
                uuid: name.clone(),
                primaries,
                replicas,
                mark: Some(mark),
                copies: copies.collect(),
                settings: serde_json::from_value(body["settings"].clone()).unwrap(),
            };
            self.indices(step.cluster.as_deref().unwrap()).insert(name.clone(), index);
        }
        self.publish();
        plan.steps.len()
    }

    /// Does what the plan changes in place.
    pub fn apply(&mut self) {
        self.apply_only("");
    }

    pub fn apply_only(&mut self, action: &str) {
        for step in self.plan().steps.into_iter().filter(|step| step.action.name().starts_with(action)) {
            let of_cluster = self.indices(step.cluster.as_deref().unwrap());
            match step.action {
                Action::PutMapping { indices, body } => {
                    for name in indices {
                        let mark = serde_json::from_value(body["_meta"]["searchcell"].clone()).unwrap();
                        of_cluster.get_mut(&name).unwrap().mark = Some(mark);
                    }
                }
                Action::PutIndexSettings { indices, settings } => {
                    for name in &indices {
                        let index = of_cluster.get_mut(name).unwrap();
                        for (name, value) in settings.clone() {
                            match value {
                                Some(value) if name == "index.number_of_replicas" => {
                                    index.replicas = i32::try_from(value.as_i64().unwrap()).unwrap();
                                }
                                Some(value) => drop(index.settings.insert(name, value)),
                                None => drop(index.settings.remove(&name)),
                            }
                        }
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// Publishes the table, as its own pass does, of siblings in a cell named `pools`, too.
    pub fn publish(&mut self) {
        self.0.placement.status = Some(self.status());
        let placements = self.0.siblings.iter().chain([&self.0.placement]);
        let names = ["guilds", "pools"];
        let snapshot = TableSnapshot {
            last: None,
            namespace: "search".into(),
            collection: "messages".into(),
            placements: placements.cloned().collect(),
            cells: self
                .0
                .cell
                .iter()
                .flat_map(|cell| names.map(|name| (name.to_owned(), cell.clone())))
                .collect(),
            published: self.0.table.as_deref().cloned(),
        };
        for step in plan_table(&snapshot, now()).steps {
            let (Action::Create(Object::ConfigMap(map))
            | Action::Apply { object: Object::ConfigMap(map), .. }) = step.action
            else {
                panic!("not a table")
            };
            self.0.table = Some(Arc::new(Published::read(&map)));
        }
        self.0.placement.status = Some(self.status());
    }

    pub fn reasons(&self) -> Vec<Reason> {
        self.plan().holds.iter().map(|hold| hold.reason).collect()
    }
}
