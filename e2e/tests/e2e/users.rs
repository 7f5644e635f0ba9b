//! What a person at a terminal sees: kubectl, as it is typed.

use std::time::{Duration, Instant};

use searchcell_e2e::cells::placement;
use searchcell_e2e::objects::condition;
use searchcell_e2e::shell::kubectl;
use searchcell_e2e::{Cell, Level, run, say};
use serde_json::json;

/// `kubectl wait` right after `kubectl apply`, `kubectl explain`, `kubectl get -o wide`.
#[test]
fn kubectl_wait_and_explain() {
    run("kubectl_wait_and_explain", Level::Smoke, async |t| {
        let namespace = t.namespace.as_str();
        let limit = Duration::from_secs(700);
        let cell = Cell::mini("cell");
        let pool = placement("pool", "cell", json!({"pool": {"indices": 2}}), 0);
        let list = json!({"apiVersion": "v1", "kind": "List", "items": [cell.object(), pool]}).to_string();

        // without an operator an object reads as in progress, not as current
        kubectl(&["apply", "-n", namespace, "-f", "-"], Some(&list), limit).await.ok("kubectl apply");
        let unseen = t.objects.expect("searchcells", "cell").await;
        assert_ne!(condition(&unseen, "Ready").map(|(status, ..)| status), Some("True"), "{unseen:#}");
        assert_eq!(condition(&unseen, "Reconciling").map(|(status, ..)| status), Some("True"), "{unseen:#}");
        let arguments = ["wait", "-n", namespace, "--for=condition=Ready", "searchcell/cell", "--timeout=3s"];
        assert_ne!(kubectl(&arguments, None, limit).await.code, 0, "nobody has looked at it yet");

        let _operator = t.start_operator().await;
        let began = Instant::now();
        let arguments = [
            "wait",
            "-n",
            namespace,
            "--for=condition=Ready",
            "searchcell/cell",
            "indexplacement/pool",
            "--timeout=600s",
        ];
        kubectl(&arguments, None, limit).await.ok("kubectl wait");
        say(format!("kubectl wait returned after {:.1} s", began.elapsed().as_secs_f64()));
        // what it promised is true at that very moment
        let elastic = t.elastic("cell", "a");
        let health = elastic.get("/_cluster/health").await.expect("a cluster that serves");
        assert_ne!(health["status"], "red", "{health}");
        assert_eq!(elastic.count("messages.p001.g1").await, Ok(0));

        let explained =
            kubectl(&["explain", "searchcell.spec.rollout"], None, limit).await.ok("kubectl explain");
        for word in [
            "KIND:",
            "SearchCell",
            "unit",
            "canary",
            "maxUnavailableClusters",
            "soak",
            "approval",
            "restartedAt",
            "Default: Auto",
            "Default: 60s",
            "restarts",
        ] {
            assert!(explained.contains(word), "no word of {word} in:\n{explained}");
        }
        assert!(!explained.contains("<no description>"), "{explained}");
        let explained =
            kubectl(&["explain", "ipl.spec.dedicated.tenants"], None, limit).await.ok("kubectl explain");
        assert!(explained.contains("expectedDocuments"), "{explained}");

        let arguments = ["get", "searchcell,indexplacement", "-n", namespace, "-o", "wide"];
        let shown = kubectl(&arguments, None, limit).await.ok("kubectl get");
        say(format!("kubectl get searchcell,indexplacement -o wide\n{shown}"));
        for word in [
            "READY",
            "VERSION",
            "CLUSTERS",
            "NODES",
            "ROLLOUT",
            "AGE",
            "REASON",
            "MESSAGE",
            "CELL",
            "COLLECTION",
            "INDICES",
            "SHARDS",
            "9.5.3",
            "1/1",
            "2/2",
            "messages",
            "Serving",
        ] {
            assert!(shown.contains(word), "no {word} in:\n{shown}");
        }
        for short in ["cell", "ipl", "placement", "searchcell", "indexplacements"] {
            let arguments = ["get", short, "-n", namespace, "-o", "name"];
            let shown = kubectl(&arguments, None, limit).await.ok("kubectl get");
            assert!(shown.contains("searchcell.dev/"), "{short}: {shown}");
        }
        let arguments = ["get", "search", "-n", namespace, "-o", "name"];
        let both = kubectl(&arguments, None, limit).await.ok("kubectl get search");
        assert_eq!(both.lines().count(), 2, "the category lists both kinds: {both}");
        let arguments = ["describe", "searchcell", "cell", "-n", namespace];
        let described = kubectl(&arguments, None, limit).await.ok("kubectl describe");
        assert!(described.contains("Events:"), "{described}");
    });
}
