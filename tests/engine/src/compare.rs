//! Which replies must be equal byte for byte, and what is left open for the others.
//!
//! Redis promises no order for sets and hashes, picks random members, and measures time. For such commands `Rule` says what still
//! has to agree. Errors have to agree always, also where the answer is open.

use std::collections::BTreeMap;

use crate::command::{Command, word};
use crate::reply::Reply;
use crate::sequence::Outcome;

/// What two replies to one command have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// The bytes.
    Exact,
    /// The values, in any order.
    Unordered,
    /// The values two by two, in any order.
    UnorderedPairs,
    /// The values at all depths, in any order.
    UnorderedDeep,
    /// A cursor, and values (two by two) in any order.
    Scan { width: usize },
    /// The types of all values and their number.
    Shape,
    /// The type of the reply.
    Kind,
    /// Numbers that lie this close together, if both are times; else equal.
    Near(i64),
    /// Places: those at the same distance come in any order, and a part of them is cut among these anywhere.
    Places(Places),
    /// Fields and values, except for those that name this server.
    Hello,
    /// Facts about commands, without what is said for people.
    Commands,
}

/// What of a search for places is fixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Places {
    /// Not all that were found are shown.
    is_part: bool,
    /// They come by distance, which is shown.
    has_distances: bool,
}

/// What the two servers may need for one sequence, on a machine that is busy with something else.
const TOLERANCE_MS: i64 = 30_000;

/// Compares outcomes in the order of the commands: a transaction's replies follow the rules of what was queued.
#[derive(Debug, Default)]
pub struct Comparison {
    queued: BTreeMap<u8, Vec<Vec<Vec<u8>>>>,
}

impl Comparison {
    /// Whether both outcomes of this command are right, if one of them is.
    pub fn agrees(&mut self, command: &Command, one: &Outcome, other: &Outcome) -> bool {
        self.replies_agree(command, &one.replies, &other.replies) && pushes_agree(one, other)
    }

    fn replies_agree(&mut self, command: &Command, one: &[Reply], other: &[Reply]) -> bool {
        if let ([one], [other]) = (one, other) {
            return self.reply_agrees(command, one, other);
        }
        // Leaving all channels happens in the order of a hash table.
        let leaves_all =
            command.arguments.len() == 1 && command.name().contains("UNSUBSCRIBE") || command.name() == "RESET";
        if leaves_all {
            return one.len() == other.len() && one.iter().zip(other).all(|(one, other)| shape(one) == shape(other));
        }
        if command.name().ends_with("SUBSCRIBE") {
            return one == other;
        }
        // Among these are what the command pushed to the connection itself.
        sorted(&Reply::Many(b'>', one.to_vec()), 1) == sorted(&Reply::Many(b'>', other.to_vec()), 1)
    }

    fn reply_agrees(&mut self, command: &Command, one: &Reply, other: &Reply) -> bool {
        let queued = self.queued.entry(command.connection).or_default();
        if one.is_status("QUEUED") {
            queued.push(command.arguments.clone());
            return one == other;
        }
        if matches!(command.name().as_str(), "EXEC" | "DISCARD" | "RESET") {
            let queued = std::mem::take(queued);
            if one.items().len() == queued.len() && other.items().len() == queued.len() && !queued.is_empty() {
                let mut replies = queued.iter().zip(one.items().iter().zip(other.items()));
                return replies.all(|(arguments, (one, other))| agree(arguments, one, other));
            }
        }
        agree(&command.arguments, one, other)
    }
}

/// Whether both replies to a command outside of a transaction are right, if one of them is.
pub fn agree(arguments: &[Vec<u8>], one: &Reply, other: &Reply) -> bool {
    if one == other {
        return true;
    }
    if one.is_error() || other.is_error() {
        return false;
    }
    match rule(arguments) {
        Rule::Exact => false,
        Rule::Unordered => sorted(one, 1) == sorted(other, 1),
        Rule::UnorderedPairs => sorted(one, 2) == sorted(other, 2),
        Rule::UnorderedDeep => sorted_deep(one) == sorted_deep(other),
        Rule::Scan { width } => scans_agree(one, other, width),
        Rule::Shape => shape(one) == shape(other),
        Rule::Kind => kind(one) == kind(other),
        Rule::Near(tolerance) => is_near(one, other, tolerance),
        Rule::Places(places) => places_agree(one, other, places),
        Rule::Hello => greeting(one) == greeting(other),
        Rule::Commands => facts(one) == facts(other),
    }
}

