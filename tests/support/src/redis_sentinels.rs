//! A primary, two replicas and three Sentinels that watch them, all real and all of one test.
//!
//! # Guarantees
//! [`RedisSentinels::start`] returns once the replicas follow the primary and each Sentinel knows of all others: from then on a
//! failover works.
//!
//! # Blocking
//! All methods block the thread; starting takes two or three seconds.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crate::redis_server::{RedisOptions, RedisServer, RedisTls};
use crate::server_process::StartError;

/// The name under which the Sentinels watch the primary.
const MASTER: &str = "mymaster";
const SENTINELS: usize = 3;
const REPLICAS: usize = 2;
/// How many Sentinels must agree that the primary is down.
const QUORUM: usize = 2;
/// For how long a server must be silent before a Sentinel takes it for dead.
const DOWN_AFTER_MS: u32 = 1_000;

const SETTLE_TIMEOUT: Duration = Duration::from_secs(60);
/// For how long a Sentinel may be busy with one step of a failover before it gives that up, in milliseconds.
const FAILOVER_TIMEOUT_MS: u32 = 5_000;
/// Time after which a failover that was asked for counts as failed.
const ASK_AGAIN: Duration = Duration::from_millis(3 * FAILOVER_TIMEOUT_MS as u64);
const POLL: Duration = Duration::from_millis(50);

/// How [`RedisSentinels`] are set up. The default has no passwords.
#[derive(Clone, Debug, Default)]
pub struct SentinelOptions {
    /// The password of data nodes.
    pub password: Option<String>,
    /// The password of Sentinels.
    pub sentinel_password: Option<String>,
    /// Whether data nodes have each write in the append-only file before they answer it.
    pub append_only: bool,
    /// Further lines of `redis.conf` of data nodes.
    pub settings: Vec<String>,
    /// Further lines of the configuration of Sentinels.
    pub sentinel_settings: Vec<String>,
    /// With certificates for both kinds, servers reach each other by TLS, and so does the [`url`](RedisSentinels::url).
    pub tls: Option<SentinelTls>,
}

/// Certificates of each kind of server.
#[derive(Clone, Debug)]
pub struct SentinelTls {
    /// Of data nodes.
    pub data: RedisTls,
    /// Of Sentinels.
    pub sentinels: RedisTls,
}

/// The running servers, killed and removed when dropped.
#[derive(Debug)]
pub struct RedisSentinels {
    /// The servers for data. The first one begins as the primary.
    pub nodes: Vec<RedisServer>,
    /// Those who watch.
    pub sentinels: Vec<RedisServer>,
    options: SentinelOptions,
    /// Under which ports nodes are known, where that is not their own.
    announced: Vec<u16>,
}

impl RedisSentinels {
    /// Starts the servers and waits until a failover would work.
    ///
    /// # Errors
    /// [`StartError`]: one of them did not start, or they do not find each other.
    pub fn start(options: SentinelOptions) -> Result<Self, StartError> {
        let mut nodes = vec![RedisServer::start(data_node(&options, None))?];
        let port = public_port(&nodes[0]);
        for _ in 0..REPLICAS {
            nodes.push(RedisServer::start(data_node(&options, Some(port)))?);
        }
        let sentinels =
            (0..SENTINELS).map(|_| RedisServer::start(sentinel(&options, port))).collect::<Result<Vec<_>, _>>()?;
        let group = Self { nodes, sentinels, options, announced: Vec::new() };
        group.wait_until_settled()?;
        Ok(group)
    }

