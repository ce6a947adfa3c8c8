//! The binary `tern`: the server and the commands around it, see [`tern_server::cli`].

use std::process::ExitCode;

/// Counts the allocations of each thread; see [`tern_server::alloc`].
#[global_allocator]
static ALLOCATOR: tern_server::alloc::Counting = tern_server::alloc::Counting;

fn main() -> ExitCode {
    tern_server::cli::main().into()
}
