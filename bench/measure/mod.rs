//! What the kernel's books and our own clocks say: the time of messages ([`latency`]), the cost
//! of a process ([`process`]), and the machine under it all ([`machine`]).

pub mod latency;
pub mod machine;
pub mod process;
