//! Tests of `routes`.

use searchcell_core::names::ClusterKey;
use searchcell_core::routing::{Located, TableInput, TenantRules, build_table, encode};
use searchcell_crds::{IdScope, Versioning};

use super::*;

fn table(generation: i64) -> Table {
    let located = Located {
        name: "messages.p000.g1".into(),
        cluster: ClusterKey::new("ns", "guilds", "a"),
        is_secure: false,
    };
    let input = TableInput {
        namespace: "ns".into(),
        collection: "messages".into(),
        tenant: TenantRules { field: "guild_id".into(), fan_out: false, id_scope: IdScope::Tenant },
        versioning: Versioning::None,
        pool: Some(vec![Some(located)]),
        dedicated: BTreeMap::new(),
    };
    build_table(&input, generation).unwrap()
}

struct Files {
    root: PathBuf,
    collection: Collection,
}

impl Files {
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("searchcell-router-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        let collection = Collection { name: "messages".into(), table: root.join("table.json.gz") };
        Self { root, collection }
    }

    fn file(&self) -> TableFile {
        TableFile::new(&self.collection, Some(&self.root))
    }

    fn write(&self, bytes: &[u8]) {
        std::fs::write(&self.collection.table, bytes).unwrap();
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.root).ok();
    }
}

fn generations(directory: &Directory) -> (i64, i64) {
    let generations = directory.generations()["messages"];
    (generations.applied, generations.drained)
}

#[test]
fn a_new_table_comes_into_force_and_a_bad_one_does_not() {
    let files = Files::new("force");
    let (directory, mut file) = (Directory::default(), files.file());
    assert!(matches!(file.look(&directory), Err(RouteError::Read { .. })));
    files.write(&encode(&table(5)).unwrap());
    assert!(file.look(&directory).unwrap());
    assert!(!file.look(&directory).unwrap(), "the same again is nothing new");
    files.write(b"\x1f\x8bnonsense");
    assert!(matches!(file.look(&directory), Err(RouteError::Decode { .. })));
    assert!(!file.look(&directory).unwrap(), "told once");
    files.write(&encode(&table(4)).unwrap());
    assert!(!file.look(&directory).unwrap(), "older");
    let other = Table { collection: "other".into(), ..table(9) };
    files.write(&encode(&other).unwrap());
    assert!(matches!(file.look(&directory), Err(RouteError::Collection { .. })));
    std::fs::remove_file(&files.collection.table).unwrap();
    assert!(file.look(&directory).is_err());
    assert_eq!(generations(&directory), (5, 5));
}

#[test]
fn the_last_good_table_survives_a_restart_without_the_file() {
    let files = Files::new("restart");
    files.write(&encode(&table(5)).unwrap());
    files.file().look(&Directory::default()).unwrap();
    std::fs::remove_file(&files.collection.table).unwrap();
    let directory = Directory::default();
    assert!(files.file().restore(&directory).unwrap());
    assert_eq!(generations(&directory), (5, 5));
    let place = directory.current()["messages"].place(0).unwrap().clone();
    assert_eq!((&*place.cluster, &*place.index, place.routed), ("guilds-a", "messages.p000.g1", true));
}

#[test]
fn drained_only_when_nothing_holds_an_older_table() {
    let directory = Directory::default();
    let changes = directory.changes();
    for generation in [1, 2] {
        directory.apply("messages", table(generation));
    }
    let second = Arc::clone(&directory.current()["messages"]);
    directory.apply("messages", table(3));
    assert_eq!(generations(&directory), (3, 2));
    directory.apply("messages", table(4));
    assert_eq!(generations(&directory), (4, 2), "the third was used by nobody");
    drop(second);
    assert_eq!(generations(&directory), (4, 4));
    assert!(changes.has_changed().unwrap());
}
