//! `searchcell plan`: what it says of the real world, that it comes true, and that it changes nothing.

use std::time::Duration;

use searchcell_e2e::audit::AuditLog;
use searchcell_e2e::cells::{merged, placement};
use searchcell_e2e::objects::{number, text};
use searchcell_e2e::shell;
use searchcell_e2e::wait::{LIMIT, ensure};
use searchcell_e2e::{Cell, Level, Scenario, run, say, wait_for};
use serde_json::{Value, json};

/// Exit code and output of a plan for these objects.
async fn plan(t: &Scenario, objects: &[&Value]) -> (i32, String) {
    let text: String = objects.iter().map(|object| format!("---\n{object}\n")).collect();
    let arguments = ["plan", "-f", "-", "-n", &t.namespace, "--operator-namespace", &t.namespace];
    let limit = Duration::from_secs(90);
    let output = shell::run(&t.env.operator_binary, &arguments, Some(&text), limit).await.unwrap();
    say(format!("plan: exit {}\n{}{}", output.code, output.stdout, output.stderr));
    (output.code, format!("{}{}", output.stdout, output.stderr))
}

fn says(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(
            text.lines().any(|found| found.trim_start().starts_with(line)),
            "no line {line:?} in\n{text}"
        );
    }
}

/// What a plan of a new cell says is what comes to be; when it is there, nothing is left to say; what is changed, held and
/// refused later is said before it is applied. The API server stores nothing of it.
#[test]
fn a_plan_says_what_comes_and_changes_nothing() {
    run("a_plan_says_what_comes_and_changes_nothing", Level::Full, async |t| {
        let cell = Cell::small("cell");
        let object = cell.object();
        let pool = placement("pool", "cell", json!({"pool": {"indices": 2}}), 1);

        let (code, said) = plan(t, &[&object, &pool]).await;
        assert_eq!(code, 1, "{said}");
        let expected = [
            "create SearchCell cell",
            "create ConfigMap cell-a-bootstrap",
            "create StatefulSet cell-a-master-a: 1 node, volumes of 1Gi",
            "create StatefulSet cell-a-data-c",
            "create NetworkPolicy cell-a",
            "create Secret cell-admin",
            "create IndexPlacement pool",
            "later  settings of cluster cell-a",
            "later  create index messages.p000.g1",
            "Plan: ",
        ];
        says(&said, &expected);
        for (kind, name) in [("searchcells", "cell"), ("indexplacements", "pool"), ("secrets", "cell-admin")]
        {
            assert_eq!(t.objects.get(kind, name).await.unwrap(), None, "{kind} {name}");
        }

        let _operator = t.start_operator().await;
        t.apply(&object).await;
        t.cell_ready(&cell).await;
        let (code, said) = plan(t, &[&pool]).await;
        assert_eq!(code, 1, "{said}");
        says(
            &said,
            &[
                "create index messages.p000.g1 on cluster cell-a",
                "create index messages.p001.g1 on cluster cell-a",
            ],
        );
        says(&said, &["create routing table of messages", "+ indices[\"messages.p000.g1\"]: cell-a"]);
        t.apply(&pool).await;
        t.placement_ready("pool").await;
        // When shards have started, disruption budgets follow.
        wait_for("nothing to do", LIMIT, async || {
            let (code, said) = plan(t, &[&object, &pool]).await;
            ensure((code, said.as_str()) == (0, "Nothing to do.\n"), || format!("exit {code}"))
        })
        .await;

        let log = AuditLog::mark(t.env).await;
        let version = async |kind: &str, name: &str| {
            let object = t.objects.expect(kind, name).await;
            (text_of(&object, "/metadata/resourceVersion"), number(&object, "/metadata/generation"))
        };
        let before = (version("searchcells", "cell").await, version("indexplacements", "pool").await);

        let more = merged(object.clone(), &json!({"spec": {"nodes": {"data": {"perZone": 2}}}}));
        let (code, said) = plan(t, &[&more]).await;
        assert_eq!(code, 1, "{said}");
        says(
            &said,
            &["change SearchCell cell", "- spec.nodes.data.perZone: 1", "+ spec.nodes.data.perZone: 2"],
        );
        says(&said, &["change StatefulSet cell-a-data-b", "- spec.replicas: 1", "+ spec.replicas: 2"]);

        let copies = placement("pool", "cell", json!({"pool": {"indices": 2}}), 2);
        let (code, said) = plan(t, &[&copies]).await;
        assert_eq!(code, 1, "{said}");
        says(&said, &["change settings of indices on cluster cell-a", "+ index.number_of_replicas: 2"]);

        let (code, said) = plan(t, &[&placement("pool", "cell", json!({"pool": {"indices": 3}}), 1)]).await;
        assert_eq!(code, 1, "{said}");
        says(&said, &["hold   NeedsMigration: the pool was made of 2 indices"]);

        // By the operator, and by the API server.
        let reserved = merged(object.clone(), &json!({"spec": {"settings": {"cluster.name": "mine"}}}));
        let (code, said) = plan(t, &[&reserved]).await;
        assert_eq!(code, 1, "{said}");
        says(&said, &["refuse spec.settings"]);
        let (code, said) =
            plan(t, &[&merged(object.clone(), &json!({"spec": {"topologyKey": "kubernetes.io/hostname"}}))])
                .await;
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("topologyKey is immutable"), "{said}");
        let (code, said) =
            plan(t, &[&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}})]).await;
        assert_eq!(code, 2, "{said}");
        assert!(said.contains("document 1 is a Pod of v1"), "{said}");

        assert_eq!((version("searchcells", "cell").await, version("indexplacements", "pool").await), before);
        // Since the mark nobody but plans asked for changes in this namespace, and the operator with its own account.
        if let Some(log) = log {
            let operator = searchcell_e2e::operator::user_in(&t.namespace);
            let (mut dry, mut wet) = (0, Vec::new());
            for line in log.lines_with("/searchcell.dev/v1alpha1/").lines() {
                let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
                let is_write = ["create", "update", "patch", "delete"].contains(&text(&event, "/verb"));
                let is_ours = text(&event, "/objectRef/namespace") == t.namespace;
                if !is_write || !is_ours || text(&event, "/user/username") == operator {
                    continue;
                }
                match text(&event, "/requestURI") {
                    uri if uri.contains("dryRun=All") => dry += 1,
                    uri => wet.push(uri.to_owned()),
                }
            }
            assert!(dry > 0 && wet.is_empty(), "{dry} dry runs, and {wet:?}");
        }
    });
}

fn text_of(object: &Value, pointer: &str) -> String {
    text(object, pointer).to_owned()
}
