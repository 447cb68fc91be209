//! MD5 in lower-case hex, for the one place that asks for it: SQS's `MD5OfBody`, which several SDKs
//! check. Not fit for anything that must withstand an attacker.

use std::fmt::Write as _;

use md5::{Digest as _, Md5};

/// The digest in lower-case hex.
pub(super) fn hex(data: &[u8]) -> String {
    Md5::digest(data).iter().fold(String::with_capacity(32), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rfcs_own_example() {
        assert_eq!(hex(b"message digest"), "f96b697d7cb7938d525a2f31aaf161d0");
    }
}
