//! Random steps: what proptest draws and shrinks. They name things by small numbers, so that steps meet each other.

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any};
use proptest::prop_oneof;

/// Keys, queues, items, locks and owners are drawn from so many.
pub(crate) const NAMES: u8 = 4;

/// One step of a sequence.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Advance { units: u8 },
    Single(Single),
    Touch { key: u8, ttl: Life },
    Batch(Vec<Single>),
    Transact(Vec<(bool, Single)>),
    Scan { page_size: u8, entries: bool, prefix: bool },
    RateLimit { key: u8, algorithm: u8, cost: u8 },
    Admit(Vec<Hurdle>),
    Schedule { queue: u8, id: u8, due: Due },
    Cancel { queue: u8, id: u8 },
    Claim { queue: u8, limit: u8, units: u8 },
    Ack { claim: u8 },
    ExtendClaim { claim: u8, units: u8 },
    LockAcquire { lock: u8, owner: u8, mode: u8, units: u8 },
    LockExtend { lock: u8, owner: u8, units: u8 },
    LockRelease { lock: u8, owner: u8 },
    LockInspect { lock: u8 },
    LockForceRelease { lock: u8 },
    LockList,
}

/// An operation that can also stand in a batch.
#[derive(Clone, Debug)]
pub(crate) enum Single {
    Get { key: u8, with_ttl: bool },
    Put { key: u8, condition: When, ttl: Life },
    Delete { key: u8, condition: When },
    Take { key: u8 },
    Increment { key: u8, delta: i64, bound: Option<i64>, clamped: bool, window: Window },
}

impl Single {
    pub(crate) fn key(&self) -> u8 {
        match self {
            Self::Get { key, .. }
            | Self::Put { key, .. }
            | Self::Delete { key, .. }
            | Self::Take { key }
            | Self::Increment { key, .. } => *key,
        }
    }
}

/// A gate. A lock comes last, wherever it is drawn.
#[derive(Clone, Debug)]
pub(crate) enum Hurdle {
    Put { key: u8, condition: When, ttl: Life },
    RateLimit { key: u8, algorithm: u8, cost: u8 },
    Lock { lock: u8, owner: u8, mode: u8, units: u8 },
}

/// A condition.
#[derive(Clone, Copy, Debug)]
pub(crate) enum When {
    Always,
    Absent,
    Present,
    /// A version that was drawn for this key before, counted from the last one.
    Version {
        back: u8,
    },
    Fence {
        token: u8,
    },
}

/// What happens to the time to live. Spans are so many units and a half, so that nothing ends at the moment of a step.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Life {
    Keep,
    Clear,
    Units(u8),
}

/// The window of an increment.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Window {
    Unlimited,
    OnCreate(u8),
    Refresh(u8),
}

/// When an item is due.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Due {
    Now,
    Past(u8),
    Units(u8),
}

/// A sequence of steps.
pub(crate) fn sequence(length_max: usize) -> impl Strategy<Value = Vec<Step>> {
    vec(step(), 1..length_max)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..4_u8).prop_map(|units| Step::Advance { units }),
        20 => single().prop_map(Step::Single),
        2 => (name(), life()).prop_map(|(key, ttl)| Step::Touch { key, ttl }),
        3 => vec(single(), 0..5).prop_map(Step::Batch),
        4 => vec((any::<bool>(), single()), 1..4).prop_map(Step::Transact),
        2 => (1..6_u8, any::<bool>(), any::<bool>())
            .prop_map(|(page_size, entries, prefix)| Step::Scan { page_size, entries, prefix }),
        6 => (0..2_u8, 0..3_u8, 1..4_u8).prop_map(|(key, algorithm, cost)| Step::RateLimit { key, algorithm, cost }),
        6 => vec(hurdle(), 1..5).prop_map(Step::Admit),
        9 => due_step(),
        9 => lock_step(),
    ]
}

