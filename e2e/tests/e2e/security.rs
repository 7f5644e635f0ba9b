//! Clusters are closed by default, and certificates and passwords rotate without anybody noticing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use searchcell_e2e::cells::placement;
use searchcell_e2e::certificates::{Authority, entry, name_and_address, normal, shown};
use searchcell_e2e::objects::{annotation, condition, conditions_line, items, text};
use searchcell_e2e::probe::Probe;
use searchcell_e2e::wait::{LIMIT, ensure};
use searchcell_e2e::{Cell, Level, Operator, Scenario, run, say, shell, wait_for};
use serde_json::{Value, json};

const SHORT: [&str; 1] = ["--ca-overlap=100s"];
/// The same, for the successor of one that was killed: it does not wait for the lease.
const ALONE: [&str; 2] = ["--ca-overlap=100s", "--leader-elect=false"];

/// Exit code and standard output of curl.
async fn curl(arguments: &[&str]) -> (i32, String) {
    let common = ["-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "20"];
    let arguments: Vec<&str> = common.into_iter().chain(arguments.iter().copied()).collect();
    let output = shell::run("curl", &arguments, None, Duration::from_secs(30)).await.expect("curl starts");
    (output.code, output.stdout)
}

/// TLS and authentication are on: nobody gets in without a user, nobody is fooled by another authority.
#[test]
fn clusters_are_closed_by_default() {
    run("clusters_are_closed_by_default", Level::Smoke, async |t| {
        let _operator = t.start_operator().await;
        let cell = Cell::mini("cell");
        t.apply(&cell.object()).await;
        let object = t.cell_ready(&cell).await;
        let endpoint = text(&object, "/status/clusters/0/endpoint").to_owned();
        assert_eq!(endpoint, format!("https://cell-a.{}.svc:9200", t.namespace));

        let url = format!("https://cell-a.{}.svc.cluster.local:9200/", t.namespace);
        assert_eq!(curl(&["-k", &url]).await, (0, "401".to_owned()), "without a user");
        assert_eq!(curl(&["-k", "-u", "elastic:changeme", &url]).await, (0, "401".to_owned()));
        // 60: the authority is not one of the system's
        assert_eq!(curl(&[&url]).await.0, 60, "without the authority");
        let map = t.objects.expect("configmaps", "cell-http-ca-public").await;
        let trust = t.folder.join("ca.crt");
        std::fs::write(&trust, text(&map, "/data/ca.crt")).unwrap();
        let trust = trust.display().to_string();
        assert_eq!(curl(&["--cacert", &trust, &url]).await, (0, "401".to_owned()), "with the authority");
        // 51 or 60: the name is not one of the certificate's
        let resolve = format!(
            "other.example:9200:{}",
            text(&t.objects.expect("pods", "cell-a-data-a-0").await, "/status/podIP")
        );
        let (code, _) =
            curl(&["--cacert", &trust, "--resolve", &resolve, "https://other.example:9200/"]).await;
        assert!([51, 60].contains(&code), "{code}");

        // the keys of authorities are mounted by nobody
        for pod in t.objects.list("pods", "searchcell.dev/cell=cell").await.unwrap() {
            let mounted: Vec<&str> = items(&pod, "/spec/volumes")
                .iter()
                .map(|volume| text(volume, "/secret/secretName"))
                .collect();
            assert!(mounted.iter().all(|name| !name.ends_with("-ca")), "{mounted:?}");
            assert_eq!(pod.pointer("/spec/automountServiceAccountToken"), Some(&json!(false)));
        }
    });
}

/// A node that was issued for another cluster gets no further than the handshake; one of its own does.
#[test]
fn nodes_of_another_authority_stay_out() {
    run("nodes_of_another_authority_stay_out", Level::Full, async |t| {
        let _operator = t.start_operator().await;
        let cell = Cell { clusters: vec!["a".to_owned(), "b".to_owned()], ..Cell::mini("cell") };
        t.apply(&cell.object()).await;
        t.cell_ready(&cell).await;
        let (_, address) = name_and_address(&t.objects.expect("pods", "cell-a-data-a-0").await);
        let url = format!("https://{address}:9300/");
        for (node, is_let_in) in [("cell-a-master-a-0", true), ("cell-b-master-a-0", false)] {
            let (certificate, key) = identity(t, node).await;
            let [certificate, key] = [certificate, key].map(|path| path.display().to_string());
            let arguments =
                ["-k", "-s", "--http0.9", "--max-time", "20", "--cert", &certificate, "--key", &key, &url];
            let output = shell::run("curl", &arguments, None, Duration::from_secs(30)).await.unwrap();
            say(format!("{node}: curl ends with {}, {:?}", output.code, output.stdout));
            // Elasticsearch tells who speaks HTTP here, once it lets them speak
            assert_eq!(output.stdout.contains("This is not an HTTP port"), is_let_in, "{node}");
        }
    });
}

/// Certificate and key of a node, for its transport layer, as files.
async fn identity(t: &Scenario, node: &str) -> (PathBuf, PathBuf) {
    let workload = node.rsplit_once('-').expect("an ordinal").0;
    let secret = t.objects.expect("secrets", &format!("{workload}-certificates")).await;
    let folder = t.folder.join("identity");
    std::fs::create_dir_all(&folder).unwrap();
    let files = ["crt", "key"].map(|ending| {
        let path = folder.join(format!("{node}.{ending}"));
        std::fs::write(&path, entry(&secret, &format!("{node}.transport.{ending}"))).unwrap();
        path
    });
    files.into()
}

/// Both authorities are rotated under writes and searches, and the operator is killed at every stage: no request
/// fails, no pod restarts, and every node shows a certificate of the new ones.
#[test]
fn rotations_go_unnoticed() {
    run("rotations_go_unnoticed", Level::Full, async |t| {
        let mut operator = t.start_operator_with(&SHORT).await;
        let cell = Cell::small("cell");
        let pods = serving(t, &cell, 2).await;
        let probes = [
            Probe::writer(t.elastic_as("cell", "a", "router"), "messages.p000.g1"),
            Probe::reader(t.elastic_as("cell", "a", "router"), "messages.p000.g1"),
        ];
        for (name, is_deleted) in
            [("cell-http-ca", false), ("cell-a-transport-ca", false), ("cell-a-transport-ca", true)]
        {
            t.remember_secrets().await;
            let before = entry(&t.objects.expect("secrets", name).await, "ca.crt");
            if is_deleted {
                t.objects.delete("secrets", name).await.unwrap();
            } else {
                let patch = json!({"metadata": {"annotations": {"searchcell.dev/rotate": "1"}}});
                t.objects.merge("secrets", name, &patch).await.unwrap();
            }
            operator = rotated(t, name, &before, operator).await;
            all_show_what_they_have(t).await;
        }
        t.cell_ready(&cell).await;
        nothing_failed(probes).await;
        assert_eq!(t.pods("searchcell.dev/cell=cell").await, pods, "a pod has restarted");
        drop(operator);
    });
}

/// Waits until an authority is another one, alone; the operator is killed as soon as a stage begins.
async fn rotated(t: &Scenario, name: &str, before: &str, operator: Operator) -> Operator {
    let mut operator = Some(operator);
    let mut stages: Vec<String> = Vec::new();
    let began = Instant::now();
    loop {
        let secret = t.objects.get("secrets", name).await.unwrap();
        if let Some(secret) = secret {
            let stage = annotation(&secret, "searchcell.dev/stage-since").to_owned();
            let keys: Vec<String> =
                secret["data"].as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect();
            let is_steady = keys == ["ca.crt", "ca.key"];
            let is_new = entry(&secret, "ca.crt") != before;
            if (is_new || !is_steady) && stages.last() != Some(&stage) {
                say(format!("{name} after {:.0} s: {}", began.elapsed().as_secs_f64(), keys.join(" ")));
                stages.push(stage);
                t.remember_secrets().await;
                if let Some(running) = operator.take() {
                    running.kill().await;
                }
                operator = Some(t.start_operator_with(&ALONE).await);
            }
            if is_steady && is_new {
                assert_eq!(stages.len(), 3, "{stages:?}");
                return operator.expect("an operator");
            }
        }
        assert!(began.elapsed() < 2 * LIMIT, "{name} is not rotated: {stages:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Every node shows, on both ports, the certificate that its Secret has.
async fn all_show_what_they_have(t: &Scenario) {
    wait_for("every node shows the certificates of its Secret", LIMIT, async || {
        for pod in t.objects.list("pods", "searchcell.dev/cell=cell").await? {
            let (name, address) = name_and_address(&pod);
            let workload = name.rsplit_once('-').expect("an ordinal").0;
            let secret = t.objects.expect("secrets", &format!("{workload}-certificates")).await;
            let (certificate, key) = identity(t, &name).await;
            for (layer, port) in [("http", 9200), ("transport", 9300)] {
                let has = normal(&entry(&secret, &format!("{name}.{layer}.crt")));
                let shows = shown(&address, port, Some((&certificate, &key))).await?;
                ensure(has == shows, || format!("{name} shows another one on port {port}"))?;
            }
        }
        Ok(())
    })
    .await;
}

/// Brings up a cell with one index that the router may use; its pods, with their restarts.
async fn serving(t: &Scenario, cell: &Cell, replicas: i32) -> BTreeMap<String, (String, i64)> {
    t.apply(&cell.object()).await;
    t.apply(&placement("pool", "cell", json!({"pool": {"indices": 1}}), replicas)).await;
    t.cell_ready(cell).await;
    t.placement_ready("pool").await;
    router_may(t).await;
    t.pods("searchcell.dev/cell=cell").await
}

/// Waits until nodes have read what the router may do since the placement came.
async fn router_may(t: &Scenario) {
    let elastic = t.elastic_as("cell", "a", "router");
    let mut times = 0;
    wait_for("the router's rights", LIMIT, async || {
        let answer = elastic.get("/messages.p000.g1/_count").await;
        // one request reaches one node
        times = if answer.is_ok() { times + 1 } else { 0 };
        answer?;
        ensure(times >= 30, || format!("{times} times in a row"))
    })
    .await;
}

async fn nothing_failed<const N: usize>(probes: [Probe; N]) {
    for probe in probes {
        let seen = probe.stop().await;
        say(format!(
            "{} requests, {} failed, longest gap {:?}",
            seen.ok + seen.failed,
            seen.failed,
            seen.longest_gap
        ));
        assert_eq!(seen.failed, 0, "{:#?}", seen.failures);
        assert!(seen.ok > 100, "{} requests", seen.ok);
    }
}

/// User names with hashes, as the nodes get them.
async fn users(t: &Scenario) -> BTreeMap<String, String> {
    let file = entry(&t.objects.expect("secrets", "cell-users").await, "users");
    file.lines().filter_map(|line| line.split_once(':')).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
}

/// Certificates that live ten minutes are renewed, and the password of everybody changes, while everybody is at work:
/// no request fails, no pod restarts.
#[test]
fn certificates_and_passwords_are_renewed() {
    run("certificates_and_passwords_are_renewed", Level::Full, async |t| {
        let short = ["--certificate-lifetime=10m", "--credential-grace=100s"];
        let _operator = t.start_operator_with(&short).await;
        let cell = Cell::small("cell");
        let pods = serving(t, &cell, 2).await;
        let probes = [
            Probe::writer(t.elastic_as("cell", "a", "router"), "messages.p000.g1"),
            Probe::reader(t.elastic_as("cell", "a", "router"), "messages.p000.g1"),
            Probe::asking(t.elastic_as("cell", "a", "exporter"), "/_cluster/health"),
            Probe::asking(t.elastic_as("cell", "a", "operator"), "/_cluster/settings"),
            Probe::asking(t.elastic_as("cell", "a", "admin"), "/_security/_authenticate"),
        ];
        let certificates = async || {
            let mut found = BTreeMap::new();
            for secret in t.objects.list("secrets", "searchcell.dev/cell=cell").await.unwrap() {
                for (key, value) in secret["data"].as_object().into_iter().flatten() {
                    if key.ends_with(".http.crt") || key.ends_with(".transport.crt") {
                        found.insert(format!("{} {key}", text(&secret, "/metadata/name")), value.clone());
                    }
                }
            }
            found
        };
        let first = certificates().await;
        assert_eq!(first.len(), 8, "{:?}", first.keys());
        wait_for("everybody twice", LIMIT, async || {
            let users = users(t).await;
            ensure(users.len() == 8, || format!("{:?}", users.keys()))
        })
        .await;
        let before = users(t).await;
        t.remember_secrets().await;

        let mut names = BTreeMap::new();
        for role in ["operator", "router", "exporter", "admin"] {
            let secret = format!("cell-{role}");
            names.insert(secret.clone(), entry(&t.objects.expect("secrets", &secret).await, "username"));
            t.objects.delete("secrets", &secret).await.unwrap();
        }
        wait_for("everybody anew, nobody as before", LIMIT, async || {
            for (secret, name) in &names {
                let secret = t.objects.get("secrets", secret).await?.ok_or_else(|| format!("no {secret}"))?;
                let now = entry(&secret, "username");
                ensure(now != *name && now.starts_with("searchcell-"), || format!("still {name}"))?;
            }
            let now = users(t).await;
            let same: Vec<&String> = now
                .iter()
                .filter(|(name, hash)| before.get(*name) == Some(hash))
                .map(|(name, _)| name)
                .collect();
            // those who stood by are the ones that are used now
            ensure(now.len() == 8 && same.len() == 4, || format!("{:?}, of before {same:?}", now.keys()))
        })
        .await;
        t.remember_secrets().await;

        wait_for("every certificate anew", 2 * LIMIT, async || {
            let now = certificates().await;
            let old: Vec<&String> =
                first.iter().filter(|(k, v)| now.get(*k) == Some(v)).map(|(k, _)| k).collect();
            ensure(old.is_empty(), || format!("{old:?}"))
        })
        .await;
        all_show_what_they_have(t).await;
        t.cell_ready(&cell).await;
        nothing_failed(probes).await;
        assert_eq!(t.pods("searchcell.dev/cell=cell").await, pods, "a pod has restarted");
    });
}

/// A bad certificate of a user is named, and the running nodes keep what they have; a good one is shown by all of them,
/// without a failed request, a restart, or a moment in which clients distrust it.
#[test]
fn certificates_of_users_are_checked_and_shown() {
    run("certificates_of_users_are_checked_and_shown", Level::Full, async |t| {
        let _operator = t.start_operator_with(&SHORT).await;
        let mut cell = Cell::mini("cell");
        let pods = serving(t, &cell, 0).await;
        let (_, address) = name_and_address(&t.objects.expect("pods", "cell-a-data-a-0").await);
        let own = shown(&address, 9200, None).await.unwrap();
        let probes = [Probe::writer(t.elastic_as("cell", "a", "router"), "messages.p000.g1")];

        cell.extra = json!({"security": {"certificates": {"http": {"secretName": "mine"}}}});
        t.apply(&cell.object()).await;
        named(t, "Secret mine does not exist").await;
        let authority = Authority::new("an authority of a test");
        // the last one is how this test itself says it
        let names = ["cell-a.{}.svc", "cell-a-http.{}.svc", "cell-a.{}.svc.cluster.local"]
            .map(|name| name.replace("{}", &t.namespace));
        let good = authority.secret("mine", &names, false);
        let with = |key: &str, value: Option<&Value>| {
            let mut secret = good.clone();
            match value {
                Some(value) => secret["stringData"][key] = value.clone(),
                None => drop(secret["stringData"].as_object_mut().unwrap().remove(key)),
            }
            secret
        };
        let other = Authority::new("another authority of a test").secret("mine", &names, false);
        for (bad, what) in [
            (with("tls.key", Some(&other["stringData"]["tls.key"])), "does not belong to tls.crt"),
            (
                authority.secret("mine", &["cell-a.elsewhere.svc".to_owned()], false),
                "without names that clients use",
            ),
            (authority.secret("mine", &names, true), "has expired"),
            (with("ca.crt", None), "has no ca.crt"),
            (with("ca.crt", Some(&other["stringData"]["ca.crt"])), "does not vouch for"),
        ] {
            // applied, an entry that is left out would stay
            t.objects.delete("secrets", "mine").await.unwrap();
            t.objects.create(&bad).await.unwrap();
            named(t, what).await;
        }
        assert_eq!(shown(&address, 9200, None).await.unwrap(), own, "it serves as before");
        assert_eq!(t.pods("searchcell.dev/cell=cell").await, pods, "a pod has restarted");

        t.objects.delete("secrets", "mine").await.unwrap();
        t.objects.create(&good).await.unwrap();
        let certificate = normal(text(&good, "/stringData/tls.crt"));
        wait_for("the certificate of the user", LIMIT, async || {
            let now = shown(&address, 9200, None).await?;
            ensure(now == certificate, || "another one".to_owned())
        })
        .await;
        t.cell_ready(&cell).await;
        // and back
        cell.extra = json!({});
        t.apply(&cell.object()).await;
        wait_for("a certificate of the operator", LIMIT, async || {
            let now = shown(&address, 9200, None).await?;
            ensure(now != certificate, || "that of the user".to_owned())
        })
        .await;
        t.cell_ready(&cell).await;
        nothing_failed(probes).await;
        assert_eq!(t.pods("searchcell.dev/cell=cell").await, pods, "a pod has restarted");
    });
}

/// A condition and an event name what is wrong with the user's certificate.
async fn named(t: &Scenario, what: &str) {
    wait_for(&format!("{what}: a condition"), LIMIT, async || {
        let object = t.objects.get("searchcells", "cell").await?.ok_or("no cell")?;
        let (status, reason, message) = condition(&object, "Stalled").unwrap_or_default();
        let is_named = status == "True" && reason == "InvalidCertificate" && message.contains(what);
        ensure(is_named, || conditions_line(&object))
    })
    .await;
    wait_for(&format!("{what}: an event"), LIMIT, async || {
        let events = t.objects.list("events", "").await?;
        let tells =
            |event: &Value| text(event, "/note").contains(what) || text(event, "/message").contains(what);
        ensure(events.iter().any(tells), || format!("{} events", events.len()))
    })
    .await;
}

/// A cell that says so has neither, and its status says so too.
#[test]
fn a_cell_can_go_without() {
    run("a_cell_can_go_without", Level::Full, async |t| {
        let _operator = t.start_operator().await;
        let cell = Cell { extra: json!({"security": {"mode": "Disabled"}}), ..Cell::mini("cell") };
        t.apply(&cell.object()).await;
        let object = t.cell_ready(&cell).await;
        assert!(text(&object, "/status/clusters/0/endpoint").starts_with("http://"));
        let (_, _, message) = condition(&object, "Ready").unwrap();
        assert!(message.contains("SecurityDisabled"), "{message}");
        assert_eq!(t.objects.list("secrets", "searchcell.dev/cell=cell").await, Ok(Vec::new()));
        t.elastic("cell", "a").uuid().await.unwrap();
        let error =
            t.objects.merge("searchcells", "cell", &json!({"spec": {"security": null}})).await.unwrap_err();
        assert!(error.to_string().contains("security.mode is immutable"), "{error}");
    });
}
