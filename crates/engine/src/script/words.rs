//! The words of commands that a script calls: from values of the interpreter to bytes.
//!
//! # Guarantees
//! A word is what Redis 7.0 makes of the value: the bytes of a string, a number with 17 significant digits.
//!
//! # How it works
//! Taking the bytes of a string out of an interpreter makes a counted reference to it, and finding the command of a name takes about as
//! long. So names of commands are known by the addresses of their strings, which are constants of the code of scripts. They are held on to, so no other
//! string gets their addresses meanwhile; and an interpreter has one string of each content, so they are known wherever a script has
//! them from.

use std::mem;

use acteon_resp::format_g17;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use mlua::{Lua, MultiValue, Table, Value};
use smallvec::SmallVec;

use crate::command::{Command, look_up};

/// What scripts and commands say to each other: buffers and names that stay from run to run.
pub(crate) struct Talk {
    pub(crate) names: Names,
    pub(crate) words: Words,
    /// The reply of the last command.
    pub(crate) reply: Vec<u8>,
}

impl Talk {
    /// What each buffer of an idle interpreter keeps.
    const KEPT_BYTES_MAX: usize = 16 << 10;

    pub(crate) fn new(lua: &Lua) -> mlua::Result<Self> {
        Ok(Self { names: Names::new(lua)?, words: Words::default(), reply: Vec::new() })
    }

    /// Gives back the room of long commands and replies.
    pub(crate) fn shrink(&mut self) {
        for bytes in [&mut self.words.bytes, &mut self.reply] {
            bytes.clear();
            bytes.shrink_to(Self::KEPT_BYTES_MAX);
        }
        if self.words.ends.capacity() > Self::KEPT_BYTES_MAX / size_of::<usize>() {
            self.words.ends = SmallVec::new();
        }
    }
}

/// The words of a command, in one buffer that serves all calls of a run.
#[derive(Default)]
pub(crate) struct Words {
    bytes: Vec<u8>,
    ends: SmallVec<[usize; 8]>,
}

impl Words {
    /// Takes over what Lua passes, the first word as `name` where that is known. Or says what is wrong with it.
    pub(crate) fn read(&mut self, values: &MultiValue, name: Option<&[u8]>) -> Result<(), &'static str> {
        self.bytes.clear();
        self.ends.clear();
        if values.is_empty() {
            return Err("Please specify at least one argument for this redis lib call");
        }
        if let Some(name) = name {
            self.bytes.extend_from_slice(name);
            self.ends.push(name.len());
        }
        for value in values.iter().skip(self.ends.len()) {
            match value {
                Value::String(text) => self.bytes.extend_from_slice(&text.as_bytes()),
                // All numbers of Lua are floats, and these are the digits that Redis gives them.
                Value::Integer(number) => format_g17(*number as f64, &mut self.bytes),
                Value::Number(number) => format_g17(*number, &mut self.bytes),
                _ => return Err("Lua redis lib command arguments must be strings or integers"),
            }
            self.ends.push(self.bytes.len());
        }
        Ok(())
    }

    pub(crate) fn slices(&self) -> SmallVec<[&[u8]; 8]> {
        let mut start = 0;
        let slice = |end: &usize| &self.bytes[mem::replace(&mut start, *end)..*end];
        self.ends.iter().map(slice).collect()
    }
}

/// Names of commands, as the scripts of an interpreter write them.
pub(crate) struct Names {
    by_address: HashMap<usize, Name, foldhash::fast::FixedState>,
    /// Holds the strings, so that Rust need not.
    strings: Table,
}

/// A name of a command.
pub(crate) struct Name {
    pub(crate) text: Box<[u8]>,
    /// `None` where the next word says which one it is.
    pub(crate) command: Option<Command>,
}

impl Names {
    /// There are some 240 names, and most scripts write them in one way. Then they are all forgotten: a script with many spellings must not
    /// make the names of all others strange for good.
    const LEN_MAX: usize = 512;

    pub(crate) fn new(lua: &Lua) -> mlua::Result<Self> {
        Ok(Self { by_address: HashMap::default(), strings: lua.create_table()? })
    }

    /// The name of the command that is called. It is known from now on.
    pub(crate) fn find(&mut self, values: &MultiValue) -> mlua::Result<Option<&Name>> {
        let Some(Value::String(text)) = values.front() else { return Ok(None) };
        let address = text.to_pointer().addr();
        if self.by_address.len() >= Self::LEN_MAX && !self.by_address.contains_key(&address) {
            // In this order: an address is known only while its string is held.
            self.by_address.clear();
            self.strings.clear()?;
        }
        let count = self.by_address.len();
        match self.by_address.entry(address) {
            Entry::Occupied(known) => Ok(Some(known.into_mut())),
            Entry::Vacant(vacant) => {
                let Ok(command) = look_up(&[&*text.as_bytes()]) else { return Ok(None) };
                let command = command.row.subcommands.is_empty().then_some(command);
                self.strings.raw_set(count + 1, text)?;
                Ok(Some(vacant.insert(Name { text: (*text.as_bytes()).into(), command })))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use mlua::{Lua, MultiValue, Value};

    use super::{Names, Talk};

    fn words(lua: &Lua, words: &[&str]) -> MultiValue {
        words.iter().map(|word| Value::String(lua.create_string(word).expect("a string"))).collect()
    }

    /// All ways to write a name in small and large letters.
    fn spellings(name: &str) -> impl Iterator<Item = String> {
        let spelling = |number: usize| {
            let letter = |(place, letter): (usize, char)| {
                if number >> place & 1 == 1 { letter.to_ascii_uppercase() } else { letter }
            };
            name.chars().enumerate().map(letter).collect()
        };
        (0..1 << name.len()).map(spelling)
    }

    /// The table was full for good once a script had used 512 spellings: from then on, no new name was known to any script.
    #[test]
    fn a_script_with_many_spellings_does_not_make_the_names_of_others_strange() {
        let lua = Lua::new();
        let mut names = Names::new(&lua).expect("a table");
        for name in ["getrange", "setrange", "bitcount"] {
            for spelling in spellings(name) {
                let values = words(&lua, &[&spelling]);
                let known = names.find(&values).expect("no bound").expect("a command");
                assert_eq!(&*known.text, spelling.as_bytes());
                assert_eq!(known.command.expect("of one word").row.name, name);
            }
            // Strings that nobody holds go, and others get their addresses.
            lua.gc_collect().expect("collected");
            assert!(names.by_address.len() <= Names::LEN_MAX);
            assert_eq!(names.by_address.len(), names.strings.raw_len());
        }
    }

    #[test]
    fn an_idle_interpreter_gives_back_the_room_of_long_commands() {
        let lua = Lua::new();
        let mut talk = Talk::new(&lua).expect("a table");
        // Numbers: there may be more of them at once than of strings.
        let numbers: MultiValue = (0..100_000).map(Value::Integer).collect();
        talk.words.read(&numbers, None).expect("words");
        talk.reply.resize(1 << 20, 0);
        talk.shrink();
        assert!(talk.words.bytes.capacity() <= Talk::KEPT_BYTES_MAX && talk.reply.capacity() <= Talk::KEPT_BYTES_MAX);
        assert!(talk.words.ends.capacity() * size_of::<usize>() <= Talk::KEPT_BYTES_MAX);
    }
}
