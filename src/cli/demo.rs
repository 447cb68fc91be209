//! `demo`.
use super::{Context, Failure};
use clap::Args;
/// `demo`.
#[derive(Args, Debug)]
pub(super) struct Demo {
    /// Leave it running
    #[arg(long)]
    keep: bool,
    /// How many
    #[arg(long, default_value_t = 40)]
    messages: usize,
}
impl Demo {
    pub(super) fn run(self, _context: &Context) -> Result<(), Failure> {
        Ok(())
    }
}
