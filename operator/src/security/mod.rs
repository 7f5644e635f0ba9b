//! Secrets, from both sides: what of them may be known (`parse`), and how new ones are made (`forge`, `orders`) and
//! used (`access`, `handshake`). Effects: randomness in `forge`, network in `handshake`, writes in `orders`.

pub mod access;
pub mod forge;
pub mod handshake;
pub mod orders;
pub mod parse;
pub mod sealed;
pub mod supplied;
