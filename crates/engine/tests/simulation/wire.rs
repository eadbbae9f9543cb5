//! Replies: what is expected, what arrived as bytes, and whether the two agree.

use std::fmt;

/// What the model expects; how it is written depends on the protocol of the connection.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reply {
    Simple(&'static str),
    Error(String),
    Int(i64),
    Bulk(String),
    Null,
    NullArray,
    Array(Vec<Reply>),
    /// An array in any order.
    Unordered(Vec<Reply>),
    /// Any order; an array to older clients.
    Set(Vec<Reply>),
    /// Keys and values one after the other, the pairs in any order; an array to older clients.
    Map(Vec<(Reply, Reply)>),
    /// The same, an array to everybody.
    Flat(Vec<(Reply, Reply)>),
    /// A number with a fraction; a text to older clients.
    Score(i64),
    /// Members with scores: pairs, or a flat array to older clients.
    Scored(Vec<(String, i64)>),
    /// What was not asked for; an array to older clients.
    Push(Vec<Reply>),
    /// One of these.
    OneOf(Vec<Reply>),
}

/// What arrived.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Wire {
    Simple(String),
    Error(String),
    Int(i64),
    Bulk(String),
    NullBulk,
    NullArray,
    Null,
    Double(String),
    Array(Vec<Wire>),
    Set(Vec<Wire>),
    Map(Vec<Wire>),
    Push(Vec<Wire>),
}

impl Reply {
    pub(crate) fn ok() -> Self {
        Self::Simple("OK")
    }

    pub(crate) fn len(len: usize) -> Self {
        Self::Int(i64::try_from(len).expect("a length"))
    }

    pub(crate) fn bulk(text: &str) -> Self {
        Self::Bulk(text.to_owned())
    }

    /// What a script sees of it, and hands on: it speaks the older protocol and knows one kind of nothing.
    pub(crate) fn through_script(self) -> Self {
        let all = |replies: Vec<Self>| replies.into_iter().map(Self::through_script).collect();
        match self {
            Self::NullArray => Self::Null,
            Self::Score(score) => Self::Bulk(score.to_string()),
            Self::Array(items) => Self::Array(all(items)),
            Self::Unordered(items) | Self::Set(items) => Self::Unordered(all(items)),
            Self::Map(pairs) => Self::Flat(pairs),
            Self::Scored(members) => flat(&members).through_script(),
            other => other,
        }
    }

    /// Whether `wire` is this, in the newer or the older protocol.
    pub(crate) fn agrees(&self, wire: &Wire, is_resp3: bool) -> bool {
        match (self, wire) {
            (Self::Simple(text), Wire::Simple(other)) => text == other,
            (Self::Error(text), Wire::Error(other)) | (Self::Bulk(text), Wire::Bulk(other)) => text == other,
            (Self::Int(number), Wire::Int(other)) => number == other,
            (Self::Null | Self::NullArray, Wire::Null) => is_resp3,
            (Self::Null, Wire::NullBulk) | (Self::NullArray, Wire::NullArray) => !is_resp3,
            (Self::Score(score), Wire::Double(text)) => is_resp3 && score.to_string() == *text,
            (Self::Score(score), Wire::Bulk(text)) => !is_resp3 && score.to_string() == *text,
            (Self::Array(items), Wire::Array(others)) => in_order(items, others, is_resp3),
            (Self::Push(items), Wire::Push(others)) => is_resp3 && in_order(items, others, is_resp3),
            (Self::Push(items), Wire::Array(others)) => !is_resp3 && in_order(items, others, is_resp3),
            (Self::Unordered(items), Wire::Array(others)) => in_any_order(items, others, is_resp3),
            (Self::Set(items), Wire::Set(others)) => is_resp3 && in_any_order(items, others, is_resp3),
            (Self::Set(items), Wire::Array(others)) => !is_resp3 && in_any_order(items, others, is_resp3),
            (Self::Map(pairs), Wire::Map(others)) => is_resp3 && pairs_agree(pairs, others, is_resp3),
            (Self::Map(pairs), Wire::Array(others)) => !is_resp3 && pairs_agree(pairs, others, is_resp3),
            (Self::Flat(pairs), Wire::Array(others)) => pairs_agree(pairs, others, is_resp3),
            (Self::Scored(members), wire) if !is_resp3 => flat(members).agrees(wire, is_resp3),
            (Self::Scored(members), wire) => in_pairs(members).agrees(wire, is_resp3),
            (Self::OneOf(choices), wire) => choices.iter().any(|choice| choice.agrees(wire, is_resp3)),
            _ => false,
        }
    }
}

