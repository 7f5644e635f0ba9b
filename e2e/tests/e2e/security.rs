//! Clusters are closed by default, and certificates and passwords rotate without anybody noticing.

use std::collections::BTreeSet;
use std::time::Duration;

use searchcell_e2e::cells::placement;
use searchcell_e2e::objects::{condition, items, text};
use searchcell_e2e::probe::Probe;
use searchcell_e2e::wait::{LIMIT, ensure};
use searchcell_e2e::{Cell, Level, Scenario, run, shell, wait_for};
use serde_json::{Value, json};

const SHORT: [&str; 2] = ["--ca-overlap=100s", "--credential-grace=100s"];

/// Exit code and standard output of curl.
async fn curl(arguments: &[&str]) -> (i32, String) {
    let common = ["-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "20"];
    let arguments: Vec<&str> = common.into_iter().chain(arguments.iter().copied()).collect();
    let output = shell::run("curl", &arguments, None, Duration::from_secs(30)).await.expect("curl starts");
    (output.code, output.stdout)
}

fn data(secret: &Value) -> BTreeSet<String> {
    secret["data"].as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect()
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
        // and what is secret is in no status, event or log
        let admin = t.objects.expect("secrets", "cell-admin").await;
        let hidden = text(&admin, "/data/password").to_owned();
        assert!(!object.to_string().contains(&hidden));
    });
}

/// Both authorities are rotated under writes and searches: no request fails, no pod restarts.
#[test]
fn rotations_go_unnoticed() {
    run("rotations_go_unnoticed", Level::Full, async |t| {
        let _operator = t.start_operator_with(&SHORT).await;
        let cell = Cell::small("cell");
        t.apply(&cell.object()).await;
        t.apply(&placement("pool", "cell", json!({"pool": {"indices": 1}}), 2)).await;
        t.cell_ready(&cell).await;
        t.placement_ready("pool").await;
        let pods = t.pods("searchcell.dev/cell=cell").await;
        let writer = Probe::writer(t.elastic("cell", "a"), "messages.p000.g1");
        let reader = Probe::reader(t.elastic("cell", "a"), "messages.p000.g1");

        for name in ["cell-http-ca", "cell-a-transport-ca"] {
            let before = text(&t.objects.expect("secrets", name).await, "/data/ca.crt").to_owned();
            let patch = json!({"metadata": {"annotations": {"searchcell.dev/rotate": "1"}}});
            t.objects.merge("secrets", name, &patch).await.unwrap();
            rotated(t, name, &before).await;
        }
        // a deleted one comes back as the next one
        let before =
            text(&t.objects.expect("secrets", "cell-a-transport-ca").await, "/data/ca.crt").to_owned();
        t.objects.delete("secrets", "cell-a-transport-ca").await.unwrap();
        rotated(t, "cell-a-transport-ca", &before).await;

        // the operator's user changes places; nobody else notices
        t.objects.delete("secrets", "cell-operator").await.unwrap();
        wait_for("the operator's new user alone", LIMIT, async || {
            let secret = t.objects.get("secrets", "cell-users").await?.ok_or("no realm")?;
            use base64::Engine as _;
            let file = base64::engine::general_purpose::STANDARD.decode(text(&secret, "/data/users"));
            let file = String::from_utf8(file.map_err(|error| error.to_string())?)
                .map_err(|error| error.to_string())?;
            let names: Vec<&str> = file.lines().filter_map(|line| line.split(':').next()).collect();
            ensure(names.first() == Some(&"searchcell-operator-2") && names.len() == 4, || {
                format!("{names:?}")
            })
        })
        .await;
        t.cell_ready(&cell).await;
        for seen in [writer.stop().await, reader.stop().await] {
            assert_eq!(seen.failed, 0, "{:#?}", seen.failures);
            assert!(seen.ok > 100, "{} requests", seen.ok);
        }
        assert_eq!(t.pods("searchcell.dev/cell=cell").await, pods, "a pod has restarted");
    });
}

async fn rotated(t: &Scenario, name: &str, before: &str) {
    wait_for(&format!("{name} has another authority, alone"), LIMIT, async || {
        let secret = t.objects.get("secrets", name).await?.ok_or("it is not there")?;
        let keys = data(&secret);
        ensure(keys == ["ca.crt", "ca.key"].map(str::to_owned).into(), || format!("{keys:?}"))?;
        ensure(text(&secret, "/data/ca.crt") != before, || "it is the former one".to_owned())
    })
    .await;
}

/// A bad certificate of a user is named, and the running nodes keep what they have.
#[test]
fn a_bad_certificate_is_named() {
    run("a_bad_certificate_is_named", Level::Full, async |t| {
        let _operator = t.start_operator().await;
        let mut cell = Cell::mini("cell");
        t.apply(&cell.object()).await;
        t.cell_ready(&cell).await;
        let pods = t.pods("searchcell.dev/cell=cell").await;
        cell.extra = json!({"security": {"certificates": {"http": {"secretName": "mine"}}}});
        t.apply(&cell.object()).await;
        let stalled = t.condition("searchcells", "cell", "Stalled", "True", "InvalidCertificate").await;
        let (_, _, message) = condition(&stalled, "Stalled").unwrap();
        assert!(message.contains("Secret mine does not exist"), "{message}");
        assert!(t.elastic("cell", "a").uuid().await.is_ok(), "it serves as before");
        cell.extra = json!({});
        t.apply(&cell.object()).await;
        t.cell_ready(&cell).await;
        assert_eq!(t.pods("searchcell.dev/cell=cell").await, pods, "a pod has restarted");
    });
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
