//! A webhook's receiving end: counts deliveries by action, and answers when told to.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;

use crate::server::PATIENCE;

/// What has arrived so far.
#[derive(Clone, Default)]
pub(crate) struct Receiver(Arc<Seen>);

#[derive(Default)]
struct Seen {
    arrivals: Mutex<Vec<(String, Instant)>>,
    silent: AtomicBool,
}

impl Receiver {
    /// Starts to receive on a free port.
    pub(crate) async fn start() -> (Self, SocketAddr) {
        let receiver = Self::default();
        let router = axum::Router::new().route("/", post(receive)).with_state(receiver.clone());
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        (receiver, address)
    }

    /// From now on requests are counted but not answered, or answered again.
    pub(crate) fn set_silent(&self, silent: bool) {
        self.0.silent.store(silent, Ordering::SeqCst);
    }

    /// How often each action arrived.
    pub(crate) fn counts(&self) -> HashMap<String, usize> {
        let mut counts = HashMap::new();
        for (id, _) in self.0.arrivals.lock().unwrap().iter() {
            *counts.entry(id.clone()).or_default() += 1;
        }
        counts
    }

    /// Returns once that many deliveries have arrived.
    pub(crate) async fn until_arrived(&self, count: usize) {
        let started = Instant::now();
        while self.times().len() < count {
            assert!(started.elapsed() < PATIENCE, "waited in vain for {count} deliveries");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// When each delivery arrived, in order.
    pub(crate) fn times(&self) -> Vec<Instant> {
        self.0.arrivals.lock().unwrap().iter().map(|(_, at)| *at).collect()
    }
}

async fn receive(State(receiver): State<Receiver>, headers: HeaderMap) -> StatusCode {
    let id = headers.get("idempotency-key").map(|id| id.to_str().unwrap().to_owned());
    receiver.0.arrivals.lock().unwrap().push((id.expect("each action is sent with its id"), Instant::now()));
    while receiver.0.silent.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    StatusCode::OK
}
