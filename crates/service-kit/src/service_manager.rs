//! Tells the service manager (systemd) that a program is ready, as `sd_notify(3)` describes it: a
//! datagram to the socket that `NOTIFY_SOCKET` names.
//! Our own: sd-notify reads the variable itself, which no test can set safely (decision 30).

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Says `READY=1` to the manager behind `socket`, the value of `NOTIFY_SOCKET`; nothing without one.
///
/// # Errors
/// When the socket cannot be reached.
pub fn ready(socket: Option<&OsStr>) -> io::Result<()> {
    let Some(socket) = socket else {
        return Ok(());
    };
    // A leading @ stands for the null byte of an abstract address.
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(b"READY=1", &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(manager: &UnixDatagram) -> Vec<u8> {
        let mut bytes = [0; 64];
        let length = manager.recv(&mut bytes).unwrap();
        bytes[..length].to_vec()
    }

    #[test]
    fn the_manager_is_told_at_its_path_or_its_abstract_address() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        ready(Some(path.as_os_str())).unwrap();
        assert_eq!(received(&manager), b"READY=1");

        let name = path.as_os_str().as_bytes();
        let manager =
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap();
        ready(Some(OsStr::from_bytes(&[b"@", name].concat()))).unwrap();
        assert_eq!(received(&manager), b"READY=1");
    }

    #[test]
    fn without_a_manager_nothing_happens() {
        ready(None).unwrap();
    }
}
