//! The real `KubeApi`: watch caches to read from, requests with preconditions to write with, and the queue that
//! turns events into passes. Effects: network.

pub mod access;
pub mod cache;
pub mod client;
pub mod fanout;
pub mod once;
pub mod queue;
pub mod recreate;
pub mod requests;
pub mod tables;
pub mod template;
pub mod tolerant;
pub mod trim;
