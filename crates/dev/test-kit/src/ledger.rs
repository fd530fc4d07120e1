use std::collections::{BTreeMap, HashSet};

use crate::Event;

/// A message as one listener got it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// Epoch of the log it stands in.
    pub epoch: String,
    /// Its number there.
    pub seq: u64,
    /// Its id.
    pub id: String,
    /// The whole line of JSON, byte by byte.
    pub line: String,
}

/// What a `gap` event said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The first number that is missing; `None` when the cursor was unreadable.
    pub from: Option<u64>,
    /// The last number that is missing.
    pub to: Option<u64>,
    /// `retention`, `epoch`, `damaged` or `cursor`.
    pub reason: String,
}

/// What one listener must see of a channel: each message once, in order, with
/// no hole that a `gap` event did not announce.
#[derive(Debug, Default)]
pub struct Ledger {
    channels: BTreeMap<String, Channel>,
}

#[derive(Debug, Default)]
struct Channel {
    next: Option<u64>,
    epoch: String,
    ids: HashSet<String>,
    delivered: Vec<Delivered>,
    gaps: Vec<Gap>,
}

impl Ledger {
    /// Enters everything that a listener got, in the order in which it got it.
    ///
    /// # Errors
    /// The first event that breaks the promise, and why.
    pub fn of<'e>(events: impl IntoIterator<Item = &'e Event>) -> Result<Self, String> {
        Self::default().with(events)
    }

    /// Demands that this channel begins with the message after `seq`.
    #[must_use]
    pub fn starting_after(mut self, channel: &str, seq: u64) -> Self {
        self.channels.entry(channel.to_owned()).or_default().next = Some(seq + 1);
        self
    }

    /// Enters everything else that a listener got, in the order in which it got it.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub fn with<'e>(mut self, events: impl IntoIterator<Item = &'e Event>) -> Result<Self, String> {
        for event in events {
            self.enter(event)
                .map_err(|why| format!("{why}, at {event:?}"))?;
        }
        Ok(self)
    }

    /// Enters the next event that a listener got; `ready` and `ping` say nothing here.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn enter(&mut self, event: &Event) -> Result<(), String> {
        match event.event.as_str() {
            "ready" | "ping" => Ok(()),
            "gap" => self.enter_gap(event),
            _ => self.enter_message(event),
        }
    }

    /// The messages of a channel so far.
    #[must_use]
    pub fn delivered(&self, channel: &str) -> &[Delivered] {
        self.channels
            .get(channel)
            .map_or(&[], |channel| &channel.delivered)
    }

    /// The gaps of a channel so far.
    #[must_use]
    pub fn gaps(&self, channel: &str) -> &[Gap] {
        self.channels
            .get(channel)
            .map_or(&[], |channel| &channel.gaps)
    }

    fn enter_message(&mut self, event: &Event) -> Result<(), String> {
        let json = serde_json::from_str::<serde_json::Value>(&event.data)
            .map_err(|error| error.to_string())?;
        let text = |field: &str| {
            json[field]
                .as_str()
                .map(str::to_owned)
                .ok_or(format!("no {field}"))
        };
        let (channel, epoch, id) = (text("channel")?, text("epoch")?, text("id")?);
        let seq = json["seq"].as_u64().ok_or("no seq")?;
        if event.id.is_none() {
            return Err("no cursor".to_owned());
        }
        let channel = self.channels.entry(channel).or_default();
        if channel.next.is_some_and(|next| next != seq) {
            return Err(format!("seq {seq} where {:?} was due", channel.next));
        }
        if epoch < channel.epoch {
            return Err(format!("epoch {epoch} after {}", channel.epoch));
        }
        if !channel.ids.insert(id.clone()) {
            return Err(format!("id {id} for the second time"));
        }
        channel.next = Some(seq + 1);
        channel.epoch.clone_from(&epoch);
        channel.delivered.push(Delivered {
            epoch,
            seq,
            id,
            line: event.data.clone(),
        });
        Ok(())
    }

    fn enter_gap(&mut self, event: &Event) -> Result<(), String> {
        let json = serde_json::from_str::<serde_json::Value>(&event.data)
            .map_err(|error| error.to_string())?;
        let name = json["channel"].as_str().ok_or("no channel")?;
        let reason = json["reason"].as_str().ok_or("no reason")?.to_owned();
        let gap = Gap {
            from: json["from"].as_u64(),
            to: json["to"].as_u64(),
            reason,
        };
        if event.id.is_none() {
            return Err("a gap without a cursor".to_owned());
        }
        let channel = self.channels.entry(name.to_owned()).or_default();
        channel.next = match (gap.reason.as_str(), gap.from, gap.to) {
            // Expired or damaged: the log goes on behind the gap.
            ("retention" | "damaged", Some(from), Some(to)) if from <= to => {
                if channel.next.is_some_and(|next| next != from) {
                    return Err(format!(
                        "a gap from {from} where {:?} was due",
                        channel.next
                    ));
                }
                Some(to + 1)
            }
            // Cut off: the same numbers are used again, in the new epoch. What the
            // listener has already seen of them is inside the gap.
            ("epoch", Some(from), Some(to)) if from <= to => {
                if channel.next.is_some_and(|next| next != to + 1) {
                    return Err(format!("a gap up to {to} where {:?} was due", channel.next));
                }
                Some(from)
            }
            ("cursor", None, _) => None,
            _ => return Err("a gap that makes no sense".to_owned()),
        };
        channel.gaps.push(gap);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(epoch: &str, seq: u64, id: &str) -> Event {
        let data = format!(r#"{{"channel":"c","epoch":"{epoch}","seq":{seq},"id":"{id}"}}"#);
        Event {
            id: Some("cursor".to_owned()),
            event: "message".to_owned(),
            data,
        }
    }

    fn gap(from: u64, to: u64, reason: &str) -> Event {
        let data = format!(r#"{{"channel":"c","from":{from},"to":{to},"reason":"{reason}"}}"#);
        Event {
            id: Some("cursor".to_owned()),
            event: "gap".to_owned(),
            data,
        }
    }

    #[test]
    fn a_dense_log_with_announced_gaps_is_accepted() {
        let events = [
            message("a", 1, "1"),
            gap(2, 5, "retention"),
            message("a", 6, "6"),
            gap(4, 6, "epoch"),
            message("b", 4, "4"),
        ];
        let ledger = Ledger::of(&events).unwrap();
        assert_eq!(
            ledger
                .delivered("c")
                .iter()
                .map(|message| message.seq)
                .collect::<Vec<_>>(),
            [1, 6, 4]
        );
        assert_eq!(ledger.gaps("c").len(), 2);
    }

    #[test]
    fn holes_repeats_and_steps_back_are_found() {
        for (second, why) in [
            (message("a", 3, "3"), "seq 3"),
            (message("a", 1, "1"), "seq 1"),
            (message("a", 2, "1"), "second time"),
            (message("0", 2, "2"), "epoch 0"),
            (gap(3, 4, "retention"), "gap from 3"),
        ] {
            let error = Ledger::of(&[message("a", 1, "1"), second]).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_start_can_be_demanded() {
        let mut ledger = Ledger::default().starting_after("c", 3);
        assert!(ledger.enter(&message("a", 5, "5")).is_err());
    }
}
