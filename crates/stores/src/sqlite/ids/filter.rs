//! A set that may be wrong in one direction: what it says is absent is absent.
//!
//! A blocked Bloom filter: an id's top bits choose one cache line, its low bits choose one bit in each of the line's
//! eight words. So a question costs one read of memory, and ids that come in order fill the lines in order.

/// One cache line.
#[derive(Clone, Copy, Default)]
#[repr(align(64))]
pub(super) struct Block([u64; 8]);

/// Bytes of a block.
pub(super) const BLOCK_BYTES: usize = 64;

/// Up to this many ids a run is small: its filter may be generous, as it weighs little.
const SMALL_RUN_IDS: u64 = 1 << 21;

/// An id as filters see it. Made once for all filters it is asked of.
#[derive(Clone, Copy)]
pub(super) struct Probe {
    high: u64,
    mask: [u64; 8],
}

impl Probe {
    pub(super) fn new(id: u128) -> Self {
        let low = id as u64;
        Self { high: (id >> 64) as u64, mask: std::array::from_fn(|word| 1 << ((low >> (6 * word)) & 63)) }
    }
}

impl Block {
    pub(super) fn add(&mut self, id: u128) {
        for (word, bit) in self.0.iter_mut().zip(Probe::new(id).mask) {
            *word |= bit;
        }
    }

    /// Without a branch: the processor is then free to read the next filter's line while it waits for this one.
    fn holds(&self, mask: &[u64; 8]) -> bool {
        self.0.iter().zip(mask).fold(0, |missing, (word, bit)| missing | (!word & bit)) == 0
    }

    pub(super) fn write(&self, bytes: &mut Vec<u8>) {
        for word in self.0 {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
    }

    /// Reads what [`Block::write`] wrote.
    pub(super) fn read(bytes: &[u8; BLOCK_BYTES]) -> Self {
        let mut words = [0; 8];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        Self(words)
    }
}

/// The filter of one run.
pub(super) struct Filter {
    blocks: Box<[Block]>,
}

impl Filter {
    pub(super) fn new(blocks: Vec<Block>) -> Self {
        Self { blocks: blocks.into_boxed_slice() }
    }

    #[inline]
    pub(super) fn may_hold(&self, probe: &Probe) -> bool {
        self.blocks[part(probe.high, self.blocks.len() as u64)].holds(&probe.mask)
    }

    pub(super) fn bytes(&self) -> usize {
        self.blocks.len() * BLOCK_BYTES
    }
}

/// How many blocks the filter of a run of `ids` gets: 20 bits an id if it is small, or else 14.
pub(super) fn blocks_for(ids: u64) -> u32 {
    let bits_per_id = if ids <= SMALL_RUN_IDS { 20 } else { 14 };
    (ids * bits_per_id).div_ceil(8 * BLOCK_BYTES as u64).max(1) as u32
}

/// Which of `parts` equal parts of the space of ids an id is in. Grows with the id.
pub(super) fn part_of(id: u128, parts: u32) -> u32 {
    part((id >> 64) as u64, u64::from(parts)) as u32
}

fn part(high: u64, parts: u64) -> usize {
    ((u128::from(high) * u128::from(parts)) >> 64) as usize
}