fn flat(members: &[(String, i64)]) -> Reply {
    Reply::Array(members.iter().flat_map(|(member, score)| [Reply::bulk(member), Reply::Score(*score)]).collect())
}

fn in_pairs(members: &[(String, i64)]) -> Reply {
    let pair = |(member, score): &(String, i64)| Reply::Array(vec![Reply::bulk(member), Reply::Score(*score)]);
    Reply::Array(members.iter().map(pair).collect())
}

fn in_order(items: &[Reply], others: &[Wire], is_resp3: bool) -> bool {
    items.len() == others.len() && items.iter().zip(others).all(|(item, other)| item.agrees(other, is_resp3))
}

fn in_any_order(items: &[Reply], others: &[Wire], is_resp3: bool) -> bool {
    let mut rest: Vec<&Wire> = others.iter().collect();
    items.len() == others.len()
        && items.iter().all(|item| {
            let at = rest.iter().position(|other| item.agrees(other, is_resp3));
            at.map(|at| rest.swap_remove(at)).is_some()
        })
}

fn pairs_agree(pairs: &[(Reply, Reply)], others: &[Wire], is_resp3: bool) -> bool {
    let items: Vec<_> = pairs.iter().map(|(key, value)| Reply::Array(vec![key.clone(), value.clone()])).collect();
    let others: Vec<_> = others.chunks(2).map(|pair| Wire::Array(pair.to_vec())).collect();
    in_any_order(&items, &others, is_resp3)
}

/// All that arrived, one after the other. A message inside of a reply comes before it.
pub(crate) fn parse(bytes: &[u8]) -> Result<Vec<Wire>, Malformed> {
    let (mut rest, mut all) = (bytes, Vec::new());
    while !rest.is_empty() {
        let reply = parse_one(&mut rest, &mut all)?;
        all.push(reply);
    }
    Ok(all)
}

/// Bytes that are no reply.
#[derive(Debug)]
pub(crate) struct Malformed;

fn parse_one(rest: &mut &[u8], messages: &mut Vec<Wire>) -> Result<Wire, Malformed> {
    let line = line(rest)?;
    let (kind, text) = (line.chars().next().ok_or(Malformed)?, line.get(1..).ok_or(Malformed)?);
    let number = || text.parse::<i64>().map_err(|_| Malformed);
    Ok(match kind {
        '+' => Wire::Simple(text.to_owned()),
        '-' => Wire::Error(text.to_owned()),
        ':' => Wire::Int(number()?),
        ',' => Wire::Double(text.to_owned()),
        '_' => Wire::Null,
        '$' if text == "-1" => Wire::NullBulk,
        '*' if text == "-1" => Wire::NullArray,
        '$' => {
            let len = usize::try_from(number()?).map_err(|_| Malformed)?;
            let (bulk, after) = rest.split_at_checked(len).ok_or(Malformed)?;
            *rest = after.strip_prefix(b"\r\n").ok_or(Malformed)?;
            Wire::Bulk(String::from_utf8(bulk.to_vec()).map_err(|_| Malformed)?)
        }
        '*' => Wire::Array(parse_many(rest, number()?, messages)?),
        '~' => Wire::Set(parse_many(rest, number()?, messages)?),
        '%' => Wire::Map(parse_many(rest, 2 * number()?, messages)?),
        '>' => Wire::Push(parse_many(rest, number()?, messages)?),
        _ => return Err(Malformed),
    })
}

fn parse_many(rest: &mut &[u8], count: i64, messages: &mut Vec<Wire>) -> Result<Vec<Wire>, Malformed> {
    let (count, mut items) = (usize::try_from(count).map_err(|_| Malformed)?, Vec::new());
    while items.len() < count {
        match parse_one(rest, messages)? {
            message @ Wire::Push(_) => messages.push(message),
            item => items.push(item),
        }
    }
    Ok(items)
}

fn line(rest: &mut &[u8]) -> Result<String, Malformed> {
    let end = rest.windows(2).position(|pair| pair == b"\r\n").ok_or(Malformed)?;
    let line = String::from_utf8(rest[..end].to_vec()).map_err(|_| Malformed)?;
    *rest = &rest[end + 2..];
    Ok(line)
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what arrived is no reply")
    }
}
