//! A table as bytes: JSON in gzip, the same bytes for the same table. Pure.

use std::io::{Read, Write};

use flate2::{Compression, GzBuilder, read::GzDecoder};

use super::table::{Table, TableError};

/// Largest table that is published: a ConfigMap holds 1 MiB, base64 included for its JSON form on the wire.
pub const MAX_ENCODED_BYTES: usize = 900 << 10;
/// Most that a table may unpack to; a table of 10,000 indices and 20,000 overrides has about 3 MiB.
const MAX_DECODED_BYTES: u64 = 64 << 20;

/// Why bytes are no table, or a table has no bytes.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The table is larger than [`MAX_ENCODED_BYTES`].
    #[error("the table has {bytes} bytes, and {MAX_ENCODED_BYTES} are the most that is published")]
    TooLarge {
        /// Its size in bytes.
        bytes: usize,
    },
    /// It is no gzip, or unpacks to more than any table has.
    #[error("the table is no gzip: {0}")]
    Gzip(std::io::Error),
    /// It is no JSON of a table.
    #[error("the table is not as expected: {0}")]
    Json(serde_json::Error),
    /// It contradicts itself, or is of a newer version.
    #[error("the table cannot be used: {0}")]
    Table(#[from] TableError),
}

/// The table as it is published. Deterministic: no time and no file name in the gzip header.
pub fn encode(table: &Table) -> Result<Vec<u8>, CodecError> {
    pack(&to_json(table)?)
}

/// The same text for the same table.
pub(super) fn to_json(table: &Table) -> Result<Vec<u8>, CodecError> {
    serde_json::to_vec(table).map_err(CodecError::Json)
}

pub(super) fn pack(json: &[u8]) -> Result<Vec<u8>, CodecError> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    let bytes = encoder.write_all(json).and_then(|()| encoder.finish()).map_err(CodecError::Gzip)?;
    if bytes.len() > MAX_ENCODED_BYTES { Err(CodecError::TooLarge { bytes: bytes.len() }) } else { Ok(bytes) }
}

/// A table that can be looked up in, from gzip or from plain JSON.
pub fn decode(bytes: &[u8]) -> Result<Table, CodecError> {
    let table: Table = serde_json::from_slice(&unpack(bytes)?).map_err(CodecError::Json)?;
    table.check()?;
    Ok(table)
}

pub(super) fn unpack(bytes: &[u8]) -> Result<Vec<u8>, CodecError> {
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Ok(bytes.to_vec());
    }
    let mut unpacked = Vec::new();
    let mut reader = GzDecoder::new(bytes).take(MAX_DECODED_BYTES);
    reader.read_to_end(&mut unpacked).map_err(CodecError::Gzip)?;
    Ok(unpacked)
}
