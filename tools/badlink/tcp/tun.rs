//! A tunnel out of a network namespace of its own: the kernel's packets as reads and writes.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt as _;

use tokio::io::unix::AsyncFd;

/// Makes tunnels.
const DEVICE: &str = "/dev/net/tun";

/// The name of the tunnel in its namespace, where it is alone.
const NAME: &[u8] = b"path";

/// Both ends of the path and nothing else.
const NETMASK: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 252);

/// The tunnel; it is gone when dropped.
#[derive(Debug)]
pub(super) struct Tun(File);

impl Tun {
    /// Moves the calling thread, which should be made for this, into a new namespace, and makes
    /// its only way out.
    pub(super) fn in_new_namespace(address: Ipv4Addr) -> io::Result<Self> {
        // SAFETY: unshare takes flags and no memory. It changes this thread alone, since the flags
        // hold nothing but CLONE_NEWNET (unshare(2)).
        check(unsafe { libc::unshare(libc::CLONE_NEWNET) }).map_err(|error| hint(&error))?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(DEVICE)
            .map_err(|error| hint(&error))?;
        let mut request = named();
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
        control(file.as_raw_fd(), libc::TUNSETIFF, &mut request)?;
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?; // any one serves
        for (what, value) in [(libc::SIOCSIFADDR, address), (libc::SIOCSIFNETMASK, NETMASK)] {
            let mut request = named();
            request.ifr_ifru.ifru_addr = of_ip(value);
            control(socket.as_raw_fd(), what, &mut request)?;
        }
        let mut request = named();
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        control(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &mut request)?;
        Ok(Self(file))
    }

    /// The tunnel as something that this thread's runtime waits for.
    pub(super) fn register(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: the descriptor is that of the file within, which is open, and which nobody can
        // replace or close while the `AsyncFd` owns it: it is private, and no method touches it
        // but to read and write.
        Ok(unsafe { AsyncFd::register(self) }?)
    }

    /// The next packet that the namespace sends.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.0).read(buffer)
    }

    /// Gives the namespace a packet.
    pub(super) fn send(&self, packet: &[u8]) -> io::Result<()> {
        (&self.0).write(packet).map(|_| ())
    }
}

impl AsRawFd for Tun {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

fn named() -> libc::ifreq {
    let mut name = [0; libc::IFNAMSIZ];
    for (to, from) in name.iter_mut().zip(NAME) {
        *to = *from as libc::c_char; // fits: ASCII
    }
    libc::ifreq { ifr_name: name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: 0 } }
}

fn of_ip(address: Ipv4Addr) -> libc::sockaddr {
    let mut data = [0; 14];
    // Two bytes of port, then the address (ip(7)).
    for (to, from) in data[2..].iter_mut().zip(address.octets()) {
        *to = from as libc::c_char;
    }
    libc::sockaddr { sa_family: libc::AF_INET as libc::sa_family_t, sa_data: data }
}

fn control(fd: RawFd, what: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: each of the requests that are made here reads and writes one `ifreq` (netdevice(7);
    // linux/if_tun.h), which lives, whole and exclusively borrowed, for the time of the call.
    check(unsafe { libc::ioctl(fd, what, std::ptr::from_mut(request)) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn hint(error: &io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!(
            "TCP takes the right to make network namespaces and {DEVICE}: {error}; run as root, \
             or with `unshare --user --map-root-user badlink ...`"
        ),
    )
}