fn hurdle() -> impl Strategy<Value = Hurdle> {
    prop_oneof![
        4 => (name(), when(), life()).prop_map(|(key, condition, ttl)| Hurdle::Put { key, condition, ttl }),
        3 => (0..2_u8, 0..3_u8, 1..4_u8).prop_map(|(key, algorithm, cost)| Hurdle::RateLimit { key, algorithm, cost }),
        3 => (0..2_u8, name(), 0..3_u8, 0..4_u8)
            .prop_map(|(lock, owner, mode, units)| Hurdle::Lock { lock, owner, mode, units }),
    ]
}

fn due_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..2_u8, name(), due()).prop_map(|(queue, id, due)| Step::Schedule { queue, id, due }),
        1 => (0..2_u8, name()).prop_map(|(queue, id)| Step::Cancel { queue, id }),
        4 => (0..2_u8, 1..4_u8, 0..3_u8).prop_map(|(queue, limit, units)| Step::Claim { queue, limit, units }),
        2 => (0..4_u8).prop_map(|claim| Step::Ack { claim }),
        1 => (0..4_u8, 0..4_u8).prop_map(|(claim, units)| Step::ExtendClaim { claim, units }),
    ]
}

fn lock_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..2_u8, name(), 0..3_u8, 0..4_u8)
            .prop_map(|(lock, owner, mode, units)| Step::LockAcquire { lock, owner, mode, units }),
        1 => (0..2_u8, name(), 0..4_u8).prop_map(|(lock, owner, units)| Step::LockExtend { lock, owner, units }),
        3 => (0..2_u8, name()).prop_map(|(lock, owner)| Step::LockRelease { lock, owner }),
        1 => (0..2_u8).prop_map(|lock| Step::LockInspect { lock }),
        1 => (0..2_u8).prop_map(|lock| Step::LockForceRelease { lock }),
        1 => Just(Step::LockList),
    ]
}

fn single() -> impl Strategy<Value = Single> {
    prop_oneof![
        3 => (name(), any::<bool>()).prop_map(|(key, with_ttl)| Single::Get { key, with_ttl }),
        6 => (name(), when(), life()).prop_map(|(key, condition, ttl)| Single::Put { key, condition, ttl }),
        2 => (name(), when()).prop_map(|(key, condition)| Single::Delete { key, condition }),
        1 => name().prop_map(|key| Single::Take { key }),
        5 => (name(), delta(), proptest::option::of(1..5_i64), any::<bool>(), window()).prop_map(
            |(key, delta, bound, clamped, window)| Single::Increment { key, delta, bound, clamped, window }
        ),
    ]
}

fn name() -> impl Strategy<Value = u8> {
    0..NAMES
}

fn delta() -> impl Strategy<Value = i64> {
    prop_oneof![8 => -4..5_i64, 1 => Just(i64::MAX), 1 => Just(i64::MIN)]
}

fn when() -> impl Strategy<Value = When> {
    prop_oneof![
        3 => Just(When::Always),
        2 => Just(When::Absent),
        1 => Just(When::Present),
        3 => (0..3_u8).prop_map(|back| When::Version { back }),
        2 => (1..4_u8).prop_map(|token| When::Fence { token }),
    ]
}

fn life() -> impl Strategy<Value = Life> {
    prop_oneof![2 => Just(Life::Clear), 2 => Just(Life::Keep), 3 => (0..4_u8).prop_map(Life::Units)]
}

fn window() -> impl Strategy<Value = Window> {
    prop_oneof![
        2 => Just(Window::Unlimited),
        2 => (0..4_u8).prop_map(Window::OnCreate),
        1 => (0..4_u8).prop_map(Window::Refresh),
    ]
}

fn due() -> impl Strategy<Value = Due> {
    prop_oneof![2 => Just(Due::Now), 1 => (0..5_u8).prop_map(Due::Past), 3 => (0..4_u8).prop_map(Due::Units)]
}
