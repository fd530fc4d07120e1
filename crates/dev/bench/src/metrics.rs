//! Counters that a server under test shows to Prometheus.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long an operations listener may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The value of a metric without labels; `None` when the server does not have it.
pub(crate) fn read(operations: SocketAddr, name: &str) -> io::Result<Option<f64>> {
    let mut socket = TcpStream::connect(operations)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    // HTTP/1.0: the end of the connection ends the body.
    write!(
        socket,
        "GET /metrics HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )?;
    let mut text = String::new();
    socket.read_to_string(&mut text)?;
    Ok(value(&text, name))
}

fn value(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| {
        let (metric, value) = line.split_once(' ')?;
        (metric == name).then(|| value.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_found_by_its_whole_name() {
        let text = "# TYPE reads counter\nreads_total_saved 3\nreads_total 12\n";
        assert_eq!(value(text, "reads_total"), Some(12.0));
        assert_eq!(value(text, "reads"), None);
    }
}
