//! The protocol of leases, tokens, takeover and quarantine, model-checked.
//!
//! A model is the protocol as a small program, and whatever may go wrong around it as a choice: which message arrives, how often
//! and when, who crashes, when time goes on. The checker tries all choices up to a bound and says for each property that it
//! holds in every state, or shows the shortest way to one where it does not.
//!
//! # What is modelled
//! | model | is |
//! |---|---|
//! | [`leases`] | a service with a clock: memory, Redis and PostgreSQL, alone or with a standby that takes over |
//! | [`observed`] | a service without one: DynamoDB, where clients watch how long a lease has stayed as it is |
//! | [`register`] | what the lock protects, with and without fences |
//!
//! The service with a clock decides by the contract crate's own `LockRecord`. The memory driver calls the same code; the scripts of
//! Redis and the function of PostgreSQL follow it step by step, which their drivers' conformance tests compare.
//!
//! # What a pause is
//! A client that does nothing while time goes on. It need not be modelled: nothing makes a client act, so every
//! pause at every place is among what is tried. What it looked at before may have changed, and it may send what it had
//! decided to send. In the same way a lost message is one that is never delivered.
//!
//! # What it cannot show
//! Anything beyond the bounds: two clients, few leases, one failure. Faults of the code around the protocol. And nothing about
//! a real server's promise, such as what `WAIT` or a synchronous commit mean: that is an assumption here, and the tests on
//! real servers look at it.

pub mod check;
pub mod history;
pub mod leases;
pub mod observed;
pub mod register;
pub mod service;