    /// Has everybody reach the nodes by these ports of 127.0.0.1 from now on, one for each: clients, Sentinels and replicas. Proxies in front of the
    /// nodes, for instance. To be called while the first node is the primary. A node that is restarted forgets it.
    ///
    /// # Errors
    /// A server does not answer, or they do not settle within a minute.
    pub fn announce(&mut self, ports: &[u16]) -> io::Result<()> {
        self.announced = ports.to_vec();
        let primary = ports[0].to_string();
        for (place, (node, port)) in self.nodes.iter().zip(ports).enumerate() {
            node.query(&["CONFIG", "SET", "replica-announce-port", &port.to_string()])?;
            if place > 0 {
                node.query(&["REPLICAOF", "127.0.0.1", &primary])?;
            }
        }
        for sentinel in &self.sentinels {
            sentinel.query(&["SENTINEL", "REMOVE", MASTER])?;
        }
        let quorum = QUORUM.to_string();
        for sentinel in &self.sentinels {
            sentinel.query(&["SENTINEL", "MONITOR", MASTER, "127.0.0.1", &primary, &quorum])?;
            for (option, value) in times() {
                sentinel.query(&["SENTINEL", "SET", MASTER, option, &value])?;
            }
        }
        self.wait_until_settled()
    }

    /// The port under which everybody knows a node.
    fn known_port(&self, place: usize) -> u16 {
        self.announced.get(place).copied().unwrap_or_else(|| public_port(&self.nodes[place]))
    }

    /// The URL, with all Sentinels and all passwords.
    pub fn url(&self) -> String {
        let hosts: Vec<_> =
            self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", public_port(sentinel))).collect();
        let password = self.options.password.as_ref().map(|password| format!(":{password}@")).unwrap_or_default();
        let scheme = if self.options.tls.is_some() { "rediss" } else { "redis" };
        let mut url = format!("{scheme}+sentinel://{password}{}/0?sentinel_master={MASTER}", hosts.join(","));
        if let Some(password) = &self.options.sentinel_password {
            url.push_str(&format!("&sentinel_password={password}"));
        }
        url
    }

    /// The place in [`nodes`](Self::nodes) of the server that a majority of the Sentinels takes for the primary.
    pub fn primary(&self) -> Option<usize> {
        let named = |sentinel: &RedisServer| {
            let master = sentinel.info("master0").ok()??;
            let address = master.split(',').find_map(|field| field.strip_prefix("address="))?.to_owned();
            address.rsplit_once(':')?.1.parse::<u16>().ok()
        };
        let ports: Vec<u16> = self.sentinels.iter().filter_map(named).collect();
        let is_named = |place: &usize| ports.iter().filter(|port| **port == self.known_port(*place)).count() >= QUORUM;
        (0..self.nodes.len()).find(is_named)
    }

    /// Waits until a server is primary that the Sentinels name and that knows it itself; returns its place.
    ///
    /// # Errors
    /// That does not come true within a minute.
    pub fn wait_for_primary_other_than(&self, old: usize) -> io::Result<usize> {
        self.until_primary_other_than(old, || Ok(()))
    }

    /// Has a Sentinel make a server other than `old`, the primary, the primary, although that one is well; returns the new one's place.
    ///
    /// # Errors
    /// The Sentinel refuses at first, or that does not come true within a minute.
    pub fn fail_over(&self, old: usize) -> io::Result<usize> {
        let mut asked = None;
        self.until_primary_other_than(old, || {
            // A Sentinel gives up, and leaves the old primary in place, when the replica that it chose is not promoted in time.
            if asked.is_none_or(|asked: Instant| asked.elapsed() > ASK_AGAIN) {
                let outcome = self.sentinels[0].query(&["SENTINEL", "FAILOVER", MASTER]);
                // A refusal later on says that one is under way already, or that no replica is fit yet: it is asked again.
                if asked.is_none() {
                    outcome?;
                }
                asked = Some(Instant::now());
            }
            Ok(())
        })
    }

