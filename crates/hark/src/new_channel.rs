//! `hark new`: makes a channel name and prints commands to try it.

use std::io::Write as _;

use chat_model::ChannelId;
use service_command::Failure;

use crate::cli::New;
use crate::client::{base, print_line};

/// Prints a new channel's name on standard output, for scripts, and what to do with it on standard
/// error. It contacts no server: a channel exists as soon as somebody uses it.
pub(crate) fn new(options: &New) -> Result<(), Failure> {
    let [chat, sse, demo] = [&options.chat, &options.sse, &options.demo].map(|url| base(url));
    let (chat, sse, demo) = (chat?, sse?, demo?);
    let channel = ChannelId::from(uuid::Uuid::new_v4());
    print_line(&channel.to_string())?;
    // For people only, so a closed standard error is not a failure.
    drop(writeln!(
        std::io::stderr(),
        "\nopen    {}\npost    curl -d hello {}\nlisten  curl -N '{}'\n\nWhoever knows the name can read and post.",
        demo.join(&format!("?c={channel}")),
        chat.join(&format!("channels/{channel}/messages")),
        sse.join(&format!("events?c={channel}")),
    ));
    Ok(())
}
