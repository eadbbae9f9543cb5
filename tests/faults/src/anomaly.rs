//! What is wrong with a history, by the names of the field.

use std::fmt;

/// What a judge found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Anomaly {
    /// Two compare-and-swaps from one version both won.
    LostUpdate,
    /// A write was acknowledged, and is gone.
    LostWrite,
    /// A read missed a write that had ended before, and that others see.
    StaleRead,
    /// Of several puts that require absence more than one won, or one won over a live entry.
    DoubleWin,
    /// Two takes got the same entry.
    DoubleTake,
    /// An entry was seen after its time to live was over, or was seen to be over.
    Resurrection,
    /// An entry was gone before its time to live was over.
    EarlyExpiry,
    /// A write under a token won over one under a higher token.
    FenceIgnored,
    /// An increment counted more than once.
    DoubleIncrement,
    /// An increment was acknowledged and does not count.
    LostIncrement,
    /// A counter went beyond its bound.
    BoundCrossed,
    /// A grant's token is not above that of an earlier grant.
    TokenReuse,
    /// A lock was granted while somebody else held it.
    LockOverlap,
    /// A lock was refused though nobody held it, or its holder was told that it had lost it.
    LockLost,
    /// Somebody who had lost a lock extended or released it.
    LostLockHonoured,
    /// An item was handed out while it was claimed, or after it was acknowledged.
    DoubleClaim,
    /// A claim that was no longer the newest was acknowledged or extended.
    AckOfLostClaim,
    /// An item that was in sight was not handed out, or its claim was denied.
    LostItem,
    /// No order explains the history, for a reason without a name.
    NotLinearizable,
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LostUpdate => "lost update",
            Self::LostWrite => "lost write",
            Self::StaleRead => "stale read",
            Self::DoubleWin => "double win",
            Self::DoubleTake => "double take",
            Self::Resurrection => "resurrection after expiry",
            Self::EarlyExpiry => "early expiry",
            Self::FenceIgnored => "fence ignored",
            Self::DoubleIncrement => "double increment",
            Self::LostIncrement => "lost increment",
            Self::BoundCrossed => "bound crossed",
            Self::TokenReuse => "token reuse",
            Self::LockOverlap => "overlap of a lock",
            Self::LockLost => "lost lock",
            Self::LostLockHonoured => "lost lock honoured",
            Self::DoubleClaim => "double claim",
            Self::AckOfLostClaim => "ack of a lost claim",
            Self::LostItem => "lost item",
            Self::NotLinearizable => "not linearizable",
        })
    }
}
