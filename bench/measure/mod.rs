//! What the kernel's books and our own clocks say: the time of messages ([`latency`]), how it is
//! kept ([`curves`]), the cost of a process ([`process`]), and the machine under it all
//! ([`machine`]).

pub mod curves;
pub mod latency;
pub mod machine;
pub mod process;
