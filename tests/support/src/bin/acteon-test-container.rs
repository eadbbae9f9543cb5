//! Runs a server in Docker for as long as its standard input stays open. Its only argument says which: `redis`, `postgres`,
//! `redis8` or `valkey8`.
//!
//! `cargo xtask test` starts this where the server's programs are missing and cannot be installed, and for the versions that are only
//! tested where Docker is. It prints the URL as its only line
//! of output once the server answers. When the input ends, also because xtask was killed, the container is removed.

use std::env;
use std::error::Error;
use std::io;
use std::process::ExitCode;

use testcontainers::core::IntoContainerPort;
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, Image, ImageExt};
use testcontainers_modules::postgres::Postgres;
use testcontainers_modules::redis::Redis;
use testcontainers_modules::valkey::Valkey;
use tokio::task::spawn_blocking;

// The major versions that the drivers are measured and tested with.
const REDIS_TAG: &str = "7";
const POSTGRES_TAG: &str = "15";
// And those that the Redis driver must get along with besides.
const REDIS_8_TAG: &str = "8";
const VALKEY_8_TAG: &str = "8";

const REDIS_PORT: u16 = 6379;
const POSTGRES_PORT: u16 = 5432;

/// As for the servers that tests start themselves: many connections, and no waiting for the disk.
const POSTGRES_SETTINGS: [&str; 4] = ["-c", "max_connections=200", "-c", "fsync=off"];

#[tokio::main]
async fn main() -> ExitCode {
    let server = env::args().nth(1).unwrap_or_default();
    match run(&server).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot run {server:?} in Docker: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(server: &str) -> Result<(), Box<dyn Error>> {
    match server {
        "redis" => keep_redis(Redis::default().with_tag(REDIS_TAG).start().await?).await,
        "redis8" => keep_redis(Redis::default().with_tag(REDIS_8_TAG).start().await?).await,
        "valkey8" => keep_redis(Valkey::default().with_tag(VALKEY_8_TAG).start().await?).await,
        "postgres" => {
            let image = Postgres::default().with_tag(POSTGRES_TAG).with_cmd(POSTGRES_SETTINGS);
            // The image's own superuser, whose password is its name.
            let url = |address: &str| format!("postgres://postgres:postgres@{address}/postgres");
            keep(image.start().await?, POSTGRES_PORT, url).await
        }
        _ => Err("there are redis, postgres, redis8 and valkey8".into()),
    }
}

async fn keep_redis<I: Image>(container: ContainerAsync<I>) -> Result<(), Box<dyn Error>> {
    keep(container, REDIS_PORT, |address| format!("redis://{address}")).await
}

/// Says where the server is, and removes it once the input ends.
async fn keep<I: Image>(
    container: ContainerAsync<I>,
    port: u16,
    url: impl Fn(&str) -> String,
) -> Result<(), Box<dyn Error>> {
    let served = serve(&container, port, url).await;
    container.rm().await?;
    served
}

async fn serve<I: Image>(
    container: &ContainerAsync<I>,
    port: u16,
    url: impl Fn(&str) -> String,
) -> Result<(), Box<dyn Error>> {
    let host = container.get_host().await?;
    let port = container.get_host_port_ipv4(port.tcp()).await?;
    println!("{}", url(&format!("{host}:{port}")));
    spawn_blocking(|| io::copy(&mut io::stdin(), &mut io::sink())).await??;
    Ok(())
}