/// What of a reply is worth keeping: where only its type counts, the rest would just name a machine and a moment, and texts are Redis's own.
pub fn essence(arguments: &[Vec<u8>], reply: Reply) -> Reply {
    match rule(arguments) {
        Rule::Kind if !reply.is_error() => kind(&reply),
        Rule::Commands => facts(&reply),
        _ => reply,
    }
}

fn rule(arguments: &[Vec<u8>]) -> Rule {
    let name = word(arguments, 0);
    match name.as_str() {
        "SMEMBERS" | "SINTER" | "SUNION" | "SDIFF" | "KEYS" | "HKEYS" | "HVALS" => Rule::Unordered,
        "HGETALL" => Rule::UnorderedPairs,
        "SPOP" | "SRANDMEMBER" | "HRANDFIELD" | "ZRANDMEMBER" => random_members(arguments),
        "RANDOMKEY" => Rule::Shape,
        "TTL" | "EXPIRETIME" => Rule::Near(TOLERANCE_MS / 1_000),
        "PTTL" | "PEXPIRETIME" => Rule::Near(TOLERANCE_MS),
        "SCAN" | "SSCAN" => Rule::Scan { width: 1 },
        "HSCAN" | "ZSCAN" => Rule::Scan { width: 2 },
        "SORT" | "SORT_RO" => sort_rule(arguments),
        "GEORADIUS" | "GEORADIUS_RO" | "GEORADIUSBYMEMBER" | "GEORADIUSBYMEMBER_RO" | "GEOSEARCH" => {
            geo_rule(arguments)
        }
        // Both may write a value in several ways, and each reads them all.
        "DUMP" => Rule::Kind,
        "TIME" | "LASTSAVE" | "INFO" | "LOLWUT" => Rule::Kind,
        "HELLO" => Rule::Hello,
        "EVAL" | "EVAL_RO" => script_rule(arguments),
        "ACL" | "CLIENT" | "CLUSTER" | "COMMAND" | "CONFIG" | "DEBUG" | "LATENCY" | "MEMORY" | "OBJECT" | "PUBSUB"
        | "SCRIPT" | "SLOWLOG" => subcommand_rule(arguments, &name, &word(arguments, 1)),
        _ => Rule::Exact,
    }
}

fn subcommand_rule(arguments: &[Vec<u8>], name: &str, subcommand: &str) -> Rule {
    match (name, subcommand) {
        // The texts are ours: they are for people.
        (_, "HELP") => Rule::Kind,
        // Not all of Redis's commands are there.
        ("COMMAND", "" | "COUNT") => Rule::Kind,
        ("COMMAND", "INFO" | "DOCS" | "LIST") if arguments.len() == 2 => Rule::Kind,
        ("COMMAND", "INFO" | "DOCS") => Rule::Commands,
        ("COMMAND", "LIST") => Rule::Unordered,
        ("CONFIG", "GET") => Rule::UnorderedPairs,
        ("CLIENT", "ID" | "LIST" | "INFO") | ("OBJECT", "IDLETIME") | ("SLOWLOG" | "LATENCY", _) => Rule::Kind,
        ("DEBUG", _) => Rule::Kind,
        ("MEMORY", _) => Rule::Shape,
        ("PUBSUB", "CHANNELS" | "SHARDCHANNELS") => Rule::Unordered,
        _ => Rule::Exact,
    }
}

/// More members than any generated key has are all members.
const ALL_MEMBERS: i64 = 5_000;

fn random_members(arguments: &[Vec<u8>]) -> Rule {
    let count = arguments.get(2).and_then(|count| std::str::from_utf8(count).ok()?.parse::<i64>().ok());
    if count.is_some_and(|count| count >= ALL_MEMBERS) && arguments.len() == 3 { Rule::Unordered } else { Rule::Shape }
}

