//! Keys: (namespace, tenant, kind, id), and the one text that every key-value backend stores them under.
//!
//! # Guarantees
//! The text is injective: two different keys never share one. It keeps the byte order of ids within one scope. No part
//! can act as a separator, a glob wildcard or a Redis hash tag.
//!
//! # How it works
//! A key reads `namespace:tenant:kind:id`. Percent-encoding would be injective but not order-preserving (`%` sorts before
//! the digits, `:` after them), so each special character is replaced by two that begin with a neighbour of it in ASCII,
//! and the neighbour is escaped too:
//!
//! | group | written as | group | written as |
//! |---|---|---|---|
//! | `$` `%` | `$0` `$1` | `[` `\` `]` `^` | `^0` `^1` `^2` `^3` |
//! | `)` `*` | `)0` `)1` | `{` <code>&#124;</code> `}` | <code>&#124;0</code> <code>&#124;1</code> <code>&#124;2</code> |
//! | `:` `;` | `;0` `;1` | `>` `?` | `>0` `>1` |
//!
//! No other character lies between the members of a group, so comparing the lead with anything outside of the group
//! gives the same answer as before.
//!
//! # Companions
//! What else a key names (its lock, its rate limit, its queue) lives under `{text}:suffix`. The braces are a Redis
//! Cluster hash tag around the whole text of the key, so all of it shares the key's slot (contract K3). A plain key
//! contains no brace and is hashed whole, which is the same.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use arrayvec::ArrayString;

use crate::error::{Error, Result};

/// Most bytes of a namespace, a tenant or a kind.
pub const NAME_BYTES_MAX: usize = 64;
/// Most bytes of an id.
pub const ID_BYTES_MAX: usize = 512;
/// Most bytes of a text: escaping doubles a part at the most, and there are three colons.
const TEXT_BYTES_MAX: usize = 2 * (3 * NAME_BYTES_MAX + ID_BYTES_MAX) + 3;

/// What a list of keys is confined to: namespace, tenant and kind.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope {
    /// `namespace:tenant:kind:`, escaped.
    text: Arc<str>,
    namespace_end: u16,
    tenant_end: u16,
}

/// The name of one value, counter, lock, rate limit or queue.
///
/// Cheap to clone. It keeps its text, so a driver pays for escaping once, when the key is made.
///
/// ```
/// use acteon_state_core::StateKey;
/// let key = StateKey::new("mail", "acme", "dedup", "welcome:ada")?;
/// assert_eq!(key.text(), "mail:acme:dedup:welcome;0ada");
/// assert_eq!(key.id(), "welcome:ada");
/// # Ok::<(), acteon_state_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StateKey {
    text: Arc<str>,
    namespace_end: u16,
    tenant_end: u16,
    kind_end: u16,
}

impl Scope {
    /// The scope of one kind of one tenant.
    ///
    /// # Errors
    /// `Invalid` for a part that is empty, longer than 64 bytes, or contains NUL.
    pub fn new(namespace: &str, tenant: &str, kind: &str) -> Result<Self> {
        let mut draft = Draft::new_const();
        let (namespace_end, tenant_end) = draft_scope(&mut draft, namespace, tenant, kind)?;
        Ok(Self { text: Arc::from(draft.as_str()), namespace_end, tenant_end })
    }

    /// The key with this id in this scope.
    ///
    /// # Errors
    /// `Invalid` for an id that is empty, longer than 512 bytes, or contains NUL.
    pub fn key(&self, id: &str) -> Result<StateKey> {
        let mut draft = Draft::new_const();
        draft.push_str(&self.text);
        draft_part(&mut draft, "id", id, ID_BYTES_MAX)?;
        Ok(StateKey {
            text: Arc::from(draft.as_str()),
            namespace_end: self.namespace_end,
            tenant_end: self.tenant_end,
            kind_end: offset(&self.text) - 1,
        })
    }

    /// `namespace:tenant:kind:`, escaped: what the text of every key of this scope begins with.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text that keys with this beginning of an id begin with. An empty beginning means all.
    ///
    /// # Errors
    /// `Invalid` for a beginning that no id can have.
    pub fn text_with_id_prefix(&self, id_prefix: &str) -> Result<String> {
        let mut draft = Draft::new_const();
        draft.push_str(&self.text);
        if !id_prefix.is_empty() {
            draft_part(&mut draft, "id prefix", id_prefix, ID_BYTES_MAX)?;
        }
        Ok(draft.as_str().to_owned())
    }

