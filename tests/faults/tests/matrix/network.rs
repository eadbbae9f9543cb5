//! What can happen between clients and a server that they reach by one address.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use acteon_test_support::{Fault as Network, FaultProxy};

use crate::row::{Fault, Harm};

const DELAY: Fault = Fault::new("delayed traffic", Harm::Delay);
const SILENCE: Fault = Fault::new("silence", Harm::Delay);
const LOST_REPLIES: Fault = Fault::new("lost replies", Harm::Delay);
const CUT_REPLIES: Fault = Fault::new("replies cut in the middle", Harm::Delay);
const HALF_CLOSED: Fault = Fault::new("half-closed connections", Harm::Delay);
const CUT: Fault = Fault::new("cut connections", Harm::Delay);
const RESET: Fault = Fault::new("reset connections", Harm::Delay);
const REFUSED: Fault = Fault::new("refused connections", Harm::Delay);

/// All of them.
pub(crate) const FAULTS: [Fault; 8] = [DELAY, SILENCE, LOST_REPLIES, CUT_REPLIES, HALF_CLOSED, CUT, RESET, REFUSED];

/// How much later pieces arrive: not long enough for a timeout, and long enough for everybody to overlap.
const DELAY_BY: Duration = Duration::from_millis(40);
/// How many bytes of replies still arrive.
const REPLY_BYTES: u64 = 200;
/// How often connections are cut or reset.
const CUTS: u32 = 5;

/// The way by which clients reach a server.
pub(crate) struct Way {
    proxy: FaultProxy,
}

impl Way {
    /// To this server.
    pub(crate) async fn to(server: SocketAddr) -> io::Result<Self> {
        Ok(Self { proxy: FaultProxy::start(server).await? })
    }

    /// Where clients connect to.
    pub(crate) fn port(&self) -> u16 {
        self.proxy.address().port()
    }

    /// Brings a fault about. `false` if it is none of the network.
    pub(crate) async fn strike(&self, fault: &Fault, lasting: Duration) -> bool {
        match *fault {
            DELAY => self.set(Network::Delay(DELAY_BY), lasting).await,
            SILENCE => self.set(Network::Blackhole, lasting).await,
            LOST_REPLIES => self.set(Network::LoseReplies { after_bytes: REPLY_BYTES }, lasting).await,
            CUT_REPLIES => self.set(Network::CutReplies { after_bytes: REPLY_BYTES }, lasting).await,
            HALF_CLOSED => self.set(Network::HalfClose, lasting).await,
            CUT => {
                for _ in 0..CUTS {
                    self.proxy.cut();
                    tokio::time::sleep(lasting / CUTS).await;
                }
            }
            RESET => {
                for _ in 0..CUTS {
                    self.proxy.reset();
                    tokio::time::sleep(lasting / CUTS).await;
                }
            }
            REFUSED => {
                self.proxy.cut();
                self.set(Network::Refuse, lasting).await;
            }
            _ => return false,
        }
        true
    }

    /// A fault for a while. Then connections are cut, since those whose replies are lost would never be right again; and before that they
    /// are held up, or what follows a gap would still arrive.
    async fn set(&self, fault: Network, lasting: Duration) {
        self.proxy.set(fault);
        tokio::time::sleep(lasting).await;
        if !matches!(fault, Network::Delay(_) | Network::Blackhole) {
            self.proxy.set(Network::Blackhole);
            self.proxy.cut();
        }
        self.proxy.set(Network::None);
    }
}
