use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use http_server::client_address::Client as Share;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

/// Connections that have not said CONNECT yet; they need only their socket. Beyond it the oldest of
/// the address that has most of them is closed.
const HALF_OPEN: usize = 256;

/// Who is connected, how many of them may be, and who has to go for whom.
///
/// A client that has neither published nor subscribed yet is *idle*: it costs others nothing when
/// it is closed. Those that the process itself has let in (`own`) count for nobody's share and are
/// never closed for others.
pub(crate) struct Clients {
    max: usize,
    max_per_address: usize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    last: u64,
    // Ordered by number, which is by age.
    half_open: BTreeMap<u64, HalfOpen>,
    standing: BTreeMap<u64, Standing>,
    by_id: HashMap<String, u64>,
}

struct HalfOpen {
    share: Share,
    end: oneshot::Sender<Ended>,
}

struct Standing {
    share: Share,
    own: bool,
    idle: bool,
    id: String,
    end: oneshot::Sender<Ended>,
}

/// Why a session has to end although its client does nothing wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Its client id has connected again (MQTT 3.1.1 §3.1.4, MQTT-3.1.4-2).
    TakenOver,
    /// Others need the place, and it had done nothing yet.
    GaveWay,
}

/// One connection's entry, until it is dropped.
pub(crate) struct Client {
    number: u64,
    share: Share,
    clients: Arc<Clients>,
    idle: bool,
}

impl Clients {
    pub(crate) fn new(max: usize, max_per_address: usize) -> Self {
        Self {
            max,
            max_per_address,
            inner: Mutex::default(),
        }
    }

    /// Connections that stand now, with those that have not said CONNECT.
    pub(crate) fn count(&self) -> usize {
        let inner = self.lock();
        inner.half_open.len() + inner.standing.len()
    }

    /// A new connection, which has not said who it is.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr) -> (Client, oneshot::Receiver<Ended>) {
        let (end, ended) = oneshot::channel();
        let share = Share::new(address);
        let mut inner = self.lock();
        if inner.half_open.len() >= HALF_OPEN {
            inner.close_a_half_open();
        }
        inner.last += 1;
        let number = inner.last;
        inner.half_open.insert(number, HalfOpen { share, end });
        let client = Client {
            number,
            share,
            clients: Arc::clone(self),
            idle: true,
        };
        (client, ended)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }
}

impl Client {
    /// Whose it is.
    pub(crate) fn share(&self) -> Share {
        self.share
    }

