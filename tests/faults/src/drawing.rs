//! Draws calls as a timeline that a person can read: one self-contained HTML file, without scripts.
//!
//! One line per process, a bar for each call, its label inside. Solid bars are certain; dashed ones may have happened, and fade out
//! where nobody saw their end; red ones cannot be explained. Next to it stands what the checker believes: the order that explains as much as
//! possible, with what the object holds after each call.
//!
//! # How it works
//! The horizontal axis is the order of beginnings and ends, not time: calls of microseconds lie seconds apart. Places are moved apart until
//! each label fits its bar; the time stands under each place.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use acteon_state_conformance::history::NEVER;

/// Width of a character of a label, in pixels: monospaced at 12 px.
const CHARACTER_PX: usize = 8;
const GAP_PX: usize = 16;
const LEFT_PX: usize = 90;
const BAR_PX: usize = 24;
const LANE_PX: usize = 34;

/// Calls, and what is believed of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counterexample {
    /// The calls, in the order of their beginnings.
    pub calls: Vec<Shown>,
    /// The order that explains as much as possible: first the beginning, then what each call led to.
    pub beliefs: Vec<Belief>,
    /// Calls that may have happened and explain nothing, which are not shown.
    pub left_out: usize,
}

/// A call, as it is drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Who made it.
    pub process: u32,
    /// What was asked and answered.
    pub label: String,
    /// When it began, in ns.
    pub began: u64,
    /// When it ended, in ns, or [`NEVER`].
    pub ended: u64,
    /// Its part.
    pub role: Role,
}

/// The part that a call plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It happened, as it was answered.
    Certain,
    /// It may have happened.
    Maybe,
    /// It cannot be explained.
    Violating,
}

/// What the object holds after a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Belief {
    /// The call, by its index; `None` for the beginning.
    pub call: Option<usize>,
    /// What is believed.
    pub state: String,
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for call in &self.calls {
            let mark = if call.role == Role::Violating { "!" } else { " " };
            writeln!(f, "  {mark} {:>14} to {:>14}  p{} {}", ms(call.began), ms(call.ended), call.process, call.label)?;
        }
        if self.left_out > 0 {
            writeln!(f, "    {} more calls may have happened, and explain nothing", self.left_out)?;
        }
        f.write_str("  explained:")?;
        self.lines().into_iter().try_for_each(|line| write!(f, "\n    {line}"))
    }
}

impl Counterexample {
    /// What the checker believes, line by line.
    fn lines(&self) -> Vec<String> {
        let line = |belief: &Belief| match belief.call.and_then(|at| self.calls.get(at)) {
            Some(call) => format!("p{} {}: {}", call.process, call.label, belief.state),
            None => format!("at the beginning: {}", belief.state),
        };
        let stuck = self.calls.iter().filter(|call| call.role == Role::Violating);
        let stuck = stuck.map(|call| format!("and then not: p{} {}", call.process, call.label));
        self.beliefs.iter().map(line).chain(stuck).collect()
    }
}

/// A page with the drawing.
#[must_use]
pub fn html(title: &str, counterexample: &Counterexample) -> String {
    let mut page = String::new();
    let title = escape(title);
    let _ = write!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n<title>{title}</title>\n<style>{STYLE}</style>\n\
         </head>\n<body>\n<h1>{title}</h1>\n<div class=\"timeline\">\n{}</div>\n<h2>What the checker believes</h2>\n<ol>\n",
        svg(counterexample)
    );
    for line in counterexample.lines() {
        let class = if line.starts_with("and then not") { " class=\"violating\"" } else { "" };
        let _ = writeln!(page, "<li{class}>{}</li>", escape(&line));
    }
    page.push_str("</ol>\n");
    if counterexample.left_out > 0 {
        let _ = writeln!(
            page,
            "<p>{} more calls may have happened, and explain nothing: they are not drawn.</p>",
            counterexample.left_out
        );
    }
    page.push_str("</body>\n</html>\n");
    page
}

const STYLE: &str = "body{font:14px sans-serif;margin:24px}h1{font-size:20px}h2{font-size:16px}.timeline{overflow-x:auto}\
    text{font:12px monospace}.time{fill:#888;font-size:10px}.lane{stroke:#ddd}rect{stroke-width:1.5}\
    .certain{fill:#dbeafe;stroke:#2563eb}.maybe{fill:#f3f4f6;stroke:#6b7280;stroke-dasharray:4 3}\
    .bar-violating{fill:#fecaca;stroke:#dc2626}li.violating{color:#b91c1c;font-weight:bold}";

