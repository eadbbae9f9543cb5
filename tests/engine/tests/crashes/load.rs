//! Connections that write until their server is gone, and what they were told.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use acteon_engine_tests::command::Command;
use acteon_engine_tests::endpoint::Client;
use acteon_engine_tests::random::Random;

use crate::model::{Keys, Span};
use crate::seen::{connect, now_ms};
use crate::steps::{Chooser, Step, database};

/// A step that was sent, or was about to be.
pub(crate) struct Sent {
    pub(crate) step: Step,
    /// In milliseconds since 1970.
    at_ms: u64,
    /// Where the count of all events of the round stood when it was sent.
    pub(crate) at_event: u64,
    pub(crate) told: Option<Told>,
    /// When the server was certainly gone, for what nobody was told about.
    gone_ms: u64,
}

/// That it was acknowledged.
#[derive(Clone, Copy)]
pub(crate) struct Told {
    at_ms: u64,
    /// Where the count of events stood.
    pub(crate) at_event: u64,
    /// How often the server's heart had beaten before.
    pub(crate) at_beat: u64,
}

impl Sent {
    /// A step that was answered between these moments.
    pub(crate) fn done(step: Step, at_ms: u64, gone_ms: u64) -> Self {
        Self { step, at_ms, at_event: 0, told: None, gone_ms }
    }

    /// When it was carried out, if it was.
    pub(crate) fn span(&self) -> Span {
        Span { from_ms: self.at_ms, until_ms: self.told.map_or(self.gone_ms, |told| told.at_ms) }
    }
}

/// What all connections of a round share.
#[derive(Default)]
pub(crate) struct Round {
    /// Orders what is sent and what is acknowledged, over all connections.
    events: AtomicU64,
    /// Requests that the server has answered, one after the other and a millisecond apart: a clock that stands still when the machine does.
    pub(crate) beats: AtomicU64,
    /// The server was killed, or is about to be: it need not answer any longer.
    pub(crate) is_over: AtomicBool,
    /// Rewritings and snapshots that it was asked for and has begun.
    pub(crate) rewrites: AtomicU64,
}

const BEAT_EVERY: Duration = Duration::from_millis(1);
/// Of so many beats, one comes with a rewriting, and one with a snapshot.
const BEATS_PER_REWRITE: usize = 60;
const BEATS_PER_SNAPSHOT: usize = 200;

/// One connection of a round.
pub(crate) struct Writing<'a> {
    pub(crate) url: &'a str,
    pub(crate) connection: usize,
    pub(crate) round: &'a Round,
    /// What its keys hold in the beginning.
    pub(crate) keys: Keys,
    pub(crate) chooser: Chooser,
}

impl Writing<'_> {
    /// Writes until the server is gone, and returns all that was sent.
    ///
    /// # Errors
    /// A reply was not what it must be, or the server went before its time.
    pub(crate) fn run(mut self) -> Result<Vec<Sent>, String> {
        let mut sent = Vec::new();
        let outcome = connect(self.url, database(self.connection)).and_then(|mut client| {
            while !self.round.is_over.load(Ordering::SeqCst) {
                self.exchange(&mut client, &mut sent)?;
            }
            Ok(())
        });
        let gone_ms = now_ms();
        sent.iter_mut().for_each(|sent| sent.gone_ms = gone_ms);
        match outcome {
            Err(error) if error.kind() == io::ErrorKind::InvalidData || !self.round.is_over.load(Ordering::SeqCst) => {
                Err(format!("connection {}: {error}", self.connection))
            }
            _ => Ok(sent),
        }
    }

    /// Sends some steps at once and reads the replies to all of them.
    fn exchange(&mut self, client: &mut Client, sent: &mut Vec<Sent>) -> io::Result<()> {
        let (mut bytes, first, at_ms) = (Vec::new(), sent.len(), now_ms());
        for _ in 0..self.chooser.pipeline() {
            let step = self.chooser.next(at_ms);
            step.encode(&mut bytes);
            sent.push(Sent { step, at_ms, at_event: self.round.event(), told: None, gone_ms: 0 });
        }
        client.send(&bytes)?;
        for sent in &mut sent[first..] {
            let expected = sent.step.apply(&mut self.keys, Span { from_ms: at_ms, until_ms: at_ms });
            let replies = (0..sent.step.reply_count()).map(|_| client.receive()).collect::<io::Result<Vec<_>>>()?;
            if !expected.fit(&replies) {
                let replies: Vec<_> = replies.iter().map(ToString::to_string).collect();
                let wrong = format!("{:?} was answered {}", sent.step, replies.join("\n"));
                return Err(io::Error::new(io::ErrorKind::InvalidData, wrong));
            }
            sent.told = Some(self.round.told());
        }
        Ok(())
    }
}

impl Round {
    fn event(&self) -> u64 {
        self.events.fetch_add(1, Ordering::SeqCst)
    }

    fn told(&self) -> Told {
        Told { at_ms: now_ms(), at_event: self.event(), at_beat: self.beats.load(Ordering::SeqCst) }
    }

    /// Counts how often the server answers, and now and then asks for a rewriting or a snapshot, until it is gone.
    ///
    /// # Errors
    /// It went before its time.
    pub(crate) fn beat(&self, url: &str, mut random: Random) -> Result<(), String> {
        let outcome = connect(url, 0).and_then(|mut client| {
            while !self.is_over.load(Ordering::SeqCst) {
                let reply = client.call(&Command::words("PING"))?;
                debug_assert!(reply.is_status("PONG"));
                self.beats.fetch_add(1, Ordering::SeqCst);
                let asked = match () {
                    () if random.below(BEATS_PER_REWRITE) == 0 => Some("BGREWRITEAOF"),
                    () if random.below(BEATS_PER_SNAPSHOT) == 0 => Some("BGSAVE"),
                    () => None,
                };
                if let Some(asked) = asked {
                    // While another one is under way it is refused.
                    let has_begun = !client.call(&Command::words(asked))?.is_error();
                    self.rewrites.fetch_add(u64::from(has_begun), Ordering::SeqCst);
                }
                std::thread::sleep(BEAT_EVERY);
            }
            Ok(())
        });
        match outcome {
            Err(error) if !self.is_over.load(Ordering::SeqCst) => Err(format!("the heart of the server: {error}")),
            _ => Ok(()),
        }
    }
}
