//! Files of a router, and a router that has them.

use std::path::PathBuf;
use std::time::Duration;

use searchcell_core::routing::{Table, encode};
use searchcell_router::run::Router;
use searchcell_router::settings::Settings;
use serde_json::{Value, json};

use super::client;

/// A directory that is mounted: files are replaced whole, as the kubelet does.
pub struct Mount(PathBuf);

impl Mount {
    pub fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("searchcell-router-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        Self(root)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn put(&self, name: &str, content: impl AsRef<[u8]>) {
        let (path, new) = (self.path(name), self.path(".new"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&new, content).unwrap();
        std::fs::rename(new, path).unwrap();
    }

    /// A router with this table, and whatever else its file is to have.
    pub async fn router(&self, table: &Table, more: Value) -> Router {
        self.put("table", encode(table).unwrap());
        let mut settings = json!({
            "listen": "127.0.0.1:0", "admin": "127.0.0.1:0", "elasticsearch": {"directory": self.path("es")},
            "collections": [{"name": "messages", "table": self.path("table")}]});
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let settings: Settings = serde_json::from_value(settings).unwrap();
        let router = Router::start(settings).await.unwrap();
        while client::json(router.admin, "GET", "/readyz", "").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        router
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}
