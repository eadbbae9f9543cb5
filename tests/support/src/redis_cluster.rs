//! A Cluster of three primaries with a replica each, all real and all of one test.
//!
//! # Guarantees
//! [`RedisCluster::start`] returns once all slots have an owner, every node knows that, and each primary has its replica: from
//! then on a failover works.
//!
//! # Blocking
//! All methods block the thread; starting takes a few seconds.

mod moves;

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crate::redis_server::{RedisOptions, RedisServer, RedisTls};
use crate::server_process::{StartError, with_free_port};

const PRIMARIES: usize = 3;
const SLOTS: usize = 16_384;
/// For how long a node must be silent before the others take it for dead.
const NODE_TIMEOUT_MS: u32 = 2_000;

const SETTLE_TIMEOUT: Duration = Duration::from_secs(60);
/// After which a failover that was asked for has failed.
const FAILOVER_TIMEOUT: Duration = Duration::from_secs(6);
const POLL: Duration = Duration::from_millis(50);

/// The running nodes, killed and removed when dropped.
#[derive(Debug)]
pub struct RedisCluster {
    /// The first three begin as primaries, the others as their replicas, in this order.
    pub nodes: Vec<RedisServer>,
    password: Option<String>,
    settings: Vec<String>,
    tls: Option<RedisTls>,
    /// Under which ports clients and replicas know the nodes, where that is not their own.
    announced: Vec<u16>,
}

impl RedisCluster {
    /// Starts the nodes and waits until a failover would work. `settings` are further lines of each node's `redis.conf`.
    ///
    /// # Errors
    /// [`StartError`]: one of them did not start, or they do not find each other.
    pub fn start(password: Option<&str>, settings: &[&str]) -> Result<Self, StartError> {
        Self::start_nodes(password, settings, None)
    }

