//! Where the frames of a WebSocket end (RFC 6455, section 5.2), so that a tunnel can be closed between two of them.

/// The first two bytes and the longest extended length; what a server sends is not masked.
const HEAD_MAX_BYTES: usize = 14;

/// "Policy violation" (RFC 6455, section 7.4.1).
const POLICY_VIOLATION: u16 = 1008;

/// Longest reason in a close frame: 125 bytes less the code.
const REASON_MAX_BYTES: usize = 123;

/// Follows the frames in one direction.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    head: [u8; HEAD_MAX_BYTES],
    head_bytes: usize,
    /// What is left of the payload.
    left: u64,
}

impl Frames {
    /// Whether what passed ends between two frames.
    pub(crate) fn at_boundary(&self) -> bool {
        self.head_bytes == 0 && self.left == 0
    }

    /// How many bytes may pass before it has to be looked where the frame ends; 0 between two.
    pub(crate) fn to_boundary(&self) -> usize {
        match (self.left, self.head_bytes) {
            (0, 0) => 0,
            (0, known) => head_length(&self.head[..known]) - known,
            (left, _) => usize::try_from(left).unwrap_or(usize::MAX),
        }
    }

    /// These bytes passed.
    pub(crate) fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let part = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
                self.left -= part as u64;
                bytes = &bytes[part..];
                continue;
            }
            let wanted = head_length(&self.head[..self.head_bytes]);
            let part = (wanted - self.head_bytes).min(bytes.len());
            self.head[self.head_bytes..self.head_bytes + part].copy_from_slice(&bytes[..part]);
            self.head_bytes += part;
            bytes = &bytes[part..];
            if self.head_bytes == head_length(&self.head[..self.head_bytes]) {
                self.left = payload_length(&self.head[..self.head_bytes]);
                self.head_bytes = 0;
            }
        }
    }
}

/// How long a head is of which this is the beginning, as far as that can be told: at least one byte longer, or whole.
fn head_length(known: &[u8]) -> usize {
    let Some(second) = known.get(1) else { return 2 };
    let extended = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let mask = if second & 0x80 != 0 { 4 } else { 0 };
    2 + extended + mask
}

fn payload_length(head: &[u8]) -> u64 {
    let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    match head[1] & 0x7f {
        126 => number(&head[2..4]),
        127 => number(&head[2..10]),
        short => u64::from(short),
    }
}

/// A frame that closes with 1008 and a reason.
pub(crate) fn close(reason: &str) -> Vec<u8> {
    let mut end = reason.len().min(REASON_MAX_BYTES);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let mut frame = vec![0x88, (end + 2) as u8];
    frame.extend_from_slice(&POLICY_VIOLATION.to_be_bytes());
    frame.extend_from_slice(&reason.as_bytes()[..end]);
    frame
}

#[cfg(test)]
#[path = "frames_tests.rs"]
mod tests;
