//! (to be written)

use super::kind::Notice;

/// Why a queue item cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

/// Reads one queue item's body.
pub fn parse(_body: &[u8]) -> Result<Notice, Malformed> {
    todo!()
}