/// The timeline.
fn svg(counterexample: &Counterexample) -> String {
    let layout = Layout::of(&counterexample.calls);
    let (width, height) = (layout.width, layout.lanes.len() * LANE_PX + 40);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\">\n"
    );
    for (lane, process) in layout.lanes.iter().enumerate() {
        let y = lane * LANE_PX + LANE_PX / 2;
        let _ = writeln!(svg, "<line class=\"lane\" x1=\"{LEFT_PX}\" y1=\"{y}\" x2=\"{width}\" y2=\"{y}\"/>");
        // A process has a second line where a call of it was given up and may still be under way.
        if lane == 0 || layout.lanes[lane - 1] != *process {
            let _ = writeln!(svg, "<text x=\"4\" y=\"{}\">process {process}</text>", y + 4);
        }
    }
    for (call, bar) in counterexample.calls.iter().zip(&layout.bars) {
        let class = match call.role {
            Role::Certain => "certain",
            Role::Maybe => "maybe",
            Role::Violating => "bar-violating",
        };
        let y = bar.lane * LANE_PX + (LANE_PX - BAR_PX) / 2;
        let label = escape(&call.label);
        let title = format!("{} to {}", ms(call.began), ms(call.ended));
        let _ = writeln!(
            svg,
            "<g><title>{title}</title><rect class=\"{class}\" x=\"{}\" y=\"{y}\" width=\"{}\" height=\"{BAR_PX}\" rx=\"4\"/>\
             <text x=\"{}\" y=\"{}\">{label}</text></g>",
            bar.from,
            bar.to - bar.from,
            bar.from + GAP_PX / 2,
            y + BAR_PX / 2 + 4
        );
    }
    for (row, (at, x)) in layout.places.iter().enumerate() {
        // Two rows, so that neighbours do not run into each other.
        let y = layout.lanes.len() * LANE_PX + 14 + row % 2 * 12;
        let _ = writeln!(svg, "<text class=\"time\" x=\"{x}\" y=\"{y}\">{}</text>", ms(*at));
    }
    svg.push_str("</svg>\n");
    svg
}

/// Where everything is.
struct Layout {
    /// The process of each line.
    lanes: Vec<u32>,
    bars: Vec<Bar>,
    /// From moments to pixels.
    places: BTreeMap<u64, usize>,
    width: usize,
}

struct Bar {
    lane: usize,
    from: usize,
    to: usize,
}

impl Layout {
    fn of(calls: &[Shown]) -> Self {
        let places = places(calls);
        let end = places.values().last().copied().unwrap_or(LEFT_PX);
        let of_call = lanes(calls);
        // Lines of one process lie together.
        let mut lanes: Vec<(u32, usize)> = of_call.clone();
        lanes.sort_unstable();
        lanes.dedup();
        let widest = calls.iter().map(label_px).max().unwrap_or(0);
        let bars = calls.iter().zip(&of_call).map(|(call, lane)| {
            let from = places[&call.began];
            let to = places.get(&call.ended).copied().unwrap_or(end + widest);
            Bar { lane: lanes.binary_search(lane).unwrap_or(0), from, to }
        });
        let bars = bars.collect();
        Self {
            bars,
            lanes: lanes.into_iter().map(|(process, _)| process).collect(),
            places,
            width: end + widest + GAP_PX,
        }
    }
}

/// The process of each call, and which of its lines the call is on: one that overlaps with an earlier one needs another.
fn lanes(calls: &[Shown]) -> Vec<(u32, usize)> {
    let mut busy_until: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    let lane = |call: &Shown| {
        let lines = busy_until.entry(call.process).or_default();
        let line = lines.iter().position(|until| *until < call.began).unwrap_or(lines.len());
        lines.resize(lines.len().max(line + 1), 0);
        lines[line] = call.ended;
        (call.process, line)
    };
    calls.iter().map(lane).collect()
}

/// A pixel for each beginning and end, in their order, so far apart that labels fit.
fn places(calls: &[Shown]) -> BTreeMap<u64, usize> {
    let moments: Vec<u64> = {
        let ends = calls.iter().map(|call| call.ended).filter(|ended| *ended != NEVER);
        let mut moments: Vec<u64> = calls.iter().map(|call| call.began).chain(ends).collect();
        moments.sort_unstable();
        moments.dedup();
        moments
    };
    let mut places = BTreeMap::new();
    let mut x = LEFT_PX;
    for at in moments {
        let ending = calls.iter().filter(|call| call.ended == at);
        let needed = ending.filter_map(|call| places.get(&call.began).map(|from| from + label_px(call))).max();
        x = x.max(needed.unwrap_or(0));
        places.insert(at, x);
        x += GAP_PX;
    }
    places
}

fn label_px(call: &Shown) -> usize {
    call.label.chars().count() * CHARACTER_PX + GAP_PX
}

/// A moment in milliseconds.
fn ms(ns: u64) -> String {
    if ns == NEVER { "?".to_owned() } else { format!("{}.{:06}ms", ns / 1_000_000, ns % 1_000_000) }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
