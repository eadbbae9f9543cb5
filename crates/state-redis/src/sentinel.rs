//! Finds the primary that Sentinels watch, and notices when it is another one.
//!
//! # Guarantees
//! All Sentinels are asked at the same time, and the answer with the highest configuration epoch counts: those that were cut off
//! and know only an earlier primary are outvoted by any that knows better; and where no other answers any more, as long as they are
//! not most of all, by the claim that was heard before. What they name is a claim: whoever connects there
//! asks the server for its role, and [`refutes`](Sentinels::refute) the claim if it is no primary. What most of them say counts then.
//!
//! # Failure
//! A Sentinel that does not answer is left out; it is enough that one of them does. While none does, what is connected stays
//! connected.
//!
//! # How it works
//! One connection to each Sentinel, those of the configuration and those that they name. It carries the questions, and a
//! subscription to what they publish when the primary changes, after which all are asked again. So are they every few seconds,
//! should a message be lost.
//!
//! The address is asked for by `SENTINEL GET-MASTER-ADDR-BY-NAME`, since `SENTINEL MASTER` goes on with the old one until the last
//! replica follows the new one. The epoch is asked for first: should a failover come between the two, a new address comes with
//! an old epoch, which the next round mends; the other way round, an old address would win against all new ones.
//!
//! Source: <https://redis.io/docs/latest/develop/reference/sentinel-clients/>

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use acteon_state_core::{Error, ErrorKind, Result};
use arc_swap::ArcSwap;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::dial::{Dialed, Dialer};
use crate::error::{BACKEND, from_server};
use crate::reply;
use crate::topology::{Endpoint, SentinelTarget};
use crate::wire::{Cmd, OnPush, Pipeline, Value, Wire};

/// How long one Sentinel may take to answer, connecting included.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the others may take once most of them have answered: one whose machine is gone must not hold up a failover, and the
/// one that knows the newest primary must not be missed.
const LAST_ANSWERS_TIMEOUT: Duration = Duration::from_millis(100);
/// How often they are asked without a reason.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// The pause after a Sentinel could not be reached.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// What each is asked about the primary.
const QUESTIONS: [&str; 4] = ["MASTER", "GET-MASTER-ADDR-BY-NAME", "SENTINELS", "REPLICAS"];
/// The most Sentinels that are talked to, whatever they say of each other.
const SENTINELS_MAX: usize = 32;
/// What they publish when the primary changes: that a replica was promoted, by the one that leads the failover, and that there is
/// another primary, by the others a moment later and by the leader at the end.
const CHANNELS: [&str; 2] = ["+promoted-slave", "+switch-master"];

/// The Sentinels that watch one primary.
pub(crate) struct Sentinels {
    target: SentinelTarget,
    dialer: Dialer,
    // Locked for look-ups only, never across an await.
    known: Mutex<Vec<Arc<Sentinel>>>,
    /// The primary that was named last.
    primary: watch::Sender<Option<Claim>>,
    /// The claim that turned out wrong last; set and read as a whole.
    refuted: Mutex<Option<Claim>>,
    /// Its replicas, as of then.
    replicas: ArcSwap<Vec<Endpoint>>,
    /// Asks for a new round of questions.
    ask: Arc<Notify>,
    /// Tells that there are new Sentinels to follow.
    grown: Notify,
}

struct Sentinel {
    endpoint: Endpoint,
    connection: tokio::sync::Mutex<Option<Dialed>>,
}

/// Which server is the primary, as a Sentinel says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) primary: Endpoint,
    /// Rises with each failover.
    epoch: u64,
}

/// What was heard when all were asked.
struct Heard {
    /// One for each Sentinel that answered.
    answers: Vec<Answer>,
    /// Whether most of them did.
    is_most: bool,
    /// What went wrong with the others.
    failure: Option<Error>,
}