    /// Reads a scope and the beginning of an id from what the texts of keys begin with: `namespace:tenant:kind:id-prefix`, escaped;
    /// the beginning may be missing. `None` when no key's text begins like this, or less than a scope is given.
    #[must_use]
    pub fn from_text_with_id_prefix(text: &str) -> Option<(Self, String)> {
        let mut parts = text.splitn(4, ':').map(unescape);
        let (namespace, tenant, kind) = (parts.next()?, parts.next()?, parts.next()?);
        let id_prefix = parts.next().unwrap_or_default().into_owned();
        let scope = Self::new(&namespace, &tenant, &kind).ok()?;
        let read_back = scope.text_with_id_prefix(&id_prefix).ok()?;
        // What unescapes but was never written by us must not pass for something else.
        (read_back == text || scope.text.strip_suffix(':') == Some(text)).then_some((scope, id_prefix))
    }

    /// The namespace, as it was given.
    #[must_use]
    pub fn namespace(&self) -> String {
        unescape(&self.text[..usize::from(self.namespace_end)]).into_owned()
    }

    /// The tenant, as it was given.
    #[must_use]
    pub fn tenant(&self) -> String {
        unescape(&self.text[usize::from(self.namespace_end) + 1..usize::from(self.tenant_end)]).into_owned()
    }

    /// The kind, as it was given.
    #[must_use]
    pub fn kind(&self) -> String {
        unescape(&self.text[usize::from(self.tenant_end) + 1..self.text.len() - 1]).into_owned()
    }
}

impl StateKey {
    /// The key of these four parts.
    ///
    /// # Errors
    /// `Invalid` when namespace, tenant or kind is not 1 to 64 bytes, the id not 1 to 512, or one contains NUL.
    pub fn new(namespace: &str, tenant: &str, kind: &str, id: &str) -> Result<Self> {
        let mut draft = Draft::new_const();
        let (namespace_end, tenant_end) = draft_scope(&mut draft, namespace, tenant, kind)?;
        let kind_end = offset(&draft) - 1;
        draft_part(&mut draft, "id", id, ID_BYTES_MAX)?;
        Ok(Self { text: Arc::from(draft.as_str()), namespace_end, tenant_end, kind_end })
    }

    /// Reads a key back from its text; `None` when no key has this text.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let (namespace, tenant, kind, id) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let key = Self::new(&unescape(namespace), &unescape(tenant), &unescape(kind), &unescape(id)).ok()?;
        // Something that unescapes but was never written by us (`a;9`) must not pass for another key.
        (key.text() == text).then_some(key)
    }

    /// The text: `namespace:tenant:kind:id`, escaped, without any prefix.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The scope that this key belongs to.
    #[must_use]
    pub fn scope(&self) -> Scope {
        Scope {
            text: self.text[..=usize::from(self.kind_end)].into(),
            namespace_end: self.namespace_end,
            tenant_end: self.tenant_end,
        }
    }

    /// The namespace, as it was given.
    #[must_use]
    pub fn namespace(&self) -> String {
        unescape(&self.text[..usize::from(self.namespace_end)]).into_owned()
    }

    /// The tenant, as it was given.
    #[must_use]
    pub fn tenant(&self) -> String {
        unescape(&self.text[usize::from(self.namespace_end) + 1..usize::from(self.tenant_end)]).into_owned()
    }

    /// The kind, as it was given.
    #[must_use]
    pub fn kind(&self) -> String {
        unescape(&self.text[usize::from(self.tenant_end) + 1..usize::from(self.kind_end)]).into_owned()
    }

    /// The id, as it was given.
    #[must_use]
    pub fn id(&self) -> String {
        unescape(&self.text[usize::from(self.kind_end) + 1..]).into_owned()
    }

    /// Namespace, tenant, kind and id, as they were given: for backends that keep them apart. Copies only what was escaped.
    #[must_use]
    pub fn parts(&self) -> [Cow<'_, str>; 4] {
        let [namespace_end, tenant_end, kind_end] =
            [self.namespace_end, self.tenant_end, self.kind_end].map(usize::from);
        [
            &self.text[..namespace_end],
            &self.text[namespace_end + 1..tenant_end],
            &self.text[tenant_end + 1..kind_end],
            &self.text[kind_end + 1..],
        ]
        .map(unescape)
    }
}

