//! The file that Elasticsearch reads its secure settings from, as it writes it itself without a password: a header, the
//! entries encrypted with a key that everybody can derive, a checksum. Effects: randomness.
//!
//! The layout is that of Lucene's data files. End-to-end tests have nodes of each line start with it; `tests/keystore.rs`
//! says how one node is tried by hand.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use k8s_openapi::ByteString;
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::pbkdf2::{PBKDF2_HMAC_SHA512, derive};
use ring::rand::SecureRandom;
use searchcell_core::security::keystore::{Format, KEYSTORE_FILE};
use zeroize::Zeroizing;

use super::forge::ForgeError;

/// Begins every file of Lucene.
const HEADER: u32 = 0x3fd7_6c17;
/// Begins the end of one: all bits of the other turned over.
const FOOTER: u32 = !HEADER;
/// Of checksums: CRC-32, the only one there is.
const CHECKSUM: u32 = 0;
const SALT_BYTES: usize = 64;
const LONGEST_KEY: usize = 32;
/// The keystore has no password: whoever may read the file may read what is in it.
const NO_PASSWORD: u8 = 0;

/// The cipher; its key is as long as it takes.
fn cipher(format: Format) -> &'static Algorithm {
    match format {
        Format::V4 | Format::V5 | Format::V6 => &AES_128_GCM,
        Format::V7 => &AES_256_GCM,
    }
}

/// How often the key derivation goes round.
fn rounds(format: Format) -> u32 {
    match format {
        Format::V4 | Format::V5 => 10_000,
        Format::V6 | Format::V7 => 210_000,
    }
}

/// Makes the file. `cheap`: with a key that took no time, which only a simulation reads.
pub fn render(
    format: Format,
    entries: &BTreeMap<String, ByteString>,
    random: &dyn SecureRandom,
    cheap: bool,
) -> Result<Vec<u8>, ForgeError> {
    let mut salt = [0; SALT_BYTES];
    random.fill(&mut salt).map_err(|_| ForgeError::Randomness)?;
    let mut nonce = [0; NONCE_LEN];
    random.fill(&mut nonce).map_err(|_| ForgeError::Randomness)?;

    let rounds = if cheap { 1 } else { rounds(format) };
    let rounds = NonZeroU32::new(rounds).unwrap_or(NonZeroU32::MIN);
    let cipher = cipher(format);
    let mut key = Zeroizing::new([0; LONGEST_KEY]);
    let key = key.get_mut(..cipher.key_len()).ok_or(ForgeError::Keystore)?;
    derive(PBKDF2_HMAC_SHA512, rounds, &salt, &[], key);
    let key = UnboundKey::new(cipher, key).map_err(|_| ForgeError::Keystore)?;
    let mut secret = Zeroizing::new(plain(entries)?);
    LessSafeKey::new(key)
        .seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(&salt),
            // Encrypted in place: nothing of it is left behind when the buffer grows.
            &mut *secret,
        )
        .map_err(|_| ForgeError::Keystore)?;

    let number = |number: usize| -> Result<[u8; 4], ForgeError> {
        let number = u32::try_from(number).map_err(|_| ForgeError::Keystore)?;
        Ok(if format == Format::V4 { number.to_be_bytes() } else { number.to_le_bytes() })
    };
    let mut file = Vec::with_capacity(secret.len() + 256);
    file.extend(HEADER.to_be_bytes());
    // The length of a text is one byte when it is short.
    file.push(u8::try_from(KEYSTORE_FILE.len()).map_err(|_| ForgeError::Keystore)?);
    file.extend(KEYSTORE_FILE.as_bytes());
    file.extend(format.number().to_be_bytes());
    file.push(NO_PASSWORD);
    file.extend(number(3 * 4 + salt.len() + nonce.len() + secret.len())?);
    for part in [salt.as_slice(), nonce.as_slice(), secret.as_slice()] {
        file.extend(number(part.len())?);
        file.extend(part);
    }
    file.extend(FOOTER.to_be_bytes());
    file.extend(CHECKSUM.to_be_bytes());
    let checksum = crc32fast::hash(&file);
    file.extend(u64::from(checksum).to_be_bytes());
    Ok(file)
}

/// Number of entries, and of each its name and its value with their lengths in front.
fn plain(entries: &BTreeMap<String, ByteString>) -> Result<Vec<u8>, ForgeError> {
    let length: usize = entries.iter().map(|(name, value)| name.len() + value.0.len() + 6).sum();
    // Room for the tag as well.
    let mut plain = Vec::with_capacity(length + 4 + AES_128_GCM.tag_len());
    plain.extend(u32::try_from(entries.len()).map_err(|_| ForgeError::Keystore)?.to_be_bytes());
    for (name, value) in entries {
        // Names are ASCII: core refuses others.
        plain.extend(u16::try_from(name.len()).map_err(|_| ForgeError::Keystore)?.to_be_bytes());
        plain.extend(name.as_bytes());
        plain.extend(u32::try_from(value.0.len()).map_err(|_| ForgeError::Keystore)?.to_be_bytes());
        plain.extend(&value.0);
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;

    use super::*;

    #[test]
    fn a_file_hides_its_entries_and_never_is_twice_the_same() {
        let entries =
            BTreeMap::from([("s3.client.default.secret_key".to_owned(), ByteString(b"hunter2".to_vec()))]);
        let random = SystemRandom::new();
        let files: Vec<Vec<u8>> =
            Format::ALL.iter().map(|format| render(*format, &entries, &random, true).unwrap()).collect();
        for (file, format) in files.iter().zip(Format::ALL) {
            assert!(!file.windows(7).any(|part| part == b"hunter2"));
            assert_eq!(file[27..31], format.number().to_be_bytes());
            // The checksum is over all before it.
            let (rest, checksum) = file.split_at(file.len() - 8);
            assert_eq!(checksum, u64::from(crc32fast::hash(rest)).to_be_bytes());
        }
        assert_ne!(render(Format::V6, &entries, &random, true).unwrap(), files[2]);
    }
}