/// What one Sentinel says.
#[derive(Debug, PartialEq)]
struct Answer {
    claim: Claim,
    /// The other Sentinels.
    others: Vec<Endpoint>,
    /// The replicas that are well.
    replicas: Vec<Endpoint>,
    /// Which one it is, if it would say.
    id: Option<String>,
}

impl Sentinels {
    pub(crate) fn new(target: SentinelTarget, dialer: Dialer) -> Self {
        let known = target.sentinels.iter().map(|endpoint| Arc::new(Sentinel::new(endpoint.clone()))).collect();
        Self {
            target,
            dialer,
            known: Mutex::new(known),
            primary: watch::Sender::new(None),
            refuted: Mutex::new(None),
            replicas: ArcSwap::default(),
            ask: Arc::default(),
            grown: Notify::new(),
        }
    }

    /// Asks all Sentinels which server is the primary.
    ///
    /// # Errors
    /// `Unavailable` when none answers, `Config` when none knows the name, `Denied` for wrong credentials.
    pub(crate) async fn find(&self, until: Instant) -> Result<Claim> {
        let Heard { answers, is_most, failure } = self.ask_all(until).await;
        let refuted = self.refuted.lock().clone();
        let Some(best) = choose(answers, refuted.as_ref()) else {
            let failure = failure.unwrap_or_else(|| unavailable("there was no answer"));
            let message = format!("no Sentinel names the primary {}: {}", self.target.master, failure.message());
            return Err(Error::new(failure.kind(), message).on_backend(BACKEND).with_source(failure));
        };
        if !is_most && let Some(known) = self.newer_than(&best.claim).filter(|known| refuted.as_ref() != Some(known)) {
            return Ok(known);
        }
        self.replicas.store(Arc::new(best.replicas));
        self.primary.send_if_modified(|primary| {
            let is_new = primary.as_ref() != Some(&best.claim);
            if is_new {
                let Claim { primary: endpoint, epoch } = &best.claim;
                tracing::info!(master = self.target.master, primary = %endpoint, epoch, "the Sentinels name a primary");
                *primary = Some(best.claim.clone());
            }
            is_new
        });
        Ok(best.claim)
    }

    /// The claim that was heard before, if it is newer than this one. To go back takes most of the Sentinels: those that were cut off
    /// together with an earlier primary are fewer, and what it is sent will be thrown away.
    fn newer_than(&self, claim: &Claim) -> Option<Claim> {
        self.primary.borrow().clone().filter(|known| known.epoch > claim.epoch)
    }

    /// Notes that the server that was named says that it is no primary.
    pub(crate) fn refute(&self, claim: Claim) {
        tracing::warn!(master = self.target.master, named = %claim.primary, "a Sentinel names a server that is no primary");
        *self.refuted.lock() = Some(claim);
    }

    /// The replicas of the primary that was named last.
    pub(crate) fn replicas(&self) -> Arc<Vec<Endpoint>> {
        self.replicas.load_full()
    }

    /// Waits until another server than this one is named.
    pub(crate) async fn left(&self, endpoint: &Endpoint) {
        let mut primary = self.primary.subscribe();
        let is_other = |claim: &Option<Claim>| claim.as_ref().is_some_and(|claim| claim.primary != *endpoint);
        if primary.wait_for(is_other).await.is_err() {
            std::future::pending().await
        }
    }

