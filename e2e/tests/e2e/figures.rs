//! What the operator costs. Prints a table, and fails where a promise is broken.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use searchcell_e2e::audit::AuditLog;
use searchcell_e2e::objects::text;
use searchcell_e2e::wait::{LIMIT, ensure};
use searchcell_e2e::{Cell, Elastic, Level, Operator, Scenario, env, run, say, shell, wait_for};
use serde_json::{Value, json};

/// Kinds that a cell is made of.
const KINDS: [&str; 9] = [
    "services",
    "configmaps",
    "secrets",
    "statefulsets",
    "deployments",
    "horizontalpodautoscalers",
    "poddisruptionbudgets",
    "networkpolicies",
    "pods",
];

/// Time from apply to Ready beside what the bare processes need; memory and requests at rest with one and with four
/// clusters; thirty cells that cannot be scheduled. With the release build, as shipped.
#[test]
fn figures() {
    run("figures", Level::Full, async |t| {
        let watched = Duration::from_secs(
            env::variable("SEARCHCELL_E2E_FIGURES_SECONDS")
                .map_or(180, |text| text.parse().expect("seconds")),
        );
        if env::variable("SEARCHCELL_OPERATOR_BINARY").is_none() {
            let script = t.env.repository.join("e2e/operator");
            let built = shell::run(&script, &["binary"], None, Duration::from_secs(3600)).await.unwrap();
            t.use_binary(built.ok("e2e/operator binary").trim());
        }
        let mut table = Table::default();

        let operator = t.start_operator().await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        table.add("memory, nothing to do", format!("{:.0} MiB", operator.memory().0));

        thirty_pending_cells(t, &operator, watched, &mut table).await;
        // by SIGTERM: the lease is given back, and the next one need not wait for it
        operator.terminate().await;

        let operator = t.start_operator().await;
        let cell = Cell { masters: 3, ..Cell::small("cell") };
        apply_to_ready(t, &operator, &cell, "", &mut table).await;
        at_rest(t, &operator, watched, "one cluster", &["cell-a"], &mut table).await;
        remove(t, "cell").await;
        // Certificates go with their cell, so the processes by themselves have none.
        let plain = Cell { extra: json!({"security": {"mode": "Disabled"}}), ..cell };
        let parts = apply_to_ready(t, &operator, &plain, ", without security", &mut table).await;
        remove(t, "cell").await;
        operator.terminate().await;
        bare_processes(t, &plain, parts, &mut table).await;

        let operator = t.start_operator().await;
        let four = Cell { clusters: ["a", "b", "c", "d"].map(str::to_owned).to_vec(), ..Cell::mini("four") };
        t.apply(&four.object()).await;
        t.cell_ready(&four).await;
        let services = ["four-a", "four-b", "four-c", "four-d"];
        at_rest(t, &operator, watched, "four clusters", &services, &mut table).await;

        say(format!("figures\n{}", table.text()));
        std::fs::create_dir_all(&t.env.artifacts).unwrap();
        std::fs::write(t.env.artifacts.join("figures.md"), table.text()).unwrap();
    });
}

#[derive(Default)]
struct Table(Vec<(String, String)>);

impl Table {
    fn add(&mut self, what: &str, value: String) {
        say(format!("{what}: {value}"));
        self.0.push((what.to_owned(), value));
    }

    fn text(&self) -> String {
        let rows = self.0.iter().map(|(what, value)| format!("| {what} | {value} |\n"));
        format!("| figure | value |\n| --- | --- |\n{}", rows.collect::<String>())
    }
}

