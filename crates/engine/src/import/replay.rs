//! Carries out the commands of an append-only file.
//!
//! # How it works
//! A transaction is kept until its EXEC, and then carried out command by command: nobody looks meanwhile. If the file ends before that, it never
//! happened. Only commands that write are carried out, so that no file can make the instance do anything but hold data.

use std::io::BufRead;
use std::sync::Arc;

use super::commands::{Commands, Item};
use super::{EPOCH_MS, ImportProblem, ImportReport, TornTail};
use crate::command::{Flags, look_up};
use crate::instance::{Client, ClientOptions, Flow, Instance};
use crate::rdb::{Problem, Unsupported};

/// Different names of unknown commands that are told apart.
const UNKNOWN_NAMES_MAX: usize = 256;

/// How often a command is tried while others hold what it needs. Nobody should: it is the import's own instance.
const TRIES_MAX: u32 = 1_000;

/// Bytes of a name or reply that are repeated.
const QUOTED_BYTES_MAX: usize = 200;

/// A command, and where it begins.
type Located = (u64, Vec<Vec<u8>>);

pub(super) struct Replay<'a> {
    client: Client,
    unsupported: Unsupported,
    report: &'a mut ImportReport,
    replies: Vec<u8>,
}

impl<'a> Replay<'a> {
    /// Each file begins with a connection of its own, which has selected database 0.
    pub(super) fn new(instance: &Arc<Instance>, unsupported: Unsupported, report: &'a mut ImportReport) -> Self {
        let mut client = Client::connect(instance, ClientOptions::default());
        client.trust();
        Self { client, unsupported, report, replies: Vec::new() }
    }

    /// Returns the end of the file, if that is not the end of a command; it names no file.
    pub(super) fn run(&mut self, input: impl BufRead, start: u64) -> Result<Option<TornTail>, ImportProblem> {
        let mut commands = Commands::new(input, start);
        let mut transaction: Option<Vec<Located>> = None;
        // Behind the last command that was carried out.
        let mut whole = start;
        loop {
            let offset = commands.offset();
            let item = match commands.next_item() {
                Ok(Some(item)) => item,
                Ok(None) if transaction.is_none() => return Ok(None),
                Ok(None) | Err(Problem::Truncated) => break,
                Err(problem) => return Err(located(problem, offset, commands.offset())),
            };
            match item {
                Item::Timestamp(at_s) => self.report.last_timestamp_s = Some(at_s),
                Item::Note => {}
                Item::Command(args) if is_named(&args, "MULTI") => {
                    if transaction.replace(Vec::new()).is_some() {
                        return Err(ImportProblem::Damaged { offset, how: "a transaction begins within another one" });
                    }
                }
                Item::Command(args) if is_named(&args, "EXEC") => {
                    let group = transaction.take();
                    let group = group.ok_or(ImportProblem::Damaged { offset, how: "EXEC ends no transaction" })?;
                    group.iter().try_for_each(|(offset, args)| self.carry_out(*offset, args))?;
                }
                Item::Command(args) => match &mut transaction {
                    Some(group) => group.push((offset, args)),
                    None => self.carry_out(offset, &args)?,
                },
            }
            if transaction.is_none() {
                whole = commands.offset();
            }
        }
        let read = commands.offset();
        commands.drain().map_err(|problem| located(problem, read, read))?;
        let (bytes, is_transaction) = (commands.offset() - whole, transaction.is_some());
        Ok(Some(TornTail { file: String::new(), offset: whole, bytes, is_transaction }))
    }

    fn carry_out(&mut self, offset: u64, args: &[Vec<u8>]) -> Result<(), ImportProblem> {
        let args: Vec<&[u8]> = args.iter().map(|arg| &**arg).collect();
        let name = quote(args.first().copied().unwrap_or_default()).to_ascii_uppercase();
        let is_known = look_up(&args).is_ok_and(|command| {
            let flags = command.row.flags;
            // What waited in its day is in the file as what it did then.
            let is_write = flags.has(Flags::WRITE.and(Flags::MAY_REPLICATE)) && !flags.has(Flags::BLOCKING);
            is_write || command.row.name == "select"
        });
        if !is_known {
            return self.pass_unknown(offset, name);
        }
        self.replies.clear();
        let mut flow = Flow::Retry;
        for _ in 0..TRIES_MAX {
            flow = self.client.execute(&args, EPOCH_MS * 1_000, &mut self.replies);
            if flow != Flow::Retry {
                break;
            }
        }
        let is_error = self.replies.first() == Some(&b'-') || flow != Flow::Done;
        if is_error {
            return self.pass_refused(offset, name);
        }
        self.report.commands += 1;
        Ok(())
    }

    fn pass_unknown(&mut self, offset: u64, name: String) -> Result<(), ImportProblem> {
        if self.unsupported == Unsupported::Refuse {
            return Err(ImportProblem::UnknownCommand { offset, name });
        }
        let names = &mut self.report.unknown_commands;
        let name =
            if names.len() < UNKNOWN_NAMES_MAX || names.contains_key(&name) { name } else { "others".to_owned() };
        *names.entry(name).or_default() += 1;
        Ok(())
    }

    fn pass_refused(&mut self, offset: u64, name: String) -> Result<(), ImportProblem> {
        let reply = self.replies.strip_prefix(b"-").unwrap_or(&self.replies);
        let reply = quote(if reply.is_empty() { b"others use the instance" } else { reply.trim_ascii_end() });
        if self.unsupported == Unsupported::Refuse {
            return Err(ImportProblem::Refused { offset, name, reply });
        }
        self.report.refused_commands += 1;
        let first = &mut self.report.first_refusal;
        first.get_or_insert_with(|| format!("byte {offset}: {name}: {reply}"));
        Ok(())
    }
}

/// `offset`: where the command begins; `read`: how far was read.
fn located(problem: Problem, offset: u64, read: u64) -> ImportProblem {
    match problem {
        Problem::Io(source) => ImportProblem::Read { offset: read, source },
        Problem::Damaged(how) => ImportProblem::Damaged { offset, how },
        Problem::TooLong(_) => ImportProblem::Damaged { offset, how: "an argument is longer than memory" },
        _ => ImportProblem::Damaged { offset, how: "the command makes no sense" },
    }
}

fn is_named(args: &[Vec<u8>], name: &str) -> bool {
    args.len() == 1 && args[0].eq_ignore_ascii_case(name.as_bytes())
}

fn quote(bytes: &[u8]) -> String {
    bytes.get(..QUOTED_BYTES_MAX).unwrap_or(bytes).escape_ascii().to_string()
}