    /// Waits until a server is named that was not named before.
    pub(crate) async fn moved(&self) {
        if self.primary.subscribe().changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// Follows the Sentinels, without end.
    pub(crate) async fn follow(self: Arc<Self>) {
        let mut followers = tokio::task::JoinSet::new();
        let mut followed = 0;
        loop {
            let known = self.known.lock().clone();
            for sentinel in &known[followed..] {
                followers.spawn(self.clone().listen(sentinel.clone()));
            }
            followed = known.len();
            tokio::select! {
                () = self.grown.notified() => continue,
                () = self.ask.notified() => {}
                () = tokio::time::sleep(ASK_EVERY) => {}
            }
            if let Err(error) = self.find(Instant::now() + ANSWER_TIMEOUT).await {
                tracing::debug!(%error, "the Sentinels were asked in vain");
            }
        }
    }

    /// Ends all connections. Expects that nobody asks or follows any more.
    pub(crate) async fn close(&self) {
        let known = self.known.lock().clone();
        for sentinel in known {
            sentinel.connection.lock().await.take();
        }
    }

    /// Keeps a subscription to one Sentinel.
    async fn listen(self: Arc<Self>, sentinel: Arc<Sentinel>) {
        loop {
            let until = Instant::now() + ANSWER_TIMEOUT;
            if let Ok(wire) = self.connection(&sentinel, until).await
                && let Ok(Ok(())) = tokio::time::timeout_at(until, wire.subscribe(&CHANNELS[..])).await
            {
                // What happened before the subscription is found out by asking.
                self.ask.notify_one();
                sentinel.ended().await;
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }

    /// Asks all Sentinels at the same time.
    async fn ask_all(&self, until: Instant) -> Heard {
        let asked = self.known.lock().clone();
        let mut until = until.min(Instant::now() + ANSWER_TIMEOUT);
        let mut asking: FuturesUnordered<_> = asked.iter().map(|sentinel| self.ask_one(sentinel, until)).collect();
        let (mut answers, mut heard, mut failure): (Vec<Answer>, usize, _) = (Vec::new(), 0, None);
        while let Ok(Some(answer)) = tokio::time::timeout_at(until, asking.next()).await {
            match answer {
                Ok(answer) => {
                    self.note_others(&answer.others);
                    heard += 1;
                    // The same one may be known by its name and by its address, and has one vote.
                    if answer.id.is_none() || answers.iter().all(|known| known.id != answer.id) {
                        answers.push(answer);
                    }
                    if heard > asked.len() / 2 {
                        until = until.min(Instant::now() + LAST_ANSWERS_TIMEOUT);
                    }
                }
                Err(error) => failure = Some(more_telling(failure, error)),
            }
        }
        Heard { answers, is_most: heard > asked.len() / 2, failure }
    }

    async fn ask_one(&self, sentinel: &Sentinel, until: Instant) -> Result<Answer> {
        let answer = tokio::time::timeout_at(until, async {
            let wire = self.connection(sentinel, until).await?;
            let mut pipeline = Pipeline::default();
            for question in QUESTIONS {
                pipeline.add(Cmd::new("SENTINEL").arg(question).arg(&self.target.master));
            }
            pipeline.add(Cmd::new("SENTINEL").arg("MYID"));
            match wire.ask(&pipeline).await {
                Ok(answers) => Answer::read(answers),
                Err(failure) => Err(unavailable(&failure.to_string())),
            }
        });
        let outcome = answer.await.unwrap_or_else(|_| Err(self.silence()));
        if outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::Unavailable) {
            sentinel.hang_up();
        }
        outcome.map_err(|error| {
            let message = format!("Sentinel {}: {}", sentinel.endpoint, error.message());
            Error::new(error.kind(), message).on_backend(BACKEND)
        })
    }

    /// The connection to a Sentinel, opened if there is none.
    async fn connection(&self, sentinel: &Sentinel, until: Instant) -> Result<Wire> {
        let open = async {
            let mut connection = sentinel.connection.lock().await;
            if let Some(dialed) = &*connection
                && !dialed.wire.is_broken()
                && !dialed.driver.is_finished()
            {
                return Ok(dialed.wire.clone());
            }
            let dialed = self.dialer.dial(&sentinel.endpoint, self.on_push()).await?;
            Ok(connection.insert(dialed).wire.clone())
        };
        tokio::time::timeout_at(until, open).await.unwrap_or_else(|_| Err(self.silence()))
    }

    /// What is wrong with a Sentinel that says nothing.
    fn silence(&self) -> Error {
        unavailable(&format!("there was no answer{}", self.dialer.hint_on_silence()))
    }

    fn on_push(&self) -> OnPush {
        let (ask, master) = (self.ask.clone(), self.target.master.clone());
        Arc::new(move |push| {
            if is_about(push, &master) {
                ask.notify_one();
            }
        })
    }

    fn note_others(&self, others: &[Endpoint]) {
        let mut known = self.known.lock();
        let before = known.len();
        for endpoint in others {
            if known.len() < SENTINELS_MAX && known.iter().all(|sentinel| sentinel.endpoint != *endpoint) {
                known.push(Arc::new(Sentinel::new(endpoint.clone())));
            }
        }
        if known.len() > before {
            self.grown.notify_one();
        }
    }
}

impl fmt::Display for Sentinels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the primary {} of the Sentinels", self.target.master)
    }
}

