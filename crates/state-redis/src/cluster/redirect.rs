//! Answers that send a request elsewhere. Each of them refused it, so sending it again cannot apply it twice.
//!
//! Source: <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#redirection-and-resharding>

use super::map::at_host;
use super::slot::SLOTS;
use crate::topology::Endpoint;
use crate::wire::Value;

/// Where a request has to go.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Redirect {
    /// The slot has another owner.
    Moved { slot: u16, to: Endpoint },
    /// This once to the node that the slot is being moved to.
    Ask { to: Endpoint },
    /// To the same node once more, a little later: some keys of the slot have moved and others not yet.
    Again,
    /// Nowhere for the moment: the slot has no owner that may serve it.
    Down,
}

impl Redirect {
    /// What a reply of the node at `asked` says; `None` for an ordinary one.
    pub(crate) fn of(reply: &Value, asked: &Endpoint) -> Option<Self> {
        let Value::ServerError(error) = reply else { return None };
        let details = || error.details();
        match error.code() {
            "MOVED" => parse(details(), asked).map(|(slot, to)| Self::Moved { slot, to }),
            "ASK" => parse(details(), asked).map(|(_, to)| Self::Ask { to }),
            "TRYAGAIN" => Some(Self::Again),
            "CLUSTERDOWN" => Some(Self::Down),
            _ => None,
        }
    }
}

/// `3999 127.0.0.1:6381`: the host may be empty, and an IPv6 address has no brackets.
fn parse(details: &str, asked: &Endpoint) -> Option<(u16, Endpoint)> {
    let (slot, address) = details.trim().split_once(' ')?;
    let (host, port) = address.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let slot = slot.parse().ok().filter(|slot| usize::from(*slot) < SLOTS)?;
    Some((slot, at_host(host, port.parse().ok()?, asked)))
}

#[cfg(test)]
mod tests {
    use super::Redirect;
    use crate::topology::Endpoint;
    use crate::wire::{ServerError, Value};

    fn error(code: &str, details: &str) -> Value {
        Value::ServerError(ServerError::new(format!("{code} {details}")))
    }

    fn tcp(host: &str, port: u16) -> Endpoint {
        Endpoint::Tcp { host: host.to_owned(), port }
    }

    #[test]
    fn redirections_say_where_to_go() {
        let asked = tcp("node", 1);
        for (details, slot, to) in [
            ("3999 127.0.0.1:6381", 3999, tcp("127.0.0.1", 6381)),
            ("0 ::1:7000", 0, tcp("::1", 7000)),
            ("1 :7000", 1, tcp("node", 7000)),
            ("2 ?:7000", 2, tcp("node", 7000)),
        ] {
            let moved = Redirect::of(&error("MOVED", details), &asked);
            assert_eq!(moved, Some(Redirect::Moved { slot, to: to.clone() }));
            assert_eq!(Redirect::of(&error("ASK", details), &asked), Some(Redirect::Ask { to }));
        }
        assert_eq!(Redirect::of(&error("TRYAGAIN", "x"), &asked), Some(Redirect::Again));
        assert_eq!(Redirect::of(&error("CLUSTERDOWN", "x"), &asked), Some(Redirect::Down));
    }

    #[test]
    fn other_replies_are_no_redirections() {
        let asked = tcp("node", 1);
        for details in ["", "nonsense", "1", "1 host", "1 host:", "1 h:65536", "16384 h:1", "-1 h:1", "x h:1"] {
            assert_eq!(Redirect::of(&error("MOVED", details), &asked), None, "{details}");
            assert_eq!(Redirect::of(&error("ASK", details), &asked), None, "{details}");
        }
        for other in [error("ERR", "x"), Value::Nil] {
            assert_eq!(Redirect::of(&other, &asked), None);
        }
    }
}
