use super::loads::{Flow, Memory};
use super::parts::Part;
use crate::report::markdown::aligned;

pub(super) fn flows(title: &str, flows: &[Flow]) -> String {
    let head = [
        "load",
        "posts/s",
        "events/s",
        "post p50 / p99 ms",
        "delivery p50 / p99 ms",
        "chat-service µs/post",
        "PostgreSQL µs/post",
        "broker µs/post",
        "broadcast-sse µs/event",
        "nginx µs",
        "posts/commit",
        "WAL B/post",
        "disk B/post",
        "loopback B/post",
        "stream B/event",
    ];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    for flow in flows {
        let optional = |value: Option<String>| value.unwrap_or_else(|| "–".to_owned());
        let times = |[median, high]: [f64; 2]| format!("{median:.1} / {high:.1}");
        let [chat, store, broker] = flow.each_post;
        lines.push(vec![
            flow.name.clone(),
            format!("{:.0}", flow.posts),
            format!("{:.0}", flow.events),
            times(flow.answered),
            optional(flow.delivered.map(times)),
            format!("{chat:.0}"),
            format!("{store:.0}"),
            format!("{broker:.0}"),
            optional(flow.each_event.map(|time| format!("{time:.1}"))),
            format!("{:.1}", flow.front),
            format!("{:.1}", flow.batch),
            format!("{:.0}", flow.wal_bytes),
            format!("{:.0}", flow.kept_bytes),
            format!("{:.0}", flow.wire_bytes),
            optional(flow.event_bytes.map(|bytes| format!("{bytes:.0}"))),
        ]);
    }
    let mut text = format!("### {title}\n\n");
    aligned(&lines, &mut text);
    for flow in flows {
        if !flow.faults.is_none() || flow.refused > 0 {
            text += &format!(
                "\n**{}**: {:?}, {} refused",
                flow.name, flow.faults, flow.refused
            );
        }
        if flow.generator > 0.9 {
            text += &format!("\n{}: the load generator was busy all the time", flow.name);
        }
    }
    text
}

/// What the tables leave out.
pub(super) fn idle(parts: &[(Part, f64)]) -> String {
    let part = |(part, share): &(Part, f64)| format!("{} {:.1} %", part.name(), share * 100.0);
    let parts: Vec<_> = parts.iter().map(part).collect();
    format!(
        "Without any load, in per cent of a processor, all nodes together: {}. That is left out below.\n",
        parts.join(", ")
    )
}

pub(super) fn memory(all: &[Memory]) -> String {
    let head = [
        "idle streams",
        "streams",
        "channels",
        "broadcast-sse B/stream",
        "kernel B/stream",
        "broker B/channel",
    ];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    for memory in all {
        lines.push(vec![
            memory.name.clone(),
            memory.streams.to_string(),
            memory.channels.to_string(),
            format!("{:.0}", memory.sse),
            format!("{:.0}", memory.kernel),
            // What one subscription takes is lost in what the broker does of itself.
            match memory.channels {
                1 => "–".to_owned(),
                _ => format!("{:.0}", memory.broker),
            },
        ]);
    }
    let mut text = "### Memory\n\n".to_owned();
    aligned(&lines, &mut text);
    text
}