impl Sentinel {
    fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, connection: tokio::sync::Mutex::new(None) }
    }

    /// Waits until its connection is gone.
    async fn ended(&self) {
        loop {
            match &*self.connection.lock().await {
                Some(dialed) if !dialed.wire.is_broken() && !dialed.driver.is_finished() => {}
                _ => return,
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }

    /// Gives up its connection, so that the next question opens another one.
    fn hang_up(&self) {
        if let Ok(connection) = self.connection.try_lock()
            && let Some(dialed) = &*connection
        {
            dialed.wire.set_broken();
        }
    }
}

impl Answer {
    /// Reads the answers to [`QUESTIONS`] and to SENTINEL MYID.
    fn read(answers: Vec<Value>) -> Result<Self> {
        let mut answers = answers.into_iter();
        let master = match reply::next(&mut answers)? {
            Value::ServerError(error) if error.details().contains("No such master") => {
                return Err(Error::config("it does not know a primary of that name").on_backend(BACKEND));
            }
            Value::ServerError(error) => return Err(from_server(&error)),
            reply => fields(reply)?,
        };
        let epoch = field(&master, "config-epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or(0);
        let Some(primary) = answers.next().and_then(address) else {
            return Err(unavailable("it does not say where the primary is"));
        };
        // Without them it works as well.
        let mut list = || match answers.next() {
            Some(Value::Array(entries)) => entries.into_iter().filter_map(|entry| fields(entry).ok()).collect(),
            _ => Vec::new(),
        };
        let others = list().iter().filter_map(|other| endpoint(other)).collect();
        let replicas =
            list().iter().filter(|replica| is_well(replica)).filter_map(|replica| endpoint(replica)).collect();
        let id = answers.next().and_then(|id| reply::text(id).ok());
        Ok(Self { claim: Claim { primary, epoch }, others, replicas, id })
    }
}

/// The names and values of a map, in RESP3 or as a list.
fn fields(reply: Value) -> Result<Vec<(String, String)>> {
    let pairs: Vec<(Value, Value)> = match reply {
        Value::Map(pairs) => pairs,
        other => {
            let mut items = reply::array(other)?;
            let mut pairs = Vec::new();
            while let (Some(name), Some(value)) = (items.next(), items.next()) {
                pairs.push((name, value));
            }
            pairs
        }
    };
    pairs.into_iter().map(|(name, value)| Ok((reply::text(name)?, reply::text(value)?))).collect()
}

fn field<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
}

fn endpoint(fields: &[(String, String)]) -> Option<Endpoint> {
    tcp(field(fields, "ip")?, field(fields, "port")?)
}

/// A host and a port, as a list of two.
fn address(reply: Value) -> Option<Endpoint> {
    let mut parts = reply::array(reply).ok()?;
    let mut text = || reply::text(parts.next()?).ok();
    tcp(&text()?, &text()?)
}

fn tcp(host: &str, port: &str) -> Option<Endpoint> {
    let port = port.parse().ok().filter(|port| *port != 0)?;
    (!host.is_empty()).then(|| Endpoint::Tcp { host: host.to_owned(), port })
}

/// The answer to go by: the newest, unless its claim turned out wrong and most Sentinels agree on another one.
fn choose(answers: Vec<Answer>, refuted: Option<&Claim>) -> Option<Answer> {
    let votes = |claim: &Claim| answers.iter().filter(|answer| answer.claim.primary == claim.primary).count();
    // Of equally new answers the one that more Sentinels give.
    let newest = answers.iter().map(|answer| &answer.claim).max_by_key(|claim| (claim.epoch, votes(claim)))?;
    let agreed = |claim: &&Claim| claim.primary != newest.primary && votes(claim) > answers.len() / 2;
    let other = answers.iter().map(|answer| &answer.claim).find(agreed).filter(|_| refuted == Some(newest));
    let chosen = other.unwrap_or(newest).clone();
    answers.into_iter().find(|answer| answer.claim == chosen)
}

/// Whether a Sentinel sees this replica follow the primary.
fn is_well(replica: &[(String, String)]) -> bool {
    let is_down = |flags: &str| flags.split(',').any(|flag| matches!(flag, "s_down" | "o_down" | "disconnected"));
    !field(replica, "flags").is_some_and(is_down) && field(replica, "master-link-status") != Some("err")
}

/// Whether a message is about this primary: `<name> <old host> <old port> <new host> <new port>`, or
/// `slave <replica> <host> <port> @ <name> <host> <port>`.
fn is_about(push: &[Value], master: &str) -> bool {
    match push {
        [Value::BulkString(kind), _, Value::BulkString(text), ..] if kind == b"message" => {
            text.split(|byte| *byte == b' ').any(|word| word == master.as_bytes())
        }
        _ => false,
    }
}

/// The failure that tells more: one that trying again will not mend.
fn more_telling(known: Option<Error>, new: Error) -> Error {
    match known {
        Some(known) if new.kind() == ErrorKind::Unavailable => known,
        _ => new,
    }
}

fn unavailable(what: &str) -> Error {
    Error::new(ErrorKind::Unavailable, what.to_owned()).on_backend(BACKEND)
}

#[cfg(test)]
mod tests {
    use super::{Answer, Claim, choose};
    use crate::topology::Endpoint;

    fn claim(port: u16, epoch: u64) -> Claim {
        Claim { primary: Endpoint::Tcp { host: "h".to_owned(), port }, epoch }
    }

    /// Which of these claims is chosen.
    fn chosen(claims: &[(u16, u64)], refuted: Option<(u16, u64)>) -> Option<Claim> {
        let answer = |(port, epoch): &(u16, u64)| Answer {
            claim: claim(*port, *epoch),
            others: Vec::new(),
            replicas: Vec::new(),
            id: None,
        };
        let refuted = refuted.map(|(port, epoch)| claim(port, epoch));
        choose(claims.iter().map(answer).collect(), refuted.as_ref()).map(|answer| answer.claim)
    }

    #[test]
    fn the_newest_claim_wins_against_any_number_of_older_ones() {
        assert_eq!(chosen(&[(1, 3), (1, 3), (2, 4)], None), Some(claim(2, 4)));
        assert_eq!(chosen(&[(1, 3), (2, 3), (2, 3)], None), Some(claim(2, 3)), "of equally new ones what most say");
        assert_eq!(chosen(&[], None), None);
    }

    #[test]
    fn a_refuted_claim_yields_to_what_most_say_and_to_nothing_less() {
        assert_eq!(chosen(&[(1, 3), (1, 3), (2, 9)], Some((2, 9))), Some(claim(1, 3)));
        assert_eq!(chosen(&[(1, 3), (2, 9)], Some((2, 9))), Some(claim(2, 9)), "one against one is no majority");
        assert_eq!(
            chosen(&[(1, 3), (1, 3), (2, 10)], Some((2, 9))),
            Some(claim(2, 10)),
            "a newer claim is another one"
        );
    }
}
