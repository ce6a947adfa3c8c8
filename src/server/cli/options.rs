//! `tern options`: what can be set.

use super::{Exit, print};
use crate::options::{listing, markdown};

/// The command line of `tern options`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// As the page OPTIONS.md
    #[arg(long)]
    markdown: bool,
}

pub(super) fn run(args: &Args) -> Exit {
    print(&if args.markdown { markdown() } else { listing() })
}
