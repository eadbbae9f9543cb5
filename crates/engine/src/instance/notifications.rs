//! Keyspace notifications: changes of keys, published to channels named after the key and after the event.
//!
//! See <https://redis.io/docs/latest/develop/use/keyspace-notifications/>.
//!
//! # Guarantees
//! Events of one key are published in the order in which they happened, before the reply of the command that caused them.

use std::sync::atomic::{AtomicU32, Ordering};

use super::{Channels, Instance};
use crate::observe::EventClass;

/// `K`: on `__keyspace@<database>__:<key>`, with the event as message.
const KEYSPACE: u32 = 1;
/// `E`: on `__keyevent@<database>__:<event>`, with the key as message.
const KEYEVENT: u32 = 1 << 1;
/// `d`: events of modules, which do not exist here. The letter is a part of `A`.
const MODULE: u32 = 1 << 13;

/// The letters of classes, in the order in which `CONFIG GET` shows them.
const CLASSES: [(char, u32); 11] = [
    ('g', EventClass::GENERIC.0),
    ('$', EventClass::STRING.0),
    ('l', EventClass::LIST.0),
    ('s', EventClass::SET.0),
    ('h', EventClass::HASH.0),
    ('z', EventClass::SORTED_SET.0),
    ('x', EventClass::EXPIRED.0),
    ('e', EventClass::EVICTED.0),
    ('t', EventClass::STREAM.0),
    ('d', MODULE),
    ('n', EventClass::NEW.0),
];

/// `A`: all but misses and new keys, which happen too often to be meant.
const ALL: u32 = EventClass::GENERIC.0
    | EventClass::STRING.0
    | EventClass::LIST.0
    | EventClass::SET.0
    | EventClass::HASH.0
    | EventClass::SORTED_SET.0
    | EventClass::EXPIRED.0
    | EventClass::EVICTED.0
    | EventClass::STREAM.0
    | MODULE;

/// What is published, as bits.
#[derive(Default)]
pub(crate) struct Notifications(AtomicU32);

impl Instance {
    /// Chooses what is published, by the letters of `notify-keyspace-events`; nothing for an empty text.
    ///
    /// # Errors
    /// A letter means nothing. What was chosen before stays, as [`notifications`](Self::notifications) shows it.
    pub fn set_notifications(&self, letters: &str) -> Result<(), &'static str> {
        match parse(letters) {
            Ok(flags) => self.apply_notifications(flags),
            Err(error) => {
                // Redis goes back to what it shows of the choice before, in which new keys may be missing.
                self.apply_notifications(parse(&self.notifications()).unwrap_or_default());
                return Err(error);
            }
        }
        Ok(())
    }

    fn apply_notifications(&self, flags: u32) {
        self.notifications.0.store(flags, Ordering::Relaxed);
        // Without a channel to publish on, no class is worth telling.
        let classes = if flags & (KEYSPACE | KEYEVENT) == 0 { 0 } else { flags & !(KEYSPACE | KEYEVENT) };
        self.databases.signals().set_classes(classes);
    }

    /// What is published, in the order in which `CONFIG GET` shows it.
    #[must_use]
    pub fn notifications(&self) -> String {
        format(self.notifications.0.load(Ordering::Relaxed))
    }

    /// Publishes a keyspace event to those who subscribed to it. Called under the key's lock.
    pub(super) fn publish_event(&self, database: usize, class: EventClass, name: &str, key: &[u8]) {
        let flags = self.notifications.0.load(Ordering::Relaxed);
        if flags & class.0 == 0 || !self.pubsub.has_listeners() {
            return;
        }
        if flags & KEYSPACE != 0 {
            let mut channel = format!("__keyspace@{database}__:").into_bytes();
            channel.extend_from_slice(key);
            self.pubsub.publish(Channels::Plain, &channel, name.as_bytes());
        }
        if flags & KEYEVENT != 0 {
            let channel = format!("__keyevent@{database}__:{name}");
            self.pubsub.publish(Channels::Plain, channel.as_bytes(), key);
        }
    }
}

fn parse(letters: &str) -> Result<u32, &'static str> {
    let mut flags = 0;
    // To Redis, a zero ends the text.
    for letter in letters.chars().take_while(|letter| *letter != '\0') {
        flags |= match letter {
            'A' => ALL,
            'K' => KEYSPACE,
            'E' => KEYEVENT,
            'm' => EventClass::MISS.0,
            _ => {
                let class = CLASSES.iter().find(|(name, _)| *name == letter);
                class.ok_or("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.")?.1
            }
        };
    }
    Ok(flags)
}

fn format(flags: u32) -> String {
    let mut text = String::new();
    if flags & ALL == ALL {
        // Redis leaves out new keys here.
        text.push('A');
    } else {
        text.extend(CLASSES.iter().filter(|(_, class)| flags & class != 0).map(|(letter, _)| letter));
    }
    let others = [('K', KEYSPACE), ('E', KEYEVENT), ('m', EventClass::MISS.0)];
    text.extend(others.iter().filter(|(_, flag)| flags & flag != 0).map(|(letter, _)| letter));
    text
}

#[cfg(test)]
mod tests {
    use super::{format, parse};

    #[test]
    fn letters_come_back_in_the_order_of_redis() {
        for (letters, canonical) in [
            ("", ""),
            ("Kg", "gK"),
            ("KE$", "$KE"),
            ("KElshzxet", "lshzxetKE"),
            ("AKE", "AKE"),
            ("KEAmn", "AKEm"),
            ("KEg$lshzxetd", "AKE"),
            ("KEmnd", "dnKEm"),
            ("gg", "g"),
            ("g\0q", "g"),
        ] {
            assert_eq!(parse(letters).map(format).as_deref(), Ok(canonical), "{letters}");
        }
        for letters in ["q", "g K", "é"] {
            assert!(parse(letters).is_err(), "{letters}");
        }
    }
}
