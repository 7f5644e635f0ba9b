//! Test equipment of the router, which is no part of it and is not shipped: an Elasticsearch without an index behind
//! it ([`null`]), work for it ([`work`]), a client ([`client`]), and what processes cost ([`cost`]).
//!
//! What Elasticsearch does is spelled out here again, and nothing of it is taken from the router: a test that shares
//! its reading of an answer with the router cannot see it go wrong.
// A broken assumption ends a test or a measurement with a message, as an assertion does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod bench;
pub mod client;
pub mod cost;
pub mod null;
pub mod random;
pub mod table;
pub mod work;
