//! What the lock protects: a register that its holder reads and then writes.
//!
//! # What fences do and do not
//! A fence refuses a write whose token is lower than one that it has seen. So no late write comes *after* a newer one. But a write
//! that was late and arrives between the next holder's read and write is refused by nobody, since no newer token was
//! seen so far; what it wrote is then overwritten by somebody who has not read it. Who writes what it computed from what it read
//! needs a write under the condition that nothing was written since ([`Writes::AsRead`]), or a read that raises the fence in the
//! same step ([`Writes::ReadRaisesFence`]).

/// How a holder uses the register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    /// Not at all.
    None,
    /// It reads and then writes; nobody looks at tokens.
    Unfenced,
    /// It reads and then writes, fenced by its token.
    Fenced,
    /// It reads and then writes, if nothing was written since.
    AsRead,
    /// It reads and then writes, fenced; already its read raises the fence, in one step.
    ReadRaisesFence,
}

/// A write on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Write {
    /// The writer's token.
    pub token: u64,
    /// The place of the writer's grant.
    pub place: u8,
    /// How often the register had been written when it was read.
    pub read: u8,
}

/// The register, and what went wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Register {
    fence: u64,
    writes: u8,
    newest_place: u8,
    /// A write of an older grant was accepted after one of a newer grant.
    pub stale: bool,
    /// A write was accepted that overwrote another one which its writer had not read.
    pub lost_update: bool,
    /// The fence refused a write.
    pub refused: bool,
}

impl Register {
    /// Reads; returns how often it was written. `None` when the fence refuses.
    pub fn read(&mut self, token: u64, writes: Writes) -> Option<u8> {
        if writes == Writes::ReadRaisesFence {
            if token < self.fence {
                return None;
            }
            self.fence = token;
        }
        Some(self.writes)
    }

    /// Writes, or refuses to.
    pub fn write(&mut self, write: Write, writes: Writes) {
        let is_admitted = match writes {
            Writes::None | Writes::Unfenced => true,
            Writes::Fenced | Writes::ReadRaisesFence => write.token >= self.fence,
            Writes::AsRead => write.read == self.writes,
        };
        if !is_admitted {
            self.refused = true;
            return;
        }
        self.fence = write.token;
        self.stale |= write.place < self.newest_place;
        self.lost_update |= write.read != self.writes;
        self.newest_place = self.newest_place.max(write.place);
        self.writes += 1;
    }

    /// The findings of another state of the register, which this one replaces.
    pub fn keep_findings(&mut self, other: &Self) {
        // What clients were told of is measured by what they saw, not by what was left of it.
        self.newest_place = self.newest_place.max(other.newest_place);
        self.stale |= other.stale;
        self.lost_update |= other.lost_update;
        self.refused |= other.refused;
    }
}
