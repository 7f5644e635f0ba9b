//! Changes that restart nodes: one after the other, while clients write and read all the time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use searchcell_e2e::cells::placement;
use searchcell_e2e::objects::{Objects, condition, items, number, pod_ready, text};
use searchcell_e2e::traffic::Traffic;
use searchcell_e2e::wait::{LIMIT, ensure};
use searchcell_e2e::{Cell, Level, Scenario, run, say, shell, wait_for};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// Long enough for every node of a small cluster to restart on a slow computer.
const ROLL: Duration = Duration::from_secs(1200);

/// Waits until every node of a cell runs what the spec asks for, and tells how long that took since `began`.
pub async fn rolled(t: &Scenario, cell: &Cell, began: Instant) -> Duration {
    let generation = t.objects.expect("searchcells", &cell.name).await["metadata"]["generation"].clone();
    wait_for(&format!("all nodes of {} are up to date", cell.name), ROLL, async || {
        let object = t.objects.expect("searchcells", &cell.name).await;
        let is_done = object["status"]["observedGeneration"] == generation
            && text(&object, "/status/rollout/phase") == "Complete"
            && object["status"]["rollout"]["clustersDone"] == object["status"]["rollout"]["clustersTotal"];
        ensure(is_done, || format!("{}", object["status"]["rollout"]))
    })
    .await;
    began.elapsed()
}

/// Exit code and output of `kubectl searchcell status`, as a person has it who has made the link.
async fn status(t: &Scenario, cell: &str) -> (i32, String) {
    let links = std::env::temp_dir().join(format!("{}-{cell}-links", t.namespace));
    std::fs::create_dir(&links).unwrap();
    std::os::unix::fs::symlink(&t.env.operator_binary, links.join("kubectl-searchcell")).unwrap();
    let path = format!("PATH={}:{}", links.display(), std::env::var("PATH").unwrap());
    let arguments = [path.as_str(), "kubectl", "searchcell", "status", cell, "--namespace", &t.namespace];
    let output = shell::run("env", &arguments, None, Duration::from_secs(60)).await;
    std::fs::remove_dir_all(&links).unwrap();
    let output = output.unwrap();
    (output.code, output.stdout + &output.stderr)
}

/// An option of the JVM for all nodes: data nodes, ingest nodes, masters; nobody who writes or reads notices. A setting of
/// the cluster restarts nobody.
#[test]
fn an_option_of_the_jvm_rolls_over_the_cell() {
    run("an_option_of_the_jvm_rolls_over_the_cell", Level::Smoke, async |t| {
        let _operator = t.start_operator().await;
        let mut cell = Cell { ingest: searchcell_e2e::Ingest::Fixed(1), ..Cell::whole("cell") };
        t.apply(&cell.object()).await;
        t.apply(&placement("pool", "cell", json!({"pool": {"indices": 4}}), 1)).await;
        t.cell_ready(&cell).await;
        t.placement_ready("pool").await;
        let before = t.elastic("cell", "a").nodes().await.unwrap();
        let traffic = Traffic::start(&t.elastic("cell", "a"), "messages.p000.g1").await;

        let began = Instant::now();
        let option = json!(["-Dlog4j2.formatMsgNoLookups=true"]);
        let roles = ["master", "data", "ingest"].map(|role| (role.to_owned(), json!({"jvmOptions": option})));
        cell.extra = json!({"nodes": serde_json::Map::from_iter(roles)});
        t.apply(&cell.object()).await;
        wait_for("status shows what restarts", LIMIT, async || {
            let (code, screen) = status(t, "cell").await;
            let shows = code == 0
                && screen.contains("\n  now    cell-a-")
                && screen.contains("Reconciling  RollingOut");
            ensure(shows, || format!("exit {code}\n{screen}"))
        })
        .await;
        let took = rolled(t, &cell, began).await;
        let (code, screen) = status(t, "cell").await;
        say(screen.clone());
        assert!(
            code == 0
                && screen.contains(&format!("nodes {0}/{0}", cell.nodes()))
                && !screen.contains("  now  "),
            "exit {code}: {screen}"
        );
        let seen = traffic.stop().await;
        say(format!("rolled over {} nodes in {:.0} s: {seen}", cell.nodes(), took.as_secs_f64()));
        seen.assert_unnoticed();

        let after = t.elastic("cell", "a").nodes().await.unwrap();
        let stayed =
            |name: &String| before.get(name).is_some_and(|old| old.started_at == after[name].started_at);
        assert!(!after.keys().any(stayed), "before: {before:#?}, after: {after:#?}");
        for (name, node) in before.iter().filter(|(name, _)| !name.contains("-ingest-")) {
            assert_eq!(node.id, after[name].id, "{name} kept its volume");
        }

        // a setting of the cluster goes through the API
        let pods = t.pods("").await;
        cell.extra["clusterSettings"] = json!({"cluster.max_shards_per_node": 1234});
        t.apply(&cell.object()).await;
        wait_for("the setting", Duration::from_secs(120), async || {
            let settings = t.elastic("cell", "a").settings().await?;
            ensure(settings.get("cluster.max_shards_per_node") == Some(&json!("1234")), || {
                format!("{settings:?}")
            })
        })
        .await;
        t.cell_ready(&cell).await;
        assert_eq!(t.pods("").await, pods, "nothing restarts for it");
    });
}

