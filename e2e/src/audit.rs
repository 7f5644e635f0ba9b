//! The API server's own record of who asked what of it.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::objects::text;
use crate::{Env, shell};

/// One answered request.
#[derive(Clone, Debug)]
pub struct Request {
    /// get, list, watch, create, update, patch, delete, deletecollection.
    pub verb: String,
    /// API group; empty: core.
    pub group: String,
    /// Plural name, with the subresource: `pods/status`.
    pub resource: String,
    /// Namespace; empty for what has none.
    pub namespace: String,
    /// Name; empty for lists.
    pub name: String,
    /// Code of the answer.
    pub code: i64,
    /// Refused for want of a right; other refusals have the code 403 as well.
    pub forbidden: bool,
    /// When it was answered.
    pub at: String,
}

impl Request {
    /// Whether it asks for a change.
    pub fn is_write(&self) -> bool {
        matches!(self.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection")
    }
}

/// A place in the log, from which on requests are read.
#[derive(Clone, Debug)]
pub struct AuditLog {
    path: PathBuf,
    from: u64,
}

impl AuditLog {
    /// The log from now on; `None` where this kind of cluster keeps none.
    pub async fn mark(env: &Env) -> Option<AuditLog> {
        let output =
            shell::run(env.cluster_script(), &["audit-log"], None, Duration::from_secs(20)).await.unwrap();
        if output.code == 3 {
            return None;
        }
        let path = PathBuf::from(output.ok("cluster audit-log").trim());
        let from = std::fs::metadata(&path).expect("the audit log").len();
        Some(AuditLog { path, from })
    }

    fn open(&self) -> BufReader<File> {
        let mut file = File::open(&self.path).expect("the audit log");
        let length = file.metadata().expect("the audit log").len();
        // a shorter file is a new one: the old one was rotated away
        file.seek(SeekFrom::Start(if length < self.from { 0 } else { self.from })).expect("the audit log");
        BufReader::new(file)
    }

    /// Everything since the mark that mentions `needle`, as it is.
    pub fn lines_with(&self, needle: &str) -> String {
        let lines = self.open().lines().map_while(Result::ok);
        lines.filter(|line| line.contains(needle)).collect::<Vec<String>>().join("\n")
    }

    /// All requests of a user since the mark.
    pub fn requests_of(&self, user: &str) -> Vec<Request> {
        let needle = format!("\"username\":\"{user}\"");
        let mut requests = Vec::new();
        for line in self.open().lines() {
            let Ok(line) = line else { break };
            if !line.contains(&needle) {
                continue;
            }
            let Ok(event) = serde_json::from_str::<Value>(&line) else { continue };
            if event["stage"] != "ResponseComplete" || text(&event, "/user/username") != user {
                continue;
            }
            let subresource = text(&event, "/objectRef/subresource");
            let mut resource = text(&event, "/objectRef/resource").to_owned();
            if !subresource.is_empty() {
                resource = format!("{resource}/{subresource}");
            }
            requests.push(Request {
                verb: text(&event, "/verb").to_owned(),
                group: text(&event, "/objectRef/apiGroup").to_owned(),
                resource,
                namespace: text(&event, "/objectRef/namespace").to_owned(),
                name: text(&event, "/objectRef/name").to_owned(),
                code: event["responseStatus"]["code"].as_i64().unwrap_or_default(),
                forbidden: event["annotations"]["authorization.k8s.io/decision"] == "forbid",
                at: text(&event, "/stageTimestamp").to_owned(),
            });
        }
        requests
    }

    /// The changes that a user asked for since the mark.
    pub fn writes_of(&self, user: &str) -> Vec<Request> {
        self.requests_of(user).into_iter().filter(Request::is_write).collect()
    }
}