/// A set that is not sorted comes in any order, and a part of it is any part; so do members whose weights are equal texts.
fn sort_rule(arguments: &[Vec<u8>]) -> Rule {
    let words: Vec<_> = (2..arguments.len()).map(|index| word(arguments, index)).collect();
    let is_text = words.iter().any(|word| word == "ALPHA");
    let has_no_order = words.windows(2).any(|pair| pair[0] == "BY" && (is_text || !pair[1].contains('*')));
    let is_part = words.iter().any(|word| word == "LIMIT");
    match (has_no_order, is_part) {
        (false, _) => Rule::Exact,
        (true, false) => Rule::Unordered,
        // Any part: with GET some of it may be absent.
        (true, true) => Rule::Kind,
    }
}

/// `COUNT` implies an order, unless `ANY` takes whichever places are found first.
fn geo_rule(arguments: &[Vec<u8>]) -> Rule {
    let has = |option: &str| (2..arguments.len()).any(|index| word(arguments, index) == option);
    if has("ANY") {
        return Rule::Shape;
    }
    let is_part = has("COUNT");
    Rule::Places(Places { is_part, has_distances: has("WITHDIST") && (is_part || has("ASC") || has("DESC")) })
}

fn places_agree(one: &Reply, other: &Reply, places: Places) -> bool {
    // The distance follows the name.
    let distances =
        |reply: &Reply| -> Vec<_> { reply.items().iter().map(|place| place.items().get(1).cloned()).collect() };
    shape(one) == shape(other)
        && (places.is_part || sorted(one, 1) == sorted(other, 1))
        && (!places.has_distances || distances(one) == distances(other))
}

/// The scripts that hand their arguments to `redis.call` answer what the command answers.
fn script_rule(arguments: &[Vec<u8>]) -> Rule {
    let is_call = arguments.get(1).is_some_and(|script| script.ends_with(b"call(unpack(ARGV))"));
    let keys = arguments.get(2).and_then(|count| std::str::from_utf8(count).ok()?.parse::<usize>().ok());
    match keys.and_then(|keys| arguments.get(3 + keys..)) {
        // Lua has no set, map, or number with a fraction: what is left of them is flat, and a pair may be any two.
        Some(inner) if is_call && !inner.is_empty() => match rule(inner) {
            Rule::Near(tolerance) => Rule::Near(tolerance),
            Rule::Exact => Rule::Exact,
            Rule::Kind => Rule::Kind,
            Rule::Shape => Rule::Shape,
            _ => Rule::UnorderedDeep,
        },
        _ => Rule::Exact,
    }
}

/// Patterns are served in the order of a hash table, so the order of what one command pushes is open.
fn pushes_agree(one: &Outcome, other: &Outcome) -> bool {
    let sorted = |pushes: &[Reply]| {
        let mut pushes = pushes.to_vec();
        pushes.sort();
        pushes
    };
    one.pushes.len() == other.pushes.len()
        && one
            .pushes
            .iter()
            .zip(&other.pushes)
            .all(|((number, one), (other_number, other))| number == other_number && sorted(one) == sorted(other))
}

/// The reply with its values, or groups of `width` values, in a fixed order.
fn sorted(reply: &Reply, width: usize) -> Reply {
    match reply {
        Reply::Many(kind, items) => {
            let width = if *kind == b'%' { 2 } else { width };
            let mut groups: Vec<_> = items.chunks(width).collect();
            groups.sort();
            Reply::Many(*kind, groups.concat())
        }
        other => other.clone(),
    }
}

fn sorted_deep(reply: &Reply) -> Reply {
    match reply {
        Reply::Many(kind, items) => sorted(&Reply::Many(*kind, items.iter().map(sorted_deep).collect()), 1),
        other => other.clone(),
    }
}

fn scans_agree(one: &Reply, other: &Reply, width: usize) -> bool {
    match (one.items(), other.items()) {
        ([cursor, items], [other_cursor, other_items]) => {
            cursor == other_cursor && sorted(items, width) == sorted(other_items, width)
        }
        _ => false,
    }
}

/// The reply with all strings and numbers blotted out.
fn shape(reply: &Reply) -> Reply {
    match reply {
        Reply::Many(kind, items) => Reply::Many(*kind, items.iter().map(shape).collect()),
        other => kind(other),
    }
}