impl fmt::Debug for StateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StateKey({})", self.text)
    }
}

impl fmt::Display for StateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scope({})", self.text)
    }
}

/// What a key names besides its value: each lives under a key text of its own, in the same hash slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Companion {
    /// The lock record.
    Lock,
    /// The state of a fixed-window rate limit.
    FixedWindow,
    /// The log of a sliding-window rate limit.
    SlidingWindow,
    /// The theoretical arrival time of a GCRA rate limit.
    Gcra,
    /// Due times of a queue, by item.
    Due,
    /// Items of a queue, by id.
    Items,
}

impl Companion {
    /// What its text ends with.
    #[must_use]
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Lock => "}:lock",
            Self::FixedWindow => "}:fixed",
            Self::SlidingWindow => "}:sliding",
            Self::Gcra => "}:gcra",
            Self::Due => "}:due",
            Self::Items => "}:items",
        }
    }
}

/// The texts of keys under one configured prefix: what the memory and the Redis driver store under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyspace {
    /// The prefix with its colon.
    prefix: Arc<str>,
}

impl Keyspace {
    /// All keys begin with `prefix` and a colon.
    ///
    /// # Errors
    /// `Config` unless the prefix is 1 to 64 characters out of `A-Z a-z 0-9 _ . -`: anything else could make the keys of
    /// two deployments meet.
    pub fn new(prefix: &str) -> Result<Self> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if prefix.is_empty() || prefix.len() > NAME_BYTES_MAX || !prefix.chars().all(allowed) {
            return Err(Error::config(format!(
                "prefix {prefix:?} is not allowed: use 1 to {NAME_BYTES_MAX} characters out of A-Z a-z 0-9 _ . -"
            )));
        }
        Ok(Self { prefix: format!("{prefix}:").into() })
    }

    /// The text that the value or counter of a key is stored under: `prefix:namespace:tenant:kind:id`.
    #[must_use]
    pub fn text(&self, key: &StateKey) -> String {
        self.text_parts(key).concat()
    }

    /// The text that a companion is stored under: `{prefix:namespace:tenant:kind:id}:suffix`.
    #[must_use]
    pub fn companion(&self, key: &StateKey, companion: Companion) -> String {
        self.companion_parts(key, companion).concat()
    }

    /// What [`text`](Self::text) is put together from: for a driver that brings its own buffer.
    #[must_use]
    pub fn text_parts<'a>(&'a self, key: &'a StateKey) -> [&'a str; 2] {
        [&self.prefix, &key.text]
    }

    /// What [`companion`](Self::companion) is put together from.
    #[must_use]
    pub fn companion_parts<'a>(&'a self, key: &'a StateKey, companion: Companion) -> [&'a str; 4] {
        ["{", &self.prefix, &key.text, companion.suffix()]
    }

    /// What the texts of all keys begin with: the prefix and its colon.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The key that is stored under this text; `None` when it is not one of ours.
    #[must_use]
    pub fn parse(&self, text: &str) -> Option<StateKey> {
        StateKey::from_text(text.strip_prefix(&*self.prefix)?)
    }

    /// The key whose companion is stored under this text; `None` when it is not one of ours.
    #[must_use]
    pub fn parse_companion(&self, text: &str, companion: Companion) -> Option<StateKey> {
        self.parse(text.strip_prefix('{')?.strip_suffix(companion.suffix())?)
    }
}

/// A text while it is put together: on the stack, so that a key is allocated once, when its length is known.
type Draft = ArrayString<TEXT_BYTES_MAX>;

/// Writes `namespace:tenant:kind:`, and returns where namespace and tenant end.
fn draft_scope(draft: &mut Draft, namespace: &str, tenant: &str, kind: &str) -> Result<(u16, u16)> {
    draft_part(draft, "namespace", namespace, NAME_BYTES_MAX)?;
    let namespace_end = offset(draft);
    draft.push(':');
    draft_part(draft, "tenant", tenant, NAME_BYTES_MAX)?;
    let tenant_end = offset(draft);
    draft.push(':');
    draft_part(draft, "kind", kind, NAME_BYTES_MAX)?;
    draft.push(':');
    Ok((namespace_end, tenant_end))
}

