//! Tenants to slots: a hash that every language has, and that never changes. Pure.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Slots of a collection. A slot is the smallest thing that can be moved from one index of a pool to another.
pub const SLOTS: u16 = 1 << SLOT_BITS;
const SLOT_BITS: u32 = 14;
/// Seed of the hash. Part of the format: another seed is another `schemaVersion`.
pub const SEED: u64 = 0;

/// Number of a slot, 0 to 16383.
pub type Slot = u16;

/// The slot of a tenant: the upper 14 bits of the XXH3 64-bit hash, with [`SEED`], of the tenant's UTF-8 bytes. A
/// tenant that is a number in the document is hashed as its decimal digits.
pub fn slot_of(tenant: &str) -> Slot {
    let hash = xxh3_64_with_seed(tenant.as_bytes(), SEED);
    // fourteen bits are left
    u16::try_from(hash >> (u64::BITS - SLOT_BITS)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What clients in other languages check themselves against: a line is the tenant as JSON, a tab, its slot.
    const VECTORS: &str = include_str!("../../tests/vectors/slots.tsv");

    #[test]
    fn the_committed_vectors_hold() {
        let mut count = 0;
        for line in VECTORS.lines().filter(|line| !line.starts_with('#')) {
            let (tenant, slot) = line.split_once('\t').unwrap();
            let tenant: String = serde_json::from_str(tenant).unwrap();
            assert_eq!(slot_of(&tenant), slot.parse::<u16>().unwrap(), "{tenant:?}");
            count += 1;
        }
        assert!(count >= 40, "{count}");
    }

    #[test]
    fn tenants_spread_over_all_slots() {
        let mut seen = vec![0_u32; usize::from(SLOTS)];
        for tenant in 0..400_000_u64 {
            seen[usize::from(slot_of(&(81_384_788_765_712_384 + tenant * 4_194_304).to_string()))] += 1;
        }
        assert!(seen.iter().all(|count| (3..=60).contains(count)));
    }
}