fn kind(reply: &Reply) -> Reply {
    match reply {
        Reply::Line(kind, _) => Reply::Line(*kind, Vec::new()),
        Reply::Blob(kind, _) => Reply::Blob(*kind, Vec::new()),
        Reply::Missing(kind) => Reply::Missing(*kind),
        Reply::Many(kind, _) => Reply::Many(*kind, Vec::new()),
    }
}

fn is_near(one: &Reply, other: &Reply, tolerance: i64) -> bool {
    let number = |reply: &Reply| -> Option<i64> { std::str::from_utf8(reply.bytes()?).ok()?.parse().ok() };
    match (kind(one) == kind(other), number(one), number(other)) {
        // Below zero they are no times but say that there is none.
        (true, Some(one), Some(other)) if one >= 0 && other >= 0 => one.abs_diff(other) <= tolerance.unsigned_abs(),
        _ => false,
    }
}

/// What HELLO answers, without the version and the number of the connection.
fn greeting(reply: &Reply) -> Reply {
    let Reply::Many(kind, items) = reply else {
        return reply.clone();
    };
    let pairs = items.chunks(2).map(|pair| match pair {
        [field, value] if matches!(field.bytes(), Some(b"id" | b"version")) => vec![field.clone(), self::kind(value)],
        pair => pair.to_vec(),
    });
    Reply::Many(*kind, pairs.flatten().collect())
}

/// What COMMAND INFO and COMMAND DOCS say, without the texts that are ours: notes, summaries, the names behind the letters of a complexity,
/// and what a version changed. Subcommands come in any order.
fn facts(reply: &Reply) -> Reply {
    let Reply::Many(kind, items) = reply else {
        return reply.clone();
    };
    let named = |item: &Reply, name: &str| item.bytes() == Some(name.as_bytes());
    let mut kept: Vec<Reply> = Vec::new();
    for item in items {
        match kept.last() {
            Some(name) if named(name, "notes") || named(name, "summary") => drop(kept.pop()),
            Some(name) if named(name, "complexity") => kept.push(formula(item)),
            Some(name) if named(name, "history") => kept.push(versions(item)),
            Some(name) if named(name, "subcommands") => kept.push(sorted(&facts(item), 2)),
            _ => kept.push(facts(item)),
        }
    }
    let is_info = matches!(items[..], [Reply::Blob(..), Reply::Line(b':', _), ..]);
    if let (true, Some(subcommands)) = (is_info, kept.last_mut()) {
        *subcommands = sorted(subcommands, 1);
    }
    Reply::Many(*kind, kept)
}

/// The first formula of a text; nothing if there is none.
fn formula(text: &Reply) -> Reply {
    let bytes = text.bytes().unwrap_or_default();
    let text = String::from_utf8_lossy(bytes);
    let (mut depth, mut formula) = (0, String::new());
    for character in text.chars().skip_while(|character| *character != 'O').filter(|character| *character != ' ') {
        formula.push(character);
        depth += i32::from(character == '(') - i32::from(character == ')');
        if depth == 0 && character == ')' {
            break;
        }
    }
    Reply::Blob(b'$', formula.into_bytes())
}

fn versions(history: &Reply) -> Reply {
    let version = |change: &Reply| Reply::Many(b'*', change.items().iter().take(1).cloned().collect());
    Reply::Many(b'*', history.items().iter().map(version).collect())
}

#[cfg(test)]
mod tests {
    use super::{Comparison, agree};
    use crate::command::Command;
    use crate::reply::Reply;
    use crate::sequence::Outcome;

    fn reply(text: &str) -> Reply {
        Reply::parse(&mut text.lines()).unwrap()
    }

    fn agrees(line: &str, one: &str, other: &str) -> bool {
        agree(&Command::words(line).arguments, &reply(one), &reply(other))
    }

    #[test]
    fn order_counts_only_where_redis_promises_one() {
        let (one, other) = ("*2\n$\"a\"\n$\"b\"", "*2\n$\"b\"\n$\"a\"");
        assert!(agrees("smembers k", one, other));
        assert!(!agrees("LRANGE k 0 -1", one, other));
        assert!(!agrees("HGETALL k", one, other), "a field is not a value");
        assert!(!agrees("SMEMBERS k", one, "~2\n$\"b\"\n$\"a\""), "a set is not an array");
    }

