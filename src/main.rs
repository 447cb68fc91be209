//! The program: the command line, run.

/// Measured: the AWS SDK allocates much, and this takes about a tenth off a message's CPU.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    bulkhead::cli::main()
}
