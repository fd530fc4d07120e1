//! Tells the service manager (systemd) that a program is ready, as `sd_notify(3)` describes: with a
//! datagram to the socket that `NOTIFY_SOCKET` names. Not the crate sd-notify, which reads the
//! variable itself; no test can set that safely (decision 30).

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Sends `READY=1` to `socket`, the value of `NOTIFY_SOCKET`. Does nothing if there is none.
///
/// # Errors
/// When the socket cannot be reached.
pub fn ready(socket: Option<&OsStr>) -> io::Result<()> {
    let Some(socket) = socket else {
        return Ok(());
    };
    // A leading @ stands for the null byte that begins an abstract address.
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