    #[test]
    fn times_agree_within_limits_and_their_absence_exactly() {
        assert!(agrees("TTL k", ":100", ":99"));
        assert!(!agrees("TTL k", ":100", ":200"));
        assert!(!agrees("TTL k", ":-1", ":-2"));
        assert!(!agrees("TTL k", ":0", ":-2"));
    }

    #[test]
    fn random_members_agree_in_number() {
        assert!(agrees("SRANDMEMBER k 1", "*1\n$\"a\"", "*1\n$\"b\""));
        assert!(!agrees("SRANDMEMBER k 1", "*1\n$\"a\"", "*0"));
        assert!(!agrees("SPOP k 100000", "*1\n$\"a\"", "*1\n$\"b\""));
    }

    #[test]
    fn texts_about_commands_are_ours_and_facts_are_not() {
        let docs = |summary: &str, complexity: &str, change: &str, argument: &str| {
            let change = format!("$\"history\"\n*1\n*2\n$\"2.0.0\"\n$\"{change}\"");
            let argument = format!("$\"arguments\"\n*1\n*2\n$\"name\"\n$\"{argument}\"");
            let texts = format!("$\"summary\"\n$\"{summary}\"\n$\"complexity\"\n$\"{complexity}\"");
            format!("*2\n$\"get\"\n*8\n{texts}\n{change}\n{argument}")
        };
        let redis = docs("a", "O(N*log(M)) where N is", "b", "key");
        assert!(agrees("COMMAND DOCS get", &redis, &docs("c", "O(N*log(M)); N: x", "d", "key")));
        assert!(!agrees("COMMAND DOCS get", &redis, &docs("c", "O(N); N: x", "d", "key")));
        assert!(!agrees("COMMAND DOCS get", &redis, &docs("c", "O(N*log(M))", "d", "value")));
    }

    #[test]
    fn places_agree_in_all_but_the_order_of_equal_distances() {
        let place = |name: &str, distance: &str| format!("  *2\n    $\"{name}\"\n    $\"{distance}\"");
        let found = |places: [(&str, &str); 2]| {
            let [one, other] = places.map(|(name, distance)| place(name, distance));
            format!("*2\n{one}\n{other}")
        };
        let (near, far, also_far) = (("a", "1.0000"), ("b", "2.0000"), ("c", "2.0000"));
        let search = "GEOSEARCH g FROMMEMBER a BYRADIUS 9 km ASC WITHDIST";
        assert!(agrees(search, &found([far, also_far]), &found([also_far, far])));
        assert!(!agrees(search, &found([near, far]), &found([far, near])));
        assert!(!agrees(search, &found([near, far]), &found([near, also_far])));
        assert!(agrees(&format!("{search} COUNT 2"), &found([near, far]), &found([near, also_far])));
        assert!(!agrees(&format!("{search} COUNT 2"), &found([near, far]), &found([far, also_far])));
    }

    #[test]
    fn errors_agree_byte_for_byte_everywhere() {
        assert!(!agrees("SMEMBERS k", "-ERR a", "-ERR b"));
        assert!(!agrees("TIME x", "-ERR a", "*0"));
    }

    #[test]
    fn a_transaction_follows_the_rules_of_what_it_queued() {
        let outcome = |text: &str| Outcome { replies: vec![reply(text)], ..Outcome::default() };
        let mut comparison = Comparison::default();
        let mut agrees = |line: &str, one: &str, other: &str| {
            comparison.agrees(&Command::words(line), &outcome(one), &outcome(other))
        };
        assert!(agrees("SMEMBERS k", "+QUEUED", "+QUEUED"));
        assert!(agrees("EXEC", "*1\n*2\n:1\n:2", "*1\n*2\n:2\n:1"));
        assert!(agrees("LRANGE k 0 -1", "+QUEUED", "+QUEUED"));
        assert!(!agrees("EXEC", "*1\n*2\n:1\n:2", "*1\n*2\n:2\n:1"));
    }
}
