use crate::peers::{Place, Running};

/// The command lines and the configuration files of a peer's servers, each with a title, as they
/// are on any machine: folders and ports are another at every start.
pub(crate) fn of(running: &Running, place: &Place<'_>) -> Vec<(String, String)> {
    let folder = place.folder.display().to_string();
    let ports = [running.target.listen.port(), running.target.publish.port()];
    let servers = running.servers.iter();
    let lines: Vec<&str> = servers.map(|server| server.command_line.as_str()).collect();
    let files = place.written.borrow();
    std::iter::once(("started with".to_owned(), lines.join("\n")))
        .chain(files.iter().cloned())
        .map(|(title, text)| {
            let text = text.replace(&folder, "/tmp/FOLDER");
            let text = ports.iter().fold(without_ports(&text), |text, port| {
                text.replace(&port.to_string(), "PORT")
            });
            if place.history {
                (format!("{title}, where streams resume"), text)
            } else {
                (title, text)
            }
        })
        .collect()
}

/// Adds what is not known yet.
pub(crate) fn add(all: &mut Vec<(String, String)>, more: Vec<(String, String)>) {
    for (title, text) in more {
        if !all
            .iter()
            .any(|(known, other)| *known == title || *other == text)
        {
            all.push((title, text));
        }
    }
}

fn without_ports(text: &str) -> String {
    const HOST: &str = "127.0.0.1:";
    let mut parts = text.split(HOST);
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
        plain.push_str(HOST);
        plain.push_str(match &part[..part.len() - rest.len()] {
            // Any port.
            "0" => "0",
            "" => "",
            _ => "PORT",
        });
        plain.push_str(rest);
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_one_start_are_not_told() {
        let text = "A=127.0.0.1:0 B=mqtt://127.0.0.1:41607/x 127.0.0.1:9";
        let plain = "A=127.0.0.1:0 B=mqtt://127.0.0.1:PORT/x 127.0.0.1:PORT";
        assert_eq!(without_ports(text), plain);
        assert_eq!(without_ports("none"), "none");
    }

    #[test]
    fn only_what_differs_is_added() {
        let entry = |title: &str, text: &str| (title.to_owned(), text.to_owned());
        let mut all = vec![entry("started with", "a")];
        let more = [
            entry("started with", "b"),
            entry("again", "a"),
            entry("file", "c"),
        ];
        add(&mut all, more.to_vec());
        assert_eq!(all, [entry("started with", "a"), entry("file", "c")]);
    }
}
