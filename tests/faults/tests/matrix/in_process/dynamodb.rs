//! DynamoDB, as an emulator behind a proxy that fails single requests as the service does.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use acteon_state_conformance::objects::Uncertainty;
use acteon_test_support::{DynamoError, DynamoFault, DynamoProxy, DynamoServer};
use async_trait::async_trait;

use crate::row::{self, Backend, CLIENT_CLOCK, Fault, Harm, Traits};

const THROTTLED: Fault = Fault::new("throttling", Harm::Delay);
const FAILING: Fault = Fault::new("answers 500, carried out or not", Harm::Delay);
const LOST_REPLIES: Fault = Fault::new("lost replies", Harm::Delay);
const LOST_REQUESTS: Fault = Fault::new("lost requests", Harm::Delay);
const RESTARTED: Fault = Fault::new("a restarted emulator", Harm::Crash);
const SLOW: Fault = Fault::new("slow answers", Harm::Delay);

const THROTTLING: DynamoError = DynamoError { status: 400, code: "ThrottlingException" };
const INTERNAL: DynamoError = DynamoError { status: 500, code: "InternalServerError" };
const SLOWNESS: Duration = Duration::from_millis(60);

struct Dynamo {
    // Above the server, so that it ends before it.
    proxy: DynamoProxy,
    server: DynamoServer,
}

/// What meets a request, of which each second or third one passes.
fn meets(fault: &Fault, number: u32) -> DynamoFault {
    match (*fault, number % 3) {
        (THROTTLED, 0 | 1) => DynamoFault::Refuse(THROTTLING),
        (FAILING, 0) => DynamoFault::Refuse(INTERNAL),
        (FAILING, 1) => DynamoFault::ApplyThenFail(INTERNAL),
        (LOST_REPLIES, 0 | 1) => DynamoFault::LoseReply,
        (LOST_REQUESTS, 0 | 1) => DynamoFault::LoseRequest,
        (SLOW, 0) => DynamoFault::DelayRequest(SLOWNESS),
        (SLOW, 1) => DynamoFault::DelayReply(SLOWNESS),
        _ => DynamoFault::None,
    }
}

#[async_trait]
impl Backend for Dynamo {
    fn name(&self) -> &'static str {
        "dynamodb (emulator)"
    }

    fn config(&self) -> String {
        let url = self.proxy.url();
        format!("[state]\nbackend = \"dynamodb\"\nregion = \"us-east-1\"\nurl = \"{url}\"\ntable_name = \"faults\"\n")
    }

    fn faults(&self) -> Vec<Fault> {
        vec![CLIENT_CLOCK, THROTTLED, FAILING, LOST_REPLIES, LOST_REQUESTS, SLOW, RESTARTED]
    }

    /// Clients read clocks of their own, and those who watch a lock take it over a whole lease after they saw it last.
    fn uncertainty(&self) -> Uncertainty {
        Uncertainty { early_ns: 5_000_000, late_ns: 3_000_000_000, step: None }
    }

    fn traits(&self) -> Traits {
        // A claim finds items by an index, and updates each on the condition that it is as it was found.
        Traits { refuses_free_locks: true, claims_pass_over: true, lease_ms: 1_000, ..Traits::default() }
    }

    async fn strike(&mut self, fault: &Fault, lasting: Duration) -> io::Result<()> {
        if *fault == RESTARTED {
            // It breaks everything off that is under way; what it has stored stays.
            self.server.stop();
            tokio::time::sleep(lasting).await;
            return self.server.restart().map_err(io::Error::other);
        }
        let (fault, number) = (*fault, AtomicU32::new(0));
        self.proxy.rule(move |_| meets(&fault, number.fetch_add(1, Ordering::Relaxed)));
        tokio::time::sleep(lasting).await;
        self.proxy.heal();
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn dynamodb_keeps_what_it_declares() {
    let server = DynamoServer::start().unwrap_or_else(|error| panic!("{error}"));
    let proxy = DynamoProxy::start(server.address()).await.unwrap();
    row::run(&mut Dynamo { proxy, server }).await;
}
