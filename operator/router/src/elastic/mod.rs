//! Elasticsearch over HTTP/1.1: nodes of clusters, connections, credentials. Effects: network, files.

pub mod access;
pub mod connection;
pub mod http;
pub mod nodes;

pub use self::http::{ElasticHttp, Request, Response, SendError};