    /// The same with TLS, which the [`url`](Self::url) asks for.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub fn start_encrypted(password: Option<&str>, tls: &RedisTls) -> Result<Self, StartError> {
        Self::start_nodes(password, &[], Some(tls))
    }

    fn start_nodes(password: Option<&str>, settings: &[&str], tls: Option<&RedisTls>) -> Result<Self, StartError> {
        let mut buses = Vec::new();
        let mut nodes = Vec::new();
        for _ in 0..2 * PRIMARIES {
            let (node, bus) = start_node(password, settings, tls)?;
            nodes.push(node);
            buses.push(bus);
        }
        let settings = settings.iter().map(|line| (*line).to_owned()).collect();
        let cluster =
            Self { nodes, password: password.map(str::to_owned), settings, tls: tls.cloned(), announced: Vec::new() };
        cluster.join(&buses)?;
        Ok(cluster)
    }

    /// Has clients and replicas reach the nodes by these ports of 127.0.0.1 from now on, one for each: proxies in front of them, for instance. Among
    /// themselves nodes go on as before. A node that is restarted forgets it.
    ///
    /// # Errors
    /// A node does not answer, or they do not all know within a minute.
    pub fn announce(&mut self, ports: &[u16]) -> io::Result<()> {
        self.announced = ports.to_vec();
        for (node, port) in self.nodes.iter().zip(ports) {
            node.query(&["CONFIG", "SET", "cluster-announce-port", &port.to_string()])?;
        }
        self.until("the announced ports are not known", || {
            let mut are_known = true;
            for node in &self.nodes {
                let nodes = node.query(&["CLUSTER", "NODES"])?.unwrap_or_default();
                are_known &= ports.iter().all(|port| nodes.contains(&format!(":{port}@")));
            }
            Ok(are_known)
        })
    }

    /// The port under which clients know a node.
    fn known_port(&self, place: usize) -> u16 {
        let node = &self.nodes[place];
        self.announced.get(place).copied().unwrap_or_else(|| node.tls_port().unwrap_or(node.port()))
    }

    /// The URL, with three of the nodes.
    pub fn url(&self) -> String {
        let hosts: Vec<_> = (0..PRIMARIES).map(|place| format!("127.0.0.1:{}", self.known_port(place))).collect();
        let scheme = if self.nodes.iter().any(|node| node.tls_port().is_some()) { "rediss" } else { "redis" };
        let password = self.password.as_ref().map(|password| format!(":{password}@")).unwrap_or_default();
        format!("{scheme}+cluster://{password}{}", hosts.join(","))
    }

    /// The places of the nodes that are primaries with slots, by what this node says.
    ///
    /// # Errors
    /// The node does not answer.
    pub fn primaries_as_seen_by(&self, node: usize) -> io::Result<Vec<usize>> {
        let nodes = self.nodes[node].query(&["CLUSTER", "NODES"])?.unwrap_or_default();
        let mut places = Vec::new();
        for line in nodes.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            let is_primary = fields.get(2).is_some_and(|flags| flags.contains("master") && !flags.contains("fail"));
            let port = fields
                .get(1)
                .and_then(|address| address.split(['@', ',']).next()?.rsplit_once(':')?.1.parse::<u16>().ok());
            if is_primary && fields.len() > 8 {
                let is_it = |place: &usize| match self.announced.get(*place) {
                    Some(announced) => Some(*announced) == port,
                    None => Some(self.nodes[*place].port()) == port,
                };
                places.extend((0..self.nodes.len()).find(is_it));
            }
        }
        Ok(places)
    }

    /// Makes a replica the primary of its shard, and returns once it is: the primary holds up its clients meanwhile, and nothing is
    /// lost.
    ///
    /// # Errors
    /// That does not come true within a minute.
    pub fn fail_over_to(&self, replica: usize) -> io::Result<()> {
        let is = |field: &str, value: &str| Ok(self.nodes[replica].info(field)?.as_deref() == Some(value));
        self.until("the replica does not follow", || is("master_link_status", "up"))?;
        let mut asked = None;
        self.until("the replica does not take over", || {
            // A server gives up after five seconds, when not enough others agreed in time.
            if asked.is_none_or(|asked: Instant| asked.elapsed() > FAILOVER_TIMEOUT) {
                self.nodes[replica].query(&["CLUSTER", "FAILOVER"])?;
                asked = Some(Instant::now());
            }
            is("role", "master")
        })
    }

    /// Waits until the nodes other than `without` agree that all slots have owners, none of which is among `without`.
    ///
    /// # Errors
    /// That does not come true within a minute.
    pub fn wait_until_whole(&self, without: &[usize]) -> io::Result<()> {
        let begin = Instant::now();
        let is_whole = |place: usize| -> io::Result<bool> {
            let info = self.nodes[place].query(&["CLUSTER", "INFO"])?.unwrap_or_default();
            let has = |line: &str| info.lines().any(|known| known == line);
            let primaries = self.primaries_as_seen_by(place)?;
            Ok(has("cluster_state:ok")
                && has("cluster_slots_ok:16384")
                && primaries.len() == PRIMARIES
                && primaries.iter().all(|primary| !without.contains(primary)))
        };
        loop {
            let all = (0..self.nodes.len()).filter(|place| !without.contains(place));
            if all.map(is_whole).all(|whole| whole.unwrap_or(false)) {
                return Ok(());
            }
            if begin.elapsed() > SETTLE_TIMEOUT {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the Cluster does not settle"));
            }
            thread::sleep(POLL);
        }
    }

    fn join(&self, buses: &[u16]) -> io::Result<()> {
        let share = SLOTS.div_ceil(PRIMARIES);
        for (place, node) in self.nodes.iter().enumerate() {
            // Apart from the beginning, so that nobody has to settle it.
            node.query(&["CLUSTER", "SET-CONFIG-EPOCH", &(place + 1).to_string()])?;
            if place < PRIMARIES {
                let (first, last) = (place * share, ((place + 1) * share).min(SLOTS) - 1);
                node.query(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()])?;
            }
            let (port, bus) = (self.nodes[0].port().to_string(), buses[0].to_string());
            if place > 0 {
                node.query(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus])?;
            }
        }
        self.wait_until_whole(&[])?;
        for place in PRIMARIES..2 * PRIMARIES {
            let id = self.nodes[place - PRIMARIES].query(&["CLUSTER", "MYID"])?.unwrap_or_default();
            self.until("a node does not know its primary", || {
                Ok(self.nodes[place].query(&["CLUSTER", "REPLICATE", &id]).is_ok())
            })?;
        }
        self.until("replicas do not follow", || {
            let mut follow = true;
            for (place, node) in self.nodes.iter().enumerate() {
                let (field, expected) =
                    if place < PRIMARIES { ("connected_slaves", "1") } else { ("master_link_status", "up") };
                follow &= node.info(field)?.as_deref() == Some(expected);
                // Everybody must have heard of it, or a primary would have no successor.
                let nodes = node.query(&["CLUSTER", "NODES"])?.unwrap_or_default();
                follow &= nodes.matches("slave").count() == PRIMARIES;
            }
            Ok(follow)
        })
    }

    fn until(&self, otherwise: &str, mut condition: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
        let begin = Instant::now();
        while !condition()? {
            if begin.elapsed() > SETTLE_TIMEOUT {
                return Err(io::Error::new(io::ErrorKind::TimedOut, otherwise.to_owned()));
            }
            thread::sleep(POLL);
        }
        Ok(())
    }
}

/// Starts a node. Returns it with its port for the other ones.
fn start_node(
    password: Option<&str>,
    settings: &[&str],
    tls: Option<&RedisTls>,
) -> Result<(RedisServer, u16), StartError> {
    with_free_port(|bus| {
        let options = RedisOptions { tls: tls.cloned(), ..options(password, bus, settings) };
        Ok((RedisServer::start(options)?, bus))
    })
}

fn options(password: Option<&str>, bus: u16, settings: &[&str]) -> RedisOptions {
    let mut lines = vec![
        "cluster-enabled yes".to_owned(),
        "cluster-config-file nodes.conf".to_owned(),
        format!("cluster-node-timeout {NODE_TIMEOUT_MS}"),
        // Not 10,000 above the other port, which may lie too high for that.
        format!("cluster-port {bus}"),
        "repl-diskless-sync-delay 0".to_owned(),
        "appendonly no".to_owned(),
    ];
    lines.extend(password.map(|password| format!("masterauth {password}")));
    lines.extend(settings.iter().map(|line| (*line).to_owned()));
    RedisOptions { password: password.map(str::to_owned), settings: lines, ..RedisOptions::default() }
}
