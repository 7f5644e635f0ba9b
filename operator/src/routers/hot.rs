//! Tells of tenants that routers find hot, on the objects that a person changes, each once. Effects: events, a line in
//! the log.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kube::Resource;
use searchcell_core::inject::hot::{About, HotReading, HotTenant, TenantKey, about, hot_tenants};
use searchcell_core::inject::routers::RouterPod;
use searchcell_crds::{IndexPlacement, SearchCell};

use super::{Routers, Told};

impl Routers {
    /// Tells who is hot. `now`: since this process began to lead.
    pub(super) fn tell_hot(&self, readings: &[(&RouterPod, HotReading)], now: Duration, told: &mut Told) {
        let hot = hot_tenants(readings);
        self.metrics.hot_tenants(i64::try_from(hot.len()).unwrap_or(i64::MAX));
        let namespaces: BTreeSet<&String> = hot.keys().map(|key| &key.namespace).collect();
        let known = |namespace: &String| {
            let placements = self.caches.placements.group(namespace, "");
            (namespace.clone(), (placements, self.caches.cells.group(namespace, "")))
        };
        let known: BTreeMap<String, (Vec<IndexPlacement>, Vec<SearchCell>)> =
            namespaces.into_iter().map(known).collect();
        let news = told.hot.news(&hot, now, |key: &TenantKey, tenant: &HotTenant| {
            let (placements, cells) = known.get(&key.namespace)?;
            let about = about(key, tenant, placements, cells)?;
            let object = match about {
                About::Dedicated(placement) | About::Pool(placement) | About::Collection(placement) => {
                    placement.object_ref(&())
                }
                About::Cell(cell) => cell.object_ref(&()),
            };
            Some((key.namespace.clone(), object, about.is_warning(), about.text(key, tenant)))
        });
        for (namespace, object, warning, text) in news {
            tracing::info!(namespace, text, "a tenant is hot");
            self.report.hot_tenant(&object, warning, text);
        }
    }
}

#[cfg(test)]
#[path = "hot_tests.rs"]
mod tests;