    /// Waits as [`wait_for_primary_other_than`](Self::wait_for_primary_other_than) does, with a step after each look that was in vain.
    fn until_primary_other_than(&self, old: usize, mut step: impl FnMut() -> io::Result<()>) -> io::Result<usize> {
        let begin = Instant::now();
        loop {
            if let Some(place) = self.primary().filter(|place| *place != old)
                && self.nodes[place].info("role")?.as_deref() == Some("master")
            {
                return Ok(place);
            }
            if begin.elapsed() > SETTLE_TIMEOUT {
                let seen: Vec<_> =
                    self.sentinels.iter().map(|sentinel| sentinel.info("master0").ok().flatten()).collect();
                let message = format!("no server other than {old} has become primary; Sentinels see {seen:?}");
                return Err(io::Error::new(io::ErrorKind::TimedOut, message));
            }
            step()?;
            thread::sleep(POLL);
        }
    }

    /// Waits until all replicas follow and all Sentinels know of each other.
    ///
    /// # Errors
    /// That does not come true within a minute.
    pub fn wait_until_settled(&self) -> io::Result<()> {
        let sizes = format!("slaves={REPLICAS},sentinels={SENTINELS}");
        let is_settled = |sentinel: &RedisServer| {
            // Asked for each time: a failover may be under way.
            let Some(primary) = self.primary() else {
                return false;
            };
            let expected = format!("status=ok,address=127.0.0.1:{}", self.known_port(primary));
            let master = sentinel.info("master0").ok().flatten().unwrap_or_default();
            master.contains(&expected) && master.contains(&sizes)
        };
        let follows = |node: &RedisServer| match node.info("role").ok().flatten().as_deref() {
            Some("master") => node.info("connected_slaves").ok().flatten().as_deref() == Some("2"),
            _ => node.info("master_link_status").ok().flatten().as_deref() == Some("up"),
        };
        let begin = Instant::now();
        while !(self.sentinels.iter().all(is_settled) && self.nodes.iter().all(follows)) {
            if begin.elapsed() > SETTLE_TIMEOUT {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the Sentinels and replicas do not settle"));
            }
            thread::sleep(POLL);
        }
        Ok(())
    }
}

/// The port that servers tell each other of.
fn public_port(server: &RedisServer) -> u16 {
    server.tls_port().unwrap_or(server.port())
}

fn data_node(options: &SentinelOptions, primary: Option<u16>) -> RedisOptions {
    let mut settings = vec!["repl-diskless-sync-delay 0".to_owned()];
    if let Some(port) = primary {
        settings.push(format!("replicaof 127.0.0.1 {port}"));
    }
    if let Some(password) = &options.password {
        settings.push(format!("masterauth {password}"));
    }
    settings.extend(options.settings.iter().cloned());
    let (password, append_only) = (options.password.clone(), options.append_only);
    let tls = options.tls.as_ref().map(|tls| tls.data.clone());
    RedisOptions { password, append_only, settings, tls, ..RedisOptions::default() }
}

/// What Sentinels are told of the primary besides its address.
fn times() -> [(&'static str, String); 3] {
    [
        ("down-after-milliseconds", DOWN_AFTER_MS.to_string()),
        ("failover-timeout", FAILOVER_TIMEOUT_MS.to_string()),
        ("parallel-syncs", REPLICAS.to_string()),
    ]
}

fn sentinel(options: &SentinelOptions, primary: u16) -> RedisOptions {
    let mut settings = vec![format!("sentinel monitor {MASTER} 127.0.0.1 {primary} {QUORUM}")];
    settings.extend(times().map(|(option, value)| format!("sentinel {option} {MASTER} {value}")));
    if let Some(password) = &options.password {
        settings.push(format!("sentinel auth-pass {MASTER} {password}"));
    }
    if let Some(password) = &options.sentinel_password {
        settings.push(format!("sentinel sentinel-pass {password}"));
    }
    settings.extend(options.sentinel_settings.iter().cloned());
    let tls = options.tls.as_ref().map(|tls| tls.sentinels.clone());
    RedisOptions {
        password: options.sentinel_password.clone(),
        sentinel: true,
        settings,
        tls,
        ..RedisOptions::default()
    }
}
