//! `windlass demo`: the main job on a real disk, shown as a person would do it.
//!
//! It needs no root, no server and no configuration: it builds an ext4 disk from this machine's own files in a temporary
//! directory, and then runs this very program, printing each command before it runs. Every result is compared byte for
//! byte with a kept copy; a comparison that fails ends the demo with an error. Nothing outside the directory is changed.

mod compare;
mod damage;
mod disk;
mod stage;
mod story;
mod table;

use wire::{Code, ErrorBody};

/// Sizes that make sense: a smaller disk is over before it can be interrupted, a larger one takes a coffee.
const SIZE_GIB: std::ops::RangeInclusive<u64> = 1..=64;

/// What `windlass demo` can be told.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Keep the demo's directory (its disk, its repository, its state) and say where it is
    #[arg(long)]
    pub keep: bool,
    /// Size of the demo's disk, in GiB; a sixth of it is filled with data
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub size_gib: u64,
}

/// Exit code after Ctrl-C, as shells count it: 128 + SIGINT.
const EXIT_INTERRUPTED: i32 = 130;

/// Runs the demo to its end. Blocking: it starts processes and waits for them.
///
/// # Errors
/// `invalid` for a senseless size, `unavailable` when space or e2fsprogs is missing, `corrupt` when a disk did not come
/// back as it was, `internal` when a command of the demo failed.
pub fn run(args: &Args) -> Result<(), ErrorBody> {
    if !SIZE_GIB.contains(&args.size_gib) {
        return Err(ErrorBody::new(
            Code::Invalid,
            format!(
                "--size-gib {}: between {} and {} make sense; nothing was done",
                args.size_gib,
                SIZE_GIB.start(),
                SIZE_GIB.end()
            ),
        ));
    }
    let stage = stage::Stage::open(args)?;
    let told = story::tell(&stage, args);
    let interrupted = stage.interrupted();
    stage.close(args.keep)?;
    if interrupted {
        // the directory is gone by now; the code is what a shell expects of an interrupted program
        std::process::exit(EXIT_INTERRUPTED);
    }
    told
}