/// Answers the objects that make up the cluster, as they were when it formed.
async fn apply_to_ready(
    t: &Scenario,
    operator: &Operator,
    cell: &Cell,
    which: &str,
    table: &mut Table,
) -> Vec<Value> {
    let (began, cpu) = (Instant::now(), operator.cpu());
    t.apply(&cell.object()).await;
    let parts = wait_for("the cluster's objects", LIMIT, async || {
        let mut parts = Vec::new();
        for plural in ["services", "configmaps", "networkpolicies", "statefulsets"] {
            let selector = format!("searchcell.dev/cell={}", cell.name);
            for mut object in t.objects.list(plural, &selector).await? {
                let kind = searchcell_e2e::objects::resource(plural);
                object["apiVersion"] = json!(kind.api_version);
                object["kind"] = json!(kind.kind);
                parts.push(object);
            }
        }
        let sets = parts.iter().filter(|part| part["kind"] == "StatefulSet").count();
        let bootstrap = parts.iter().any(|part| text(part, "/metadata/name").ends_with("-bootstrap"));
        ensure(sets == 6 && bootstrap, || format!("{sets} StatefulSets, bootstrap: {bootstrap}"))?;
        Ok(parts)
    })
    .await;
    t.cell_ready(cell).await;
    let seconds = began.elapsed().as_secs_f64();
    table.add(&format!("apply to Ready, 3 masters and 3 data nodes{which}"), format!("{seconds:.1} s"));
    let cpu = operator.cpu().saturating_sub(cpu);
    table.add(&format!("CPU time of the operator for that{which}"), format!("{:.2} s", cpu.as_secs_f64()));
    let mut children = 0;
    for plural in KINDS {
        children +=
            t.objects.list(plural, &format!("searchcell.dev/cell={}", cell.name)).await.unwrap().len();
    }
    children += t.objects.list("persistentvolumeclaims", "").await.unwrap().len();
    table.add(&format!("objects of that cluster, pods and claims included{which}"), children.to_string());
    parts
}

/// The same objects without an operator: how long Elasticsearch itself takes to form.
async fn bare_processes(t: &Scenario, cell: &Cell, parts: Vec<Value>, table: &mut Table) {
    let began = Instant::now();
    for part in &parts {
        let mut bare = json!({
            "apiVersion": part["apiVersion"],
            "kind": part["kind"],
            "metadata": {"name": part["metadata"]["name"], "labels": {"bare": "true"}},
        });
        for field in ["spec", "data"] {
            if !part[field].is_null() {
                bare[field] = part[field].clone();
            }
        }
        if let Some(spec) = bare["spec"].as_object_mut().filter(|_| part["kind"] == "Service") {
            spec.retain(|key, value| !key.starts_with("clusterIP") || value == "None");
        }
        t.objects.create(&bare).await.unwrap_or_else(|error| panic!("{error}: {bare:#}"));
    }
    let elastic = t.elastic(&cell.name, "a");
    wait_for("the bare processes", LIMIT, async || {
        let nodes = elastic.nodes().await?.len();
        ensure(nodes == 6, || format!("{nodes} nodes"))
    })
    .await;
    table.add(
        "the same processes by themselves, create to six joined",
        format!("{:.1} s", began.elapsed().as_secs_f64()),
    );
    for part in &parts {
        let plural = searchcell_e2e::objects::plural_of(text(part, "/kind"));
        t.objects.delete(plural, text(part, "/metadata/name")).await.unwrap();
    }
    t.gone("pods", "").await;
    for claim in t.objects.list("persistentvolumeclaims", "").await.unwrap() {
        t.objects.delete("persistentvolumeclaims", text(&claim, "/metadata/name")).await.unwrap();
    }
    t.gone("persistentvolumeclaims", "").await;
}

