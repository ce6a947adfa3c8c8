//! The two socket options without a safe wrapper: the steering program of a `SO_REUSEPORT` group,
//! and the datagrams that the kernel dropped for want of room.
//!
//! The program is a classic BPF one, which any user may attach: it sees the UDP payload and returns the
//! index of a socket in the group, counted in the order in which they were bound. An index that
//! no socket has makes the kernel fall back to its hash of addresses.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::steering::{LONG_HEADER, LONG_ID_OFFSET, SHORT_ID_OFFSET, STEERED_BYTES_MIN};

/// Instructions of the program.
const INSTRUCTIONS: usize = 10;

/// The steering rule of [`super::steering::worker_of`] as a program. Jumps are counted from the
/// instruction behind them.
fn program(workers: u16) -> [libc::sock_filter; INSTRUCTIONS] {
    const LOAD_LENGTH: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_LEN;
    const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
    const JUMP_IF_AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
    const JUMP_IF_SET: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
    const JUMP: u32 = libc::BPF_JMP | libc::BPF_JA;
    const MODULO: u32 = libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_A;
    const RETURN_CONSTANT: u32 = libc::BPF_RET | libc::BPF_K;
    [
        instruction(LOAD_LENGTH, 0, 0, 0), // 0: A = payload bytes
        instruction(JUMP_IF_AT_LEAST, STEERED_BYTES_MIN as u32, 0, 7), // 1: too short: to 9
        instruction(LOAD_BYTE, 0, 0, 0),   // 2: A = first byte
        instruction(JUMP_IF_SET, u32::from(LONG_HEADER), 0, 2), // 3: short header: to 6
        instruction(LOAD_BYTE, LONG_ID_OFFSET as u32, 0, 0), // 4: long: A = first byte of the id
        instruction(JUMP, 1, 0, 0),        // 5: to 7
        instruction(LOAD_BYTE, SHORT_ID_OFFSET as u32, 0, 0), // 6: short: A = first byte of the id
        instruction(MODULO, u32::from(workers), 0, 0), // 7: A %= workers
        instruction(RETURN, 0, 0, 0),      // 8: that socket
        instruction(RETURN_CONSTANT, 0, 0, 0), // 9: the first socket
    ]
}

fn instruction(code: u32, k: u32, if_true: u8, if_false: u8) -> libc::sock_filter {
    // fits: the codes of classic BPF are below 256
    libc::sock_filter { code: code as u16, jt: if_true, jf: if_false, k }
}

/// Attaches the program to the group of `socket`, which must be bound.
pub(super) fn attach(socket: &socket2::Socket, workers: u16) -> io::Result<()> {
    let mut filter = program(workers);
    let program = libc::sock_fprog {
        len: INSTRUCTIONS as libc::c_ushort, // fits: ten
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: setsockopt(2) reads `optlen` bytes at `optval`: they are `program`, a live
    // `sock_fprog` of exactly that size. The kernel reads `len` instructions at `program.filter`,
    // which are the live array `filter`, and keeps a copy of its own; nothing is written through
    // either pointer. The descriptor is open while `socket` is borrowed.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t, // fits: 16 bytes
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Datagrams that came for this socket and found its receive buffer full, since it was opened;
/// the count starts over after 2^32.
pub(super) fn dropped(socket: BorrowedFd<'_>) -> io::Result<u32> {
    /// Numbers that the kernel tells of a socket's memory (`SK_MEMINFO_VARS`).
    const NUMBERS: usize = 9;
    let mut numbers = [0_u32; NUMBERS];
    let mut bytes = size_of_val(&numbers) as libc::socklen_t; // fits: 36
    // SAFETY: getsockopt(2) writes at most `*optlen` bytes at `optval`, and the true length to
    // `optlen`. `optval` is the live, exclusively borrowed array `numbers` of exactly `bytes`
    // bytes, any bit pattern of which is a valid `u32`; `optlen` is the live `bytes`. The
    // descriptor is open while it is borrowed.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            numbers.as_mut_ptr().cast(),
            &raw mut bytes,
        )
    };
    if result == 0 {
        Ok(numbers[libc::SK_MEMINFO_DROPS as usize]) // fits: 8
    } else {
        Err(io::Error::last_os_error())
    }
}
