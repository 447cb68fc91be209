//! File systems of their own for a test: small, and gone afterwards. They take root and what mounts;
//! where that is not to be had, [`Mount`]s are not made, and the test says that it was skipped.

#![allow(dead_code, missing_docs)]
// A test says what it expects by panicking; clippy's leave for tests does not reach their support.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted file system; unmounted when it is dropped, in whatever state the test is.
pub struct Mount(PathBuf);

impl Mount {
    /// A file system in memory of `bytes`. An error says why it cannot be.
    pub fn memory(at: &Path, bytes: u64) -> Result<Self, String> {
        Self::of(at, &["-t", "tmpfs", "-o", &format!("size={bytes},mode=0700"), "none"])
    }

    /// The ext4 file system in a file, through a loop device that goes with the mount. What is in
    /// it moves to the file when it must, and else not for minutes.
    pub fn image(at: &Path, image: &Path) -> Result<Self, String> {
        Self::of(at, &["-t", "ext4", "-o", "loop,commit=300", &image.display().to_string()])
    }

    fn of(at: &Path, what: &[&str]) -> Result<Self, String> {
        std::fs::create_dir_all(at).map_err(|error| error.to_string())?;
        run(Command::new("mount").args(what).arg(at))?;
        Ok(Self(at.to_owned()))
    }

    /// Unmounts it; what is in memory goes to the device.
    pub fn unmount(mut self) {
        let at = std::mem::take(&mut self.0);
        run(Command::new("umount").arg(at)).unwrap();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty() && run(Command::new("umount").arg(&self.0)).is_err() {
            // Somebody is in it still; it goes when they do.
            let _ = run(Command::new("umount").arg("-l").arg(&self.0));
        }
    }
}

/// A file of `bytes` with an empty ext4 in it.
pub fn make_image(file: &Path, bytes: u64) -> Result<(), String> {
    File::create(file).and_then(|made| made.set_len(bytes)).map_err(|error| error.to_string())?;
    run(Command::new("mkfs.ext4").args(["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"]).arg(file))
}

/// What a test says that cannot be made here, and passes.
pub fn skipped(why: &str) {
    println!("skipped: a file system of its own is needed, and cannot be had here: {why}");
}

fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().display().to_string();
    let output = command.output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()) }
}