async fn at_rest(
    t: &Scenario,
    operator: &Operator,
    watched: Duration,
    what: &str,
    services: &[&str],
    table: &mut Table,
) {
    tokio::time::sleep(Duration::from_secs(60)).await;
    let log = AuditLog::mark(t.env).await;
    let mut before = Vec::new();
    for service in services {
        before.push(requests_served(&Elastic::new(&t.namespace, service)).await);
    }
    let (began, cpu) = (Instant::now(), operator.cpu());
    tokio::time::sleep(watched).await;
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    let cores = (operator.cpu() - cpu).as_secs_f64() / began.elapsed().as_secs_f64();
    table.add(&format!("memory at rest, {what}"), format!("{:.1} MiB", operator.memory().0));
    table.add(&format!("CPU at rest, {what}"), format!("{cores:.4} cores"));
    if let Some(log) = log {
        let requests = log.requests_of(&operator.user);
        let writes = requests.iter().filter(|request| request.is_write()).count();
        let per_minute = |count: usize| count as f64 / minutes;
        let text = format!("{:.1}, of these writes {:.1}", per_minute(requests.len()), per_minute(writes));
        table.add(&format!("requests to the API server a minute, {what}"), text);
    }
    let mut served = 0;
    for (service, before) in services.iter().zip(before) {
        // less the question itself
        served += requests_served(&Elastic::new(&t.namespace, service)).await - before - 1;
    }
    let each = served as f64 / minutes / services.len() as f64;
    table.add(&format!("requests to each Elasticsearch cluster a minute, {what}"), format!("{each:.1}"));
}

/// HTTP requests that all nodes of a cluster have answered so far.
async fn requests_served(elastic: &Elastic) -> i64 {
    fn counts(value: &Value) -> i64 {
        match value {
            Value::Object(fields) => fields
                .iter()
                .map(|(key, value)| match (key.as_str(), value) {
                    ("requests", Value::Object(requests)) => requests["count"].as_i64().unwrap_or_default(),
                    (_, value) => counts(value),
                })
                .sum(),
            _ => 0,
        }
    }
    let stats = elastic.get("/_nodes/stats/http").await.unwrap();
    stats["nodes"].as_object().unwrap().values().map(|node| counts(&node["http"]["routes"])).sum()
}

/// Cells of a zone that no node is in: their pods stay Pending for ever, and the operator must not burn for it.
async fn thirty_pending_cells(t: &Scenario, operator: &Operator, watched: Duration, table: &mut Table) {
    let names: Vec<String> = (0..30).map(|n| format!("pending{n}")).collect();
    for name in &names {
        let mut cell = Cell::small(name);
        cell.extra =
            json!({"zones": [{"name": "a", "value": "nowhere-a"}, {"name": "b", "value": "nowhere-b"}]});
        t.apply(&cell.object()).await;
    }
    wait_for("thirty cells whose pods are Pending", LIMIT, async || {
        let pods = t.objects.list("pods", "").await?;
        let pending = pods.iter().filter(|pod| text(pod, "/status/phase") == "Pending").count();
        ensure(pending == 30 * 3, || format!("{pending} pods are Pending"))
    })
    .await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let log = AuditLog::mark(t.env).await;
    let (began, cpu) = (Instant::now(), operator.cpu());
    tokio::time::sleep(watched).await;
    let cores = (operator.cpu() - cpu).as_secs_f64() / began.elapsed().as_secs_f64();
    let (now, most) = operator.memory();
    table.add("CPU, 30 cells whose pods stay Pending", format!("{cores:.4} cores"));
    table
        .add("memory, 30 cells whose pods stay Pending", format!("{now:.1} MiB (most so far {most:.1} MiB)"));
    if let Some(log) = log {
        let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
        for request in log.requests_of(&operator.user) {
            *kinds.entry(format!("{} {}", request.verb, request.resource)).or_default() += 1;
        }
        table.add(
            &format!("requests in {} s, 30 cells whose pods stay Pending", watched.as_secs()),
            format!("{kinds:?}"),
        );
    }
    for name in &names {
        t.objects.delete("searchcells", name).await.unwrap();
    }
    t.gone("searchcells", "").await;
    t.gone("pods", "").await;
    assert!(cores <= 0.02, "30 cells that cannot be scheduled cost {cores:.4} cores");
    assert!(now <= 40.0, "30 cells that cannot be scheduled cost {now:.1} MiB");
}

async fn remove(t: &Scenario, cell: &str) {
    t.objects.delete("searchcells", cell).await.unwrap();
    t.gone_one("searchcells", cell).await;
    t.gone("pods", "").await;
    t.gone("persistentvolumeclaims", "").await;
}
