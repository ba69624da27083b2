//! The ids of one part of a run: a checksum, then entries of a hash and the position it is bound to, in order.
//!
//! A run of `pages` pages cuts the space of ids into that many equal parts. Hashes are uniform, so pages are filled
//! evenly, and the page of an id is known without looking.

use super::filter;
use engine::ports::Seq;
use siphasher::sip::SipHasher13;

/// Bytes a page is meant to have. One in a hundred grows past what fits in a database page of 4 KiB.
const TARGET_BYTES: u64 = 3400;

/// Bytes of the checksum before a page or a part of a filter.
pub(super) const CHECKSUM_BYTES: usize = 8;

/// Bytes of a hash.
const HASH_BYTES: usize = 16;

/// How the entries of a run are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// How many pages the run has.
    pub(super) pages: u32,
    /// Positions are written as distances from here.
    pub(super) base: Seq,
    /// How many bytes a distance takes: 1 to 8.
    pub(super) seq_bytes: u8,
}

impl Shape {
    /// For at most `ids` ids bound between `first` and `last`.
    pub(super) fn new(ids: u64, first: Seq, last: Seq) -> Self {
        let distance = last.saturating_sub(first);
        let seq_bytes = (8 - distance.leading_zeros() as u8 / 8).max(1);
        let entry_bytes = HASH_BYTES as u64 + u64::from(seq_bytes);
        Self { pages: (ids * entry_bytes).div_ceil(TARGET_BYTES).max(1) as u32, base: first, seq_bytes }
    }

    pub(super) fn page_of(&self, id: u128) -> u32 {
        filter::part_of(id, self.pages)
    }

    fn entry_bytes(&self) -> usize {
        HASH_BYTES + usize::from(self.seq_bytes)
    }

    pub(super) fn write(&self, id: u128, seq: Seq, page: &mut Vec<u8>) {
        page.extend_from_slice(&id.to_be_bytes());
        page.extend_from_slice(&(seq - self.base).to_le_bytes()[..usize::from(self.seq_bytes)]);
    }

    fn read(&self, entry: &[u8]) -> (u128, Seq) {
        let (hash, distance) = entry.split_at(HASH_BYTES);
        (hash_at(hash), self.base.saturating_add(distance_at(distance)))
    }

    /// All entries of a page without its checksum.
    pub(super) fn entries(&self, body: &[u8]) -> Vec<(u128, Seq)> {
        body.chunks_exact(self.entry_bytes()).map(|entry| self.read(entry)).collect()
    }

    /// Looks for one id in a page without its checksum.
    pub(super) fn find(&self, body: &[u8], id: u128) -> Option<Seq> {
        let entry_bytes = self.entry_bytes();
        let (mut low, mut high) = (0, body.len() / entry_bytes);
        while low < high {
            let middle = (low + high) / 2;
            let (hash, seq) = self.read(&body[middle * entry_bytes..(middle + 1) * entry_bytes]);
            match hash.cmp(&id) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Some(seq),
            }
        }
        None
    }
}

fn hash_at(bytes: &[u8]) -> u128 {
    bytes.first_chunk().map_or(0, |bytes| u128::from_be_bytes(*bytes))
}

fn distance_at(bytes: &[u8]) -> u64 {
    let mut distance = [0; 8];
    distance[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(distance)
}

/// Where the parts of a run are kept: the run's number, then the part's.
pub(super) fn place(run: u32, part: u32) -> i64 {
    i64::from(run) << 32 | i64::from(part)
}

/// Room for a checksum, which [`seal`] fills in.
pub(super) fn start(bytes: &mut Vec<u8>) {
    bytes.clear();
    bytes.extend_from_slice(&[0; CHECKSUM_BYTES]);
}

/// Writes the checksum in front. It covers the place too: a page that went astray is a damaged one.
pub(super) fn seal(place: i64, bytes: &mut [u8]) {
    let (checksum, body) = bytes.split_at_mut(CHECKSUM_BYTES);
    checksum.copy_from_slice(&checksum_of(place, body).to_le_bytes());
}

/// The bytes behind the checksum; `None` if it does not fit them.
pub(super) fn open(place: i64, bytes: &[u8]) -> Option<&[u8]> {
    let (checksum, body) = bytes.split_first_chunk::<CHECKSUM_BYTES>()?;
    (u64::from_le_bytes(*checksum) == checksum_of(place, body)).then_some(body)
}

/// A checksum that knows where its bytes belong.
pub(super) fn checksum_of(place: i64, body: &[u8]) -> u64 {
    SipHasher13::new_with_keys(place.cast_unsigned(), 0x7469_6465_6761_7465).hash(body)
}
