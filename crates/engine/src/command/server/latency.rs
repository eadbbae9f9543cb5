//! LATENCY: what took long, and how long commands take, see `instance/latency.rs`.

use super::super::call::Call;
use super::super::error::CommandError;
use super::super::help::help;
use super::super::row::{Flags, Group, Row};
use super::super::{Command, all};
use super::graph::graph;
use crate::instance::LatencyEvent;

fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn latest(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let events = call.instance.latency.all();
    call.reply.array(events.len());
    for (name, event) in events {
        let (last_s, last_ms) = event.samples.back().copied().unwrap_or_default();
        call.reply.array(4);
        call.reply.bulk(name.as_bytes());
        [last_s, last_ms, event.longest_ms].into_iter().for_each(|value| call.reply.integer(number(value)));
    }
    Ok(())
}

fn history(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let samples = call.instance.latency.get(call.args[2]).map(|event| event.samples).unwrap_or_default();
    call.reply.array(samples.len());
    for (at_s, ms) in samples {
        call.reply.array(2);
        call.reply.integer(number(at_s));
        call.reply.integer(number(ms));
    }
    Ok(())
}

fn reset(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let (names, events) = (&call.args[2..], &call.instance.latency);
    let removed =
        if names.is_empty() { events.clear() } else { names.iter().filter(|name| events.remove(name)).count() };
    call.reply.integer(removed as i64);
    Ok(())
}

fn draw(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let name = call.args[2];
    let Some(event) = call.instance.latency.get(name) else {
        return Err(CommandError::quoting("ERR No samples available for event '", name, "'"));
    };
    let text = graph(&String::from_utf8_lossy(name), &event, call.now_ms() / 1_000);
    call.reply.verbatim("txt", text.as_bytes());
    Ok(())
}

fn doctor(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let events = call.instance.latency.all();
    let threshold_ms = call.instance.latency_threshold_ms();
    let text = if threshold_ms == 0 && events.is_empty() {
        "Nothing is watched: set latency-monitor-threshold to a number of milliseconds to note what takes longer.\n"
            .to_owned()
    } else if events.is_empty() {
        format!("Nothing has taken {threshold_ms} ms or longer.\n")
    } else {
        let lines: Vec<String> = events.iter().map(|(name, event)| describe(name, event)).collect();
        format!("What has taken {threshold_ms} ms or longer:\n{}", lines.concat())
    };
    call.reply.verbatim("txt", text.as_bytes());
    Ok(())
}

fn describe(name: &str, event: &LatencyEvent) -> String {
    let count = event.samples.len() as u64;
    let average_ms = event.samples.iter().map(|(_, ms)| ms).sum::<u64>() / count.max(1);
    let advice = match name {
        "expire-cycle" => "Many keys expire at once: spread their deadlines.",
        _ => "SLOWLOG GET shows the commands; large values and commands over whole databases are the usual reasons.",
    };
    format!(
        "- {name}: in {count} different seconds, {average_ms} ms on average, {} ms at most. {advice}\n",
        event.longest_ms
    )
}

fn histogram(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let instance = call.instance;
    let names = &call.args[2..];
    let shown: Vec<_> = all()
        .filter(|command| names.is_empty() || names.iter().any(|name| is_named(command, name)))
        .map(|command| (command, instance.stats.durations(command.number)))
        .filter(|(_, durations)| durations.count() > 0)
        .collect();
    call.reply.map(shown.len());
    for (command, durations) in shown {
        call.reply.bulk(command.full_name().as_bytes());
        call.reply.map(2);
        call.reply.bulk(b"calls");
        call.reply.integer(number(durations.count()));
        call.reply.bulk(b"histogram_usec");
        let steps = durations.cumulative_us();
        call.reply.map(steps.len());
        for (us, count) in steps {
            call.reply.integer(number(us));
            call.reply.integer(number(count));
        }
    }
    Ok(())
}

/// Whether `name` stands for this command: that of a container stands for its subcommands.
fn is_named(command: &Command, name: &[u8]) -> bool {
    let is_container = command.container.is_some_and(|row| row.name.as_bytes().eq_ignore_ascii_case(name));
    is_container || command.full_name().as_bytes().eq_ignore_ascii_case(name)
}

fn latency_help(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    const LINES: &[&str] = &[
        "DOCTOR",
        "    Says in words what took long.",
        "GRAPH <event>",
        "    Draws the samples of an event.",
        "HISTORY <event>",
        "    The samples of an event: when, and how many milliseconds.",
        "LATEST",
        "    The last sample of each event, and its longest one.",
        "RESET [<event> ...]",
        "    Forgets events, all unless some are named.",
        "HISTOGRAM [<command> ...]",
        "    How many calls of commands took up to how many microseconds.",
    ];
    help(call, LINES)
}

const FLAGS: &[Flags] = &[Flags::ADMIN, Flags::NOSCRIPT, Flags::LOADING, Flags::STALE];

pub(super) const SUBCOMMANDS: &[Row] = &[
    Row::new("help", 2, Group::Server, latency_help)
        .flags(&[Flags::LOADING, Flags::STALE])
        .docs("2.8.13", "What the subcommands are."),
    Row::new("histogram", -2, Group::Server, histogram).flags(FLAGS).docs("7.0.0", "How long commands take."),
    Row::new("history", 3, Group::Server, history).flags(FLAGS).docs("2.8.13", "The samples of an event."),
    Row::new("reset", -2, Group::Server, reset).flags(FLAGS).docs("2.8.13", "Forgets events."),
    Row::new("doctor", 2, Group::Server, doctor).flags(FLAGS).docs("2.8.13", "What took long, in words."),
    Row::new("graph", 3, Group::Server, draw).flags(FLAGS).docs("2.8.13", "The samples of an event, drawn."),
    Row::new("latest", 2, Group::Server, latest).flags(FLAGS).docs("2.8.13", "The last sample of each event."),
];