    /// It has said CONNECT. Whoever had this `id` before is ended; `own` needs no place.
    ///
    /// # Errors
    /// A phrase for the log, when all places are taken by clients that are not idle, or the id by
    /// one of the process itself.
    pub(crate) fn connect(&mut self, id: &str, own: bool) -> Result<(), &'static str> {
        let mut inner = self.clients.lock();
        let Some(HalfOpen { share, end }) = inner.half_open.remove(&self.number) else {
            return Err("a connection that had to give way");
        };
        let previous = inner.by_id.get(id).copied();
        if let Some(previous) = previous {
            if !own && inner.standing.get(&previous).is_some_and(|one| one.own) {
                return Err("a client id of the services of this process");
            }
            if previous > self.number {
                return Err("a client id that has connected again meanwhile");
            }
            if let Some(previous) = inner.remove(previous) {
                // It may have ended by itself meanwhile.
                let _ = previous.end.send(Ended::TakenOver);
            }
        }
        if !own {
            inner.make_room(
                self.clients.max,
                |_everyone| true,
                || "more connections than max_connections",
            )?;
            inner.make_room(
                self.clients.max_per_address,
                |standing| standing.share == share,
                || "more connections of one address than max_connections_per_address",
            )?;
        }
        if !id.is_empty() {
            inner.by_id.insert(id.to_owned(), self.number);
        }
        let standing = Standing {
            share,
            own,
            idle: true,
            id: id.to_owned(),
            end,
        };
        inner.standing.insert(self.number, standing);
        Ok(())
    }

    /// It published or subscribed: from now on it is not closed for others.
    pub(crate) fn works(&mut self) {
        if self.idle {
            self.idle = false;
            if let Some(standing) = self.clients.lock().standing.get_mut(&self.number) {
                standing.idle = false;
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let mut inner = self.clients.lock();
        inner.half_open.remove(&self.number);
        inner.remove(self.number);
    }
}

impl Inner {
    fn remove(&mut self, number: u64) -> Option<Standing> {
        let standing = self.standing.remove(&number)?;
        if self.by_id.get(&standing.id) == Some(&number) {
            self.by_id.remove(&standing.id);
        }
        Some(standing)
    }

    /// Closes the oldest idle one of those that count, when there are as many as may be.
    fn make_room(
        &mut self,
        max: usize,
        counts: impl Fn(&Standing) -> bool,
        refusal: impl Fn() -> &'static str,
    ) -> Result<(), &'static str> {
        let counted = || {
            let strangers = self.standing.iter().filter(|(_, one)| !one.own);
            strangers.filter(|(_, one)| counts(one))
        };
        if counted().count() < max {
            return Ok(());
        }
        let oldest = counted().find(|(_, one)| one.idle);
        let number = oldest.map(|(number, _)| *number).ok_or_else(refusal)?;
        if let Some(idle) = self.remove(number) {
            // It may have ended by itself meanwhile.
            let _ = idle.end.send(Ended::GaveWay);
        }
        Ok(())
    }

    fn close_a_half_open(&mut self) {
        let mut counts = HashMap::<Share, usize>::new();
        for half_open in self.half_open.values() {
            *counts.entry(half_open.share).or_default() += 1;
        }
        let most = counts.into_iter().max_by_key(|(_, count)| *count);
        let oldest = most.and_then(|(share, _)| {
            let mut all = self.half_open.iter();
            all.find(|(_, one)| one.share == share)
        });
        let oldest = oldest.map(|(number, _)| *number);
        if let Some(oldest) = oldest.and_then(|number| self.half_open.remove(&number)) {
            // It may have ended by itself meanwhile.
            let _ = oldest.end.send(Ended::GaveWay);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: &str = "192.0.2.1";
    const THERE: &str = "192.0.2.2";

    fn enter(clients: &Arc<Clients>, address: &str) -> (Client, oneshot::Receiver<Ended>) {
        clients.enter(address.parse().unwrap())
    }

    fn connected(
        clients: &Arc<Clients>,
        address: &str,
        id: &str,
    ) -> Result<(Client, oneshot::Receiver<Ended>), &'static str> {
        let (mut client, ended) = enter(clients, address);
        client.connect(id, false).map(|()| (client, ended))
    }

    #[test]
    fn second_connect_with_an_id_ends_the_first() {
        let clients = Arc::new(Clients::new(10, 10));
        let (first, mut first_ended) = connected(&clients, HERE, "a").unwrap();
        let (_second, mut second_ended) = connected(&clients, HERE, "a").unwrap();
        assert_eq!(first_ended.try_recv(), Ok(Ended::TakenOver));
        drop(first);
        let (_third, _) = connected(&clients, HERE, "a").unwrap();
        assert_eq!(second_ended.try_recv(), Ok(Ended::TakenOver));
    }

    #[test]
    fn connection_that_came_first_does_not_end_a_later_one() {
        let clients = Arc::new(Clients::new(10, 10));
        let (mut first, _) = enter(&clients, HERE);
        let (_second, mut second_ended) = connected(&clients, HERE, "a").unwrap();
        first.connect("a", false).unwrap_err();
        assert!(second_ended.try_recv().is_err());
    }

    #[test]
    fn clients_without_an_id_do_not_end_each_other() {
        let clients = Arc::new(Clients::new(10, 10));
        let (_first, mut first_ended) = connected(&clients, HERE, "").unwrap();
        let (_second, _) = connected(&clients, HERE, "").unwrap();
        assert!(first_ended.try_recv().is_err());
    }

    #[test]
    fn idle_ones_give_way_and_working_ones_do_not() {
        let clients = Arc::new(Clients::new(10, 2));
        let (mut working, mut working_ended) = connected(&clients, HERE, "w").unwrap();
        working.works();
        let (_idle, mut idle_ended) = connected(&clients, HERE, "i").unwrap();
        let (mut third, _) = connected(&clients, HERE, "t").unwrap();
        assert_eq!(idle_ended.try_recv(), Ok(Ended::GaveWay));
        third.works();
        assert!(connected(&clients, HERE, "f").is_err());
        assert!(connected(&clients, THERE, "o").is_ok());
        assert!(working_ended.try_recv().is_err());
    }

    #[test]
    fn own_connections_need_no_place() {
        let clients = Arc::new(Clients::new(1, 1));
        let (mut working, _) = connected(&clients, HERE, "w").unwrap();
        working.works();
        let (mut own, mut own_ended) = enter(&clients, HERE);
        own.connect("own", true).unwrap();
        assert!(connected(&clients, THERE, "x").is_err());
        assert!(connected(&clients, HERE, "own").is_err());
        drop(working);
        assert!(connected(&clients, THERE, "x").is_ok());
        assert!(own_ended.try_recv().is_err());
    }

    #[test]
    fn flood_of_connections_that_say_nothing_closes_its_own() {
        let clients = Arc::new(Clients::new(10, 10));
        let (mut honest, mut honest_ended) = enter(&clients, THERE);
        let flood: Vec<_> = (0..HALF_OPEN * 3).map(|_| enter(&clients, HERE)).collect();
        assert!(honest_ended.try_recv().is_err());
        honest.connect("h", false).unwrap();
        assert!(clients.count() <= HALF_OPEN + 1);
        drop(flood);
        assert_eq!(clients.count(), 1);
    }
}
