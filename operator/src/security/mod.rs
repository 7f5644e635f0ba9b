//! Secrets, from both sides: what of them may be known (`parse`), and how new ones are made (`forge`, `keystore`,
//! `orders`, `data`) and used (`access`, `handshake`, `reload`). Effects: randomness in `forge` and `keystore`, network in
//! `handshake` and `reload`, writes in `orders` and `reload`.

pub mod access;
pub(crate) mod data;
pub mod forge;
pub mod handshake;
pub mod keystore;
pub mod orders;
pub mod parse;
pub(crate) mod reload;
pub mod sealed;
pub mod supplied;
