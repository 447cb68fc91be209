//! MD5 (RFC 1321), for the one place that asks for it: SQS's `MD5OfBody`, which several SDKs check.
//! Not fit for anything that must withstand an attacker.

use std::fmt::Write as _;

/// Left rotations, one row a round (RFC 1321 3.4).
const TURNS: [[u32; 4]; 4] = [[7, 12, 17, 22], [5, 9, 14, 20], [4, 11, 16, 23], [6, 10, 15, 21]];

/// The digest in lower-case hex.
pub(super) fn hex(data: &[u8]) -> String {
    let mut padded = data.to_vec();
    padded.push(0x80);
    padded.resize(padded.len().next_multiple_of(64), 0);
    if padded.len() - data.len() < 9 {
        padded.resize(padded.len() + 64, 0);
    }
    let bits = u64::try_from(data.len()).unwrap_or(u64::MAX).wrapping_mul(8);
    padded.truncate(padded.len() - 8);
    padded.extend_from_slice(&bits.to_le_bytes());

    let mut state = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
    for block in padded.chunks_exact(64) {
        state = absorb(state, block);
    }
    let mut text = String::with_capacity(32);
    for byte in state.iter().flat_map(|word| word.to_le_bytes()) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn absorb(state: [u32; 4], block: &[u8]) -> [u32; 4] {
    let word = |at: usize| block.get(at * 4..at * 4 + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
    let [mut a, mut b, mut c, mut d] = state;
    for step in 0..64_usize {
        let (mix, at) = match step / 16 {
            0 => ((b & c) | (!b & d), step),
            1 => ((d & b) | (!d & c), (5 * step + 1) % 16),
            2 => (b ^ c ^ d, (3 * step + 5) % 16),
            _ => (c ^ (b | !d), (7 * step) % 16),
        };
        let turn = TURNS.get(step / 16).and_then(|row| row.get(step % 4)).copied().unwrap_or_default();
        let sum = a.wrapping_add(mix).wrapping_add(sine(step)).wrapping_add(word(at));
        (a, d, c, b) = (d, c, b, b.wrapping_add(sum.rotate_left(turn)));
    }
    let [s, t, u, v] = state;
    [s.wrapping_add(a), t.wrapping_add(b), u.wrapping_add(c), v.wrapping_add(d)]
}

/// `floor(2^32 * |sin(step + 1)|)` (RFC 1321 3.4).
fn sine(step: usize) -> u32 {
    let angle = f64::from(u32::try_from(step + 1).unwrap_or(u32::MAX));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to below 2^32 by definition")]
    let scaled = (angle.sin().abs() * 4_294_967_296.0).floor() as u32;
    scaled
}

#[cfg(test)]
mod tests {
    use super::hex;

    #[test]
    fn the_test_suite_of_rfc_1321() {
        let rows = [
            ("", "d41d8cd98f00b204e9800998ecf8427e"),
            ("a", "0cc175b9c0f1b6a831c399e269772661"),
            ("abc", "900150983cd24fb0d6963f7d28e17f72"),
            ("message digest", "f96b697d7cb7938d525a2f31aaf161d0"),
            ("abcdefghijklmnopqrstuvwxyz", "c3fcd3d76192e4007dfb496cca67e13b"),
            ("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", "d174ab98d277d9f5a5611c2c9f419d9f"),
            (
                "12345678901234567890123456789012345678901234567890123456789012345678901234567890",
                "57edf4a22be3c955ac49da2e2107b67a",
            ),
        ];
        for (text, digest) in rows {
            assert_eq!(hex(text.as_bytes()), digest, "{text:?}");
        }
    }

    #[test]
    fn padding_at_the_edges_of_a_block() {
        let rows = [
            (55, "04364420e25c512fd958a70738aa8f72"),
            (56, "668a72d5ba17f08e62dabcafad6db14b"),
            (63, "7dc2ca208106a2f703567bdff99d8981"),
            (64, "c1bb4f81d892b2d57947682aeb252456"),
            (119, "ab347a5f68c8a443cfcddc633f12c24f"),
            (120, "fb98667f98096de92620b64f46e1c5b5"),
        ];
        for (length, digest) in rows {
            assert_eq!(hex(&vec![b'x'; length]), digest, "{length}");
        }
    }
}
