use super::*;
use proptest::prelude::*;

fn frame(payload: usize, masked: bool) -> Vec<u8> {
    let mask = if masked { 0x80 } else { 0 };
    let mut bytes = vec![0x82];
    match payload {
        0..126 => bytes.push(mask | payload as u8),
        126..65_536 => {
            bytes.push(mask | 126);
            bytes.extend_from_slice(&(payload as u16).to_be_bytes());
        }
        _ => {
            bytes.push(mask | 127);
            bytes.extend_from_slice(&(payload as u64).to_be_bytes());
        }
    }
    bytes.extend(std::iter::repeat_n(0x81, payload + if masked { 4 } else { 0 }));
    bytes
}

proptest! {
    /// However the bytes are cut, a boundary is where a frame ends and nowhere else; and reading no more than is said
    /// never passes one.
    #[test]
    fn boundaries_are_where_frames_end(
        sizes in prop::collection::vec((prop_oneof![0_usize..5, 120..130_usize, 65_530..65_540_usize], any::<bool>()), 1..6),
        cuts in prop::collection::vec(1_usize..70_000, 1..20),
    ) {
        let frames: Vec<Vec<u8>> = sizes.iter().map(|(payload, masked)| frame(*payload, *masked)).collect();
        let mut ends = vec![0];
        frames.iter().for_each(|frame| ends.push(ends[ends.len() - 1] + frame.len()));
        let all = frames.concat();
        let (mut follow, mut at, mut turn) = (Frames::default(), 0, 0);
        while at < all.len() {
            let end = (at + cuts[turn % cuts.len()]).min(all.len());
            follow.pass(&all[at..end]);
            (at, turn) = (end, turn + 1);
            prop_assert_eq!(follow.at_boundary(), ends.contains(&at), "at {}", at);
            let mut reached = at;
            let mut ahead = Frames { head: follow.head, head_bytes: follow.head_bytes, left: follow.left };
            while ahead.to_boundary() > 0 {
                let next = (reached + ahead.to_boundary()).min(all.len());
                ahead.pass(&all[reached..next]);
                reached = next;
            }
            prop_assert_eq!(Some(&reached), ends.iter().find(|end| **end >= at));
        }
    }
}

#[test]
fn a_close_frame_says_why_within_its_bounds() {
    assert_eq!(close("no"), [0x88, 4, 0x03, 0xf0, b'n', b'o']);
    let long = close(&"ä".repeat(100));
    assert_eq!((long.len(), long[1]), (2 + 2 + 122, 124));
    assert!(std::str::from_utf8(&long[4..]).is_ok());
}