/// Writes one part, escaped. There is room for it: nobody writes more than the parts of one key.
fn draft_part(draft: &mut Draft, name: &'static str, part: &str, bytes_max: usize) -> Result<()> {
    // The length first: it bounds the look at the bytes.
    if part.is_empty() || part.len() > bytes_max {
        return Err(refused(name, part, bytes_max));
    }
    match part.bytes().fold(0, |classes, byte| classes | CLASSES[usize::from(byte)]) {
        PLAIN => draft.push_str(part),
        ESCAPED => draft_escaped(draft, part),
        _ => return Err(refused(name, part, bytes_max)),
    }
    Ok(())
}

#[cold]
fn refused(name: &'static str, part: &str, bytes_max: usize) -> Error {
    let what = match part.len() {
        0 => "it is empty".to_owned(),
        bytes if bytes > bytes_max => format!("it has {bytes} bytes"),
        _ => "it contains NUL".to_owned(),
    };
    Error::invalid(format!("key {name}: {what}; allowed are 1 to {bytes_max} bytes without NUL"))
}

fn draft_escaped(draft: &mut Draft, part: &str) {
    let mut plain_from = 0;
    for (at, byte) in part.bytes().enumerate() {
        // Nearly all bytes are plain, and one look at the table is less than the comparisons of `escape`.
        if CLASSES[usize::from(byte)] == PLAIN {
            continue;
        }
        let Some(escaped) = escape(byte) else { continue };
        draft.push_str(&part[plain_from..at]);
        draft.push_str(escaped);
        plain_from = at + 1;
    }
    draft.push_str(&part[plain_from..]);
}

/// Bytes that stand for themselves.
const PLAIN: u8 = 0;
/// Bytes that `escape` replaces.
const ESCAPED: u8 = 1;
/// The byte that no part may contain.
const REFUSED: u8 = 2;

static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut classes = [PLAIN; 256];
    classes[0] = REFUSED;
    // Those above are parts of characters of several bytes.
    let mut byte = 0_u8;
    while byte.is_ascii() {
        if escape(byte).is_some() {
            classes[byte as usize] = ESCAPED;
        }
        byte += 1;
    }
    classes
}

const fn escape(byte: u8) -> Option<&'static str> {
    Some(match byte {
        b'$' => "$0",
        b'%' => "$1",
        b')' => ")0",
        b'*' => ")1",
        b':' => ";0",
        b';' => ";1",
        b'>' => ">0",
        b'?' => ">1",
        b'[' => "^0",
        b'\\' => "^1",
        b']' => "^2",
        b'^' => "^3",
        b'{' => "|0",
        b'|' => "|1",
        b'}' => "|2",
        _ => return None,
    })
}

/// Undoes `escape`. Text that `escape` never writes comes back as it is: `from_text` compares the round trip.
fn unescape(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(is_lead) {
        return Cow::Borrowed(text);
    }
    let mut part = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(lead) = chars.next() {
        let group = match lead {
            '$' => "$%",
            ')' => ")*",
            ';' => ":;",
            '>' => ">?",
            '^' => "[\\]^",
            '|' => "{|}",
            plain => {
                part.push(plain);
                continue;
            }
        };
        let member = chars.next().and_then(|digit| digit.to_digit(10)).and_then(|at| group.chars().nth(at as usize));
        part.push(member.unwrap_or(lead));
    }
    Cow::Owned(part)
}

/// Whether a character begins what `escape` writes.
const fn is_lead(byte: u8) -> bool {
    matches!(byte, b'$' | b')' | b';' | b'>' | b'^' | b'|')
}

