//! API keys as text: `tg_<scope>_`, 32 random bytes in base64url, and six digits of a checksum, so that a key cut short
//! or mistyped is known without a look-up, and scanners can tell ours from noise. Stored as SHA-256 only.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

const PREFIX: &str = "tg_";
const CHECKSUM_DIGITS: usize = 6;
const RANDOM_CHARS: usize = 43;

/// The text of a key of this scope (a word) over 32 random bytes.
pub fn key_text(scope: &str, random: &[u8; 32]) -> String {
    let mut key = format!("{PREFIX}{scope}_{}", URL_SAFE_NO_PAD.encode(random));
    let sum = checksum(&key);
    key.push_str(&sum);
    key
}

/// The SHA-256 of a key (or of any secret), under which it is stored and looked up.
pub fn key_hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

/// A key's public id, from other random bytes than the key.
pub fn key_id(random: &[u8; 32]) -> String {
    format!("key_{}", hex(&random[..8]))
}

/// Whether a text means to be a key of ours but can't be one: it was cut short or mistyped.
pub fn is_broken_key(text: &str) -> bool {
    if !text.starts_with(PREFIX) || !text.is_ascii() {
        return false;
    }
    let long_enough = text.len() > PREFIX.len() + RANDOM_CHARS + CHECKSUM_DIGITS;
    let split = text.len().saturating_sub(CHECKSUM_DIGITS);
    !long_enough || checksum(&text[..split]) != text[split..]
}

fn checksum(text: &str) -> String {
    hex(&key_hash(text)[..CHECKSUM_DIGITS / 2])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tell_when_they_are_cut_or_mistyped() {
        let key = key_text("ingest", &[7; 32]);
        assert!(key.starts_with("tg_ingest_"), "{key}");
        assert!(!is_broken_key(&key));
        assert!(is_broken_key(&key[..key.len() - 1]));
        assert!(is_broken_key(&key.replace("tg_ingest", "tg_admin")));
        assert!(is_broken_key("tg_"));
        assert!(is_broken_key("tg_admin_short"));
        assert!(!is_broken_key("a key of the operator's own choice"));
    }

    #[test]
    fn ids_and_keys_differ_with_their_randomness() {
        assert_ne!(key_text("read", &[1; 32]), key_text("read", &[2; 32]));
        assert_eq!(key_id(&[0xab; 32]), "key_abababababababab");
        assert_ne!(key_hash("a"), key_hash("b"));
    }
}
