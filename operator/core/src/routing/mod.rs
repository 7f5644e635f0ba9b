//! The routing table of a collection: which tenant's documents are where. Pure.
//!
//! tenant → slot ([`slot_of`]) → index of the pool, unless the tenant is overridden. A table is immutable and
//! numbered; whoever has one needs neither the operator nor the API server to go on. `docs/routing-table.md`
//! tells clients in other languages how to read it.

mod build;
mod codec;
mod publish;
mod slots;
mod table;

pub use build::{BuildError, Located, Pool, TableInput, build_table, next_generation};
pub use codec::{CodecError, MAX_ENCODED_BYTES, decode, encode};
pub use publish::{Published, TableSnapshot, controller_of, plan_table};
pub use slots::{SEED, SLOTS, Slot, slot_of};
pub use table::{
    Destination, Override, SCHEMA_VERSION, SlotRange, Table, TableCluster, TableError, TableIndex,
    TenantRules, Traffic,
};