/// Texts are at most [`TEXT_BYTES_MAX`] long, which a u16 holds.
fn offset(text: &str) -> u16 {
    u16::try_from(text.len()).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::{Companion, Keyspace, Scope, StateKey};

    #[test]
    fn separators_and_wildcards_in_a_part_cannot_reach_another_key() {
        let first = StateKey::new("a:b", "c", "k", "i").unwrap();
        let second = StateKey::new("a", "b:c", "k", "i").unwrap();
        assert_ne!(first.text(), second.text());
        let wild = StateKey::new("n", "*?[]{}\\%", "k", "$;>^|)").unwrap();
        assert!(!wild.text().contains(['*', '?', '[', ']', '{', '}', '\\', '%']));
    }

    #[test]
    fn parts_and_text_round_trip() {
        for part in ["plain", "a:b;c", "$%)*:;>?[\\]^{|}", "ünï 🙂", "0", "\u{1}"] {
            let key = StateKey::new(part, part, part, part).unwrap();
            assert_eq!((key.namespace(), key.tenant()), (part.to_owned(), part.to_owned()));
            assert_eq!((key.kind(), key.id()), (part.to_owned(), part.to_owned()));
            assert_eq!(key.parts(), [part; 4]);
            assert_eq!(StateKey::from_text(key.text()), Some(key.clone()));
            assert_eq!(key.scope().key(part).unwrap(), key);
        }
    }

    #[test]
    fn the_longest_parts_fit_however_they_are_escaped() {
        for char in ["x", "%", ":", "ü"] {
            let (name, id) = (char.repeat(64 / char.len()), char.repeat(512 / char.len()));
            let key = StateKey::new(&name, &name, &name, &id).unwrap();
            assert_eq!(key.parts(), [name.as_str(), &name, &name, &id]);
            assert_eq!(StateKey::from_text(key.text()), Some(key.clone()));
            let scope = Scope::new(&name, &name, &name).unwrap();
            assert_eq!(scope.key(&id).unwrap(), key);
            assert_eq!((scope, key.text()), (key.scope(), key.scope().text_with_id_prefix(&id).unwrap().as_str()));
        }
    }

    #[test]
    fn text_that_no_key_has_is_refused() {
        for text in ["", "a:b:c", "a:b:c:d:e", "a:b:c:;9", "a:b:c:;", "a:b:c:*", ":b:c:d"] {
            assert_eq!(StateKey::from_text(text), None, "{text:?}");
        }
    }

    #[test]
    fn prefixes_read_back_with_and_without_the_beginning_of_an_id() {
        for (text, id_prefix) in [("a;0b:t:k", ""), ("a;0b:t:k:", ""), ("a;0b:t:k:i;0", "i:"), ("a;0b:t:k:i", "i")] {
            let (scope, found) = Scope::from_text_with_id_prefix(text).unwrap();
            assert_eq!((scope.namespace().as_str(), found.as_str()), ("a:b", id_prefix), "{text}");
            assert!(scope.text_with_id_prefix(&found).unwrap().starts_with(text));
        }
        for text in ["", "a", "a:b", "a:b:", "a:b:c:d:e", "a:b:c:d;", "a:b:c:*", ":b:c:d", "a:b:c;9"] {
            assert_eq!(Scope::from_text_with_id_prefix(text), None, "{text:?}");
        }
    }

    #[test]
    fn ids_keep_their_order_in_the_text() {
        let all: Vec<String> =
            (1_u8..128).flat_map(|a| ["", "!", "0", "~"].map(|b| format!("{}{b}", a as char))).collect();
        for left in &all {
            for right in &all {
                let text = |id: &str| StateKey::new("n", "t", "k", id).unwrap().text().to_owned();
                assert_eq!(left.cmp(right), text(left).cmp(&text(right)), "{left:?} {right:?}");
            }
        }
    }

    #[test]
    fn parts_out_of_bounds_are_refused_by_name() {
        for (parts, name) in [
            (["", "t", "k", "i"], "namespace"),
            (["n", &"t".repeat(65), "k", "i"], "tenant"),
            (["n", "t", "k\0", "i"], "kind"),
            (["n", "t", "k", &"i".repeat(513)], "id"),
        ] {
            let error = StateKey::new(parts[0], parts[1], parts[2], parts[3]).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn companions_share_the_hash_tag_of_their_key() {
        let keyspace = Keyspace::new("acteon").unwrap();
        let key = StateKey::new("n", "t", "k", "{x}").unwrap();
        assert_eq!(keyspace.text(&key), "acteon:n:t:k:|0x|2");
        assert_eq!(keyspace.companion(&key, Companion::Lock), "{acteon:n:t:k:|0x|2}:lock");
        assert_eq!(keyspace.parse_companion("{acteon:n:t:k:|0x|2}:lock", Companion::Lock), Some(key.clone()));
        assert_eq!(keyspace.parse("acteon:n:t:k:|0x|2"), Some(key));
        assert_eq!(keyspace.parse("other:n:t:k:i"), None);
    }

    #[test]
    fn a_prefix_that_could_meet_another_is_refused() {
        for bad in ["", "a:b", "a*", "ü", "{a}"] {
            assert!(Keyspace::new(bad).is_err(), "{bad:?}");
        }
    }
}
