//! Has the nodes of a cluster load their keystore again, and records what they said where every process of the operator
//! finds it. Effects: one request to Elasticsearch, one write to the API server.

use std::collections::BTreeMap;

use jiff::Timestamp;
use searchcell_core::names::ClusterKey;
use searchcell_core::security::keystore::Record;
use searchcell_core::security::whole_seconds;
use searchcell_core::step::Reload;

use super::parse;
use super::sealed::Sealed;
use crate::execute::Owner;
use crate::failure::StepError;
use crate::leadership::Leadership;
use crate::ports::{KubeApi, KubeError, NodeReload, SearchApi, SearchError};

/// Other clusters of the cell write their records on the same Secret at the same time.
const ATTEMPTS: u32 = 5;
/// Longest reason of one node that is recorded, in characters.
const MOST_WORDS: usize = 300;
/// Values that are shorter are in every sentence.
const SHORTEST_VALUE: usize = 4;
/// In the place of a value.
const HIDDEN: &str = "(hidden)";

/// Carries out one order to load.
pub(crate) struct Reloads<'a, K, E> {
    pub(crate) kube: &'a K,
    pub(crate) elastic: &'a E,
    pub(crate) leadership: &'a Leadership,
    pub(crate) now: Timestamp,
    pub(crate) owner: Owner<'a>,
}

impl<K: KubeApi, E: SearchApi> Reloads<'_, K, E> {
    pub(crate) async fn carry_out(&self, cluster: &ClusterKey, reload: &Reload) -> Result<(), StepError> {
        let live = self.live(cluster, reload).await?;
        let said = match self.elastic.reload_keystore(cluster).await {
            Ok(said) => said,
            // It would refuse it again: that is what becomes of this try.
            Err(SearchError::Refused(why) | SearchError::NotAvailable(why)) => {
                let refuses =
                    |node: &String| (node.clone(), NodeReload { error: Some(why.clone()), digest: None });
                reload.nodes.keys().map(refuses).collect()
            }
            Err(error) => return Err(error.into()),
        };
        let record = record(reload, &said, &live, self.now);
        self.write(cluster, reload, live, &record).await
    }

    /// The Secret, when it still is what nodes were to load, and nobody has tried it meanwhile.
    async fn live(&self, cluster: &ClusterKey, reload: &Reload) -> Result<Sealed, StepError> {
        let name = &reload.target.name;
        let changed = || KubeError::Conflict(format!("Secret {name} is not as it was observed"));
        let live = self.kube.secret_live(self.owner.namespace, name).await?.ok_or_else(changed)?;
        let facts = parse::facts(&live);
        let is_same = facts.metadata.uid.as_ref() == Some(&reload.target.uid)
            && facts.keystore.as_ref().is_some_and(|keystore| keystore.revision() == reload.revision)
            && tries(&live, cluster, reload) == reload.tries;
        if is_same { Ok(live) } else { Err(changed().into()) }
    }

    async fn write(
        &self,
        cluster: &ClusterKey,
        reload: &Reload,
        mut live: Sealed,
        record: &Record,
    ) -> Result<(), StepError> {
        for attempt in 1..=ATTEMPTS {
            if !self.leadership.holds() {
                return Err(StepError::NotLeading);
            }
            let annotations = live.0.metadata.annotations.get_or_insert_default();
            annotations.insert(Record::annotation(&cluster.cluster), record.text());
            match self.kube.replace_secret(self.owner.namespace, &live).await {
                Err(KubeError::Conflict(_)) if attempt < ATTEMPTS => {
                    live = self.live(cluster, reload).await?
                }
                result => return Ok(result?),
            }
        }
        Ok(())
    }
}

/// How often these contents were tried on this cluster.
fn tries(secret: &Sealed, cluster: &ClusterKey, reload: &Reload) -> u32 {
    let annotations = secret.0.metadata.annotations.as_ref();
    let text = annotations.and_then(|all| all.get(&Record::annotation(&cluster.cluster)));
    let record = text.and_then(|text| Record::read(text)).filter(|record| record.revision == reload.revision);
    record.map_or(0, |record| record.tries)
}

/// What nodes said comes to.
fn record(reload: &Reload, said: &BTreeMap<String, NodeReload>, secret: &Sealed, now: Timestamp) -> Record {
    let mut record = Record {
        revision: reload.revision.clone(),
        at: whole_seconds(now),
        tries: reload.tries.saturating_add(1),
        ..Record::default()
    };
    for (node, file) in &reload.nodes {
        match said.get(node) {
            Some(NodeReload { error: Some(why), .. }) => {
                record.refused.insert(node.clone(), without_values(why, secret));
            }
            // Newer versions say which file they have read. Of others it is known that kubelets have had their time.
            Some(NodeReload { digest: Some(digest), .. }) if digest != file => {
                record.waiting.insert(node.clone());
            }
            Some(_) => {}
            None => {
                record.waiting.insert(node.clone());
            }
        }
    }
    record
}

/// A reason may repeat what it stumbles over.
fn without_values(why: &str, secret: &Sealed) -> String {
    let mut words = why.to_owned();
    let values = secret.0.data.iter().flat_map(|data| data.values());
    for value in values.filter_map(|value| std::str::from_utf8(&value.0).ok()) {
        for part in [value, value.trim()] {
            if part.len() >= SHORTEST_VALUE && words.contains(part) {
                words = words.replace(part, HIDDEN);
            }
        }
    }
    words.chars().take(MOST_WORDS).collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use k8s_openapi::api::core::v1::Secret;
    use searchcell_core::step::{Kind, Target};

    use super::*;

    fn secret() -> Sealed {
        let data = Some([("a.b".to_owned(), ByteString(b"hunter2\n".to_vec()))].into());
        Sealed(Secret { data, ..Secret::default() })
    }

    fn node(error: Option<&str>, digest: Option<&str>) -> NodeReload {
        NodeReload { error: error.map(str::to_owned), digest: digest.map(str::to_owned) }
    }

    #[test]
    fn a_reason_repeats_no_value() {
        let words = without_values("cannot use [hunter2] as a key", &secret());
        assert_eq!(words, "cannot use [(hidden)] as a key");
    }

    #[test]
    fn who_has_another_file_or_does_not_answer_is_waited_for() {
        let target = Target { kind: Kind::Secret, name: "s".into(), uid: "u".into(), resource_version: None };
        let nodes = ["n1", "n2", "n3", "n4", "n5"].map(|node| (node.to_owned(), "new".to_owned()));
        let reload = Reload { target, revision: "r".into(), tries: 2, nodes: nodes.into() };
        let said = [
            ("n1", node(None, Some("new"))),
            ("n2", node(None, Some("old"))),
            ("n3", node(None, None)),
            ("n4", node(Some("unknown secure setting [a.b]"), Some("new"))),
            ("another", node(Some("x"), None)),
        ];
        let said = said.map(|(name, said)| (name.to_owned(), said)).into();
        let record = record(&reload, &said, &secret(), Timestamp::UNIX_EPOCH);
        assert_eq!(record.waiting, ["n2", "n5"].map(str::to_owned).into());
        assert_eq!(record.refused.keys().collect::<Vec<_>>(), ["n4"]);
        assert_eq!((record.tries, record.revision.as_str()), (3, "r"));
    }
}