/// Which pods there were of masters and data nodes, and which were not ready at the same time.
#[derive(Clone, Debug, Default)]
pub struct Course {
    /// UIDs by the name of the pod.
    pub pods: BTreeMap<String, BTreeSet<String>>,
    /// Most that were away at once, of all clusters together.
    pub most_away: usize,
    /// Steps that status has told of: kind, nodes, and why it was no more than that.
    pub operations: BTreeSet<(String, Vec<String>, String)>,
}

/// Looks at the pods all the time, until it is stopped.
pub struct Watcher {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Course>>,
    task: JoinHandle<()>,
}

impl Watcher {
    /// Begins; all pods are there.
    pub fn start(objects: &Objects) -> Self {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Course::default())));
        let (stopped, shared, objects) = (stop.clone(), seen.clone(), objects.clone());
        let task = tokio::spawn(async move {
            let mut all = BTreeSet::new();
            while !stopped.load(Ordering::Relaxed) {
                // what cannot be read now is read a moment later
                for cell in objects.list("searchcells", "").await.unwrap_or_default() {
                    for of in items(&cell, "/status/clusters") {
                        let (kind, why) = (text(of, "/operation/kind"), text(of, "/operation/message"));
                        let nodes = items(of, "/operation/nodes");
                        let nodes = nodes.iter().filter_map(|node| Some(node.as_str()?.to_owned())).collect();
                        if !kind.is_empty() {
                            let operation = (kind.to_owned(), nodes, why.to_owned());
                            shared.lock().unwrap().operations.insert(operation);
                        }
                    }
                }
                if let Ok(pods) = objects.list("pods", "searchcell.dev/role in (master,data)").await {
                    let mut seen = shared.lock().unwrap();
                    let mut ready = BTreeSet::new();
                    for pod in &pods {
                        let name = text(pod, "/metadata/name").to_owned();
                        let uid = text(pod, "/metadata/uid").to_owned();
                        if pod_ready(pod) && pod["metadata"].get("deletionTimestamp").is_none() {
                            ready.insert(name.clone());
                        }
                        seen.pods.entry(name.clone()).or_default().insert(uid);
                        all.insert(name);
                    }
                    seen.most_away = seen.most_away.max(all.difference(&ready).count());
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        Self { stop, seen, task }
    }

    /// What it has seen so far.
    pub fn seen(&self) -> Course {
        self.seen.lock().unwrap().clone()
    }

    /// Ends it.
    pub async fn stop(self) -> Course {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the watcher");
        let seen = self.seen.lock().unwrap().clone();
        seen
    }
}

impl Course {
    /// Names of the pods that were made anew, with how often.
    pub fn restarted(&self) -> BTreeMap<String, usize> {
        let anew = self.pods.iter().map(|(name, uids)| (name.clone(), uids.len() - 1));
        anew.filter(|(_, times)| *times > 0).collect()
    }
}

/// Two clusters, the second one the canary: it changes first and soaks, then the other one follows. A change that keeps
/// nodes from starting stops at the first pod, and a corrected spec repairs it.
#[test]
fn the_canary_goes_first_and_a_bad_change_stops_at_its_first_pod() {
    run("the_canary_goes_first_and_a_bad_change_stops_at_its_first_pod", Level::Full, async |t| {
        const SOAK: Duration = Duration::from_secs(45);
        let _operator = t.start_operator().await;
        let mut cell = Cell { clusters: vec!["a".to_owned(), "b".to_owned()], ..Cell::small("cell") };
        cell.extra = json!({"rollout": {"canary": "b", "soak": "45s"}});
        t.apply(&cell.object()).await;
        t.cell_ready(&cell).await;

        let watcher = Watcher::start(&t.objects);
        let with_option = |cell: &mut Cell, option: &str| {
            cell.extra["nodes"] = json!({"data": {"jvmOptions": [option]}});
        };
        with_option(&mut cell, "-XX:+NoSuchOptionAnywhere");
        t.apply(&cell.object()).await;
        wait_for("the first pod ends again and again", ROLL, async || {
            let object = t.objects.expect("searchcells", "cell").await;
            let (status, reason, message) = condition(&object, "Degraded").ok_or("no Degraded")?;
            let failing = status == "True" && reason == "PodsFailing" && message.contains("cell-b-data-");
            ensure(failing, || format!("{status} {reason} {message}"))
        })
        .await;
        // Long enough for the next one to follow, if it were to.
        tokio::time::sleep(Duration::from_secs(30)).await;
        let first = watcher.seen().restarted();
        assert_eq!(first.len(), 1, "{first:?}");
        let object = t.objects.expect("searchcells", "cell").await;
        assert_eq!(text(&object, "/status/rollout/phase"), "Canary", "{}", object["status"]["rollout"]);
        let (ready, ..) = condition(&object, "Ready").unwrap();
        assert_eq!(ready, "True", "the others serve: {}", object["status"]);

        with_option(&mut cell, "-XX:+UseStringDeduplication");
        t.apply(&cell.object()).await;
        wait_for("the canary is done", ROLL, async || {
            let object = t.objects.expect("searchcells", "cell").await;
            ensure(object["status"]["rollout"]["clustersDone"] == 1, || {
                object["status"]["rollout"].to_string()
            })
        })
        .await;
        let (done, course) = (Instant::now(), watcher.seen());
        assert!(course.restarted().keys().all(|pod| pod.starts_with("cell-b-data-")), "{course:#?}");
        wait_for("the other cluster follows", ROLL, async || {
            let restarted = watcher.seen().restarted();
            ensure(restarted.keys().any(|pod| pod.starts_with("cell-a-")), || format!("{restarted:?}"))
        })
        .await;
        let soaked = done.elapsed();
        say(format!("the canary soaked for {:.0} s", soaked.as_secs_f64()));
        assert!(soaked > SOAK - Duration::from_secs(15), "{soaked:?}");
        rolled(t, &cell, done).await;
        let course = watcher.stop().await;
        let restarted = course.restarted();
        assert_eq!(restarted.len(), 6, "the data nodes of both clusters, and no master: {course:#?}");
        assert_eq!(course.most_away, 1, "{course:#?}");
    });
}

/// One commit changes two cells, and keeps nodes from starting: with room for one cluster, one pod of one of them has it, and
/// the other cell waits, until the commit is corrected.
#[test]
fn one_commit_restarts_few_clusters_of_all_cells() {
    run("one_commit_restarts_few_clusters_of_all_cells", Level::Full, async |t| {
        let _operator = t.start_operator_with(&["--max-disrupted-clusters", "1"]).await;
        let mut cells = [Cell::small("one"), Cell::small("two")];
        for cell in &cells {
            t.apply(&cell.object()).await;
        }
        for cell in &cells {
            t.cell_ready(cell).await;
        }
        let watcher = Watcher::start(&t.objects);
        let began = Instant::now();
        let mut commit = async |option: &str| {
            for cell in &mut cells {
                cell.extra =
                    json!({"nodes": {"data": {"jvmOptions": [option]}, "master": {"jvmOptions": [option]}}});
                t.apply(&cell.object()).await;
            }
        };
        commit("-XX:+NoSuchOptionAnywhere").await;
        wait_for("one cell fails and the other one waits for it", ROLL, async || {
            let cells = t.objects.list("searchcells", "").await?;
            let fails =
                |cell: &&Value| condition(cell, "Degraded").is_some_and(|(_, why, _)| why == "PodsFailing");
            let waits = |cell: &&Value| gates(cell).contains(&"AnotherCell");
            let (failing, waiting) = (cells.iter().filter(fails).count(), cells.iter().filter(waits).count());
            ensure((failing, waiting) == (1, 1), || format!("{failing} fail, {waiting} wait"))
        })
        .await;
        // Long enough for the next one to follow, if it were to.
        tokio::time::sleep(Duration::from_secs(30)).await;
        let first = watcher.seen().restarted();
        assert_eq!(first.len(), 1, "{first:?}");

        commit("-XX:+UseStringDeduplication").await;
        let most = AtomicUsize::new(0);
        wait_for("both cells are up to date", ROLL, async || {
            let cells = t.objects.list("searchcells", "").await?;
            let is_amid = |cell: &&Value| {
                let cluster = &items(cell, "/status/clusters")[0];
                number(cluster, "/nodes/ready") < 4 || (1..4).contains(&number(cluster, "/nodes/updated"))
            };
            most.fetch_max(cells.iter().filter(is_amid).count(), Ordering::Relaxed);
            let is_done = |cell: &&Value| text(cell, "/status/rollout/phase") == "Complete";
            let done = cells.iter().filter(is_done).count();
            ensure(done == 2, || format!("{done} are done"))
        })
        .await;
        for cell in &cells {
            rolled(t, cell, began).await;
        }
        let course = watcher.stop().await;
        assert_eq!(course.restarted().len(), 8, "{course:#?}");
        assert_eq!(most.into_inner(), 1, "one after the other");
    });
}

/// A dynamic look at holds: whatever waits says so.
fn gates(object: &Value) -> Vec<&str> {
    let clusters = items(object, "/status/clusters");
    clusters.iter().flat_map(|of| items(of, "/holds")).map(|hold| text(hold, "/gate")).collect()
}

/// With approval by hand nothing restarts before the annotation has the id of the change.
#[test]
fn nothing_restarts_before_it_is_approved() {
    run("nothing_restarts_before_it_is_approved", Level::Full, async |t| {
        let _operator = t.start_operator().await;
        let mut cell = Cell::mini("cell");
        cell.extra = json!({"rollout": {"approval": "Manual"}});
        t.apply(&cell.object()).await;
        t.cell_ready(&cell).await;
        let pods = t.pods("").await;
        cell.extra = json!({"rollout": {"approval": "Manual", "restartedAt": "2026-11-23"}});
        t.apply(&cell.object()).await;
        let waiting = wait_for("the rollout waits", ROLL, async || {
            let object = t.objects.expect("searchcells", "cell").await;
            let waits = text(&object, "/status/rollout/phase") == "AwaitingApproval";
            ensure(waits, || object["status"]["rollout"].to_string()).map(|()| object)
        })
        .await;
        assert_eq!(gates(&waiting), ["AwaitingApproval"]);
        assert_eq!(text(&waiting, "/status/rollout/reason"), "RestartRequested");
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(t.pods("").await, pods, "nothing restarts");
        let id = text(&waiting, "/status/rollout/id");
        let approval = json!({"metadata": {"annotations": {"searchcell.dev/approve-rollout": id}}});
        t.objects.merge("searchcells", "cell", &approval).await.unwrap();
        rolled(t, &cell, Instant::now()).await;
        let after = t.pods("").await;
        assert!(after.iter().all(|(name, (uid, _))| pods[name].0 != *uid), "{pods:?} {after:?}");
    });
}
